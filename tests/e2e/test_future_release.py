"""Messages that are to be sent later, and with a priority, by the word of their sender (RFC 4865, RFC 6710)."""
import datetime
import email
import time

from harness import TestCase, wait_until

CONTENT = b"Subject: later\r\n\r\nhi\r\n"


def instant(text):
    return datetime.datetime.fromisoformat(text).timestamp()


class FutureRelease(TestCase):
    def submit(self, daemon, *options, sender="a@home.test", recipient="b@example.test"):
        with daemon.smtp() as smtp:
            smtp.ehlo()
            for reply in (smtp.mail(sender, list(options)), smtp.rcpt(recipient), smtp.data(CONTENT)):
                self.assertEqual(reply[0], 250, reply)
            return reply[1].split()[-1].decode()

    def delivering(self, **keywords):
        sink = self.sink(**keywords)
        return sink, self.daemon(f'domains: {{"*": (mx_override: "127.0.0.1:{sink.port}")}}')

    def recipient(self, daemon, message):
        [found] = [entry for entry in daemon.queue() if entry["id"] == message]
        self.assertEqual(found["status"], "pending")
        return found["recipients"][0]

    def test_what_is_offered_is_a_week_from_now(self):
        daemon = self.daemon()
        with daemon.smtp() as smtp:
            smtp.ehlo()
            interval, latest = smtp.esmtp_features["futurerelease"].split()
        self.assertEqual(interval, "604800")
        self.assertAlmostEqual(instant(latest), time.time() + 604800, delta=30)

    def test_scheduled_messages_outlive_kill_9_and_are_sent_on_time(self):
        sink, daemon = self.delivering()
        until = datetime.datetime.fromtimestamp(int(time.time()) + 25, datetime.timezone.utc)
        messages = [self.submit(daemon, "HOLDFOR=25"), self.submit(daemon, f"HOLDUNTIL={until:%Y-%m-%dT%H:%M:%SZ}")]
        before = [self.recipient(daemon, message)["next_attempt_at"] for message in messages]
        self.assertEqual(instant(before[1]), until.timestamp())
        for _ in range(2):
            daemon.restart()
            wait_until(lambda: len(daemon.queue()) == 2, "both are recovered")
            for message, due in zip(messages, before):
                recipient = self.recipient(daemon, message)
                self.assertEqual((recipient["next_attempt_at"], recipient["attempts"]), (due, 0))
                [why] = daemon.ctl("queue", "why", message)
                why = why["recipients"][0]
                self.assertEqual((why["because"], why["until"]), ("scheduled", due))
        self.assertEqual(sink.commands, [])
        sink.wait_for(1)
        self.assertGreaterEqual(time.time(), min(map(instant, before)))
        sink.wait_for(2)
        self.assertGreaterEqual(time.time(), max(map(instant, before)))
        daemon.wait_until_empty()

    def test_an_operator_sends_it_sooner_by_its_id_or_deletes_it(self):
        sink, daemon = self.delivering()
        first, second = self.submit(daemon, "HOLDFOR=86400"), self.submit(daemon, "HOLDFOR=86400")
        self.assertEqual(daemon.ctl("queue", "retry", "--all"), [{"matched": 2, "changed": 0}])
        self.assertEqual(daemon.ctl("queue", "hold", first), [{"matched": 1, "changed": 1}])
        self.assertEqual(daemon.ctl("queue", "retry", first), [{"matched": 1, "changed": 0}])
        self.assertEqual(daemon.ctl("queue", "release", first), [{"matched": 1, "changed": 1}])
        self.recipient(daemon, first)
        self.assertEqual(sink.commands, [])
        self.assertEqual(daemon.ctl("queue", "retry", first), [{"matched": 1, "changed": 1}])
        sink.wait_for(1)
        self.assertEqual(daemon.ctl("queue", "delete", second), [{"matched": 1, "changed": 1}])
        daemon.wait_until_empty()
        self.assertEqual(len(sink.messages), 1)

    def test_a_report_tells_of_the_request(self):
        sink, daemon = self.delivering(refuse={"b@example.test": "550 5.1.1 who?"})
        self.submit(daemon, "HOLDFOR=1")
        [(_, recipients, report)] = sink.wait_for(1)
        self.assertEqual(recipients, ["a@home.test"])
        status = email.message_from_bytes(report).get_payload(1).get_payload(0)
        self.assertEqual(status["Future-Release-Request"], "for;1")

    def test_a_priority_outlives_kill_9_and_is_passed_on(self):
        sink, daemon = self.delivering(keywords=("PIPELINING", "MT-PRIORITY"))
        message = self.submit(daemon, "MT-PRIORITY=-7", "HOLDFOR=3600")
        daemon.restart()
        wait_until(daemon.queue, "it is recovered")
        self.assertEqual(daemon.queue()[0]["priority"], "bulk")
        daemon.ctl("queue", "retry", message)
        sink.wait_for(1)
        [mail] = [command for command in sink.commands if command.startswith("MAIL")]
        self.assertEqual(mail, "MAIL FROM:<a@home.test> MT-PRIORITY=-7")
        self.assertIn(b"priority -7;", sink.messages[0][2])
