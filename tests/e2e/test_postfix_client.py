"""A Postfix of our own that relays through Empath with TLS."""
from harness import TestCase, free_port, wait_until
from postfix import Postfix, needs_root
from test_tls import CONFIG, certify

MAIN = """myhostname = postfix.home.test
relayhost = [127.0.0.1]:{}
smtp_tls_security_level = verify
smtp_tls_CAfile = {}
smtp_tls_verify_cert_match = mx.home.test
smtp_tls_loglevel = 1
"""


@needs_root
class PostfixClient(TestCase):
    def setUp(self):
        self.mta = self.daemon(config=CONFIG, start=False, submissions=free_port(), balanced=free_port(), limits="")
        certify(self.mta.dir / "tls", "mx.home.test")
        certify(self.mta.dir / "tls", "any.other.test", "other.pem", "other.key")
        self.mta.start()
        # Its daemons are no root, and are to read it.
        self.mta.dir.chmod(0o755)
        self.postfix = Postfix(self, MAIN.format(self.mta.port, self.mta.dir / "tls/cert.pem"))

    def test_postfix_relays_in_with_verified_tls(self):
        content = "From: s@home.test\nTo: a@example.test\nSubject: x\n\n.\n..two dots\nend\n"
        self.postfix.sendmail("-f", "s@home.test", "a@example.test", content=content)
        wait_until(lambda: "status=" in self.postfix.log(), "Postfix has tried")
        [message] = wait_until(lambda: list((self.mta.dir / "mail").glob("*/new/*")), "the message is delivered")
        [received] = self.mta.logged("received")
        self.assertEqual(received["tls"], "TLSv1.3")
        text = message.read_bytes().decode()
        self.assertIn("from postfix.home.test ([127.0.0.1])\r\n\tby mx.home.test with ESMTPS id ", text)
        self.assertTrue(text.endswith("\r\n\r\n.\r\n..two dots\r\nend\r\n"), text)
        log = self.postfix.log()
        self.assertRegex(log, r"Verified TLS connection established to 127\.0\.0\.1.*TLSv1\.3")
        self.assertIn("status=sent (250 2.0.0 Ok: queued as ", log)

    def test_postfix_passes_on_what_the_sender_asked_of_reports(self):
        self.postfix.sendmail("-f", "s@home.test", "-N", "success,failure", "-R", "hdrs", "-V", "QQ314159",
                              "A@example.test", content="From: s@home.test\nSubject: x\n\nhello\n")
        [report] = wait_until(lambda: list((self.mta.dir / "mail/s@home.test").glob("new/*")), "the report has come")
        text = report.read_text()
        for field in ["Original-Envelope-Id: QQ314159", "Original-Recipient: rfc822; A@example.test", "Action: delivered"]:
            self.assertIn(field + "\n", text)
