"""A Postfix of our own as the next hop: TLS by policy, and content in chunks."""
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import unittest

from harness import PATIENCE, TestCase, free_port, message, wait_until
from test_tls import certify, sign

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])

MAIN = """compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/data
mail_owner = postfix
setgid_group = postdrop
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
myhostname = postfix.test
mydestination =
alias_maps =
local_recipient_maps =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
virtual_mailbox_domains = free.test, strict.test, careless.test, wrong.test, never.test
virtual_mailbox_base = {dir}/mail
virtual_mailbox_maps = static:all/
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
smtpd_tls_security_level = may
smtpd_tls_chain_files = {dir}/chain.pem
smtpd_tls_loglevel = 1
maillog_file_prefixes = {dir}
maillog_file = {dir}/log
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
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
postlog unix-dgram n - n - 1 postlogd
"""

BODY = b".\r\n..two dots\r\nMAIL FROM:<>\r\nend\r\n"
CONTENT = b"Subject: x\r\n\r\n" + BODY


@unittest.skipUnless(os.getuid() == 0, "Postfix can be started by root only")
class PostfixServer(TestCase):
    def test_mail_is_encrypted_as_the_policy_wants_it(self):
        port, base, authority = self.postfix("strict.test")
        over = f'mx_override: "127.0.0.1:{port}"'
        daemon = self.daemon(f"""
            tls: (ca_file: "authority.pem"),
            domains: {{
                "free.test": ({over}),
                "never.test": ({over}, tls: Disabled, chunking: false),
                "strict.test": ({over}, tls: Required),
                "wrong.test": ({over}, require_tls: true),
                "careless.test": ({over}, require_tls: true, accept_invalid_certs: true),
            }}""", start=False)
        shutil.copy(authority, daemon.dir / "authority.pem")
        daemon.start()
        warnings = [line for line in daemon.lines() if line.get("level") == "WARN"]
        self.assertEqual([line["key"] for line in warnings],
                         ['delivery.domains["careless.test"].accept_invalid_certs'])

        for domain in ("free", "never", "strict", "careless"):
            daemon.send("s@home.test", [f"b@{domain}.test"], CONTENT)
        for file in self.wait_for_mail(base, 4):
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
        log = wait_until(lambda: self.sessions(base, 4), "Postfix has seen them leave")
        self.assertEqual(log.count("bdat=1"), 3, log)
        self.assertEqual(log.count("data=1"), 1, log)

    def test_the_roots_of_the_system_are_those_that_the_environment_names(self):
        port, base, authority = self.postfix("strict.test")
        daemon = self.daemon(f'domains: {{"strict.test": (mx_override: "127.0.0.1:{port}", tls: Required)}}',
                             start=False)
        daemon.wrap = ["env", "-u", "SSL_CERT_DIR", f"SSL_CERT_FILE={authority}"]
        daemon.start()
        daemon.send("s@home.test", ["b@strict.test"], CONTENT)
        self.wait_for_mail(base, 1)

    @staticmethod
    def wait_for_mail(base, count):
        def mail():
            files = list((base / "mail/all/new").glob("*"))
            return files if len(files) >= count else None
        return wait_until(mail, f"{count} messages are there")

    @staticmethod
    def delivered(daemon, count):
        lines = {line["domain"]: line for line in daemon.lines() if message(line) == "delivered"}
        return lines if len(lines) == count else None

    @staticmethod
    def sessions(base, count):
        lines = [line for line in (base / "log").read_text().splitlines()
                 if "disconnect from" in line and "mail=1" in line]
        return "\n".join(lines) if len(lines) >= count else None

    def postfix(self, name):
        """Starts a Postfix with a certificate for `name`: its port, its directory and the certificate of the authority."""
        directory = tempfile.TemporaryDirectory(prefix="empath-postfix-")
        self.addCleanup(directory.cleanup)
        base, port = pathlib.Path(directory.name), free_port()
        base.chmod(0o755)
        for part in ("etc", "queue", "data", "mail"):
            (base / part).mkdir()
        for part in ("data", "mail"):
            shutil.chown(base / part, "postfix", "postfix")
        certify(base / "tls", "authority.test")
        certificate, key = sign(base / "tls", name)
        (base / "chain.pem").write_bytes(key.read_bytes() + certificate.read_bytes())
        owner = (base / "mail").stat()
        places = {"dir": base, "port": port, "uid": owner.st_uid, "gid": owner.st_gid}
        (base / "etc/main.cf").write_text(MAIN.format(**places))
        (base / "etc/master.cf").write_text(MASTER.format(**places))

        def run(command):
            subprocess.run([shutil.which("postfix", path=PATH), "-c", base / "etc", command], check=True,
                           stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)

        run("start")
        self.addCleanup(run, "stop")
        wait_until(lambda: self.listens(port), "Postfix listens")
        return port, base, base / "tls/cert.pem"

    @staticmethod
    def listens(port):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        except OSError:
            return False


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
