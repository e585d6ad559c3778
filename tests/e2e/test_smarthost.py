"""Mail goes to a smarthost that wants to know who we are: another Empath, by each mechanism."""
import os
import shutil
import subprocess

from harness import PATIENCE, TestCase, free_port, wait_until
from test_auth import ALICE, CONFIG, CONTENT, PASSWORD
from test_tls import certify, sign


class Smarthost(TestCase):
    def relay(self, mechanism, tls):
        """The port of the smarthost, the certificate of its authority, and what waits for mail there."""
        submissions = free_port()
        relay = self.daemon(config=CONFIG, start=False, submissions=submissions, auth=f"mechanisms: [{mechanism}]")
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
        return submissions if tls else relay.port, relay.dir / "authority/cert.pem", \
            lambda: wait_until(lambda: mail.exists() and list(mail.iterdir()), "it has arrived")

    def deliver(self, mechanism, tls=False, key="password_file", right=PASSWORD):
        port, authority, arrived = self.relay(mechanism, tls)
        host = f"tls://127.0.0.1:{port}" if tls else f"127.0.0.1:{port}"
        daemon = self.daemon(f"""
            retry: (base_delay: "1s", jitter: 0.0),
            circuit_breaker: (timeout: "1s"),
            tls: (ca_file: "authority.pem"),
            sender_routes: {{"{ALICE}": (smarthost: (
                hosts: ["127.0.0.1:{free_port()}", "{host}"],
                auth: (user: "{ALICE}", {key}: "secret"),
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
        line, *_ = daemon.logged("deferred")
        self.assertEqual(line["status"], "4.7.8", line)
        self.assertRegex(line["reply"], "^AUTH: 535")

        # The new password counts without a restart.
        secret.write_text(right + "\n")
        [file] = arrived()
        self.assertTrue(file.read_bytes().replace(b"\r\n", b"\n").endswith(b"\n\nhi\n"))
        daemon.wait_until_empty()
        log = daemon.log_file.read_text()
        self.assertNotIn("wrong", log)
        self.assertNotIn(right[-5:], log)

    def test_scram(self):
        self.deliver("ScramSha256")

    def test_plain(self):
        self.deliver("Plain")

    def test_login(self):
        self.deliver("Login")

    def test_tls_from_the_first_octet(self):
        self.deliver("Plain", tls=True)
