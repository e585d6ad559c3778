"""A message sent with Python's smtplib lies in the Maildir, whole, with a correct trace field."""
import email
import email.utils
import pathlib
import re
import time

from harness import ROOT, TestCase, free_port, wait_until

CONTENT = (
    b"From: Bob <bob@example.test>\r\nTo: alice@example.test\r\nSubject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n"
    b"X-Folded: one\r\n\ttwo\r\n\r\n"
    b".\x01leading dot\r\n..two dots\r\n...\r\n.\r\n"
    b"trailing blanks \t \r\n\r\n"
    + "acht bit: \u00e4\u00f6\u00fc".encode() + b"\x80\xfe\xff\r\n" + b"x" * 998 + b"\r\nlast line\r\n"
)


class Maildir(TestCase):
    def shipped(self):
        """The daemon with the shipped configuration, on free ports."""
        config, ports = (ROOT / "empath.config.ron").read_text(), {}
        config = re.sub(r'(:\s*"[^"\s]*:)(\d{4,5})"', lambda m: f'{m[1]}{ports.setdefault(m[2], free_port())}"', config)
        self.assertIn("1025", ports)
        daemon = self.daemon(config=config)
        daemon.port, daemon.control_socket = ports["1025"], "var/control.sock"
        return daemon

    def delivered(self, directory, count=1):
        return wait_until(lambda: (found := list(directory.glob("*"))) and len(found) == count and found, "delivered")

    def test_a_message_lies_in_the_maildir_octet_for_octet_with_its_received_field(self):
        daemon = self.shipped()
        before = int(time.time())
        ident = daemon.send("bob@example.test", ["alice@example.test"], CONTENT)
        maildir = daemon.dir / "var/mail/alice@example.test"
        [file] = self.delivered(maildir / "new")
        text = file.read_bytes()
        self.assertEqual(list((maildir / "tmp").iterdir()), [])
        self.assertTrue((maildir / "cur").is_dir())

        # Maildir files have the line ends of the system.
        expected = CONTENT.replace(b"\r\n", b"\n")
        self.assertTrue(text.replace(b"\r\n", b"\n").endswith(expected), text)
        self.assertIn(text.count(b"\r\n"), (0, text.count(b"\n")), "one kind of line end")
        added = email.message_from_bytes(text.replace(b"\r\n", b"\n")[: -len(expected)] + b"\n")
        self.assertEqual(len(added.get_all("Received")), 1)
        received, _, date = " ".join(added["Received"].split()).rpartition("; ")
        self.assertRegex(received, r"^from client\.test \(.*\[127\.0\.0\.1\].*\) by \S+ (\(.*\) )?with ESMTP ")
        self.assertRegex(received, rf"\bid {ident}\b")
        self.assertIn(int(email.utils.parsedate_to_datetime(date).timestamp()), range(before, int(time.time()) + 2))
        self.assertTrue(all(len(line) <= 78 for line in text.split(b"\n")[:4]))
        daemon.wait_until_empty()

    def test_each_recipient_has_a_maildir_of_its_own(self):
        daemon = self.shipped()
        addresses = ["alice@example.test", "carol@example.test", "dave@other.test"]
        daemon.send("bob@example.test", addresses, CONTENT)
        for address in addresses:
            self.delivered(daemon.dir / "var/mail" / address / "new")

    def test_no_address_leads_out_of_the_mail_directory(self):
        daemon = self.shipped()
        addresses = ['"../../../escape"@example.test', '"/etc/escape"@example.test', '".."@example.test']
        with daemon.smtp() as smtp:
            smtp.ehlo()
            for address in addresses:
                smtp.docmd("MAIL FROM:<>")
                if smtp.docmd(f"RCPT TO:<{address}>")[0] == 250:
                    smtp.data(CONTENT)
                smtp.docmd("RSET")
        daemon.wait_until_empty()
        inside = daemon.dir / "var"
        strays = [p for p in daemon.dir.rglob("*") if "escape" in p.name and inside / "mail" not in p.parents]
        self.assertEqual(strays, [])
        self.assertFalse(pathlib.Path("/etc/escape").exists())

    def test_the_daemon_ends_in_order(self):
        daemon = self.shipped()
        daemon.send("bob@example.test", ["alice@example.test"], CONTENT)
        self.assertEqual(daemon.terminate(), 0)
