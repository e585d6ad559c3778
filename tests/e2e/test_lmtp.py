"""Dovecot takes mail over LMTP, at a port and at a Unix socket, and answers for each recipient."""
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile
import unittest

from harness import PATIENCE, TestCase, free_port, wait_until

CONFIG = """
base_dir = {dir}/run
state_dir = {dir}/state
log_path = {dir}/log
ssl = no
protocols = lmtp
default_login_user = {user}
default_internal_user = {user}
default_internal_group = {group}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
mail_location = maildir:{dir}/mail/%u
mail_plugins = quota
first_valid_uid = 0
passdb {{
  driver = passwd-file
  args = {dir}/users
}}
userdb {{
  driver = passwd-file
  args = {dir}/users
}}
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
CONTENT = b"Subject: over LMTP\r\n\r\n.a dot\r\n"


class Dovecot:
    """In a directory of its own, as an ordinary user."""

    def __init__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="dovecot-e2e-")
        self.dir, self.port = pathlib.Path(self.directory.name), free_port()
        account = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
        (self.dir / "mail").mkdir()
        rest = f"{account.pw_uid}:{account.pw_gid}::{self.dir}/mail::"
        (self.dir / "users").write_text(
            f"ann@example.test:{{PLAIN}}x:{rest}\n"
            f"full@example.test:{{PLAIN}}x:{rest}userdb_quota_rule=*:bytes=1\n")
        config = self.dir / "dovecot.conf"
        group = subprocess.run(["id", "-gn", account.pw_name], check=True, capture_output=True, text=True).stdout.strip()
        config.write_text(CONFIG.format(dir=self.dir, user=account.pw_name, group=group, port=self.port))
        if os.getuid() == 0:
            for path in (self.dir, *self.dir.iterdir()):
                os.chown(path, account.pw_uid, account.pw_gid)
        who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
        self.process = subprocess.Popen(["dovecot", "-F", "-c", str(config)], stdin=subprocess.DEVNULL, **who)
        wait_until((self.dir / "lmtp").exists, "Dovecot listens")

    def mail(self, user):
        return [path.read_bytes() for path in (self.dir / "mail" / user / "new").glob("*")]

    def close(self):
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.directory.cleanup()


@unittest.skipUnless(shutil.which("dovecot") and pathlib.Path("/usr/lib/dovecot/lmtp").exists(), "Dovecot is not installed")
class Lmtp(TestCase):
    def deliver(self, server):
        dovecot = Dovecot()
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
