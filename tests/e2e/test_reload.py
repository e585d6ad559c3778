"""The configuration is reloaded, by signal and by empathctl, while mail is sent."""
import json
import os
import pathlib
import re
import signal
import smtplib
import socket
import subprocess
import tempfile
import urllib.request

from harness import PATIENCE, TestCase, free_port, message, wait_until
from load import Load
from test_tls import certify, s_client

CONFIG = """Empath(
    hostname: "mx.home.test",
    smtp: (
        listeners: [(socket: "127.0.0.1:{port}")],
        tls: [{tls}],
        relay_networks: [{networks}],
        {smtp}
    ),
    spool: (path: "spool"),
    delivery: (
        retry: (base_delay: "1h", jitter: 0.0),
        domains: {"*": (mx_override: "127.0.0.1:{sink}")},
        {delivery}
    ),
    dsn: ({dsn}),
    control_socket: "control.sock",
    health: (listen_address: "127.0.0.1:{health}"),
    metrics: (listen_address: "127.0.0.1:{metrics}"),
    log: (level: "{level}"),
)
"""
CONTENT = b"Subject: reload\r\n\r\nhello\r\n"
ROUTE = 'delivery.domains["*"].mx_override'


def fill(text, **places):
    places = {"tls": "", "networks": '"127.0.0.0/8"', "smtp": "", "dsn": "", "delivery": "", "level": "info", **places}
    return re.sub(r"\{(\w+)\}", lambda m: str(places.get(m[1], m[0])), text)


def open_connections(daemon):
    with urllib.request.urlopen(f"http://127.0.0.1:{daemon.metrics}/metrics", timeout=10) as page:
        text = page.read().decode()
    return int(re.search(r"^empath_smtp_connections_active (\d+)", text, re.M)[1])


class Reload(TestCase):
    def reloading(self, **places):
        """A daemon whose configuration `write` changes."""
        daemon = self.daemon(config=CONFIG, start=False)
        self.write(daemon, **places)
        return daemon

    def write(self, daemon, **places):
        ports = {"port": daemon.port, "health": daemon.health, "metrics": daemon.metrics}
        daemon.config.write_text(fill(CONFIG, **{**ports, **places}))

    def reload(self, daemon, **places):
        """Writes the configuration and reloads it: what empathctl prints."""
        self.write(daemon, **places)
        [answer] = daemon.ctl("config", "reload")
        self.assertEqual(set(answer), {"changed", "needs_restart"})
        return answer

    def hang_up(self, daemon, line="configuration reloaded"):
        """Sends SIGHUP and returns the line of the log that says what came of it."""
        def lines():
            return [entry for entry in daemon.lines() if message(entry) == line]
        before = len(lines())
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(lines()) > before, f"SIGHUP: {line}")
        return lines()[-1]

    def answer(self, smtp, *command):
        code, text = smtp.docmd(*command)
        return f"{code} {text.decode()}"

    def test_under_load_no_connection_and_no_message_is_lost(self):
        sinks = [self.sink(), self.sink()]
        daemon = self.reloading(sink=sinks[0].port)
        daemon.start()
        load = Load(self, daemon)
        for n in range(1, 21):
            count = len(load.acknowledged)
            wait_until(lambda: len(load.acknowledged) > count + 20, "mail is accepted")
            self.write(daemon, sink=sinks[n % 2].port, level=["info", "debug"][n % 2])
            if n % 3:
                [answer] = daemon.ctl("config", "reload")
                self.assertEqual(answer, {"changed": [ROUTE, "log.level"], "needs_restart": []})
            else:
                self.hang_up(daemon)
        load.stop()
        wait_until(lambda: sum(len(sink.messages) for sink in sinks) >= len(load.acknowledged), "all arrived")
        daemon.wait_until_empty()
        times = load.arrived(sinks[0]) + load.arrived(sinks[1])
        self.assertEqual(set(times), set(load.acknowledged))
        self.assertEqual(set(times.values()), {1}, "each came once")
        self.assertEqual((load.refused, load.unanswered), ({}, set()), "nobody noticed")
        self.assertTrue(all(len(sink.messages) > 20 for sink in sinks), "the mail followed the configuration")

    def test_mail_for_a_dead_host_follows_and_keeps_its_time(self):
        sink = self.sink()
        daemon = self.reloading(sink=free_port())
        daemon.start()
        queued = daemon.send("s@home.test", ["u@example.test"], CONTENT)
        wait_until(lambda: daemon.queue()[0]["recipients"][0]["attempts"] == 1, "an attempt has failed")
        before = daemon.queue()[0]["recipients"][0]
        self.assertEqual(self.reload(daemon, sink=sink.port), {"changed": [ROUTE], "needs_restart": []})
        after = daemon.queue()[0]["recipients"][0]
        self.assertEqual(after["next_attempt_at"], before["next_attempt_at"])
        self.assertEqual(after["next_hop"], f"smtp:127.0.0.1:{sink.port}")
        daemon.ctl("queue", "retry", queued)
        sink.wait_for(1)
        daemon.wait_until_empty()

    def test_a_file_with_errors_changes_nothing_and_every_error_has_its_place(self):
        sink, other = self.sink(), self.sink()
        daemon = self.reloading(sink=sink.port)
        daemon.start()
        self.write(daemon, sink=other.port, smtp="limit: (),", level="loud")
        text = daemon.config.read_text().splitlines()
        at = {word: number for number, line in enumerate(text, 1) for word in ("limit:", "loud") if word in line}
        done = subprocess.run(
            [os.environ["EMPATHCTL_BIN"], "-c", str(daemon.dir / "control.sock"), "--json", "config", "reload"],
            capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        error = json.loads(done.stderr)["error"]
        self.assertEqual(error["code"], "refused")
        lines = error["message"].splitlines()
        self.assertEqual(len(lines), 2, lines)
        for line, number, about in zip(lines, [at["limit:"], at["loud"]], ["did you mean `limits`", "log.level: is none"]):
            self.assertRegex(line, rf"^{re.escape(str(daemon.config))}:{number}:\d+: .*{about}")
        plain = subprocess.run([os.environ["EMPATHCTL_BIN"], "-c", str(daemon.dir / "control.sock"), "config", "reload"],
                               capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(plain.stderr.splitlines(), [f"empathctl: {line}" for line in lines])
        logged = self.hang_up(daemon, "the configuration was not reloaded, and nothing has changed")
        self.assertEqual((logged["error"], logged["level"]), (lines[-1], "ERROR"))
        daemon.send("s@home.test", ["u@example.test"], CONTENT)
        sink.wait_for(1)
        self.assertEqual(other.messages, [])
        # What was wrong is not remembered.
        self.assertEqual(self.reload(daemon, sink=other.port)["changed"], [ROUTE])

    def test_what_needs_a_restart_is_named_and_waits_for_it(self):
        sink = self.sink()
        daemon = self.reloading(sink=sink.port)
        daemon.start()
        config = daemon.config.read_text()
        new = config.replace("mx.home.test", "new.home.test").replace(
            'path: "spool"', 'path: "other", large_threshold: "2MiB"').replace(
            "base_delay: \"1h\"", "base_delay: \"2h\"")
        new = new.replace('tls: [],', 'tls: [], limits: (recipients: 7, content_memory: "300MiB"),')
        new = new.replace(f'socket: "127.0.0.1:{daemon.port}"', f'socket: "127.0.0.1:{free_port()}"')
        daemon.config.write_text(new)
        waiting = ["hostname", "smtp.limits.content_memory", "smtp.listeners", "spool.large_threshold", "spool.path"]
        [answer] = daemon.ctl("config", "reload")
        self.assertEqual(answer, {"changed": ["delivery.retry.base_delay", "smtp.limits.recipients"],
                                  "needs_restart": waiting})
        [answer] = daemon.ctl("config", "reload")
        self.assertEqual(answer, {"changed": [], "needs_restart": waiting}, "it still does")
        line = self.hang_up(daemon)
        self.assertEqual((line["changed"], line["needs_restart"].split()), ("", waiting))
        with daemon.smtp() as smtp:
            self.assertIn("mx.home.test", smtp.ehlo()[1].decode().splitlines()[0])
        # What the file says of certificates contradicts the listener that there will be until then.
        certify(daemon.dir / "tls", "mx.home.test")
        listeners = f'(socket: "127.0.0.1:{daemon.port}"), (socket: "127.0.0.1:{free_port()}", mode: Submissions)'
        encrypted = config.replace(f'(socket: "127.0.0.1:{daemon.port}")', listeners).replace(
            "tls: []", 'tls: [(certificate: "tls/cert.pem", key: "tls/key.pem")]')
        daemon.terminate()
        daemon.config.write_text(encrypted)
        daemon.start()
        daemon.config.write_text(config)
        done = subprocess.run([os.environ["EMPATHCTL_BIN"], "-c", str(daemon.dir / "control.sock"), "config", "reload"],
                              capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"smtp\.listeners\[1\]\.mode: .*needs a restart")

    def test_sessions_keep_what_they_began_with_and_new_ones_have_what_is_new(self):
        sink = self.sink()
        daemon = self.reloading(sink=sink.port)
        daemon.start()
        with daemon.smtp() as old:
            self.assertIn("DSN", old.ehlo()[1].decode())
            answer = self.reload(
                daemon, sink=sink.port, networks='"192.0.2.0/24"', dsn="enabled: false",
                smtp='relay_domains: ["relay.test"], local_domains: ["local.test"], bare_newlines: Normalize, '
                     'xclient: ["127.0.0.1"], limits: (message_size: "1KiB", recipients: 2),')
            self.assertEqual(answer["needs_restart"], [])
            self.assertEqual(answer["changed"], [
                "dsn.enabled", "smtp.bare_newlines", "smtp.limits.message_size", "smtp.limits.recipients",
                "smtp.local_domains", "smtp.relay_domains", "smtp.relay_networks", "smtp.xclient"])
            self.assertTrue(self.answer(old, "MAIL", "FROM:<s@home.test> SIZE=2000").startswith("250"))
            self.assertTrue(self.answer(old, "RCPT", "TO:<u@elsewhere.test>").startswith("250"))
            self.assertEqual(old.data(CONTENT)[0], 250, "the session goes on")
            with daemon.smtp() as new:
                offered = new.ehlo()[1].decode()
                self.assertNotIn("DSN", offered)
                self.assertIn("SIZE 1024", offered)
                self.assertIn("XCLIENT", offered)
                self.assertTrue(self.answer(new, "MAIL", "FROM:<s@home.test> SIZE=2000").startswith("552"))
                new.mail("s@home.test")
                self.assertTrue(self.answer(new, "RCPT", "TO:<u@elsewhere.test>").startswith("550"))
                for domain in ["relay.test", "local.test"]:
                    self.assertTrue(self.answer(new, "RCPT", f"TO:<u@{domain}>").startswith("250"), domain)
                self.assertTrue(self.answer(new, "RCPT", "TO:<third@local.test>").startswith("452"))
                new.putcmd("data")
                new.getreply()
                new.send(b"Subject: x\r\n\r\na\nb\r\n.\r\n")
                self.assertEqual(new.getreply()[0], 250)
            wait_until(lambda: open_connections(daemon) == 1, "the old one is counted, and the new one has ended")
        self.assertEqual([to for _, to, _ in sink.wait_for(2)],
                         [["u@elsewhere.test"], ["u@relay.test", "u@local.test"]])

    def test_the_most_connections_of_an_address_count_for_who_comes(self):
        daemon = self.reloading(sink=self.sink().port)
        daemon.start()
        with daemon.smtp(), daemon.smtp():
            self.reload(daemon, sink=1, smtp="limits: (connections_per_address: 2),")
            with self.assertRaises(smtplib.SMTPConnectError) as refused:
                daemon.smtp()
            self.assertEqual(refused.exception.smtp_code, 421)
            self.reload(daemon, sink=1, smtp="limits: (connections_per_address: 3),")
            daemon.smtp().close()
            wait_until(lambda: open_connections(daemon) == 2, "those that were there are there")

    def test_renewed_and_other_certificates_are_shown(self):
        sink = self.sink().port
        pair = '(certificate: "tls/{0}.pem", key: "tls/{0}.key")'.format
        daemon = self.reloading(sink=sink)
        tls = daemon.dir / "tls"
        for name in ("one.test", "two.test"):
            certify(tls, name, f"{name}.pem", f"{name}.key")
        daemon.start()

        def shown():
            said = s_client(daemon.port, "-starttls", "smtp")
            return re.findall(r"^subject=CN ?= ?(.*)$", said, re.M)
        with daemon.smtp() as smtp:
            smtp.ehlo()
            self.assertFalse(smtp.has_extn("starttls"), "there is no certificate")
        self.assertEqual(self.reload(daemon, sink=sink, tls=pair("one.test"))["changed"], ["smtp.tls"])
        self.assertEqual(shown(), ["one.test"])
        self.assertEqual(self.reload(daemon, sink=sink, tls=pair("two.test"))["changed"], ["smtp.tls"])
        self.assertEqual(shown(), ["two.test"])
        certify(tls, "renewed.test", "two.test.pem", "two.test.key")
        self.assertEqual(self.hang_up(daemon)["changed"], "", "the text is the same")
        self.assertEqual(shown(), ["renewed.test"])

    def test_users_come_and_go_with_the_file_that_is_named(self):
        sink = self.sink().port
        daemon = self.reloading(sink=sink)
        tls = 'certificate: "tls/cert.pem", key: "tls/key.pem"'
        certify(daemon.dir / "tls", "mx.home.test")
        for name in ("alice", "bob"):
            subprocess.run([os.environ["EMPATH_BIN"], "user", "add", "--users-file", str(daemon.dir / name), f"{name}@home.test"],
                           input="correct horse\n", text=True, capture_output=True, check=True)
        daemon.start()

        def logs_in(name):
            with daemon.smtp() as smtp:
                smtp.ehlo()
                if not smtp.has_extn("auth"):
                    return None
                try:
                    return smtp.login(f"{name}@home.test", "correct horse")[0] == 235
                except smtplib.SMTPAuthenticationError:
                    return False
        self.assertIsNone(logs_in("alice"))
        for name, other in [("alice", "bob"), ("bob", "alice")]:
            auth = f'auth: (users_file: "{name}", require_tls: false),'
            self.reload(daemon, sink=sink, tls=f"({tls})", smtp=auth)
            self.assertEqual((logs_in(name), logs_in(other)), (True, False))

    def test_what_intake_goes_by_follows(self):
        dead = free_port()
        daemon = self.reloading(sink=dead)
        daemon.start()
        urgent = daemon.send("s@home.test", ["u@example.test"], b"X-Empath-Priority: high\r\n" + CONTENT)
        answer = self.reload(daemon, sink=dead, delivery='priority_header: "X-Other"', smtp="limits: (queue_size: 2),")
        self.assertEqual(answer["changed"], ["delivery.priority_header", "smtp.limits.queue_size"])
        bulk = daemon.send("s@home.test", ["u@example.test"], b"X-Empath-Priority: high\r\nX-Other: bulk\r\n" + CONTENT)
        self.assertEqual({entry["id"]: entry["priority"] for entry in daemon.queue()}, {urgent: "high", bulk: "bulk"})
        with daemon.smtp() as smtp:
            smtp.ehlo()
            smtp.mail("s@home.test")
            smtp.rcpt("u@example.test")
            self.assertTrue(self.answer(smtp, "DATA").startswith("452"))

    def test_the_level_of_the_log_follows(self):
        daemon = self.reloading(sink=self.sink().port)
        daemon.start()

        def debugging():
            before = len(list(daemon.lines()))
            daemon.smtp().close()
            daemon.ctl("system", "ping")
            wait_until(lambda: any("audit" in str(line) for line in list(daemon.lines())[before:]), "it is logged")
            return any(line.get("level") == "DEBUG" for line in list(daemon.lines())[before:])
        self.assertFalse(debugging())
        self.assertEqual(self.reload(daemon, sink=1, level="debug")["changed"], [ROUTE, "log.level"])
        self.assertTrue(debugging())
        self.reload(daemon, sink=1)
        self.assertFalse(debugging())

    def test_systemd_is_told(self):
        directory = tempfile.TemporaryDirectory(prefix="empath-notify-")
        self.addCleanup(directory.cleanup)
        path = pathlib.Path(directory.name) / "notify"
        notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(notified.close)
        notified.settimeout(PATIENCE)
        notified.bind(str(path))
        daemon = self.reloading(sink=self.sink().port)
        daemon.wrap = ["env", f"NOTIFY_SOCKET={path}"]
        daemon.start()
        self.assertEqual(notified.recv(1000), b"READY=1\n")
        for text, line in [(None, "configuration reloaded"),
                           ("Empath(x: 1)", "the configuration was not reloaded, and nothing has changed")]:
            if text:
                daemon.config.write_text(text)
            self.hang_up(daemon, line)
            self.assertRegex(notified.recv(1000).decode(), r"^RELOADING=1\nMONOTONIC_USEC=\d+\n$")
            self.assertEqual(notified.recv(1000), b"READY=1\n")
