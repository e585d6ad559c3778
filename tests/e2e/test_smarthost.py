"""Mail goes to a smarthost that wants to know who we are: another Empath, by each mechanism."""
import os
import shutil
import subprocess

from harness import PATIENCE, TestCase, free_port, message, wait_until
from test_auth import ALICE, CONFIG, CONTENT, PASSWORD
from test_tls import certify, sign


class Smarthost(TestCase):
    def relay(self, mechanism):
        """The port of the smarthost, the certificate of its authority, and what waits for mail there."""
        relay = self.daemon(config=CONFIG, start=False, submissions=free_port(), auth=f"mechanisms: [{mechanism}]")
        certify(relay.dir / "authority", "authority.test")
        # It is called by its address.
        certificate, key = sign(relay.dir / "authority", "relay.test,IP:127.0.0.1")
        (relay.dir / "tls").mkdir()
        shutil.copy(certificate, relay.dir / "tls/cert.pem")
        shutil.copy(key, relay.dir / "tls/key.pem")
        subprocess.run([os.environ["EMPATH_BIN"], "user", "add", ALICE, "--users-file", relay.dir / "users"],
                       input=PASSWORD + "\n", text=True, capture_output=True, timeout=PATIENCE, check=True)
        relay.start()
        mail = relay.dir / "mail/bob@elsewhere.test/new"
        return relay.port, relay.dir / "authority/cert.pem", \
            lambda: wait_until(lambda: mail.exists() and list(mail.iterdir()), "it has arrived")

    def deliver(self, mechanism):
        port, authority, arrived = self.relay(mechanism)
        daemon = self.daemon(f"""
            retry: (base_delay: "1s", jitter: 0.0),
            tls: (ca_file: "authority.pem"),
            domains: {{"*": (smarthost: (
                hosts: ["127.0.0.1:{free_port()}", "127.0.0.1:{port}"],
                auth: (user: "{ALICE}", password_file: "secret"),
            ))}}""", start=False)
        shutil.copy(authority, daemon.dir / "authority.pem")
        secret = daemon.dir / "secret"
        secret.write_text("wrong\n")
        daemon.start()
        daemon.send(ALICE, ["bob@elsewhere.test"], CONTENT)
        [waiting] = wait_until(lambda: [m for m in daemon.queue() if m["status"] == "deferred"], "it is deferred")
        self.assertEqual(waiting["recipients"][0]["last_reply"]["code"], 535, waiting)
        [line] = [line for line in daemon.lines() if message(line) == "deferred"][:1]
        self.assertEqual(line["status"], "4.7.8", line)
        self.assertRegex(line["reply"], "^AUTH: 535")

        # The new password counts without a restart.
        secret.write_text(PASSWORD + "\n")
        [file] = arrived()
        self.assertTrue(file.read_bytes().replace(b"\r\n", b"\n").endswith(b"\n\nhi\n"))
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
