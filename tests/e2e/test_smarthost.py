"""Mail goes to a smarthost that wants to know who we are: another Empath, by each mechanism; and to a Postfix that begins with TLS."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from harness import PATIENCE, TestCase, free_port, message, wait_until
from test_auth import ALICE, CONFIG, CONTENT, PASSWORD
from test_postfix_client import PATH
from test_tls import certify, sign

POSTFIX = """compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/data
mail_owner = postfix
setgid_group = postdrop
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
myhostname = relay.test
mydestination =
local_recipient_maps =
inet_interfaces = 127.0.0.1
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
default_transport = discard
smtpd_tls_cert_file = {dir}/cert.pem
smtpd_tls_key_file = {dir}/key.pem
smtpd_tls_loglevel = 1
maillog_file_prefixes = {dir}
maillog_file = {dir}/log
"""

MASTER = """127.0.0.1:{port} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
discard unix - - n - - discard
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


class Smarthost(TestCase):
    def relay(self, mechanism):
        """The smarthost, and the certificate of its authority."""
        self.submissions = free_port()
        relay = self.daemon(config=CONFIG, start=False, submissions=self.submissions, auth=f"mechanisms: [{mechanism}]")
        certify(relay.dir / "authority", "authority.test")
        # It is called by its address.
        certificate, key = sign(relay.dir / "authority", "relay.test,IP:127.0.0.1")
        (relay.dir / "tls").mkdir()
        shutil.copy(certificate, relay.dir / "tls/cert.pem")
        shutil.copy(key, relay.dir / "tls/key.pem")
        subprocess.run([os.environ["EMPATH_BIN"], "user", "add", ALICE, "--users-file", relay.dir / "users"],
                       input=PASSWORD + "\n", text=True, capture_output=True, timeout=PATIENCE, check=True)
        relay.start()
        return relay, relay.dir / "authority/cert.pem"

    def deliver(self, mechanism, tls=False):
        relay, authority = self.relay(mechanism)
        host = f"tls://127.0.0.1:{self.submissions}" if tls else f"127.0.0.1:{relay.port}"
        daemon = self.daemon(f"""
            retry: (base_delay: "1s", jitter: 0.0),
            circuit_breaker: (timeout: "1s"),
            tls: (ca_file: "authority.pem"),
            sender_routes: {{"{ALICE}": (smarthost: (
                hosts: ["127.0.0.1:{free_port()}", "{host}"],
                auth: (user: "{ALICE}", password_file: "secret"),
            ))}}""", start=False)
        shutil.copy(authority, daemon.dir / "authority.pem")
        secret = daemon.dir / "secret"
        secret.write_text("wrong\n")
        daemon.start()
        daemon.send(ALICE, ["bob@elsewhere.test"], CONTENT)
        [waiting] = wait_until(lambda: [m for m in daemon.queue() if m["status"] == "deferred"], "it is deferred")
        [recipient] = waiting["recipients"]
        self.assertEqual(recipient["next_hop"].split(",")[1], host)
        # It is not about the message, and as the log has it.
        self.assertIsNone(recipient["last_reply"].get("code"), waiting)
        self.assertRegex(recipient["last_reply"]["text"], "^AUTH: 535")
        [line] = [line for line in daemon.lines() if message(line) == "deferred"][:1]
        self.assertEqual(line["status"], "4.7.8", line)
        self.assertRegex(line["reply"], "^AUTH: 535")

        # The new password counts without a restart.
        secret.write_text(PASSWORD + "\n")
        mail = relay.dir / "mail/bob@elsewhere.test/new"
        [file] = wait_until(lambda: mail.exists() and list(mail.iterdir()), "it has arrived")
        self.assertTrue(file.read_bytes().endswith(b"\r\n\r\nhi\r\n"))
        daemon.wait_until_empty()
        log = daemon.log_file.read_text()
        self.assertNotIn("wrong", log)
        self.assertNotIn("horse", log)

    def test_scram(self):
        self.deliver("ScramSha256")

    def test_plain(self):
        self.deliver("Plain")

    def test_login(self):
        self.deliver("Login")

    def test_tls_from_the_first_octet(self):
        self.deliver("Plain", tls=True)

    @unittest.skipUnless(os.getuid() == 0, "Postfix can be started by root only")
    def test_a_postfix_that_begins_with_tls(self):
        port, log = self.postfix()
        daemon = self.daemon(f"""
            tls: (ca_file: "{log.parent}/authority/cert.pem"),
            domains: {{"*": (smarthost: (hosts: ["tls://127.0.0.1:{port}"]))}}""")
        daemon.send("alice@home.test", ["bob@elsewhere.test"], CONTENT)
        daemon.wait_until_empty()
        [line] = [line for line in daemon.lines() if message(line) == "delivered"]
        self.assertEqual((line["tls"], line["next_hop"]), ("TLSv1.3", f"smarthost:tls://127.0.0.1:{port}"), line)
        wait_until(lambda: "status=sent" in log.read_text(), "Postfix has it")
        text = log.read_text()
        self.assertRegex(text, r"TLS connection established from .*\[127\.0\.0\.1\]: TLSv1\.3")
        self.assertRegex(text, r"to=<bob@elsewhere\.test>.* status=sent")

    def postfix(self):
        """A Postfix with TLS from the first octet: its port and its log."""
        directory = tempfile.TemporaryDirectory(prefix="empath-postfix-")
        self.addCleanup(directory.cleanup)
        base, port = pathlib.Path(directory.name), free_port()
        base.chmod(0o755)
        for name in ("etc", "queue", "data"):
            (base / name).mkdir()
        shutil.chown(base / "data", "postfix")
        certify(base / "authority", "authority.test")
        for made, file in zip(sign(base / "authority", "relay.test,IP:127.0.0.1"), ("cert.pem", "key.pem")):
            shutil.copy(made, base / file)
        (base / "etc/main.cf").write_text(POSTFIX.format(dir=base))
        (base / "etc/master.cf").write_text(MASTER.format(port=port))

        def run(command):
            subprocess.run([shutil.which("postfix", path=PATH), "-c", base / "etc", command], check=True,
                           stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)

        run("start")
        self.addCleanup(run, "stop")
        return port, base / "log"
