"""Clients that do what no client should: the log stays whole, memory stays small, others are served."""
import base64
import json
import pathlib
import re
import socket
import ssl
import time
import urllib.request

from harness import PATIENCE, TestCase, free_port, message, wait_until
from test_tls import certify

CONFIG = """Empath(
    hostname: "mx.home.test",
    smtp: (
        listeners: [
            (socket: "127.0.0.1:{port}", timeouts: (command: "{command}", handshake: "2s")),
            (socket: "127.0.0.1:{submissions}", mode: Submissions, timeouts: (handshake: "2s")),
        ],
        tls: [(names: ["*"], certificate: "tls/cert.pem", key: "tls/key.pem")],
        auth: (users_file: "users", require_tls: false, mechanisms: [Plain, Login], failures: 1000, max_delay: "0s"),
        relay_networks: [],
        local_domains: ["box.test"],
        xclient: ["127.0.0.2"],
        limits: ({limits}),
    ),
    spool: (path: "spool"),
    delivery: (domains: {"*": (maildir: "mail/{address}")}),
    control_socket: "control.sock",
    health: (listen_address: "127.0.0.1:{health}"),
    metrics: (listen_address: "127.0.0.1:{metrics}"),
    log: (level: "debug", format: {format}),
)
"""
# alice, whose password is "secret", with a cheap hash.
USERS = (
    "alice@box.test $argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$+v0rf6ETYAIpqJIjJyARZ3W3zqJlkf+0TRXzsLHmR6o "
    "SCRAM-SHA-256$4096:c2FsdHNhbHQ=$v9cxy4WCDtc8UMxTg6KXCtlxIku1bUKTGuWEXFC1L54=:rwGpSn6lR97mSEImO0RA7JCZ4WnpCnnKddTt3G/t6II=\n")
TO_DATA = b"EHLO c.test\r\nMAIL FROM:<a@o.test>\r\nRCPT TO:<b@box.test>\r\nDATA\r\n"
# Each of them would end a line for somebody, move a cursor, or turn text around.
CONTROLS = ["\x1b[2J\x1b]0;x\x07", "\x7f", "\x08\x08", "\t", "\x0b\x0c", "\x85", "\x9b31m", "\u2028", "\u2029", "\u202e",
            "\u2066", "\ufeff", "\udcff\udcfe", "\udcc3", '"}\\n{"message":"received"}', "%s%n", "${jndi:x}", "\\"]
RAW = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufffd\ud800-\udfff]")


class Hostile(TestCase):
    def hostile_daemon(self, limits="", command="5m", format="Json"):
        self.submissions = free_port()
        daemon = self.daemon(config=CONFIG, start=False, limits=limits, command=command, format=format,
                             submissions=self.submissions)
        certify(daemon.dir / "tls", "mx.home.test")
        (daemon.dir / "users").write_text(USERS)
        (daemon.dir / "users").chmod(0o600)
        if format == "Text":
            daemon.is_ready = lambda: re.search(" ready( |$)", daemon.log_file.read_text(), re.M)
        daemon.start()
        return daemon

    def connect(self, daemon, source="127.0.0.1"):
        connection = socket.create_connection(("127.0.0.1", daemon.port), PATIENCE, (source, 0))
        self.addCleanup(connection.close)
        return connection

    def say(self, daemon, octets, source="127.0.0.1"):
        """Sends it all, closes that side, and returns everything that comes."""
        with self.connect(daemon, source) as s:
            s.sendall(octets)
            s.shutdown(socket.SHUT_WR)
            heard = b""
            while part := s.recv(65536):
                heard += part
            return heard

    def resident(self, daemon):
        status = pathlib.Path(f"/proc/{daemon.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024

    def cpu(self, daemon):
        """Seconds that all threads have run."""
        tasks = pathlib.Path(f"/proc/{daemon.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def test_one_event_is_one_line_whatever_clients_send(self):
        for format in ("Json", "Text"):
            daemon = self.hostile_daemon(limits="errors: 100000, idle_commands: 100000", format=format)
            for control in CONTROLS:
                octets = control.encode(errors="surrogateescape")
                auth = base64.b64encode(b"\0al" + octets + b"ice\0secretly")
                self.say(daemon, b"\r\n".join([
                    octets, b"EHLO " + octets, b"EHLO c" + octets + b".test", b"HELO " + octets, b"EHLO c.test",
                    b"MAIL FROM:<" + octets + b"@o.test>", b"MAIL FROM:<a@o" + octets + b".test>",
                    b'MAIL FROM:<"' + octets + b'"@o.test> SMTPUTF8', b"RSET",
                    b"MAIL FROM:<a@o.test> " + octets, b"MAIL FROM:<a@o.test> SIZE=" + octets,
                    b"AUTH " + octets, b"AUTH PLAIN " + auth, b"AUTH PLAIN " + octets, b"AUTH LOGIN",
                    base64.b64encode(octets), base64.b64encode(b"secretly"),
                    b"MAIL FROM:<a@o.test> SMTPUTF8", b"RCPT TO:<" + octets + b"@elsewhere.test>",
                    b'RCPT TO:<"' + octets + b'"@elsewhere.test>', b"RCPT TO:<r@" + octets + b".test>",
                    b"RCPT TO:<b@box.test>", b"VRFY " + octets, b"NOOP " + octets, b"HELP " + octets,
                    b"XCLIENT NAME=" + octets, b"DATA", b"Subject: " + octets, octets + b": " + octets,
                    b"X-Empath-Priority: " + octets, b"", octets, b".", b"QUIT", b""]))
                self.say(daemon, b"XCLIENT NAME=" + octets + b" LOGIN=" + octets + b"\r\nXCLIENT NAME=x+0D+0Ay LOGIN=x+0Ay+1B[m\r\n"
                         b"XCLIENT HELO=" + octets + b" ADDR=" + octets + b"\r\nEHLO c.test\r\nMAIL FROM:<>\r\n", "127.0.0.2")
            self.say(daemon, b"NOOP a\nreceived\r\nMAIL FROM:<a\rb@o.test>\r\nEHLO \0\r\n")
            daemon.wait_until_empty()
            text = daemon.log_file.read_bytes()
            # Surrogates stand for what is not UTF-8.
            lines = text.decode(errors="surrogateescape").split("\n")
            self.assertEqual([line for line in lines if RAW.search(line)], [])
            self.assertNotIn(b"secretly", text)
            self.assertNotIn(base64.b64encode(b"secretly"), text)
            if format == "Json":
                events = [message(json.loads(line)) for line in lines if line]
                received = [event for event in events if event == "received"]
                self.assertEqual(len(received), len(CONTROLS))
                self.assertTrue(all(events))
            else:
                self.assertTrue(all(re.match(r"\d{4}-\d\d-\d\dT\S+Z +(ERROR|WARN|INFO|DEBUG) ", line) for line in lines if line))
            page = urllib.request.urlopen(f"http://127.0.0.1:{daemon.metrics}/metrics", timeout=PATIENCE).read().decode()
            labels = set(re.findall(r'^empath_smtp_\w+\{\w+="([^"]*)"', page, re.M))
            self.assertLess(len(labels), 100)
            self.assertEqual([label for label in labels if not re.fullmatch(r"[\w. +-]+", label)], [])

    def test_a_client_that_never_reads_its_replies_costs_little_and_is_left(self):
        daemon = self.hostile_daemon(limits="idle_commands: 100000000", command="2s")
        self.say(daemon, TO_DATA + b"x\r\n.\r\nQUIT\r\n")
        before = self.resident(daemon)
        greedy = []
        for _ in range(20):
            connection = socket.socket()
            self.addCleanup(connection.close)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", daemon.port))
            connection.setblocking(False)
            greedy.append(connection)
        noops, gone = b"NOOP\r\n" * 20000, set()

        def send():
            for connection in greedy:
                try:
                    connection.send(noops)
                except BlockingIOError:
                    pass
                except OSError:
                    gone.add(connection)
            return len(gone) == len(greedy)

        wait_until(send, "all of them were left")
        self.assertLess(self.resident(daemon), before + 16)
        self.assertIn(b"250 2.0.0", self.say(daemon, b"NOOP\r\nQUIT\r\n"))

    def test_what_is_no_handshake_is_closed_and_says_nothing_in_clear(self):
        daemon = self.hostile_daemon()
        for octets in [b"EHLO c.test\r\n", b"\0" * 100_000, b"\x16\x03\x01\xff\xff" + b"x" * 70_000, b"GET / HTTP/1.0\r\n\r\n",
                       b"\x80\x2e\x01\0\x02", b"\x16\x03", b""]:
            with socket.create_connection(("127.0.0.1", self.submissions), PATIENCE) as s:
                self.assertNotRegex(self.provoke(s, octets), rb"^[0-9]{3}")
            with self.connect(daemon) as s:
                stream = s.makefile("rb")
                s.sendall(b"EHLO c.test\r\n")
                while stream.readline()[:4] != b"250 ":
                    pass
                s.sendall(b"STARTTLS\r\n")
                self.assertEqual(stream.readline()[:3], b"220")
                self.assertNotRegex(self.provoke(s, octets), rb"[245]\d\d[ -]")
        page = urllib.request.urlopen(f"http://127.0.0.1:{daemon.metrics}/metrics", timeout=PATIENCE).read().decode()
        failures = re.findall(r'^empath_smtp_tls_handshake_failures_total\{reason="(\w+)"\} (\d+)$', page, re.M)
        self.assertEqual(sum(int(count) for _, count in failures), 14, failures)

    def provoke(self, connection, octets):
        """What a server says to that until it closes."""
        heard = b""
        try:
            connection.sendall(octets)
            while part := connection.recv(65536):
                heard += part
        except ConnectionError:
            pass
        return heard

    def test_tls_that_ends_without_a_word_is_an_end(self):
        daemon = self.hostile_daemon()
        context = ssl.create_default_context(cafile=daemon.dir / "tls/cert.pem")
        for said in [b"", b"EHLO c.test\r\n", b"NOOP\r\nNO"]:
            clear = socket.create_connection(("127.0.0.1", self.submissions), PATIENCE)
            with context.wrap_socket(clear, server_hostname="mx.home.test") as s:
                s.recv(1000)
                s.sendall(said)
                # Without unwrap, there is no close_notify.
        wait_until(lambda: daemon.ctl("system", "status")[0]["connections"]["inbound"] == 0, "the sessions have ended")

    def test_the_work_for_a_header_grows_with_its_size_and_no_faster(self):
        daemon = self.hostile_daemon(limits='header_fields: 1000000, header_size: "64MiB"')

        def spent(header):
            before = self.cpu(daemon)
            heard = self.say(daemon, TO_DATA + header + b"\r\nx\r\n.\r\nQUIT\r\n")
            self.assertIn(b"250 2.0.0 Ok: queued", heard)
            daemon.wait_until_empty()
            return self.cpu(daemon) - before

        for name, header in [("fields", lambda n: b"X: y\r\n" * n), ("folds", lambda n: b"Subject: x\r\n" + b" x\r\n" * n),
                             ("words", lambda n: b"To: a@b.test" + b",\r\n a@b.test" * n + b"\r\n"),
                             ("hops", lambda n: b"Received: x\r\n" * 60 + b"X: y\r\n" * n)]:
            few, many = (min(spent(header(n)) for _ in range(3)) for n in (10_000, 100_000))
            self.assertLess(many, 30 * few, name)

    def test_a_line_of_100_mb_costs_no_memory(self):
        daemon = self.hostile_daemon()
        self.say(daemon, TO_DATA + b"x\r\n.\r\nQUIT\r\n")
        before = self.resident(daemon)
        for start, end, codes in [(b"NOOP ", b"\r\nNOOP\r\n", [b"500", b"250"]),
                                  (TO_DATA, b"\r\n.\r\nNOOP\r\n", [b"554", b"250"]),
                                  (TO_DATA + b"Subject: x\r\n\r\n", b"\r\n.\r\nNOOP\r\n", [b"554", b"250"])]:
            with self.connect(daemon) as s:
                s.sendall(start)
                for _ in range(100):
                    s.sendall(b"x" * (1 << 20))
                self.assertLess(self.resident(daemon), before + 16)
                s.sendall(end)
                stream, found = s.makefile("rb"), []
                while found[-2:] != codes:
                    found.append(stream.readline()[:3])
                    self.assertNotEqual(found[-1], b"", found)
        self.assertEqual([line for line in daemon.lines() if "panic" in str(line)], [])
