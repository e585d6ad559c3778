"""While the other side is offline messages wait, say why, and go out when it is back."""
import datetime
import json

from harness import Sink, TestCase, free_port, wait_until

CONTENT = b"Subject: wait\r\n\r\nfor it\r\n"


class Offline(TestCase):
    def start(self, retry):
        self.port = free_port()
        return self.daemon(
            f'retry: ({retry}), domains: {{"example.test": (mx_override: "127.0.0.1:{self.port}")}}')

    def recipient(self, daemon, ident):
        [message] = [m for m in daemon.queue() if m["id"] == ident]
        [recipient] = message["recipients"]
        return recipient

    def deferred(self, daemon, ident):
        """The recipient, once it is deferred: the reason is there from the first moment on."""
        def shown():
            recipient = self.recipient(daemon, ident)
            return recipient["status"] == "deferred" and recipient
        recipient = wait_until(shown, "deferred")
        self.assertIsNotNone(recipient["last_reply"], recipient)
        return recipient

    def back(self):
        sink = Sink(self.port)
        self.addCleanup(sink.close)
        return sink

    def test_the_queue_says_why_and_when_next_and_the_message_goes_out_later(self):
        daemon = self.start('base_delay: "2s", jitter: 0.0')
        now = datetime.datetime.now(datetime.timezone.utc)
        ident = daemon.send("s@home.test", ["b@example.test"], CONTENT)
        recipient = self.deferred(daemon, ident)
        self.assertEqual(recipient["address"], "b@example.test")
        self.assertGreaterEqual(recipient["attempts"], 1)
        self.assertIn("refused", json.dumps(recipient).lower())
        due = datetime.datetime.fromisoformat(recipient["next_attempt_at"].replace("Z", "+00:00"))
        self.assertGreater(due, now)
        self.assertLess(due, now + datetime.timedelta(seconds=30))
        [message] = daemon.queue()
        self.assertEqual((message["status"], message["sender"]), ("deferred", "s@home.test"))
        [(sender, to, content)] = self.back().wait_for(1)
        self.assertEqual((sender, to), ("s@home.test", ["b@example.test"]))
        self.assertTrue(content.endswith(CONTENT))
        daemon.wait_until_empty()

    def test_a_restart_changes_neither_attempts_nor_due_times(self):
        daemon = self.start('base_delay: "1h"')
        idents = [daemon.send("s@home.test", [f"{n}@example.test"], CONTENT) for n in range(5)]
        before = [self.deferred(daemon, ident) for ident in idents]
        daemon.restart()
        self.assertEqual([self.recipient(daemon, ident) for ident in idents], before)
        self.assertEqual(daemon.terminate(), 0)
        daemon.start()
        self.assertEqual([self.recipient(daemon, ident) for ident in idents], before)
        self.assertTrue(all(r["attempts"] == 1 for r in before))

        sink = self.back()
        self.assertEqual(daemon.ctl("queue", "retry", idents[0])[-1], {"matched": 1, "changed": 1})
        [(_, to, _)] = sink.wait_for(1)
        self.assertEqual(to, ["0@example.test"])
        self.assertEqual(daemon.ctl("queue", "delete", idents[1])[-1], {"matched": 1, "changed": 1})
        wait_until(lambda: [m["id"] for m in daemon.queue()] == idents[2:], "one delivered, one deleted, three wait")
