"""Messages above the threshold: written to a file as they arrive, read from it as they are sent, octet for octet."""
import pathlib
import random
import re
import socket

from harness import TestCase, free_port, wait_until

MIB = 1 << 20
LIMITS = 'message_size: "100MiB", content_memory: "8MiB"'


def lines(octets, seed=1):
    """A message of so many octets in lines of any length, many with dots in front, and some octets above 127."""
    rng, parts, left = random.Random(seed), [b"Subject: large\r\nX-Seed: %d\r\n\r\n" % seed], octets
    words = [b"", b".", b"..", b"a", b"from here to there", "grüße".encode(), b"x" * 300]
    block = b"".join(rng.choice(words) + rng.choice(words) + b"\r\n" for _ in range(20000))
    while left > 0:
        # Lines do not stand at the same place of every piece.
        shift = block.index(b"\r\n", rng.randrange(len(block) // 2)) + 2
        part = block[shift:block.index(b"\r\n", shift + min(left, len(block) // 3)) + 2]
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def stuffed(content):
    return re.sub(rb"^\.", b"..", content, flags=re.M)


class Large(TestCase):
    def setUp(self):
        self.sink_port = free_port()
        self.delivery = (
            f'retry: (base_delay: "1h"), domains: {{"example.test": (mx_override: "127.0.0.1:{self.sink_port}"), '
            f'"home.test": (mx_override: "127.0.0.1:{self.sink_port}"), "box.test": (maildir: "mail/{{address}}")}}')

    def start(self, limits=LIMITS):
        return self.daemon(self.delivery, limits=limits)

    def files(self, daemon):
        return list((daemon.dir / "spool/large").iterdir())

    def maildir(self, daemon, part="new"):
        return [file.read_bytes() for file in (daemon.dir / "mail/carol@box.test" / part).glob("*")]

    def peak(self, daemon):
        """The most memory that the daemon ever had, in MiB."""
        status = pathlib.Path(f"/proc/{daemon.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024

    def begin(self, daemon, octets):
        """Sends content without its end; the socket stays open."""
        smtp = daemon.smtp()
        smtp.ehlo()
        smtp.mail("alice@home.test")
        smtp.rcpt("bob@example.test")
        smtp.docmd("DATA")
        smtp.sock.sendall(stuffed(octets))
        return smtp

    def test_a_message_of_any_size_takes_little_memory_and_arrives_octet_for_octet(self):
        sink = self.sink(port=self.sink_port, refuse={"nobody@example.test": "550 5.1.1 no such user"})
        daemon = self.start()
        recipients = ["bob@example.test", "nobody@example.test", "carol@box.test"]
        daemon.send("alice@home.test", recipients, lines(1000, seed=0))
        daemon.wait_until_empty()
        before = self.peak(daemon)
        content = lines(40 * MIB)
        daemon.send("alice@home.test", recipients, content)
        messages = sink.wait_for(4)
        daemon.wait_until_empty()
        after = self.peak(daemon)

        [arrived] = [text for sender, _, text in messages if sender and text.endswith(content)]
        self.assertRegex(arrived[:-len(content)], rb"\AReceived: [^\0]*\r\n\Z")
        [report] = [text for sender, _, text in messages if not sender and b"X-Seed: 1\r\n" in text]
        self.assertLess(len(report), 10_000)
        [filed] = [text for text in self.maildir(daemon) if text.endswith(content)]
        self.assertEqual(filed, b"Return-Path: <alice@home.test>\r\n" + arrived)
        self.assertEqual(self.maildir(daemon, "tmp"), [])
        wait_until(lambda: not self.files(daemon), "the file is gone")
        # The allocator keeps some of what several threads gave back.
        self.assertLess(after - before, 10)

    def test_large_mail_waits_in_its_file_across_a_kill(self):
        daemon = self.start()
        content = lines(3 * MIB)
        daemon.send("alice@home.test", ["bob@example.test", "carol@box.test"], content)
        wait_until(lambda: all(m["status"] == "deferred" for m in daemon.queue()), "it is deferred")
        [queued] = daemon.queue()
        self.assertEqual([file.name for file in self.files(daemon)], [queued["id"]])
        [view] = daemon.ctl("queue", "view", queued["id"])
        self.assertIn(["Subject", "large"], view["headers"])
        daemon.restart()
        self.assertEqual([file.name for file in self.files(daemon)], [queued["id"]])
        sink = self.sink(port=self.sink_port)
        daemon.ctl("queue", "retry", queued["id"])
        [(_, _, arrived)] = sink.wait_for(1)
        self.assertTrue(arrived.endswith(content))
        daemon.wait_until_empty()
        wait_until(lambda: not self.files(daemon), "the file is gone")
        self.assertEqual(len(self.maildir(daemon)), 1)

    def test_what_was_not_acknowledged_leaves_no_file_behind_a_kill(self):
        daemon = self.start()
        # Held on to: a client that nobody keeps has left before the daemon is killed.
        client = self.begin(daemon, lines(2 * MIB))
        self.addCleanup(client.close)
        wait_until(lambda: any(file.stat().st_size for file in self.files(daemon)), "the content is being written")
        daemon.restart()
        wait_until(lambda: not self.files(daemon), "the file is gone")
        self.assertEqual(daemon.queue(), [])

    def test_a_client_that_leaves_and_a_message_that_is_too_large_leave_no_file(self):
        daemon = self.start(limits='message_size: "4MiB"')
        leaving = self.begin(daemon, lines(2 * MIB))
        wait_until(lambda: self.files(daemon), "the content is being written")
        leaving.sock.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: not self.files(daemon), "the file is gone")
        with self.begin(daemon, lines(3 * MIB)) as smtp:
            wait_until(lambda: self.files(daemon), "the content is being written")
            smtp.sock.sendall(stuffed(lines(2 * MIB)) + b".\r\n")
            code, reply = smtp.getreply()
            self.assertEqual((code, reply[:5]), (552, b"5.3.4"))
        wait_until(lambda: not self.files(daemon), "the file is gone")
        self.assertEqual(daemon.queue(), [])

    def test_more_mail_at_once_than_fits_into_memory_is_taken_all_the_same(self):
        sink = self.sink(port=self.sink_port)
        # 1 MiB of it is for what is written to files.
        daemon = self.start(limits='message_size: "4MiB", content_memory: "4MiB"')
        contents = [lines(700_000, seed) for seed in range(2, 8)]
        waiting = [self.begin(daemon, content) for content in contents]
        wait_until(lambda: self.files(daemon), "what has no place in memory is being written")
        for smtp in waiting:
            smtp.sock.sendall(b".\r\n")
            self.assertEqual(smtp.getreply()[0], 250)
            smtp.close()
        arrived = [text for _, _, text in sink.wait_for(len(contents))]
        for content in contents:
            self.assertEqual(sum(text.endswith(content) for text in arrived), 1)
        daemon.wait_until_empty()
        wait_until(lambda: not self.files(daemon), "the files are gone")

    def test_content_damaged_on_its_way_out_reaches_nobody_and_its_sender_is_told(self):
        self.damaged_content(early=False)

    def test_content_damaged_on_disk_reaches_nobody_and_its_sender_is_told(self):
        self.damaged_content(early=True)

    def damaged_content(self, early):
        daemon = self.start()
        daemon.send("alice@home.test", ["bob@example.test"], lines(3 * MIB))
        wait_until(lambda: all(m["status"] == "deferred" for m in daemon.queue()), "it is deferred")
        [file] = self.files(daemon)

        def damage():
            with file.open("r+b") as content:
                content.seek(2 * MIB)
                octet = content.read(1)[0]
                content.seek(2 * MIB)
                content.write(bytes([octet ^ 1]))

        sink = self.sink(port=self.sink_port)
        serve, connections = sink.serve, []

        def damaged(connection):
            # The content was looked at before the connection; it is found out while it is sent, before its end.
            if not connections and not early:
                damage()
            connections.append(connection)
            serve(connection)

        sink.serve = damaged
        if early:
            damage()
        daemon.ctl("queue", "retry", file.name)
        daemon.wait_until_empty()
        # One connection for the report, and one for the message where that got so far.
        self.assertLessEqual(len(connections), 1 if early else 2)
        [(sender, recipients, report)] = [(m[0], m[1], m[2]) for m in sink.messages]
        self.assertEqual((sender, recipients), ("", ["alice@home.test"]))
        self.assertIn(b"Status: 5.3.0", report)
        [bounced] = daemon.logged("bounced")
        self.assertIn("damaged in the spool", str(bounced))
        self.assertEqual(bounced["host"], "none", "no host is blamed")
        kept = [found["name"] for found in daemon.ctl("spool", "damaged")]
        self.assertIn(f"{file.name}.content", kept)
        self.assertEqual(len(kept), 2, "the record is kept as well")
        self.assertEqual(self.files(daemon), [])
