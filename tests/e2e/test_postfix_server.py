"""A Postfix of our own as the next hop: TLS by policy, and content in chunks."""
import os
import shutil
import subprocess

from harness import PATIENCE, TestCase, message, wait_until
from postfix import MAILDIR, Postfix, needs_root

MAIN = MAILDIR + """myhostname = postfix.test
mynetworks = 127.0.0.0/8
virtual_mailbox_domains = free.test, strict.test, careless.test, wrong.test, never.test
"""

BODY = b".\r\n..two dots\r\nMAIL FROM:<>\r\nend\r\n"
CONTENT = b"Subject: x\r\n\r\n" + BODY


@needs_root
class PostfixServer(TestCase):
    def test_mail_is_encrypted_as_the_policy_wants_it(self):
        postfix = Postfix(self, MAIN, "strict.test")
        over = f'mx_override: "127.0.0.1:{postfix.port}"'
        daemon = self.daemon(f"""
            tls: (ca_file: "authority.pem"),
            domains: {{
                "free.test": ({over}),
                "never.test": ({over}, tls: Disabled, chunking: false),
                "strict.test": ({over}, tls: Required),
                "wrong.test": ({over}, require_tls: true),
                "careless.test": ({over}, require_tls: true, accept_invalid_certs: true),
            }}""", start=False)
        shutil.copy(postfix.authority, daemon.dir / "authority.pem")
        daemon.start()
        warnings = [line for line in daemon.lines() if line.get("level") == "WARN"]
        self.assertEqual([line["key"] for line in warnings],
                         ['delivery.domains["careless.test"].accept_invalid_certs'])

        for domain in ("free", "never", "strict", "careless"):
            daemon.send("s@home.test", [f"b@{domain}.test"], CONTENT)
        for file in postfix.mail(4):
            self.assertEqual(file.read_bytes().partition(b"\n\n")[2], BODY.replace(b"\r\n", b"\n"))
        delivered = wait_until(lambda: self.delivered(daemon, 4), "all are logged")
        for domain, version in [("free", "TLSv1.3"), ("never", None), ("strict", "TLSv1.3"), ("careless", "TLSv1.3")]:
            self.assertEqual(delivered[f"{domain}.test"].get("tls"), version, domain)
            self.assertEqual("cipher" in delivered[f"{domain}.test"], version is not None, domain)

        daemon.send("s@home.test", ["b@wrong.test"], CONTENT)
        [waiting] = wait_until(lambda: [line for line in daemon.queue() if line["status"] == "deferred"], "it is deferred")
        reply = waiting["recipients"][0]["last_reply"]
        self.assertEqual(reply["enhanced"], "4.7.5")
        self.assertRegex(reply["text"], "certificate not valid for name")
        daemon.ctl("queue", "delete", waiting["id"])
        self.assertEqual(daemon.terminate(), 0)
        log = wait_until(lambda: self.sessions(postfix, 4), "Postfix has seen them leave")
        # The first octet goes ahead.
        self.assertEqual(log.count("bdat=2"), 3, log)
        self.assertEqual(log.count("data=1"), 1, log)

    def test_the_roots_of_the_system_are_those_that_the_environment_names(self):
        postfix = Postfix(self, MAIN, "strict.test")
        daemon = self.daemon(f'domains: {{"strict.test": (mx_override: "127.0.0.1:{postfix.port}", tls: Required)}}',
                             start=False)
        daemon.wrap = ["env", "-u", "SSL_CERT_DIR", f"SSL_CERT_FILE={postfix.authority}"]
        daemon.start()
        daemon.send("s@home.test", ["b@strict.test"], CONTENT)
        postfix.mail(1)

    @staticmethod
    def delivered(daemon, count):
        lines = {line["domain"]: line for line in daemon.lines() if message(line) == "delivered"}
        return lines if len(lines) == count else None

    @staticmethod
    def sessions(postfix, count):
        lines = [line for line in postfix.log().splitlines()
                 if "disconnect from" in line and "mail=1" in line]
        return "\n".join(lines) if len(lines) >= count else None


class Roots(TestCase):
    def test_a_start_without_roots_fails_only_where_certificates_are_verified(self):
        for domains, status in [("", 0), ('"a.test": (tls: Required)', 78),
                                ('"a.test": (tls: Required, accept_invalid_certs: true)', 0),
                                ('"a.test": (tls: Disabled)', 0)]:
            daemon = self.daemon(f"domains: {{{domains}}}", start=False)
            (daemon.dir / "none.pem").touch()
            done = subprocess.run(
                [os.environ["EMPATH_BIN"], "check", "--config", str(daemon.config)], cwd=daemon.dir,
                env={"SSL_CERT_FILE": str(daemon.dir / "none.pem")},
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
            self.assertEqual(done.returncode, status, (domains, done.stdout, done.stderr))
            if status:
                self.assertIn("delivery.tls.ca_file: certificates are to be verified", done.stdout + done.stderr)
