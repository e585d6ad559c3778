"""A spool on a file system of 64 MiB that is full."""
import errno
import pathlib
import shutil
import subprocess

from harness import PATIENCE, TestCase, message, program, wait_until
from load import STORAGE_FULL, Load

SIZE = 64 << 20
LATER = "451 4.3.2 later"
# It takes a while to fill and empty, with a debug build on a busy machine.
LONG = 4 * PATIENCE


def tmpfs(test, daemon):
    """Gives the daemon a spool on a tmpfs that only it sees, and ours through the directory that is returned."""
    where = daemon.dir / "spool"
    where.mkdir()
    mount = f'mount -t tmpfs -o size={SIZE},mode=0700 none "$0" && echo mounted && exec sleep infinity'
    # As root, and as a user who is root in a namespace of his own.
    for ours, its in ([], []), (["--map-root-user"], ["--user", "--preserve-credentials"]):
        holder = subprocess.Popen([program(test, "unshare"), *ours, "--mount", "sh", "-c", mount, where],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        test.addCleanup(holder.stderr.close)
        test.addCleanup(holder.stdout.close)
        test.addCleanup(holder.wait)
        test.addCleanup(holder.kill)
        if holder.stdout.readline() == b"mounted\n":
            daemon.wrap = [program(test, "nsenter"), f"--target={holder.pid}", *its, "--mount", "--"]
            return pathlib.Path(f"/proc/{holder.pid}/root{where}")
        refusal = holder.stderr.read().decode()
    return test.skipTest(f"no tmpfs can be mounted here: {refusal.strip()}")


def attempts(daemon):
    return {m["id"]: m["recipients"][0]["attempts"] for m in daemon.queue()}


class FullDisk(TestCase):
    def begin(self):
        """A daemon that defers all its mail, from the first attempt on."""
        self.next_hop = self.sink()
        self.next_hop.defer = LATER
        daemon = self.daemon(
            f'retry: (base_delay: "2s", multiplier: 1.0, max_attempts: 10000), '
            f'domains: {{"example.test": (mx_override: "127.0.0.1:{self.next_hop.port}")}}',
            spool='segment_size: "4MiB"',
            # The disk itself is to say when it is full.
            limits="min_free_space: 0, min_free_inodes: 0", start=False)
        self.spool = tmpfs(self, daemon)
        daemon.start()
        return daemon

    def fill(self, daemon):
        """Sends until all is refused."""
        load = Load(self, daemon, clients=4, octets=100_000)
        wait_until(lambda: load.refused_in_a_row > 30, "messages are refused", LONG)
        load.stop()
        self.assertEqual({r for r in load.refused.values() if not r.startswith(STORAGE_FULL)}, set())
        # Not a line for each: what is small may still find room in between.
        said = [line for line in daemon.lines() if "messages are refused" in (message(line) or "")]
        self.assertTrue(said)
        self.assertLess(len(said), len(load.refused))
        self.assertEqual(set(attempts(daemon)), set(load.acknowledged.values()))
        # What arrived is not more than there is room for, and not much less.
        self.assertGreater(len(load.acknowledged) * load.octets, SIZE * 0.7)
        return load

    def wait_for_attempts(self, daemon):
        """Waits until each message was tried once more; returns how often at least."""
        before = attempts(daemon)
        wait_until(lambda: all(before[i] < n for i, n in attempts(daemon).items()), "all messages are tried again",
                   LONG, every=0.25)
        return {i: n + 1 for i, n in before.items()}

    def recover(self, daemon, load):
        """The next hop takes mail again: everything goes there once, and messages are accepted as before."""
        process = daemon.process
        self.next_hop.defer = None
        times = load.wait_until_all_arrive(self.next_hop, LONG)
        self.assertEqual({name: count for name, count in times.items() if count > 1}, {})
        before = len(self.next_hop.messages)
        load = Load(self, daemon, clients=4, octets=100_000)
        wait_until(lambda: len(load.acknowledged) > 100, "messages are accepted again", LONG)
        load.stop()
        self.assertEqual(load.refused, {})
        self.next_hop.wait_for(before + len(load.acknowledged))
        self.assertIs(daemon.process, process)
        self.assertIsNone(process.poll())

    def test_messages_are_refused_until_those_in_the_queue_are_delivered(self):
        daemon = self.begin()
        load = self.fill(daemon)
        self.wait_for_attempts(daemon)
        self.recover(daemon, load)

    def test_a_daemon_that_is_killed_goes_on_where_it_was(self):
        daemon = self.begin()
        load = self.fill(daemon)
        tried = self.wait_for_attempts(daemon)
        # What the list shows may be a moment ahead of the disk.
        self.wait_for_attempts(daemon)
        daemon.restart()
        after = attempts(daemon)
        self.assertEqual(set(after), set(tried))
        self.assertEqual({i: (n, after[i]) for i, n in tried.items() if after[i] < n}, {}, "attempts were forgotten")
        self.wait_for_attempts(daemon)
        self.recover(daemon, load)

    def test_a_start_without_a_free_octet_waits_for_space(self):
        daemon = self.begin()
        load = Load(self, daemon, clients=4, octets=100_000)
        wait_until(lambda: len(load.acknowledged) > 100, "a hundred messages are queued", LONG)
        daemon.kill()
        load.stop()
        # A spare file would be free space.
        for spare in self.spool.glob("journal/*.spare"):
            spare.unlink()
        stray = self.spool / "stray"
        with stray.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError as failure:
                self.assertEqual(failure.errno, errno.ENOSPC)
        self.assertEqual(shutil.disk_usage(self.spool).free, 0)
        daemon.start()
        self.assertLessEqual(set(load.acknowledged.values()), set(attempts(daemon)))
        more = Load(self, daemon, clients=1, octets=load.octets)
        wait_until(lambda: more.refused_in_a_row > 10, "messages are refused")
        more.stop()
        self.assertEqual({r for r in more.refused.values() if not r.startswith(STORAGE_FULL)}, set())
        self.assertEqual(more.acknowledged, {})
        stray.unlink()
        self.recover(daemon, load)
