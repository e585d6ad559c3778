"""swaks, another program's idea of SMTP."""
import subprocess

from harness import CONFIG, PATIENCE, TestCase


class Swaks(TestCase):
    def swaks(self, daemon, *arguments):
        done = subprocess.run(
            ["swaks", "--server", "127.0.0.1", "--port", str(daemon.port), "--helo", "client.test", *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
        return done.returncode, done.stdout + done.stderr

    def test_a_message_is_relayed(self):
        sink = self.sink()
        daemon = self.daemon(f'domains: {{"example.test": (mx_override: "127.0.0.1:{sink.port}")}}')
        for pipeline in [[], ["--pipeline"]]:
            status, transcript = self.swaks(
                daemon, "--from", "s@home.test", "--to", "a@example.test,b@example.test", "--body", "hi", *pipeline)
            self.assertEqual(status, 0, transcript)
            self.assertIn("250 2.0.0 Ok: queued as ", transcript)
        messages = sink.wait_for(2)
        self.assertEqual([m[1] for m in messages], [["a@example.test", "b@example.test"]] * 2)

    def test_a_stranger_can_not_relay(self):
        daemon = self.daemon(config=CONFIG.replace('relay_networks: ["127.0.0.0/8"]', "relay_networks: []"))
        for address in ["b@example.test", "b%example.test@mx.home.test", "@mx.home.test:b@example.test",
                        '"b@example.test"@elsewhere.test']:
            status, transcript = self.swaks(daemon, "--from", "s@home.test", "--to", address)
            self.assertEqual(status, 24, transcript)  # no recipient was accepted
            self.assertRegex(transcript, r"<\*\* 55\d 5\.7\.1 ")
