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
        daemon.logged(lambda line: line["level"] == "ERROR" and "damaged" in message(line))
        self.assertEqual({name: n for name, n in load.arrived(sink).items() if n > 1}, {}, f"seed {seed}")
        # Nor does the queue go on about what is not there any more.
        daemon.wait_until_empty()

    def spoil(self, daemon, octets):
        """Flips the last of some octets where they stand in the journal."""
        for segment in (daemon.dir / "spool/journal").glob("*.seg"):
            at = segment.read_bytes().find(octets)
            if at >= 0:
                at += len(octets) - 1
                with segment.open("r+b") as file:
                    file.seek(at)
                    file.write(bytes([octets[-1] ^ 1]))
                return
        self.fail(f"{octets} stands in no segment")

    def test_messages_found_damaged_as_the_queue_is_read_back_are_set_aside_and_their_sender_is_told(self):
        sink = self.sink()
        sink.defer = "451 4.3.2 later"
        daemon = self.daemon(
            f'retry: (base_delay: "1s", max_delay: "1s", max_attempts: 1000), '
            f'domains: {{"example.test": (mx_override: "127.0.0.1:{sink.port}"), '
            f'"home.test": (mx_override: "127.0.0.1:{sink.port}")}}')
        ids = {name: daemon.send("s@home.test", [f"{name}@example.test"], f"Subject: {name}\r\n\r\nbody of {name}\r\n".encode())
               for name in ("content", "envelope", "whole")}
        wait_until(lambda: all(m["status"] == "deferred" for m in daemon.queue()), "all are deferred")
        # The second start writes down what is in the segment, so that the third does not read it.
        daemon.restart()
        wait_until((daemon.dir / "spool/journal/00000001.contents").exists, "the contents are written down")
        daemon.terminate()
        self.spoil(daemon, b"body of content")
        self.spoil(daemon, b"envelope@example.tes")

        sink.defer = None
        daemon.start()
        daemon.wait_until_empty()
        arrived = {tuple(recipients): octets for _, recipients, octets in sink.wait_for(2)}
        self.assertEqual(set(arrived), {("whole@example.test",), ("s@home.test",)})
        report = arrived["s@home.test",]
        self.assertIn(b"Status: 5.3.0", report)
        self.assertIn(b"content@example.test", report)
        kept = {id for found in daemon.ctl("spool", "damaged") for id in found["messages"]}
        self.assertEqual(kept, {ids["content"], ids["envelope"]})

    def test_compaction_that_meets_damage_sets_it_aside_while_mail_flows(self):
        sink, later = self.sink(), self.sink()
        later.defer = "451 4.3.2 later"
        daemon = self.daemon(
            f'retry: (base_delay: "1h", max_delay: "1h"), '
            f'domains: {{"example.test": (mx_override: "127.0.0.1:{sink.port}"), '
            f'"later.test": (mx_override: "127.0.0.1:{later.port}"), '
            f'"home.test": (mx_override: "127.0.0.1:{later.port}")}}',
            spool='segment_size: "64KiB"')
        ids = {n: daemon.send("s@home.test", ["b@later.test"], f"Subject: {n}\r\n\r\nbody {n}\r\n".encode())
               for n in range(5)}
        wait_until(lambda: all(m["recipients"][0]["attempts"] for m in daemon.queue()), "all are deferred")
        self.spoil(daemon, b"body 2")
        load = Load(self, daemon, octets=3000)

        def damaged():
            return [id for found in daemon.ctl("spool", "damaged") for id in found["messages"]]

        wait_until(damaged, "compaction meets the damage", every=0.2)
        # It goes on behind it: the segments before are given up.
        wait_until(lambda: not (daemon.dir / "spool/journal/00000001.seg").exists(), "the segment is given up")
        before = len(load.acknowledged)
        wait_until(lambda: len(load.acknowledged) > before + 50, "mail is still accepted")
        load.stop()
        self.assertEqual((load.refused, load.unanswered), ({}, set()))
        self.assertEqual(damaged(), [ids[2]])
        later.defer = None
        daemon.ctl("queue", "retry", *ids.values())
        load.wait_until_all_arrive(sink)
        arrived = later.wait_for(5)
        texts = b"".join(octets for _, recipients, octets in arrived if recipients == ["b@later.test"])
        self.assertEqual([n for n in range(5) if f"body {n}".encode() in texts], [0, 1, 3, 4])
        self.assertEqual([b"Status: 5.3.0" in octets for _, recipients, octets in arrived if recipients == ["s@home.test"]],
                         [True])
        stats = daemon.ctl("spool", "stats")[0]
        self.assertEqual((stats["damaged"], stats["kept"]), (1, 0))
        self.assertGreater(stats["damaged_octets"], 0)
