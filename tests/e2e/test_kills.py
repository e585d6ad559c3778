"""SIGKILL again and again under the load of Postfix's smtp-source. EMPATH_KILL_SECONDS is how long (default 10)."""
import collections
import os
import random
import re
import socket
import subprocess
import threading
import time

from harness import PATIENCE, TestCase, free_port, program, wait_until

SECONDS = float(os.environ.get("EMPATH_KILL_SECONDS", "10"))
SESSIONS = 10
ID = rb"[0-9A-HJKMNP-TV-Z]{26}"


class Proxy:
    """Stands before the daemon and notes what it acknowledges: smtp-source does not say. A client waits here while the
    daemon is down."""

    def __init__(self, daemon):
        self.daemon, self.port, self.acknowledged = daemon, free_port(), set()
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=100)
        self.stopping = threading.Event()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with client:
            while not self.stopping.wait(0.01):
                try:
                    server = socket.create_connection(("127.0.0.1", self.daemon.port))
                except OSError:
                    continue
                with server:
                    threading.Thread(target=self.forward, args=(client, server), daemon=True).start()
                    self.forward(server, client, self.note)
                return

    def note(self, octets):
        self.acknowledged.update(re.findall(rb"250 2\.0\.0 Ok: queued as (" + ID + rb")\r\n", octets))

    @staticmethod
    def forward(source, target, note=lambda octets: None):
        """Passes octets on, and the end, for which nobody waits any more."""
        line = b""
        try:
            while octets := source.recv(65536):
                line += octets
                note(line)
                line = line[line.rfind(b"\n") + 1:][-1000:]
                target.sendall(octets)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.stopping.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Ids:
    """How often each message came, by the id in the Received field. In place of what a sink keeps."""

    def __init__(self):
        self.times = collections.Counter()

    def append(self, message):
        self.times[re.search(rb"\bid (" + ID + rb")\b", message[2])[1]] += 1


class Kills(TestCase):
    def smtp_source(self, port):
        """Has smtp-source send, from the start again whenever a connection was lost. Returns what ends it."""
        command = [program(self, "smtp-source"), "-d", "-s", str(SESSIONS), "-l", "4096", "-m", "10000000",
                   "-f", "s@home.test", "-t", "b@example.test", f"127.0.0.1:{port}"]
        stopping = threading.Event()

        def send():
            while not stopping.is_set():
                with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL) as process:
                    while process.poll() is None and not stopping.wait(0.01):
                        pass
                    process.kill()

        thread = threading.Thread(target=send, daemon=True)

        def stop():
            stopping.set()
            thread.join(PATIENCE)

        self.addCleanup(stop)
        thread.start()
        return stop

    def test_no_acknowledged_message_is_lost_however_often_the_daemon_is_killed(self):
        sink = self.sink()
        sink.messages = Ids()
        daemon = self.daemon(
            f'retry: (base_delay: "1s", max_delay: "2s"), '
            f'domains: {{"example.test": (mx_override: "127.0.0.1:{sink.port}")}}',
            # Segments come and go.
            spool='segment_size: "1MiB"')
        proxy = Proxy(daemon)
        self.addCleanup(proxy.close)
        stop = self.smtp_source(proxy.port)
        seed = random.randrange(1 << 32)
        rng = random.Random(seed)
        kills, end = 0, time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(rng.uniform(0.2, 0.8))
            daemon.restart()
            kills += 1
            # So that some messages are through and others have met several kills.
            sink.defer = "451 4.3.2 later" if kills % 8 < 4 else None
        stop()
        sink.defer = None

        times, acknowledged = sink.messages.times, proxy.acknowledged
        self.assertTrue(acknowledged, "mail is accepted between the kills")
        # What is queued is more than a debug build relays in the usual time.
        wait_until(lambda: not daemon.ctl("queue", "stats")[0]["total"], "the queue is empty", PATIENCE + 3 * SECONDS)
        lost = acknowledged - set(times)
        repeated = times.total() - len(times)
        print(f"{kills} kills, {len(acknowledged)} messages acknowledged, {len(lost)} lost, {repeated} delivered again "
              f"(seed {seed})", flush=True)
        self.assertEqual(lost, set(), f"seed {seed}")
