"""What is on disk before a reply says so: the order of the daemon's system calls, as strace sees it."""
import re
import typing

from harness import TestCase, strace, wait_until

CALLS = "write,writev,pwrite64,pwritev,pwritev2,fdatasync,fsync,sendto,sendmsg,rename,renameat,renameat2,openat"
WRITES = {"write", "writev", "pwrite64", "pwritev", "pwritev2"}
SENDS = {"write", "writev", "sendto", "sendmsg"}
SYNCS = {"fdatasync", "fsync"}
RENAMES = {"rename", "renameat", "renameat2"}


class Call(typing.NamedTuple):
    """A system call that succeeded: the lines of the trace where it began and ended."""
    name: str
    arguments: str
    began: int
    ended: int

    @property
    def file(self):
        """The path of the first argument, a descriptor."""
        found = re.match(r"\d+<([^>]*)>", self.arguments)
        return found[1] if found else ""


def calls(trace):
    """The calls of a trace, in the order in which they ended. Those of several threads are interleaved in it."""
    begun, found = {}, []
    for number, line in enumerate(trace.read_text(errors="replace").splitlines()):
        thread, _, event = line.partition(" ")
        event = event.lstrip()
        if unfinished := re.fullmatch(r"(\w+)\((.*) <unfinished \.\.\.>", event):
            begun[thread] = (unfinished[1], unfinished[2], number)
        elif resumed := re.fullmatch(r"<\.\.\. (\w+) resumed>(.*)\)\s+= (\d+).*", event):
            name, arguments, began = begun.pop(thread)
            assert name == resumed[1], line
            found.append(Call(name, arguments + resumed[2], began, number))
        elif whole := re.fullmatch(r"(\w+)\((.*)\)\s+= (\d+).*", event):
            found.append(Call(whole[1], whole[2], number, number))
    return found


class Order(TestCase):
    def relay(self, sender, octets=100, messages=1, spool='segment_size: "64KiB"'):
        """Relays messages from addresses that begin with `sender`; returns the daemon's calls."""
        sink = self.sink()
        daemon = self.daemon(f'domains: {{"example.test": (mx_override: "127.0.0.1:{sink.port}")}}', spool=spool,
                             start=False)
        trace = strace(self, daemon, "--decode-fds=path", "--string-limit=5000", "--signal=none", f"--trace={CALLS}")
        daemon.start()
        content = b"Subject: x\r\n\r\n" + b"0123456\r\n" * (octets // 9)
        for number in range(messages):
            daemon.send(f"{sender}{number}@home.test", ["b@example.test"], content)
        sink.wait_for(messages)
        daemon.wait_until_empty()
        self.assertEqual(daemon.terminate(), 0)
        wait_until(lambda: re.search(rf"^{daemon.process.pid} +\+\+\+ exited", trace.read_text(errors="replace"), re.M),
                   "the trace is whole")
        return calls(trace)

    def only(self, found, what):
        self.assertEqual(len(found), 1, f"{what}: {found}")
        return found[0]

    def first(self, found, what):
        found = next(iter(found), None)
        self.assertIsNotNone(found, what)
        return found

    def journal_write(self, trace, sender):
        return self.only([c for c in trace if c.name in WRITES and re.search(r"/journal/\d+\.seg$", c.file)
                          and f"{sender}@home.test" in c.arguments], f"the write of the record from {sender}")

    def test_the_reply_is_written_when_the_record_of_the_message_is_synced(self):
        trace = self.relay("order", messages=3)
        replies = [c for c in trace if c.name in SENDS and "250 2.0.0 Ok: queued as" in c.arguments]
        self.assertEqual(len(replies), 3)
        for number, reply in enumerate(replies):
            write = self.journal_write(trace, f"order{number}")
            sync = self.first((c for c in trace if c.name in SYNCS and c.file == write.file and c.began > write.ended),
                              "the sync of the write")
            self.assertLess(sync.ended, reply.began)

    def test_a_segment_is_written_when_the_file_and_its_name_are_synced(self):
        trace = self.relay("segment", octets=20000, messages=12)
        segments = {c.file for c in trace if c.name in WRITES and c.file.endswith(".seg")}
        self.assertGreaterEqual(len(segments), 3)
        for segment in segments:
            write = self.first((c for c in trace if c.name in WRITES and c.file == segment), "a write")
            rename = self.only([c for c in trace if c.name in RENAMES
                                and re.search(rf'"{segment}"(, \w+)?$', c.arguments)], f"the rename to {segment}")
            spare = re.search(r'"([^"]+)"', rename.arguments)[1]
            last = [c for c in trace if c.file == spare and c.ended < rename.began and c.name in WRITES | SYNCS][-1]
            self.assertIn(last.name, SYNCS, f"the last call for {spare} before its rename")
            directory = segment.rpartition("/")[0]
            self.assertTrue([c for c in trace if c.name == "fsync" and c.file == directory
                             and rename.ended < c.began and c.ended < write.began],
                            f"the directory is synced between the rename to {segment} and the first write there")

    def test_large_content_and_its_name_are_synced_before_the_record_that_names_it(self):
        trace = self.relay("large", octets=200_000, spool='large_threshold: "64KiB"')
        record = self.journal_write(trace, "large0")
        content = {c.file for c in trace if c.name in WRITES and re.search(r"/large/[0-9A-Z]{26}$", c.file)}
        content = self.only(sorted(content), "the file of the content")
        last = [c for c in trace if c.file == content and c.name in WRITES][-1]
        sync = self.first((c for c in trace if c.file == content and c.name in SYNCS and c.began > last.ended),
                          "the sync of the content")
        self.assertLess(sync.ended, record.began)
        directory = content.rpartition("/")[0]
        created = self.first((c for c in trace if c.name == "openat" and f'"{content}"' in c.arguments), "its creation")
        self.assertTrue([c for c in trace if c.name == "fsync" and c.file == directory
                         and created.ended < c.began and c.ended < record.began], "the sync of the directory")
