"""CHUNKING, DSN and SMTPUTF8 with msmtp, curl, smtplib and plain sockets."""
import email
import email.policy
import pathlib
import re
import socket
import subprocess

from harness import CONFIG, PATIENCE, TestCase, wait_until
from test_large import lines

MIB = 1 << 20


class Extensions(TestCase):
    def start(self, sink=None, limits=""):
        domains = '"*.test": (maildir: "mail/{address}"), "xn--1xac.example": (maildir: "mail/{address}")'
        if sink:
            domains += f', "away.test": (mx_override: "127.0.0.1:{sink.port}")'
        return self.daemon(f"domains: {{{domains}}}", limits=limits)

    def mail(self, daemon, address, count=1):
        directory = daemon.dir / "mail" / address / "new"
        found = wait_until(lambda: (files := list(directory.glob("*"))) and len(files) == count and files, address)
        return [file.read_bytes() for file in found]

    def report(self, daemon, address="alice@home.test"):
        """The only report that came: its status fields, and the media type of what came back."""
        [text] = self.mail(daemon, address)
        report = email.message_from_bytes(text, policy=email.policy.default)
        self.assertEqual((report.get_content_type(), report.get_param("report-type")), ("multipart/report", "delivery-status"))
        _, status, returned = report.iter_parts()
        return [dict(part.items()) for part in status.get_payload()], returned

    def bdat(self, daemon, chunks, size="", pipelined=False):
        with socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE) as s, s.makefile("rb") as replies:
            def reply():
                while (line := replies.readline())[3:4] == b"-":
                    pass
                return line

            reply()
            for command in ["EHLO client.test", f"MAIL FROM:<alice@home.test>{size}", "RCPT TO:<bob@box.test>"]:
                s.sendall(command.encode() + b"\r\n")
                self.assertEqual(reply()[:3], b"250", command)
            for chunk in chunks:
                s.sendall(b"BDAT %d\r\n" % len(chunk) + chunk)
                if not pipelined:
                    self.assertEqual(reply(), b"250 2.0.0 %d octets received\r\n" % len(chunk))
            s.sendall(b"BDAT 0 LAST\r\n")
            answers = [reply() for _ in range(len(chunks) + 1 if pipelined else 1)]
            self.assertRegex(answers[-1], rb"^250 2\.0\.0 Ok: queued as ")
            s.sendall(b"QUIT\r\n")
            self.assertEqual(reply()[:3], b"221")

    def peak(self, daemon):
        """The most memory that the daemon ever had, in MiB."""
        status = pathlib.Path(f"/proc/{daemon.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024

    def test_a_large_message_in_one_chunk_or_in_many_takes_little_memory(self):
        daemon = self.start(limits='content_memory: "8MiB"')
        small = lines(1000, seed=0)
        self.bdat(daemon, [small])
        self.mail(daemon, "bob@box.test")
        before = self.peak(daemon)
        content = lines(20 * MIB)
        self.bdat(daemon, [content], f" BODY=8BITMIME SIZE={len(content)}")
        sizes = [1, 70_001, 4096, 333_333]
        chunks, rest = [], content
        while rest:
            size = sizes[len(chunks) % len(sizes)]
            chunks.append(rest[:size])
            rest = rest[size:]
        self.bdat(daemon, chunks)
        self.bdat(daemon, [small[i:i + 1] for i in range(len(small))], pipelined=True)
        delivered = self.mail(daemon, "bob@box.test", 4)
        self.assertEqual(sum(text.endswith(b"\r\n" + content) for text in delivered), 2)
        self.assertEqual(sum(text.endswith(b"\r\n" + small) for text in delivered), 2)
        # The allocator keeps some of what several threads gave back.
        self.assertLess(self.peak(daemon) - before, 10)

    def test_a_message_cut_off_inside_a_chunk_is_nowhere(self):
        daemon = self.start()
        with socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE) as s:
            s.sendall(b"EHLO c.test\r\nMAIL FROM:<alice@home.test>\r\nRCPT TO:<bob@box.test>\r\nBDAT 99 LAST\r\nSubject: x\r\n")
            s.recv(1)
        self.bdat(daemon, [b"Subject: whole\r\n\r\n"])
        [text] = self.mail(daemon, "bob@box.test")
        self.assertIn(b"Subject: whole", text)
        self.assertEqual(daemon.queue(), [])

    def test_a_host_that_offers_chunks_and_knows_none_reads_no_content_as_commands(self):
        sink = self.sink(keywords=["PIPELINING", "CHUNKING"])
        daemon = self.start(sink)
        content = b"hello\r\nRSET\r\nMAIL FROM:<boss@home.test>\r\nRCPT TO:<victim@away.test>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n"
        for name in ("bob", "carol"):
            daemon.send("alice@home.test", [f"{name}@away.test"], b"Subject: x\r\n\r\n" + content)
            daemon.wait_until_empty()
        self.assertEqual([(sender, to) for sender, to, _ in sink.messages],
                         [("alice@home.test", ["bob@away.test"]), ("alice@home.test", ["carol@away.test"])])
        self.assertEqual([command for command in sink.commands if "boss" in command or "hello" in command], [])
        self.assertIn("BDAT 1", sink.commands)

    def test_msmtp_hears_that_its_message_was_delivered(self):
        daemon = self.start()
        done = subprocess.run(
            ["msmtp", "--debug", "--host=127.0.0.1", f"--port={daemon.port}", "--from=alice@home.test",
             "--dsn-notify=success,failure", "--dsn-return=headers", "bob@box.test"],
            input=b"Subject: x\r\n\r\nhello\r\n", capture_output=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 0, done)
        [_, recipient], returned = self.report(daemon)
        self.assertEqual((recipient["Final-Recipient"], recipient["Action"]), ("rfc822; bob@box.test", "delivered"))
        self.assertEqual(returned.get_content_type(), "text/rfc822-headers")

    def send(self, daemon, options, to, rcpt_options, content=b"Subject: x\r\n\r\nhello\r\n"):
        with daemon.smtp() as smtp:
            smtp.ehlo()
            self.assertTrue(smtp.has_extn("dsn") and smtp.has_extn("chunking") and smtp.has_extn("smtputf8"))
            self.assertEqual(smtp.mail("alice@home.test", options)[0], 250)
            self.assertEqual(smtp.rcpt(to, rcpt_options)[0], 250)
            self.assertEqual(smtp.data(content)[0], 250)

    def test_a_host_with_dsn_gets_the_parameters_and_one_without_is_spoken_for(self):
        options = ["RET=HDRS", "ENVID=QQ+2B1"], ["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;Bob+2Bx@Box.test"]
        sink = self.sink(keywords=["PIPELINING", "DSN"])
        daemon = self.start(sink)
        self.send(daemon, options[0], "bob@away.test", options[1])
        sink.wait_for(1)
        self.assertIn("MAIL FROM:<alice@home.test> RET=HDRS ENVID=QQ+2B1", sink.commands)
        self.assertIn("RCPT TO:<bob@away.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2Bx@Box.test", sink.commands)
        daemon.wait_until_empty()

        plain = self.sink()
        daemon = self.start(plain)
        self.send(daemon, options[0], "bob@away.test", options[1])
        [of_message, recipient], _ = self.report(daemon)
        self.assertEqual(of_message["Original-Envelope-Id"], "QQ+1")
        self.assertEqual(recipient["Original-Recipient"], "rfc822; Bob+x@Box.test")
        self.assertEqual(recipient["Action"], "relayed")
        self.assertNotIn("NOTIFY", " ".join(plain.commands))

    def test_without_reports_none_can_be_asked_for(self):
        daemon = self.daemon(config=CONFIG.replace("    control_socket", "    dsn: (enabled: false),\n    control_socket"))
        with daemon.smtp() as smtp:
            smtp.ehlo()
            self.assertFalse(smtp.has_extn("dsn"))
            self.assertEqual(smtp.mail("alice@home.test", ["RET=HDRS"])[0], 555)
            self.assertEqual(smtp.mail("alice@home.test")[0], 250)
            self.assertEqual(smtp.rcpt("bob@box.test", ["NOTIFY=NEVER"])[0], 555)

    def test_what_was_asked_survives_a_kill(self):
        sink = self.sink()
        sink.defer = "451 4.7.1 later"
        daemon = self.start(sink)
        self.send(daemon, ["RET=FULL", "ENVID=1"], "bob@away.test", ["NOTIFY=FAILURE", "ORCPT=rfc822;b@x.test"])
        self.send(daemon, [], "carol@away.test", ["NOTIFY=NEVER"])
        wait_until(lambda: all(m["status"] == "deferred" for m in daemon.queue()), "they are deferred")
        daemon.kill()
        sink.defer = "550 5.1.1 no such user"
        daemon.restart()
        wait_until(lambda: len(daemon.queue()) == 2, "they are read back")
        [view] = daemon.ctl("queue", "view", daemon.queue()[0]["id"])
        asked = {"address": "bob@away.test", "notify": "FAILURE", "orcpt": "rfc822;b@x.test"}
        self.assertEqual((view["ret"], view["envid"], view["notifications"]), ("FULL", "1", [asked]))
        daemon.ctl("queue", "retry", "--all")
        [of_message, recipient], returned = self.report(daemon)
        self.assertEqual((of_message["Original-Envelope-Id"], recipient["Original-Recipient"]), ("1", "rfc822; b@x.test"))
        self.assertEqual((recipient["Final-Recipient"], recipient["Action"]), ("rfc822; bob@away.test", "failed"))
        self.assertEqual(returned.get_content_type(), "message/rfc822")
        self.assertIn("hello", returned.as_string())
        daemon.wait_until_empty()
        self.mail(daemon, "alice@home.test")

    def test_internationalized_mail_from_smtplib_and_curl_arrives_and_needs_a_host_that_takes_it(self):
        sink = self.sink()
        daemon = self.start(sink)
        message = email.message.EmailMessage(policy=email.policy.SMTPUTF8)
        message["From"], message["To"], message["Subject"] = "\u03b5\u03bb@home.test", "\u03b4@\u03c0\u03c1.example", "\u03b8"
        message.set_content("\u03ba\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1\n", cte="8bit")
        with daemon.smtp() as smtp:
            smtp.send_message(message)
        [text] = self.mail(daemon, "\u03b4@xn--1xac.example")
        self.assertIn(b"with UTF8SMTP id ", text)
        self.assertIn("Subject: \u03b8\r\n".encode(), text)

        (daemon.dir / "mail.eml").write_bytes(message.as_bytes(policy=email.policy.SMTPUTF8))
        (daemon.dir / "ascii.eml").write_bytes(b"Subject: ascii\r\n\r\nhello\r\n")
        for name, to in [("mail.eml", "\u03b6@box.test"), ("mail.eml", "bob@away.test")]:
            subprocess.run(["curl", "-sS", f"smtp://127.0.0.1:{daemon.port}/client.test", "--mail-from", "\u03b5\u03bb@home.test",
                            "--mail-rcpt", to, "-T", daemon.dir / name], check=True, timeout=PATIENCE)
        self.mail(daemon, "\u03b6@box.test")
        # The next hop does not offer SMTPUTF8: the sender hears of it; an ASCII message that only said so passes.
        [_, recipient], _ = self.report(daemon, "\u03b5\u03bb@home.test")
        self.assertEqual((recipient["Final-Recipient"], recipient["Status"]), ("rfc822; bob@away.test", "5.6.7"))
        self.send(daemon, ["SMTPUTF8"], "bob@away.test", [])
        [(_, _, text)] = sink.wait_for(1)
        self.assertTrue(text.endswith(b"hello\r\n"))
        self.assertIn("MAIL FROM:<alice@home.test>", sink.commands)
