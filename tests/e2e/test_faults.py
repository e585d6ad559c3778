"""A disk that fails now and then: strace has system calls of the daemon fail while mail comes in."""
from harness import TestCase, strace, wait_until
from load import STORAGE_FAILED, STORAGE_FULL, Load

# `when` counts the calls of each thread by itself, so that the thread that commits is hit even where another is hit
# first. The first calls are those of the start.
ONE_SYNC = "fdatasync:error=EIO:when=3"
SYNCS_FOR_A_WHILE = "fdatasync:error=EIO:when=20..40"
SYNCS_AGAIN_AND_AGAIN = "fdatasync:error=EIO:when=10+60"
WRITES = "pwrite64,pwritev,pwritev2"


class Faults(TestCase):
    def meet(self, fault, refusal, kill=False):
        """Sends mail before, during and after a fault, for which messages are refused with `refusal`. With `kill`,
        nothing is delivered until the daemon was killed and started without the fault."""
        # A fault that comes but once is to hit a message and not an outcome.
        once = fault.partition("when=")[2].isdigit()
        sink = self.sink(silent=once)
        sink.defer = "451 4.3.2 later" if kill else None
        daemon = self.daemon(
            f'retry: (base_delay: "1s", max_delay: "2s", max_attempts: 1000), '
            f'domains: {{"example.test": (mx_override: "127.0.0.1:{sink.port}")}}',
            # Few messages to a segment, so that new ones are begun all the time.
            spool='segment_size: "64KiB"', start=False)
        strace(self, daemon, f"--inject={fault}", f"--trace={fault.partition(':')[0]}")
        daemon.start()
        load = Load(self, daemon, octets=16000)
        wait_until(lambda: load.refused, "a message is refused")
        if once:
            sink.greet()
        wait_until(lambda: len(load.acknowledged) > 200 and load.acknowledged_in_a_row > 30,
                   "messages are accepted again")
        if kill:
            daemon.kill()
        load.stop()
        self.assertEqual({r for r in load.refused.values() if not r.startswith(refusal)}, set())
        if kill:
            daemon.wrap, sink.defer = [], None
            daemon.start()
        else:
            self.assertEqual(load.unanswered, set())
        times = load.wait_until_all_arrive(sink)
        self.assertEqual({name: count for name, count in times.items() if count > 1}, {}, "delivered again")

    def test_messages_are_refused_while_one_sync_fails(self):
        self.meet(ONE_SYNC, STORAGE_FAILED)

    def test_messages_are_refused_while_syncs_fail(self):
        self.meet(SYNCS_FOR_A_WHILE, STORAGE_FAILED)

    def test_messages_are_refused_whenever_a_sync_fails(self):
        self.meet(SYNCS_AGAIN_AND_AGAIN, STORAGE_FAILED)

    def test_messages_are_refused_while_directories_cannot_be_synced(self):
        self.meet("fsync:error=EIO:when=6..12", STORAGE_FAILED)

    def test_messages_are_refused_while_one_write_finds_no_space(self):
        self.meet(f"{WRITES}:error=ENOSPC:when=40", STORAGE_FULL)

    def test_messages_are_refused_while_writes_find_no_space(self):
        self.meet(f"{WRITES}:error=ENOSPC:when=40..60", STORAGE_FULL)

    def test_messages_are_refused_while_the_quota_is_used_up(self):
        self.meet(f"{WRITES}:error=EDQUOT:when=40..60", STORAGE_FULL)

    def test_messages_are_refused_while_no_segment_can_be_allocated(self):
        self.meet("fallocate:error=ENOSPC:when=3..20", STORAGE_FULL)

    def test_messages_are_refused_while_the_file_system_is_read_only(self):
        self.meet("rename,renameat,renameat2:error=EROFS:when=3..8", STORAGE_FULL)

    def test_messages_that_were_refused_for_a_failed_sync_stay_refused_after_a_kill(self):
        for fault in (ONE_SYNC, SYNCS_FOR_A_WHILE, SYNCS_AGAIN_AND_AGAIN):
            with self.subTest(fault):
                self.meet(fault, STORAGE_FAILED, kill=True)
