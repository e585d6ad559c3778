"""Limits that all sessions share: at the limit clients are told to come later, and when there is room again they are served."""
from harness import TestCase, free_port, wait_until

LIMITS = 'content_memory: "100KiB", queue_size: 3'


class Limits(TestCase):
    def limited(self, port):
        """A daemon whose next hop is at this port."""
        delivery = f'retry: (base_delay: "1h"), domains: {{"*": (mx_override: "127.0.0.1:{port}")}}'
        self.server = self.daemon(delivery, limits=LIMITS)

    def begin(self):
        smtp = self.server.smtp()
        self.addCleanup(smtp.close)
        smtp.ehlo()
        self.assertEqual([smtp.mail("a@home.test")[0], smtp.rcpt("b@example.test")[0]], [250, 250])
        return smtp

    def test_a_full_queue_takes_no_message_until_one_has_ended(self):
        self.limited(free_port())
        for _ in range(3):
            self.server.send("a@home.test", ["b@example.test"], b"Subject: x\r\n\r\n")
        smtp = self.begin()
        self.assertEqual(smtp.docmd("DATA"), (452, b"4.3.1 Insufficient system storage"))
        self.assertEqual(smtp.noop()[0], 250)
        self.server.ctl("queue", "delete", self.server.queue()[0]["id"])
        self.assertEqual([smtp.mail("a@home.test")[0], smtp.rcpt("b@example.test")[0]], [250, 250])
        self.assertEqual(smtp.data(b"Subject: x\r\n\r\n")[0], 250)

    def test_content_that_has_no_room_is_452_and_the_session_goes_on(self):
        # Its first attempt never ends, and so long the first message is in memory.
        self.limited(self.sink(silent=True).port)
        content = b"0123456789abcdef\r\n" * 1200
        self.server.send("a@home.test", ["b@example.test"], content)
        second, third = self.begin(), self.begin()
        self.assertEqual([second.docmd("DATA")[0], third.docmd("DATA")[0]], [354, 354])
        second.send(content)
        wait_until(lambda: list((self.server.dir / "spool/large").iterdir()), "the second is in a file, with the only buffer")
        third.send(content)
        self.assertEqual(third.docmd("."), (452, b"4.3.1 Insufficient system storage"))
        self.assertEqual(second.docmd(".")[0], 250)
        self.assertEqual([third.mail("a@home.test")[0], third.rcpt("b@example.test")[0]], [250, 250])
        self.assertEqual(third.data(content)[0], 250)
