"""A Postfix of our own, in a directory of its own. Root can start one, and nobody else."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from harness import PATIENCE, free_port, program, wait_until
from test_tls import certify, sign

MAIN = """compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/data
mail_owner = postfix
setgid_group = postdrop
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mydestination =
alias_maps =
local_recipient_maps =
inet_interfaces = 127.0.0.1
maillog_file_prefixes = {dir}
maillog_file = {dir}/log
"""

# Where everything that is accepted is kept.
MAILDIR = """virtual_mailbox_base = {dir}/mail
virtual_mailbox_maps = static:all/
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
"""

TLS = """smtpd_tls_security_level = may
smtpd_tls_chain_files = {dir}/chain.pem
smtpd_tls_loglevel = 1
"""

MASTER = """127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 1 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
anvil unix - - n - 1 anvil
smtp unix - - n - - smtp
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
postlog unix-dgram n - n - 1 postlogd
"""

needs_root = unittest.skipUnless(os.getuid() == 0, "Postfix can be started by root only")


class Postfix:
    """Has these lines in its main.cf, where `{dir}` is its directory, and a certificate for `names`, if that is given."""

    def __init__(self, test, main, names=None):
        self.test, self.port = test, free_port()
        directory = tempfile.TemporaryDirectory(prefix="empath-postfix-")
        test.addCleanup(directory.cleanup)
        self.dir = pathlib.Path(directory.name)
        self.dir.chmod(0o755)
        for part in ("etc", "queue", "data", "mail"):
            (self.dir / part).mkdir()
        for part in ("data", "mail"):
            shutil.chown(self.dir / part, "postfix", "postfix")
        if names:
            main += TLS
            certify(self.dir / "tls", "authority.test")
            self.authority = self.dir / "tls/cert.pem"
            certificate, key = sign(self.dir / "tls", names)
            (self.dir / "chain.pem").write_bytes(key.read_bytes() + certificate.read_bytes())
        owner = (self.dir / "mail").stat()
        places = {"dir": self.dir, "port": self.port, "uid": owner.st_uid, "gid": owner.st_gid}
        (self.dir / "etc/main.cf").write_text((MAIN + main).format(**places))
        (self.dir / "etc/master.cf").write_text(MASTER.format(**places))
        self.run("start")
        test.addCleanup(self.run, "stop")
        wait_until(lambda: "daemon started" in self.log(), "Postfix runs")

    def run(self, command):
        subprocess.run([program(self.test, "postfix"), "-c", self.dir / "etc", command], check=True,
                       stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)

    def sendmail(self, *arguments, content):
        subprocess.run([program(self.test, "sendmail"), "-C", self.dir / "etc", "-i", *arguments],
                       input=content, text=True, check=True, timeout=PATIENCE)

    def log(self):
        file = self.dir / "log"
        return file.read_text() if file.exists() else ""

    def mail(self, count):
        """Waits until this many messages are in its Maildir."""
        def look():
            files = list((self.dir / "mail/all/new").glob("*"))
            return files if len(files) >= count else None
        return wait_until(look, f"{count} messages are there")
