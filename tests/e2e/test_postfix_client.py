"""A Postfix of our own that relays through Empath with TLS."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from harness import PATIENCE, TestCase, free_port, wait_until
from test_tls import CONFIG, certify

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])

MAIN = """compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/data
mail_owner = postfix
setgid_group = postdrop
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
myhostname = postfix.home.test
mydestination =
inet_interfaces = 127.0.0.1
relayhost = [127.0.0.1]:{port}
smtp_tls_security_level = verify
smtp_tls_CAfile = {certificate}
smtp_tls_verify_cert_match = mx.home.test
smtp_tls_loglevel = 1
maillog_file_prefixes = {dir}
maillog_file = {dir}/log
"""

MASTER = """pickup unix n - n 1 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
postlog unix-dgram n - n - 1 postlogd
"""


@unittest.skipUnless(os.getuid() == 0, "Postfix can be started by root only")
class PostfixClient(TestCase):
    def test_postfix_relays_in_with_verified_tls(self):
        daemon = self.daemon(config=CONFIG, start=False, submissions=free_port(), balanced=free_port(), limits="")
        certify(daemon.dir / "tls", "mx.home.test")
        certify(daemon.dir / "tls", "any.other.test", "other.pem", "other.key")
        daemon.start()
        postfix = self.postfix(daemon.port, daemon.dir / "tls" / "cert.pem")
        content = "From: s@home.test\nTo: a@example.test\nSubject: x\n\n.\n..two dots\nend\n"
        subprocess.run(
            [shutil.which("sendmail", path=PATH), "-C", postfix, "-i", "-f", "s@home.test", "a@example.test"],
            input=content, text=True, check=True, timeout=PATIENCE)
        log = postfix.parent / "log"
        wait_until(lambda: "status=" in log.read_text(), "Postfix has tried")
        [message] = wait_until(lambda: list((daemon.dir / "mail").glob("*/new/*")), "the message is delivered")
        received = next(line for line in daemon.lines() if line.get("message") == "received")
        self.assertEqual(received["tls"], "TLSv1.3")
        text = message.read_bytes().decode()
        self.assertIn("from postfix.home.test ([127.0.0.1])\r\n\tby mx.home.test with ESMTPS id ", text)
        self.assertTrue(text.endswith("\r\n\r\n.\r\n..two dots\r\nend\r\n"), text)
        self.assertRegex(log.read_text(), r"Verified TLS connection established to 127\.0\.0\.1.*TLSv1\.3")
        self.assertIn("status=sent (250 2.0.0 Ok: queued as ", log.read_text())

    def test_postfix_passes_on_what_the_sender_asked_of_reports(self):
        daemon = self.daemon(config=CONFIG, start=False, submissions=free_port(), balanced=free_port(), limits="")
        certify(daemon.dir / "tls", "mx.home.test")
        certify(daemon.dir / "tls", "any.other.test", "other.pem", "other.key")
        daemon.start()
        postfix = self.postfix(daemon.port, daemon.dir / "tls" / "cert.pem")
        subprocess.run(
            [shutil.which("sendmail", path=PATH), "-C", postfix, "-i", "-f", "s@home.test", "-N", "success,failure",
             "-R", "hdrs", "-V", "QQ314159", "A@example.test"],
            input="From: s@home.test\nSubject: x\n\nhello\n", text=True, check=True, timeout=PATIENCE)
        [report] = wait_until(lambda: list((daemon.dir / "mail/s@home.test").glob("new/*")), "the report has come")
        text = report.read_text()
        for field in ["Original-Envelope-Id: QQ314159", "Original-Recipient: rfc822; A@example.test", "Action: delivered"]:
            self.assertIn(field + "\n", text)

    def postfix(self, port, certificate):
        """Starts a Postfix with `port` as its relay host; returns the directory of its configuration."""
        directory = tempfile.TemporaryDirectory(prefix="empath-postfix-")
        self.addCleanup(directory.cleanup)
        base = pathlib.Path(directory.name)
        base.chmod(0o755)
        for name in ("etc", "queue", "data"):
            (base / name).mkdir()
        shutil.chown(base / "data", "postfix")
        trusted = base / "trusted.pem"
        trusted.write_bytes(certificate.read_bytes())
        (base / "etc" / "main.cf").write_text(MAIN.format(dir=base, port=port, certificate=trusted))
        (base / "etc" / "master.cf").write_text(MASTER)

        def run(command):
            subprocess.run([shutil.which("postfix", path=PATH), "-c", base / "etc", command], check=True,
                           stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)

        run("start")
        self.addCleanup(run, "stop")
        return base / "etc"
