"""Between Postfix's own test programs: smtp-source in front, smtp-sink behind."""
import os
import re
import shutil
import subprocess
import threading

from harness import PATIENCE, TestCase, free_port, wait_until

MESSAGES = 1000
# Where Debian has them, in the path of a user or not.
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])


class Postfix(TestCase):
    def smtp_sink(self, port):
        """Starts smtp-sink; returns a function that says how many messages it has."""
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        process = subprocess.Popen([shutil.which("smtp-sink", path=PATH), *user, "-c", f"127.0.0.1:{port}", "1000"],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        output = bytearray()

        def read():
            try:
                while chunk := os.read(process.stdout.fileno(), 65536):
                    output.extend(chunk)
            except OSError:
                pass

        threading.Thread(target=read, daemon=True).start()
        return lambda: int((re.findall(rb"mesg=(\d+)", bytes(output)) or [0])[-1])

    def test_a_thousand_messages_pass_without_an_error(self):
        port = free_port()
        count = self.smtp_sink(port)
        daemon = self.daemon(
            f'retry: (base_delay: "1s"), domains: {{"example.test": (mx_override: "127.0.0.1:{port}")}}')
        for reuse in [["-d"], []]:
            subprocess.run(
                [shutil.which("smtp-source", path=PATH), *reuse, "-s", "10", "-l", "4096", "-m", str(MESSAGES // 2),
                 "-f", "s@home.test", "-t", "b@example.test", f"127.0.0.1:{daemon.port}"],
                stdin=subprocess.DEVNULL, check=True, timeout=PATIENCE)
        wait_until(lambda: count() >= MESSAGES, "all are in the sink")
        daemon.wait_until_empty()
        self.assertEqual(count(), MESSAGES)
