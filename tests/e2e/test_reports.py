"""Reports of delays, about SMTPUTF8 messages, and those that cannot be delivered, read by Python's parser."""
import email
import email.policy
import quopri

from harness import CONFIG, TestCase, wait_until


class Reports(TestCase):
    def start(self, sink, dsn, **arguments):
        home, pm = self.sink(), self.sink()
        domains = {"away.test": sink, "home.test": home, "pm.test": pm}
        domains = ", ".join(f'"{name}": (mx_override: "127.0.0.1:{sink.port}")' for name, sink in domains.items())
        config = CONFIG.replace("    control_socket", f"    dsn: ({dsn}),\n    control_socket")
        return self.daemon(f"domains: {{{domains}}}", config=config, **arguments), home, pm

    def parse(self, content, kind="delivery-status"):
        """Its message, the fields of its status, and the part that came back."""
        report = email.message_from_bytes(content, policy=email.policy.default)
        self.assertEqual((report.get_content_type(), report.get_param("report-type")), ("multipart/report", kind))
        self.assertEqual((report["Auto-Submitted"], report.defects), ("auto-replied", []))
        self.assertTrue(all(len(line) <= 998 for line in content.split(b"\r\n")))
        self.assertNotIn(b"\n", content.replace(b"\r\n", b""))
        text, status, returned = report.iter_parts()
        self.assertEqual((text.get_content_type(), status.get_content_type()), ("text/plain", f"message/{kind}"))
        return report, [dict(part.items()) for part in status.get_payload()], returned

    def test_a_delay_is_told_once_on_time_also_across_kills(self):
        sink = self.sink()
        sink.defer = "451 4.7.1 later"
        daemon, home, _ = self.start(sink, 'delay_after: "3s"')
        id = daemon.send("alice@home.test", ["bob@away.test", "carol@away.test"], b"Subject: x\r\n\r\nhello\r\n")
        wait_until(lambda: daemon.queue()[0]["status"] == "deferred", "it is deferred")
        daemon.kill()
        daemon.start()
        [(sender, recipients, content)] = home.wait_for(1)
        self.assertEqual((sender, recipients), ("", ["alice@home.test"]))
        report, [of_message, bob, carol], returned = self.parse(content)
        self.assertEqual(report["Subject"], "Your mail is delayed")
        self.assertIn("Arrival-Date", of_message)
        self.assertEqual((bob["Final-Recipient"], bob["Action"]), ("rfc822; bob@away.test", "delayed"))
        self.assertEqual((carol["Action"], carol["Status"]), ("delayed", "4.7.1"))
        self.assertEqual(bob["Diagnostic-Code"], "smtp; 451 4.7.1 later")
        self.assertTrue({"Will-Retry-Until", "Last-Attempt-Date"} <= bob.keys())
        self.assertEqual(returned.get_content_type(), "text/rfc822-headers")
        wait_until(lambda: [m["id"] for m in daemon.queue()] == [id], "the report has ended")
        daemon.restart()
        wait_until(lambda: daemon.queue(), "the queue is back")
        sink.defer = None
        daemon.ctl("queue", "retry", id)
        sink.wait_for(1)
        daemon.wait_until_empty()
        self.assertEqual(len(home.messages), 1)

    def test_a_report_that_its_sender_refuses_goes_to_the_postmaster_once(self):
        sink = self.sink(refuse={"bob@away.test": "550 5.1.1 no such user"})
        daemon, home, pm = self.start(sink, 'postmaster: "postmaster@pm.test"')
        home.refuse = {"alice@home.test": "550 5.2.1 gone"}
        daemon.send("alice@home.test", ["bob@away.test"], b"Subject: x\r\n\r\nhello\r\n")
        [(sender, recipients, content)] = pm.wait_for(1)
        self.assertEqual((sender, recipients), ("", ["postmaster@pm.test"]))
        _, [_, alice], returned = self.parse(content)
        self.assertEqual((alice["Final-Recipient"], alice["Status"]), ("rfc822; alice@home.test", "5.2.1"))
        self.assertEqual(returned.get_content_type(), "message/rfc822")
        [report] = returned.get_payload()
        _, [_, bob], _ = self.parse(report.as_bytes(policy=email.policy.SMTP))
        self.assertEqual((bob["Final-Recipient"], bob["Status"]), ("rfc822; bob@away.test", "5.1.1"))

        pm.refuse = {"postmaster@pm.test": "550 5.2.1 gone"}
        daemon.send("alice@home.test", ["bob@away.test"], b"Subject: y\r\n\r\nhello\r\n")
        daemon.wait_until_empty()
        self.assertEqual(len(pm.messages), 1)
        self.assertEqual(len(daemon.logged(lambda line: "it is dropped" in str(line))), 1)

    def test_a_report_about_an_smtputf8_message_can_be_taken_by_any_host(self):
        daemon, home, _ = self.start(self.sink(), "")
        with daemon.smtp() as smtp:
            smtp.ehlo()
            self.assertEqual(smtp.docmd("MAIL FROM:<alice@home.test> SMTPUTF8")[0], 250)
            smtp.sock.sendall("RCPT TO:<\u03b4@away.test>\r\n".encode())
            self.assertEqual(smtp.getreply()[0], 250)
            self.assertEqual(smtp.data("Subject: \u03b8\r\n\r\nhello\r\n".encode())[0], 250)
        # Neither the host of the recipient nor that of the sender offers SMTPUTF8.
        [(_, _, content)] = home.wait_for(1)
        self.assertTrue(content.isascii())
        report = email.message_from_bytes(content, policy=email.policy.default)
        self.assertEqual(report.get_param("report-type"), "global-delivery-status")
        text, status, returned = report.iter_parts()
        self.assertEqual([part.get_content_type() for part in (status, returned)],
                         ["message/global-delivery-status", "message/global-headers"])
        self.assertIn("<\u03b4@away.test>", text.get_content())
        self.assertIn("Final-Recipient: utf-8; \u03b4@away.test\r\n", self.decoded(content, "global-delivery-status"))
        self.assertIn("Subject: \u03b8\r\n", self.decoded(content, "global-headers"))

    def decoded(self, content, kind):
        """The part of this type: Python does not look into the encoding of what is a message."""
        boundary = email.message_from_bytes(content).get_boundary().encode()
        [part] = [part for part in content.split(b"\r\n--" + boundary) if b"Content-Type: message/" + kind.encode() in part]
        header, _, body = part.partition(b"\r\n\r\n")
        self.assertIn(b"quoted-printable", header)
        return quopri.decodestring(body).decode()
