"""The real daemon in a directory of its own, and SMTP servers for it to deliver to."""
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

PATIENCE = 40
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

CONFIG = """Empath(
    hostname: "mx.home.test",
    smtp: (
        listeners: [(socket: "127.0.0.1:{port}")],
        relay_networks: ["127.0.0.0/8"],
        limits: ({limits}),
    ),
    spool: (path: "spool", {spool}),
    delivery: (
        {delivery}
    ),
    control_socket: "control.sock",
    health: (listen_address: "127.0.0.1:{health}"),
    metrics: (listen_address: "127.0.0.1:{metrics}"),
)
"""


# Below those that outgoing connections get, so that a port stays free while its owner is down; each is given out once.
PORTS = random.sample(range(10240, 32768), 32768 - 10240)


def free_port():
    """A free port that nobody else in this run gets."""
    while True:
        port = PORTS.pop()
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def wait_until(condition, what, seconds=PATIENCE, every=0.01):
    """Waits until `condition()` is true and returns its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(every)
    raise AssertionError(f"after {seconds} s still not: {what}")


class Daemon:
    """The daemon. `delivery`, `spool` and `limits` are RON for these sections; `config` replaces the configuration as a
    whole. `wrap` is a command that becomes the daemon, with its command line as further arguments."""

    def __init__(self, delivery="", config=CONFIG, start=True, **places):
        self.directory = tempfile.TemporaryDirectory(prefix="empath-e2e-")
        self.dir = pathlib.Path(self.directory.name)
        self.port, self.health, self.metrics = free_port(), free_port(), free_port()
        places = {"port": self.port, "health": self.health, "metrics": self.metrics, "delivery": delivery,
                  "spool": "", "limits": "", **places}
        text = re.sub(r"\{(\w+)\}", lambda m: str(places.get(m[1], m[0])), config)
        self.config = self.dir / "empath.config.ron"
        self.config.write_text(text)
        self.log_file = self.dir / "log"
        self.log_file.touch()
        self.control_socket = "control.sock"
        self.wrap = []
        self.process = None
        if start:
            self.start()

    def start(self, limit=None, resource_kind=resource.RLIMIT_NOFILE):
        """Starts it, with `limit` as soft and hard limit of open files, or of another kind of resource."""
        self.seen = self.log_file.stat().st_size
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.wrap, os.environ["EMPATH_BIN"], "--config", str(self.config)],
                cwd=self.dir, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                preexec_fn=limit and (lambda: resource.setrlimit(resource_kind, limit)))
        wait_until(self.is_ready, "ready")

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the daemon ended with {self.process.returncode}")
        return any(message(line) == "ready" for line in self.lines())

    def lines(self):
        """What the present process has logged, as objects."""
        with self.log_file.open("rb") as log:
            log.seek(self.seen)
            for line in log.read().splitlines():
                try:
                    yield json.loads(line)
                except ValueError:
                    pass

    def logged(self, wanted, count=1):
        """The lines with this message, or those that `wanted()` wants, once there are so many: a line may come after what
        it tells of can be seen."""
        wants = wanted if callable(wanted) else lambda line: message(line) == wanted

        def found():
            lines = [line for line in self.lines() if wants(line)]
            return lines if len(lines) >= count else None
        return wait_until(found, f"{count} lines are logged: {wanted}")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def restart(self):
        self.kill()
        self.start()

    def terminate(self):
        """Ends it in order and returns its exit status."""
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def close(self, show_log=False):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if show_log:
            log = self.log_file.read_text(errors="replace")
            print(f"--- {self.config}\n{self.config.read_text()}\n--- log\n{log[-20000:]}\n---", file=sys.stderr)
        self.directory.cleanup()

    def smtp(self):
        return smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.test", timeout=PATIENCE)

    def send(self, sender, recipients, content):
        """Sends a message and returns its id."""
        with self.smtp() as smtp:
            smtp.ehlo()
            smtp.mail(sender)
            for recipient in recipients:
                code, reply = smtp.rcpt(recipient)
                assert code == 250, (recipient, code, reply)
            code, reply = smtp.data(content)
            assert code == 250, (code, reply)
            return queued_as(reply)

    def ctl(self, *arguments):
        """Runs `empathctl --json`, which must succeed, and returns its lines as objects."""
        done = subprocess.run(
            [os.environ["EMPATHCTL_BIN"], "-c", str(self.dir / self.control_socket), "--json", *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode != 0:
            raise AssertionError(f"empathctl {arguments}: {done.returncode}: {done.stderr}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def queue(self):
        return self.ctl("queue", "list")

    def wait_until_empty(self):
        wait_until(lambda: not self.queue(), "the queue is empty")


def message(line):
    return line.get("message") or line.get("fields", {}).get("message") if isinstance(line, dict) else None


def queued_as(reply):
    found = re.fullmatch(rb"2\.0\.0 Ok: queued as ([0-9A-HJKMNP-TV-Z]{26})", reply)
    assert found, reply
    return found[1].decode()


class Sink:
    """An SMTP server that keeps what it is given. `refuse` maps recipients to replies; while `defer` is set, it is the
    reply to all of them. One that is `silent` greets nobody before `greet`. It offers `keywords`, and keeps the commands, and
    in `clients` the addresses that connections come from."""

    def __init__(self, port=None, refuse=None, silent=False, keywords=("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"),
                 address="127.0.0.1"):
        self.port, self.refuse = port or free_port(), refuse or {}
        self.keywords, self.commands, self.clients = keywords, [], []
        self.defer = None
        self.messages, self.lock = [], threading.Condition()
        self.listener = socket.create_server((address, self.port), backlog=100)
        if not silent:
            self.greet()

    def greet(self):
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, client = self.listener.accept()
                self.clients.append(client[0])
                # Replies to pipelined commands are written one by one: none waits for the acknowledgement of the other.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            with connection, connection.makefile("rwb") as stream:
                self.converse(stream)
        except OSError:
            pass

    def converse(self, stream):
        def reply(text):
            stream.write(text.encode() + b"\r\n")
            stream.flush()

        reply("220 sink.test ESMTP")
        sender, recipients = None, []
        while line := stream.readline():
            command = line.rstrip(b"\r\n")
            self.commands.append(command.decode())
            verb = command[:4].upper()
            if verb == b"EHLO":
                reply("\r\n".join(f"250-{word}" for word in ("sink.test", *self.keywords)) + "\r\n250 HELP")
            elif verb == b"HELO":
                reply("250 sink.test")
            elif verb == b"MAIL":
                sender, recipients = path(command), []
                reply("250 2.1.0 ok")
            elif verb == b"RCPT":
                refusal = self.defer or self.refuse.get(path(command))
                if refusal is None:
                    recipients.append(path(command))
                reply(refusal or "250 2.1.5 ok")
            elif verb == b"DATA" and not recipients:
                reply("554 5.5.1 no recipients")
            elif verb == b"DATA":
                reply("354 go on")
                lines = []
                while (line := stream.readline()) != b".\r\n":
                    if not line:
                        return
                    lines.append(line[1:] if line.startswith(b".") else line)
                with self.lock:
                    self.messages.append((sender, recipients, b"".join(lines)))
                    self.lock.notify_all()
                reply("250 2.0.0 ok")
            elif verb == b"RSET":
                reply("250 2.0.0 ok")
            elif verb == b"QUIT":
                return reply("221 2.0.0 bye")
            else:
                reply("500 5.5.1 what?")

    def wait_for(self, count):
        """Waits for `count` messages and returns all that came."""
        with self.lock:
            enough = self.lock.wait_for(lambda: len(self.messages) >= count, PATIENCE)
            assert enough, f"{len(self.messages)} of {count} messages came"
            return list(self.messages)

    def close(self):
        # shutdown, because close alone does not wake the thread in accept.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def program(test, name):
    """Where a program is; without it the test is skipped. Debian has some that are not in the path of a user."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    return found or test.skipTest(f"{name} is not installed; `just setup` does it")


def strace(test, daemon, *options):
    """Has the daemon run under strace, with these options and a trace in the file that is returned."""
    command = [program(test, "strace"), "--daemonize", "--follow-forks", "--quiet=attach"]
    probe = subprocess.run([*command, "--output=/dev/null", "true"], capture_output=True, text=True, timeout=PATIENCE)
    if probe.returncode != 0:
        test.skipTest(f"strace may not trace here: {probe.stderr.strip()}")
    trace = daemon.dir / "trace"
    daemon.wrap = [*command, f"--output={trace}", *options]
    return trace


def path(command):
    return re.search(rb"<(.*?)>", command)[1].decode()


class TestCase(unittest.TestCase):
    """Closes what the test opened, and shows the daemon's log when it failed."""

    def daemon(self, *arguments, **keywords):
        start = keywords.pop("start", True)
        daemon = Daemon(*arguments, start=False, **keywords)
        self.addCleanup(lambda: daemon.close(show_log=self.has_failed()))
        if start:
            daemon.start()
        return daemon

    def sink(self, **keywords):
        sink = Sink(**keywords)
        self.addCleanup(sink.close)
        return sink

    def run(self, result=None):
        self.result = result
        self.failures_before = len(result.failures) + len(result.errors)
        return super().run(result)

    def has_failed(self):
        outcome = getattr(self, "_outcome", None)
        if outcome is not None and not getattr(outcome, "success", True):
            return True
        return len(self.result.failures) + len(self.result.errors) > self.failures_before
