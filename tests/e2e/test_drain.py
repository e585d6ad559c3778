"""SIGTERM in the middle of deliveries: what has begun is finished, and nothing is delivered twice."""
import collections

from harness import TestCase, wait_until

MESSAGES = 150


class Drain(TestCase):
    def test_nothing_is_delivered_twice_across_orderly_restarts(self):
        sink = self.sink(silent=True)
        daemon = self.daemon(f'domains: {{"*": (mx_override: "127.0.0.1:{sink.port}", max_connections: 5)}}')
        with daemon.smtp() as smtp:
            for number in range(MESSAGES):
                smtp.sendmail("alice@home.test", [f"u{number}@away.test", f"v{number}@away.test"],
                              f"Subject: {number}\r\n\r\nhello\r\n")
        sink.greet()
        for enough in [MESSAGES // 10, MESSAGES // 3, MESSAGES // 2]:
            sink.wait_for(enough)
            self.assertEqual(daemon.terminate(), 0)
            left = len(sink.messages)
            daemon.start()
            wait_until(lambda: len(sink.messages) > left or not daemon.queue(), "it goes on")
        daemon.wait_until_empty()
        times = collections.Counter(recipient for _, recipients, _ in sink.messages for recipient in recipients)
        self.assertEqual(len(times), 2 * MESSAGES)
        self.assertEqual(set(times.values()), {1})
