"""Dovecot takes mail over LMTP, at a port and at a Unix socket, and answers for each recipient."""
from harness import TestCase, wait_until
from dovecot import Dovecot, needs_dovecot

CONFIG = """
protocols = lmtp
mail_location = maildir:{dir}/mail/%u
mail_plugins = quota
first_valid_uid = 0
plugin {{
  quota = maildir:User quota
}}
service lmtp {{
  chroot =
  user = {user}
  unix_listener {dir}/lmtp {{
    mode = 0666
  }}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
"""
USERS = {"ann@example.test": ("x", ""), "full@example.test": ("x", "userdb_quota_rule=*:bytes=1")}
CONTENT = b"Subject: over LMTP\r\n\r\n.a dot\r\n"


@needs_dovecot
class Lmtp(TestCase):
    def deliver(self, server):
        dovecot = Dovecot(CONFIG, USERS, "lmtp")
        self.addCleanup(dovecot.close)
        server = server.format(dir=dovecot.dir, port=dovecot.port)
        daemon = self.daemon(f'retry: (base_delay: "1h"), domains: {{"example.test": (lmtp: "{server}")}}')
        daemon.send("s@home.test", [f"{user}@example.test" for user in ("ann", "full", "nobody")], CONTENT)
        [message] = wait_until(lambda: dovecot.mail("ann@example.test"), "delivered")
        self.assertTrue(message.replace(b"\r\n", b"\n").endswith(CONTENT.replace(b"\r\n", b"\n")), message)
        self.assertIn(b"Return-Path: <s@home.test>", message)

        def ends():
            said = {line["recipient"]: line for line in daemon.lines() if "recipient" in line}
            said.pop("s@home.test", None)
            return said if len(said) == 3 else None
        ends = wait_until(ends, "all have an end")
        self.assertEqual(ends["nobody@example.test"]["message"], "bounced")
        self.assertRegex(ends["full@example.test"]["reply"], "(?i)quota")
        self.assertEqual(ends["ann@example.test"]["message"], "delivered")

    def test_each_recipient_has_its_own_end_over_tcp(self):
        self.deliver("127.0.0.1:{port}")

    def test_each_recipient_has_its_own_end_over_a_unix_socket(self):
        self.deliver("unix:{dir}/lmtp")
