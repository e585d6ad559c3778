"""Users authenticate with other people's programs: swaks, msmtp, curl, Python's smtplib."""
import base64
import concurrent.futures
import os
import pathlib
import re
import smtplib
import ssl
import statistics
import subprocess
import time
from email.message import EmailMessage
from email.policy import SMTP

from harness import PATIENCE, TestCase, free_port, wait_until
from test_tls import certify

CONFIG = """Empath(
    hostname: "mx.home.test",
    smtp: (
        listeners: [
            (socket: "127.0.0.1:{port}", mode: Submission),
            (socket: "127.0.0.1:{submissions}", mode: Submissions),
        ],
        tls: [(certificate: "tls/cert.pem", key: "tls/key.pem")],
        relay_networks: [],
        auth: (users_file: "users", {auth}),
    ),
    spool: (path: "spool"),
    delivery: (domains: {"*": (maildir: "mail/{address}")}),
    control_socket: "control.sock",
    health: (listen_address: "127.0.0.1:{health}"),
    metrics: (listen_address: "127.0.0.1:{metrics}"),
)
"""

ALICE, PASSWORD = "alice@example.test", "correct horse \u00e9"
CONTENT = b"From: alice@example.test\r\nTo: bob@elsewhere.test\r\nSubject: x\r\n\r\nhi\r\n"


class Auth(TestCase):
    def users(self, *arguments, password=PASSWORD):
        return subprocess.run(
            [os.environ["EMPATH_BIN"], "user", *arguments, "--users-file", str(self.dir / "users")],
            input=password + "\n", capture_output=True, text=True, timeout=PATIENCE, check=True).stdout

    def auth_daemon(self, auth=""):
        self.submissions = free_port()
        daemon = self.daemon(config=CONFIG, start=False, submissions=self.submissions, auth=auth)
        self.dir = daemon.dir
        certify(self.dir / "tls", "mx.home.test")
        self.users("add", ALICE, "--send-as", "@alice.test")
        daemon.start()
        return daemon

    def run_client(self, *command, content=None, status=0):
        done = subprocess.run(
            command, input=content, stdin=subprocess.DEVNULL if content is None else None, capture_output=True, timeout=PATIENCE)
        transcript = (done.stdout + done.stderr).decode(errors="replace")
        self.assertEqual(done.returncode, status, transcript)
        return transcript

    def smtp(self, daemon, source="127.0.0.1"):
        smtp = smtplib.SMTP("127.0.0.1", daemon.port, local_hostname="client.test", timeout=PATIENCE,
                            source_address=(source, 0))
        self.addCleanup(smtp.close)
        smtp.starttls(context=ssl._create_unverified_context())
        smtp.ehlo()
        return smtp

    def delivered(self, address, count):
        new = pathlib.Path(self.dir / "mail" / address / "new")
        files = wait_until(lambda: (found := list(new.glob("*"))) and len(found) == count and found, f"{count} delivered")
        return [file.read_text() for file in files]

    def test_swaks_authenticates_with_plain_and_login_by_starttls_and_by_tls(self):
        daemon = self.auth_daemon()
        count = 0
        for mechanism in ["PLAIN", "LOGIN"]:
            for port, tls in [(daemon.port, "--tls"), (self.submissions, "--tls-on-connect")]:
                self.run_client(
                    "swaks", "--server", "127.0.0.1", "--port", str(port), tls, "--auth", mechanism, "--auth-user", ALICE,
                    "--auth-password", PASSWORD, "--helo", "client.test", "--from", ALICE, "--to", "bob@elsewhere.test")
                count += 1
        for text in self.delivered("bob@elsewhere.test", count):
            self.assertIn("with ESMTPSA id ", text)
        self.assertEqual([line["user"] for line in daemon.logged("received", count)], [ALICE] * count)
        self.assertNotIn(PASSWORD, daemon.log_file.read_text())
        self.assertNotIn(base64.b64encode(PASSWORD.encode()).decode()[:-4], daemon.log_file.read_text())

    def test_swaks_is_refused_with_a_wrong_password_and_without_any(self):
        daemon = self.auth_daemon()
        swaks = ["swaks", "--server", "127.0.0.1", "--port", str(daemon.port), "--from", ALICE, "--to", "bob@elsewhere.test"]
        for user, password in [(ALICE, "wrong"), ("nobody@example.test", PASSWORD)]:
            transcript = self.run_client(
                *swaks, "--tls", "--auth", "PLAIN", "--auth-user", user, "--auth-password", password, status=28)
            self.assertIn("535 5.7.8 Authentication credentials invalid", transcript)
        self.assertIn("530 5.7.0 Authentication required", self.run_client(*swaks, "--tls", status=23))
        transcript = self.run_client(*swaks, "--auth", "PLAIN", "--auth-user", ALICE, "--auth-password", PASSWORD, status=28)
        self.assertNotIn("AUTH", transcript.split("250 ")[0], "AUTH is not offered in clear text")

    def test_msmtp_authenticates_with_scram(self):
        daemon = self.auth_daemon()
        for auth in ["scram-sha-256", "plain", "login", "on"]:
            rc = self.dir / "msmtprc"
            rc.write_text(f"""account default
host 127.0.0.1
port {daemon.port}
from {ALICE}
auth {auth}
user {ALICE}
password "{PASSWORD}"
tls on
tls_starttls on
tls_certcheck off
""")
            rc.chmod(0o600)
            transcript = self.run_client("msmtp", "--debug", "-C", str(rc), "bob@elsewhere.test", content=CONTENT)
            if auth == "scram-sha-256":
                self.assertIn("--> AUTH SCRAM-SHA-256", transcript)
        self.delivered("bob@elsewhere.test", 4)
        [wrong] = [rc.read_text().replace(PASSWORD, "wrong").replace("auth on", "auth scram-sha-256")]
        rc.write_text(wrong)
        self.assertIn("535 5.7.8", self.run_client("msmtp", "-C", str(rc), "bob@elsewhere.test", content=CONTENT, status=77))

    def test_curl_and_smtplib_authenticate(self):
        daemon = self.auth_daemon()
        mail = self.dir / "mail.eml"
        mail.write_bytes(CONTENT)
        for url in [f"smtp://127.0.0.1:{daemon.port}", f"smtps://127.0.0.1:{self.submissions}"]:
            for mechanism in ["PLAIN", "LOGIN"]:
                self.run_client(
                    "curl", "-sS", "-k", "--ssl-reqd", url, "--login-options", f"AUTH={mechanism}", "--user", f"{ALICE}:{PASSWORD}",
                    "--mail-from", ALICE, "--mail-rcpt", "bob@elsewhere.test", "--upload-file", str(mail))
        text = EmailMessage()
        text["From"], text["To"], text["Bcc"] = "Alice <anything@alice.test>", "bob@elsewhere.test", "carol@elsewhere.test"
        text.set_content("hi")
        smtp = self.smtp(daemon)
        # smtplib's own login has only ASCII passwords.
        encoded = base64.b64encode(f"\0{ALICE}\0{PASSWORD}".encode()).decode()
        self.assertEqual(smtp.docmd("AUTH", f"PLAIN {encoded}")[0], 235)
        self.assertNotIn("auth", [keyword.lower() for keyword in smtp.ehlo()[1].decode().split()])
        smtp.sendmail(ALICE, ["bob@elsewhere.test"], text.as_bytes(policy=SMTP))
        mended = [t for t in self.delivered("bob@elsewhere.test", 5) if "Alice <anything" in t]
        self.assertEqual(len(mended), 1)
        for field in ["\nDate: ", "\nMessage-ID: <", "\nBcc: carol@"]:
            self.assertEqual(mended[0].count(field), 1, mended[0])
        self.assertLess(mended[0].index("\nMessage-ID: "), mended[0].index("\n\n"))
        with self.assertRaises(smtplib.SMTPSenderRefused) as refused:
            smtp.sendmail("boss@example.test", ["bob@elsewhere.test"], CONTENT)
        self.assertEqual(refused.exception.smtp_code, 553)
        with self.assertRaises(smtplib.SMTPDataError) as refused:
            smtp.sendmail(ALICE, ["bob@elsewhere.test"], CONTENT.replace(b"From: alice", b"From: boss"))
        self.assertEqual(refused.exception.smtp_code, 550)

    def test_smtplib_logs_in_and_the_users_file_is_followed(self):
        daemon = self.auth_daemon()
        self.users("add", "carol", password="first")
        self.smtp(daemon).login("carol", "first")
        self.users("add", "carol", password="second")
        with self.assertRaises(smtplib.SMTPAuthenticationError):
            self.smtp(daemon).login("carol", "first")
        self.smtp(daemon).login("carol", "second")

        def refused():
            # The file is looked at ten times a second at most.
            try:
                return not self.smtp(daemon).login("carol", "second")
            except smtplib.SMTPAuthenticationError:
                return True

        def errors():
            self.assertFalse(refused())
            return [line for line in daemon.lines() if line.get("level") == "ERROR"]

        (self.dir / "users").write_text("nonsense\n")
        wait_until(errors, "the broken file was noticed")
        [error] = errors()
        self.assertIn("users:1: ", error["error"])
        self.users("remove", "nonsense", password="")
        wait_until(refused, "the user is gone")

    def test_who_guesses_is_slowed_down_and_sent_away_and_others_are_served(self):
        daemon = self.auth_daemon('failures: 5, max_delay: "1s"')
        codes = []
        for n in range(6):
            smtp = self.smtp(daemon, "127.0.0.3")
            codes.append(smtp.docmd("AUTH", "PLAIN " + base64.b64encode(f"\0{ALICE}\0{n}".encode()).decode())[0])
        self.assertEqual(codes, [535] * 5 + [421])
        encoded = base64.b64encode(f"\0{ALICE}\0{PASSWORD}".encode()).decode()
        self.assertEqual(self.smtp(daemon, "127.0.0.3").docmd("AUTH", f"PLAIN {encoded}")[0], 421)
        self.assertEqual(self.smtp(daemon, "127.0.0.4").docmd("AUTH", f"PLAIN {encoded}")[0], 235)

    def test_memory_for_hashing_is_given_back(self):
        daemon = self.auth_daemon('failures: 1000, max_delay: "0s"')
        encoded = base64.b64encode(f"\0{ALICE}\0wrong".encode()).decode()

        def guess(_):
            smtp = self.smtp(daemon)
            return {smtp.docmd("AUTH", f"PLAIN {encoded}")[0] for _ in range(3)}

        with concurrent.futures.ThreadPoolExecutor(40) as threads:
            codes = set().union(*threads.map(guess, range(120)))
        self.assertEqual(codes, {535})
        status = pathlib.Path(f"/proc/{daemon.process.pid}/status").read_text()
        # Two hashes at a time take 38 MiB.
        self.assertLess(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]), 120 * 1024)

    def test_hashing_does_not_hold_up_other_sessions(self):
        daemon = self.auth_daemon('failures: 1000, max_delay: "0s"')
        encoded = base64.b64encode(f"\0{ALICE}\0wrong".encode()).decode()
        other = self.smtp(daemon)
        with concurrent.futures.ThreadPoolExecutor(40) as threads:
            guesses = [threads.submit(lambda: self.smtp(daemon).docmd("AUTH", f"PLAIN {encoded}")[0]) for _ in range(60)]
            answered = 0
            while not all(guess.done() for guess in guesses):
                self.assertEqual(other.noop()[0], 250)
                answered += 1
                # A session has so many commands without a message.
                if answered % 90 == 0:
                    other.close()
                    other = self.smtp(daemon)
        self.assertEqual({guess.result() for guess in guesses}, {535})
        self.assertGreater(answered, len(guesses))

    def test_names_and_nonsense_do_not_reach_the_log_raw(self):
        daemon = self.auth_daemon()
        name = "x\u202e\u2028\"name"
        smtp = self.smtp(daemon)
        for initial in [f"\0{name}\0x", "\0a\x1b[31m\r\nb\0x", "\0\u00e9\0x"]:
            smtp.docmd("AUTH", "PLAIN " + base64.b64encode(initial.encode()).decode())
        smtp.docmd("AUTH PLAIN \x1b[31m")
        log = daemon.log_file.read_text()
        for raw in ["\u202e", "\u2028", "\x1b", "\r"]:
            self.assertNotIn(raw, log)

    def test_an_unknown_user_is_refused_as_slowly_as_a_known_one(self):
        daemon = self.auth_daemon('failures: 1000, max_delay: "0s"')
        times = {ALICE: [], "nobody@example.test": []}
        for _ in range(15):
            for name, taken in times.items():
                smtp = self.smtp(daemon)
                encoded = base64.b64encode(f"\0{name}\0wrong".encode()).decode()
                start = time.monotonic()
                self.assertEqual(smtp.docmd("AUTH", f"PLAIN {encoded}")[0], 535)
                taken.append(time.monotonic() - start)
        known, unknown = (statistics.median(taken) for taken in times.values())
        # Without hashing it would be a hundredth.
        self.assertGreater(unknown, known / 2)
        self.assertLess(unknown, known * 2)
