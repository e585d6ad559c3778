"""Three recipients in two domains, one refused: two deliveries, one DSN, nothing else."""
import email

from harness import TestCase, wait_until

CONTENT = b"From: s@home.test\r\nSubject: fan-out\r\nMessage-ID: <fan@home.test>\r\n\r\nhello\r\n"


class Fanout(TestCase):
    def setUp(self):
        self.one = self.sink(refuse={"bad@one.test": "550 5.1.1 no such user here"})
        self.two, self.home = self.sink(), self.sink()
        sinks = {"one.test": self.one, "two.test": self.two, "home.test": self.home}
        domains = "".join(f'"{d}": (mx_override: "127.0.0.1:{s.port}"), ' for d, s in sinks.items())
        self.mta = self.daemon(f"domains: {{{domains}}}")

    def settled(self):
        self.mta.wait_until_empty()
        return len(self.one.messages), len(self.two.messages), len(self.home.messages)

    def test_one_refused_recipient_costs_the_others_nothing_and_is_reported_once(self):
        recipients = ["a@one.test", "bad@one.test", "c@two.test"]
        self.mta.send("s@home.test", recipients, CONTENT)
        [(sender, to, content)] = self.one.wait_for(1)
        self.assertEqual((sender, to), ("s@home.test", ["a@one.test"]))
        self.assertTrue(content.endswith(CONTENT) and content.startswith(b"Received: "))
        [(_, to, _)] = self.two.wait_for(1)
        self.assertEqual(to, ["c@two.test"])
        [(sender, to, report)] = self.home.wait_for(1)
        self.assertEqual((sender, to), ("", ["s@home.test"]))
        self.check(email.message_from_bytes(report))
        self.assertEqual(self.settled(), (1, 1, 1))

    def check(self, report):
        """RFC 3464, as Python's parser sees it."""
        self.assertEqual(report.get_content_type(), "multipart/report")
        self.assertEqual(report.get_param("report-type"), "delivery-status")
        self.assertEqual(report["To"].strip(" <>"), "s@home.test")
        self.assertTrue(report["From"] and report["Date"] and report["Message-ID"] and report["Subject"])
        self.assertEqual(report["Auto-Submitted"], "auto-replied")
        self.assertEqual(report.defects, [])
        human, status, original = report.get_payload()
        self.assertEqual(human.get_content_type(), "text/plain")
        self.assertIn("bad@one.test", human.get_payload())
        self.assertNotIn("a@one.test", human.get_payload().replace("bad@one.test", ""))
        self.assertEqual(status.get_content_type(), "message/delivery-status")
        about_message, about_recipient = status.get_payload()
        self.assertEqual(about_message["Reporting-MTA"].replace(" ", ""), "dns;mx.home.test")
        self.assertEqual(about_recipient["Final-Recipient"].replace(" ", ""), "rfc822;bad@one.test")
        self.assertEqual(about_recipient["Action"], "failed")
        self.assertEqual(about_recipient["Status"], "5.1.1")
        self.assertIn("no such user here", about_recipient["Diagnostic-Code"])
        self.assertTrue(about_recipient["Diagnostic-Code"].startswith("smtp;"))
        self.assertIn(original.get_content_type(), ("text/rfc822-headers", "message/rfc822"))
        self.assertIn("Subject: fan-out", original.as_string())

    def test_nobody_is_told_about_a_message_from_the_null_sender(self):
        self.mta.send("<>", ["bad@one.test", "c@two.test"], CONTENT)
        self.two.wait_for(1)
        self.assertEqual(self.settled(), (0, 1, 0))

    def test_a_report_that_can_not_be_delivered_ends_there(self):
        self.one.refuse["s@one.test"] = "550 5.1.1 nor this one"
        self.mta.send("s@one.test", ["bad@one.test"], CONTENT)
        wait_until(lambda: not self.mta.queue(), "both messages have ended")
        self.assertEqual(self.settled(), (0, 0, 0))
