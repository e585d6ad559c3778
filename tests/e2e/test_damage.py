"""Octets of the journal that changed on disk: what is not hit is delivered, and what is hit can be found."""
import random
import re

from harness import TestCase, message, wait_until
from load import Load, names

FLIPS = 30


class Damage(TestCase):
    def test_flipped_octets_harm_the_messages_that_they_are_in_and_no_others(self):
        sink = self.sink()
        sink.defer = "451 4.3.2 later"
        daemon = self.daemon(
            f'retry: (base_delay: "1s", max_delay: "2s", max_attempts: 1000), '
            f'domains: {{"example.test": (mx_override: "127.0.0.1:{sink.port}")}}',
            spool='segment_size: "256KiB"')
        load = Load(self, daemon, octets=3000)
        wait_until(lambda: len(load.acknowledged) >= 400, "some hundred messages are queued")
        load.stop()
        self.assertEqual(load.unanswered, set())
        wait_until(lambda: all(m["recipients"][0]["attempts"] for m in daemon.queue()), "all are deferred")
        daemon.kill()

        seed = random.randrange(1 << 32)
        rng = random.Random(seed)
        segments = sorted((daemon.dir / "spool/journal").glob("*.seg"))
        self.assertGreater(len(segments), 3)
        for _ in range(FLIPS):
            segment = rng.choice(segments)
            octets = bytearray(segment.read_bytes())
            octets[rng.randrange(len(octets))] ^= rng.randrange(1, 256)
            segment.write_bytes(octets)

        sink.defer = None
        daemon.start()
        damaged = daemon.dir / "spool/damaged"

        def copies():
            return b"".join(path.read_bytes() for path in damaged.glob("*.octets"))

        def missing():
            return set(load.acknowledged) - set(load.arrived(sink))

        def told():
            """Messages of which there is a piece among the damage."""
            return names(copies())

        wait_until(lambda: missing() <= told(), f"what is not delivered is named (seed {seed})", every=0.1)
        lost = missing()
        reported = "".join(path.read_text() for path in damaged.glob("*.report"))
        named = {name for name in lost if load.acknowledged[name] in reported}
        print(f"{FLIPS} octets in {len(segments)} segments with {len(load.acknowledged)} messages: {len(lost)} lost, "
              f"{len(named)} of them named in reports (seed {seed})", flush=True)
        # An octet is in one record, and what it takes along is the batch with that record.
        self.assertLessEqual(len(lost), FLIPS, f"seed {seed}")
        self.assertGreater(len(lost), 0, f"seed {seed}")
        self.assertTrue(reported, f"seed {seed}")
        listed = {found["name"] for found in daemon.ctl("spool", "damaged")}
        self.assertLessEqual({path.name for path in damaged.glob("*.octets")}, listed, f"seed {seed}")
        self.assertTrue([line for line in daemon.lines() if line["level"] == "ERROR" and "damaged" in message(line)])
        self.assertEqual({name: n for name, n in load.arrived(sink).items() if n > 1}, {}, f"seed {seed}")
        # Nor does the queue go on about what is not there any more.
        daemon.wait_until_empty()
