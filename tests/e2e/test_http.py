"""Health and metrics, as the programs see them that poll them."""
import json
import re
import subprocess
import urllib.request

from harness import PATIENCE, TestCase, wait_until


class Http(TestCase):
    def get(self, port, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as response:
            return response.status, response.read().decode()

    def test_health_is_ready_and_metrics_satisfy_promtool_and_count(self):
        sink = self.sink()
        daemon = self.daemon(f'domains: {{"example.test": (mx_override: "127.0.0.1:{sink.port}")}}')
        self.assertEqual(self.get(daemon.health, "/health/live")[0], 200)
        self.assertEqual(self.get(daemon.health, "/health/ready")[0], 200)
        metrics = self.get(daemon.metrics, "/metrics")[1]
        lint = subprocess.run(["promtool", "check", "metrics"], input=metrics, capture_output=True, text=True)
        # 1 is an error; 3 is a matter of taste about names, which are part of the interface.
        self.assertIn(lint.returncode, (0, 3), lint.stdout + lint.stderr)
        self.assertEqual(self.value(metrics, "empath_smtp_messages_received_total"), 0)

        daemon.send("s@home.test", ["b@example.test"], b"Subject: count me\r\n\r\n")
        sink.wait_for(1)
        wait_until(lambda: self.value(self.get(daemon.metrics, "/metrics")[1],
                                      "empath_smtp_messages_received_total") == 1, "the message is counted")
        [status] = daemon.ctl("system", "status")
        self.assertTrue(status["ready"], json.dumps(status))

    def value(self, metrics, name):
        found = re.search(rf"(?m)^{name}(?:\{{[^}}]*\}})? (\S+)$", metrics)
        self.assertIsNotNone(found, f"{name} is not among the metrics")
        return float(found[1])
