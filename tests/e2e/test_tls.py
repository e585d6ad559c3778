"""TLS with other programs at the other end: openssl, swaks and Python's smtplib; and who may speak for whom."""
import os
import re
import resource
import smtplib
import socket
import ssl
import subprocess

from harness import PATIENCE, TestCase, free_port, queued_as, wait_until

CONFIG = """Empath(
    hostname: "mx.home.test",
    smtp: (
        listeners: [
            (socket: "127.0.0.1:{port}"),
            (socket: "127.0.0.1:{submissions}", mode: Submissions),
            (socket: "127.0.0.1:{balanced}", proxy_protocol: ["127.0.0.0/8"]),
        ],
        tls: [
            (names: ["*"], certificate: "tls/cert.pem", key: "tls/key.pem"),
            (names: ["*.other.test"], certificate: "tls/other.pem", key: "tls/other.key"),
        ],
        client_ca: "tls/cert.pem",
        relay_networks: ["127.0.0.0/8"],
        xclient: ["127.0.0.2"],
        limits: ({limits}),
    ),
    spool: (path: "spool"),
    delivery: (domains: {"*": (maildir: "mail/{address}")}),
    control_socket: "control.sock",
    health: (listen_address: "127.0.0.1:{health}"),
    metrics: (listen_address: "127.0.0.1:{metrics}"),
)
"""


def certify(directory, name, certificate="cert.pem", key="key.pem", algorithm=("ec", "-pkeyopt", "ec_paramgen_curve:P-256")):
    """A self-signed certificate for `name`; the files appear under their names at once."""
    directory.mkdir(exist_ok=True)
    new = [directory / f"{file}.new" for file in (certificate, key)]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", *algorithm, "-noenc", "-days", "2", "-subj", f"/CN={name}",
         "-addext", f"subjectAltName=DNS:{name}", "-out", new[0], "-keyout", new[1]],
        check=True, capture_output=True)
    for file in new:
        file.rename(file.with_suffix(""))


def sign(directory, name, days="2"):
    """A certificate for `name`, signed by that of cert.pem: (certificate, key)."""
    request, certificate, key = (directory / f"{name}.{kind}" for kind in ("csr", "pem", "key"))
    subprocess.run(
        ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-subj",
         f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-out", request, "-keyout", key],
        check=True, capture_output=True)
    subprocess.run(
        ["openssl", "x509", "-req", "-in", request, "-CA", directory / "cert.pem", "-CAkey", directory / "key.pem",
         "-CAcreateserial", "-copy_extensions", "copy", "-days", days, "-out", certificate],
        check=True, capture_output=True)
    return certificate, key


def s_client(port, *arguments, commands="QUIT\n"):
    """What openssl says about a connection."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-crlf", *arguments],
        input=commands, capture_output=True, text=True, timeout=PATIENCE)
    return done.stdout + done.stderr


def subject(daemon, name):
    """Whose certificate a client is shown that asks for `name`."""
    return re.search(r"^subject=CN ?= ?(.*)$", s_client(daemon.port, "-starttls", "smtp", "-servername", name), re.M)[1]


class Tls(TestCase):
    def tls_daemon(self, limits="", **keywords):
        self.submissions, self.balanced = free_port(), free_port()
        daemon = self.daemon(
            config=CONFIG, start=False, submissions=self.submissions, balanced=self.balanced, limits=limits)
        self.tls = daemon.dir / "tls"
        certify(self.tls, "mx.home.test")
        certify(self.tls, "any.other.test", "other.pem", "other.key")
        daemon.start(**keywords)
        return daemon

    def test_openssl_speaks_tls_1_3_and_1_2_and_nothing_older(self):
        daemon = self.tls_daemon()
        for version, cipher in [("TLSv1.3", "TLS_"), ("TLSv1.2", "ECDHE-")]:
            flag = "-" + version.lower().replace(".", "_").replace("v", "")
            for connection in [(daemon.port, "-starttls", "smtp"), (self.submissions,)]:
                said = s_client(*connection, flag)
                self.assertRegex(said, rf"New, {version}, Cipher is {cipher}")
        self.assertIn("New, TLSv1.3", s_client(daemon.port, "-starttls", "smtp"))
        for flag in ["-tls1_1", "-tls1"]:
            said = s_client(daemon.port, "-starttls", "smtp", flag, "-cipher", "ALL:@SECLEVEL=0")
            self.assertIn("Cipher is (NONE)", said)
            self.assertRegex(said, r"alert (handshake failure|protocol version)")

    def test_the_certificate_follows_the_name_and_the_files(self):
        daemon = self.tls_daemon()

        self.assertEqual([subject(daemon, name) for name in ["mx.home.test", "a.other.test", "x.test"]],
                         ["mx.home.test", "any.other.test", "mx.home.test"])
        certify(self.tls, "renewed.test", algorithm=("rsa:2048",))
        self.assertEqual(subject(daemon, "mx.home.test"), "renewed.test")
        (self.tls / "key.pem").write_text("no longer a key")
        self.assertEqual([subject(daemon, "mx.home.test"), subject(daemon, "mx.home.test")], ["renewed.test"] * 2)
        errors = daemon.logged(lambda line: line.get("level") == "ERROR")
        self.assertEqual(len(errors), 1, errors)
        self.assertIn("there is no key in it", str(errors))

    def test_keys_may_be_written_in_each_of_the_usual_forms(self):
        daemon = self.tls_daemon()
        for command, start in [
                (["ec"], "-----BEGIN EC PRIVATE KEY"),
                (["rsa", "-traditional"], "-----BEGIN RSA PRIVATE KEY"),
                (["pkcs8", "-topk8", "-nocrypt"], "-----BEGIN PRIVATE KEY")]:
            certify(self.tls, f"{command[0]}.test", algorithm=("rsa:2048",) if command[0] == "rsa" else
                    ("ec", "-pkeyopt", "ec_paramgen_curve:P-384"))
            key = self.tls / "key.pem"
            written = subprocess.run(["openssl", *command, "-in", key], check=True, capture_output=True).stdout
            key.write_bytes(written)
            self.assertIn(start, written.decode())
            self.assertEqual(subject(daemon, "mx.home.test"), f"{command[0]}.test")

    def test_swaks_sends_over_starttls(self):
        daemon = self.tls_daemon()
        done = subprocess.run(
            ["swaks", "--server", "127.0.0.1", "--port", str(daemon.port), "--tls", "--from", "s@home.test",
             "--to", "a@example.test", "--helo", "client.test"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("=== TLS started with cipher TLSv1.", done.stdout)
        content = self.delivered(daemon)
        self.assertRegex(content, r"with ESMTPS id \w+\r?\n\tfor <a@example.test>\r?\n\ttls TLS_\w+ \(TLSv1\.[23]\);")
        [received] = daemon.logged("received")
        self.assertRegex(received["tls"], r"^TLSv1\.[23]$")
        self.assertRegex(received["cipher"], "^TLS_")

    def test_swaks_speaks_tls_on_connect(self):
        self.tls_daemon()
        done = subprocess.run(
            ["swaks", "--server", "127.0.0.1", "--port", str(self.submissions), "--tls-on-connect", "--from",
             "s@home.test", "--to", "a@example.test", "--helo", "client.test"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
        self.assertIn("220 mx.home.test ESMTP", done.stdout)
        self.assertIn("<~* 530 5.7.0 Authentication required", done.stdout, "also from relay_networks")

    def test_smtplib_verifies_the_name_and_shows_a_certificate_of_its_own(self):
        daemon = self.tls_daemon()
        context = ssl.create_default_context(cafile=self.tls / "cert.pem")
        context.load_cert_chain(*sign(self.tls, "client.test"))
        with smtplib.SMTP("localhost", daemon.port, timeout=PATIENCE) as smtp:
            # The certificate is not for the name under which smtplib connects.
            smtp._host = "mx.home.test"
            smtp.starttls(context=context)
            self.assertEqual(smtp.sock.version(), "TLSv1.3")
            smtp.ehlo()
            self.assertNotIn("starttls", smtp.esmtp_features)
            smtp.mail("s@home.test")
            smtp.rcpt("a@example.test")
            code, reply = smtp.data(b"Subject: x\r\n\r\nx\r\n")
            self.assertEqual(code, 250)
        [received] = daemon.logged("received")
        self.assertEqual((received["message_id"], received["tls"]), (queued_as(reply), "TLSv1.3"))
        self.assertEqual(received["certificate"], "CN=client.test")

    def test_a_load_balancer_names_the_client(self):
        daemon = self.tls_daemon()
        with socket.create_connection(("127.0.0.1", self.balanced), PATIENCE) as connection:
            connection.sendall(b"PROXY TCP4 203.0.113.9 192.0.2.25 4000 25\r\n")
            with smtplib_on(connection) as smtp:
                smtp.ehlo("client.test")
                smtp.mail("s@home.test")
                self.assertEqual(smtp.rcpt("a@example.test")[0], 550, "it is not in relay_networks")
        [refused] = daemon.logged("refused")
        self.assertEqual(refused["peer"], "203.0.113.9:4000")

    def test_xclient_is_for_those_who_are_listed(self):
        daemon = self.tls_daemon()
        for source, code in [("127.0.0.2", 220), ("127.0.0.1", 550)]:
            with socket.create_connection(("127.0.0.1", daemon.port), PATIENCE, (source, 0)) as connection:
                with smtplib_on(connection) as smtp:
                    smtp.ehlo("proxy.test")
                    self.assertEqual("xclient" in smtp.esmtp_features, code == 220)
                    self.assertEqual(smtp.docmd("XCLIENT ADDR=203.0.113.9")[0], code)

    def test_a_daemon_without_descriptors_recovers(self):
        daemon = self.tls_daemon()
        # Taken away while it runs, so that it could not prepare for it.
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (64, 64))
        open_connections = [socket.create_connection(("127.0.0.1", daemon.port), PATIENCE) for _ in range(100)]
        wait_until(lambda: any("cannot be accepted" in str(line) for line in daemon.lines()), "accepting fails")
        for connection in open_connections:
            connection.close()
        with daemon.smtp() as smtp:
            self.assertEqual(smtp.noop()[0], 250)

    def test_the_limit_of_open_files_is_raised_or_missed(self):
        daemon = self.tls_daemon(limits="connections: 20000", limit=(100, 4096))
        soft, hard = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
        self.assertEqual((soft, hard), (4096, 4096))
        warning, *_ = daemon.logged(lambda line: line.get("level") == "WARN")
        self.assertIn("too few open files", str(warning))

    def test_what_is_wrong_with_a_certificate_is_told_by_check(self):
        daemon = self.tls_daemon()
        key = self.tls / "key.pem"
        key.write_bytes((self.tls / "other.key").read_bytes())
        status, said = self.check(daemon)
        self.assertEqual(status, 78)
        self.assertRegex(said, r"empath\.config\.ron:10:\d+: smtp\.tls\[0\]\.key: .* is not the key of the certificate")

    def test_an_expired_certificate_is_a_warning(self):
        daemon = self.tls_daemon()
        certificate, key = sign(self.tls, "old.test", days="-1")
        certificate.rename(self.tls / "cert.pem")
        key.rename(self.tls / "key.pem")
        status, said = self.check(daemon)
        self.assertEqual(status, 0, said)
        self.assertRegex(said, r"warning: smtp\.tls\[0\]\.certificate: expired at .*Z: renew it")

    def check(self, daemon):
        done = subprocess.run([os.environ["EMPATH_BIN"], "check", "--config", daemon.config], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=PATIENCE)
        return done.returncode, done.stdout + done.stderr

    def delivered(self, daemon):
        daemon.wait_until_empty()
        [message] = (daemon.dir / "mail").glob("*/new/*")
        return message.read_bytes().decode()


def smtplib_on(connection):
    """smtplib with a connection that exists already."""
    class Connected(smtplib.SMTP):
        def _get_socket(self, host, port, timeout):
            return connection

    return Connected("127.0.0.1", 25)
