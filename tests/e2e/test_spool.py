"""The spool at start: in use, damaged, or in a place where it must not be."""
import os
import subprocess

from harness import PATIENCE, TestCase, free_port, wait_until


class Spool(TestCase):
    def test_a_spool_in_use_says_by_which_process(self):
        daemon = self.daemon()
        second = self.daemon(start=False)
        second.config.write_text(second.config.read_text().replace('"spool"', f'"{daemon.dir}/spool"'))
        done = subprocess.run([os.environ["EMPATH_BIN"], "--config", str(second.config)], cwd=second.dir,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(str(daemon.process.pid), done.stdout + done.stderr)
        self.assertEqual(daemon.terminate(), 0)

    def test_a_damaged_message_is_set_aside_and_the_others_are_delivered(self):
        port = free_port()
        daemon = self.daemon(
            f'retry: (base_delay: "2s"), domains: {{"example.test": (mx_override: "127.0.0.1:{port}")}}')
        bodies = [b"first", b"damaged-" * 40, b"third"]
        for body in bodies:
            daemon.send("s@home.test", ["b@example.test"], b"Subject: x\r\n\r\n" + body + b"\r\n")
        wait_until(lambda: all(m["status"] == "deferred" for m in daemon.queue()), "all are deferred")
        daemon.kill()

        [segment] = [s for s in (daemon.dir / "spool/journal").glob("*.seg") if bodies[1] in s.read_bytes()]
        content = bytearray(segment.read_bytes())
        content[content.index(bodies[1]) + 100] ^= 0xFF
        segment.write_bytes(content)

        sink = self.sink(port=port)
        daemon.start()
        self.assertTrue(list((daemon.dir / "spool/damaged").iterdir()))
        texts = [m[2] for m in sink.wait_for(2)]
        self.assertTrue(any(t.endswith(b"first\r\n") for t in texts) and any(t.endswith(b"third\r\n") for t in texts))
        daemon.wait_until_empty()
        self.assertEqual(len(sink.messages), 2)
