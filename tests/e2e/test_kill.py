"""Every message that was answered 250 arrives, also when the daemon is killed again and again."""
import random
import re
import smtplib
import threading

from harness import PATIENCE, TestCase, wait_until

THREADS, MESSAGES, KILLS = 10, 2000, 5


class Kill(TestCase):
    def test_no_acknowledged_message_is_lost_in_five_kills(self):
        sink = self.sink()
        daemon = self.daemon(
            f'retry: (base_delay: "1s"), domains: {{"example.test": (mx_override: "127.0.0.1:{sink.port}")}}')
        seed = random.randrange(1 << 32)
        moments = sorted(random.Random(seed).sample(range(50, MESSAGES - 50), KILLS))
        acknowledged, progress = set(), threading.Condition()

        def send(names):
            smtp = None
            for name in names:
                while name not in acknowledged:
                    try:
                        smtp = smtp or daemon.smtp()
                        smtp.sendmail("s@home.test", "b@example.test", f"Subject: {name}\r\n\r\n{name}\r\n")
                    except (OSError, smtplib.SMTPException):
                        if smtp:
                            smtp.close()
                        smtp = None
                        if gave_up.wait(0.01):
                            return
                        continue
                    with progress:
                        acknowledged.add(name)
                        progress.notify_all()
            if smtp:
                smtp.close()

        gave_up = threading.Event()
        self.addCleanup(gave_up.set)
        threads = [threading.Thread(target=send, args=([f"m{n}" for n in range(t, MESSAGES, THREADS)],), daemon=True)
                   for t in range(THREADS)]
        for thread in threads:
            thread.start()
        for moment in [*moments, MESSAGES]:
            with progress:
                reached = progress.wait_for(lambda: len(acknowledged) >= moment, PATIENCE)
            self.assertTrue(reached, f"{len(acknowledged)} messages were acknowledged (seed {seed})")
            if moment < MESSAGES:
                daemon.restart()
        for thread in threads:
            thread.join(PATIENCE)

        def arrived():
            return {re.search(rb"^Subject: (m\d+)", m[2], re.M)[1].decode() for m in list(sink.messages)}

        wait_until(lambda: len(sink.messages) >= MESSAGES and acknowledged <= arrived(), f"all arrived (seed {seed})")
        daemon.wait_until_empty()
        # A kill repeats what was under way, not what was done.
        self.assertLess(len(sink.messages), MESSAGES + KILLS * 200, f"repeated deliveries (seed {seed})")
