"""Between Postfix's own test programs: smtp-source in front, smtp-sink behind."""
import subprocess

from harness import PATIENCE, TestCase, program
from smtp_sink import SmtpSink

MESSAGES = 1000


class Postfix(TestCase):
    def test_a_thousand_messages_pass_without_an_error(self):
        sink = SmtpSink(program(self, "smtp-sink"))
        self.addCleanup(sink.stop)
        daemon = self.daemon(
            f'retry: (base_delay: "1s"), domains: {{"example.test": (mx_override: "127.0.0.1:{sink.port}")}}')
        for reuse in [["-d"], []]:
            subprocess.run(
                [program(self, "smtp-source"), *reuse, "-s", "10", "-l", "4096", "-m", str(MESSAGES // 2),
                 "-f", "s@home.test", "-t", "b@example.test", f"127.0.0.1:{daemon.port}"],
                stdin=subprocess.DEVNULL, check=True, timeout=PATIENCE)
        sink.wait_for(MESSAGES)
        daemon.wait_until_empty()
        self.assertEqual(sink.count, MESSAGES)
