"""A Dovecot of our own, in a directory of its own and as an ordinary user."""
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile
import unittest

from harness import PATIENCE, free_port, wait_until

CONFIG = """
base_dir = {dir}/run
state_dir = {dir}/state
log_path = {dir}/log
ssl = no
default_login_user = {user}
default_internal_user = {user}
default_internal_group = {group}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
passdb {{
  driver = passwd-file
  args = {dir}/users
}}
userdb {{
  driver = passwd-file
  args = {dir}/users
}}
"""

needs_dovecot = unittest.skipUnless(shutil.which("dovecot") and pathlib.Path("/usr/lib/dovecot/lmtp").exists(),
                                    "Dovecot is not installed")


class Dovecot:
    """Has these lines in its configuration, where `{dir}`, `{port}` and `{user}` are its own; by name of a user, the
    password and the extra fields. It is up when `socket` is there."""

    def __init__(self, config, users, socket):
        self.directory = tempfile.TemporaryDirectory(prefix="dovecot-e2e-")
        self.dir, self.port = pathlib.Path(self.directory.name), free_port()
        self.dir.chmod(0o755)
        account = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
        group = subprocess.run(["id", "-gn", account.pw_name], check=True, capture_output=True, text=True).stdout.strip()
        (self.dir / "mail").mkdir()
        (self.dir / "users").write_text("".join(
            f"{name}:{{PLAIN}}{password}:{account.pw_uid}:{account.pw_gid}::{self.dir}/mail::{extra}\n"
            for name, (password, extra) in users.items()))
        file = self.dir / "dovecot.conf"
        file.write_text((CONFIG + config).format(dir=self.dir, user=account.pw_name, group=group, port=self.port))
        who = {}
        if os.getuid() == 0:
            for path in (self.dir, *self.dir.iterdir()):
                os.chown(path, account.pw_uid, account.pw_gid)
            who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        self.process = subprocess.Popen(["dovecot", "-F", "-c", str(file)], stdin=subprocess.DEVNULL, **who)
        wait_until((self.dir / socket).exists, "Dovecot listens")

    def mail(self, user):
        return [path.read_bytes() for path in (self.dir / "mail" / user / "new").glob("*")]

    def close(self):
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.directory.cleanup()
