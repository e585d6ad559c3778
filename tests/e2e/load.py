"""Clients that send all the time, and a ledger of what each message was answered."""
import collections
import itertools
import re
import smtplib
import threading

from harness import PATIENCE, queued_as, wait_until

# Between the messages of a client: what comes in must also go out.
PAUSE = 0.01
# No two messages of a run have the same name.
CLIENTS = itertools.count()
STORAGE_FAILED, STORAGE_FULL = "451 4.3.0", "452 4.3.1"


def content(name, octets):
    """The content of a message: its name all over, so that any piece of it tells whose it is."""
    line = f"{name}\r\n"
    return f"Subject: {name}\r\n\r\n{line * (octets // len(line))}".encode()


def names(octets):
    """The messages that octets tell of."""
    return {name.decode() for name in re.findall(rb"m\d+\.\d+x", octets)}


class Load:
    """Clients that each send messages of about `octets` over a connection of their own, one after the other and each
    once, until `stop`."""

    def __init__(self, test, daemon, clients=8, octets=1000):
        self.daemon, self.octets = daemon, octets
        # By name: the id, the refusal. Without an answer a message may have been accepted or not.
        self.acknowledged, self.refused, self.unanswered = {}, {}, set()
        # How many were acknowledged since the last refusal, and the other way round.
        self.acknowledged_in_a_row = self.refused_in_a_row = 0
        self.lock, self.stopping = threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self.client, args=(n,), daemon=True)
                        for n in itertools.islice(CLIENTS, clients)]
        for thread in self.threads:
            thread.start()
        test.addCleanup(self.stopping.set)

    def client(self, client):
        smtp, number = None, 0
        while not self.stopping.wait(PAUSE):
            name = f"m{client}.{number}x"
            number += 1
            try:
                if smtp is None:
                    smtp = self.daemon.smtp()
                    smtp.ehlo()
                if not self.send(smtp, name):
                    self.stopping.wait(0.02)
                    smtp.rset()
            except (OSError, smtplib.SMTPException):
                with self.lock:
                    if name not in self.refused:
                        self.unanswered.add(name)
                if smtp:
                    smtp.close()
                smtp = None
                self.stopping.wait(0.05)
        if smtp:
            smtp.close()

    def send(self, smtp, name):
        """Sends a message and notes the answer; returns whether it was accepted."""
        code, reply = smtp.mail("s@home.test")
        if code == 250:
            code, reply = smtp.rcpt("b@example.test")
        if code == 250:
            code, reply = smtp.docmd("DATA")
        if code == 354:
            smtp.send(content(name, self.octets) + b".\r\n")
            code, reply = smtp.getreply()
        if code == 421:
            raise smtplib.SMTPServerDisconnected("as often as a connection may send, or the end of the daemon")
        with self.lock:
            if code == 250:
                self.acknowledged[name] = queued_as(reply)
                self.acknowledged_in_a_row += 1
                self.refused_in_a_row = 0
            else:
                self.refused[name] = f"{code} {reply.decode(errors='replace')}"
                self.refused_in_a_row += 1
                self.acknowledged_in_a_row = 0
        return code == 250

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a client waits for its reply"

    def arrived(self, sink):
        """How often each message came. What came must be what was sent."""
        times = collections.Counter()
        for _, _, octets in list(sink.messages):
            name = subject(octets)
            assert octets.endswith(content(name, self.octets)), f"{name} is not what was sent"
            times[name] += 1
        return times

    def wait_until_all_arrive(self, sink, seconds=PATIENCE):
        """Waits until what was acknowledged has arrived and nothing is queued, and returns how often each message came.
        What was refused must not have come."""
        def missing():
            return set(self.acknowledged) - {subject(octets) for _, _, octets in list(sink.messages)}

        try:
            wait_until(lambda: len(sink.messages) >= len(self.acknowledged) and not missing(), "all arrived", seconds)
        except AssertionError as failure:
            lost = missing()
            some = {self.acknowledged[name]: name for name in sorted(lost)[:10]}
            raise AssertionError(
                f"{len(lost)} of {len(self.acknowledged)} messages did not arrive: {some}") from failure
        self.daemon.wait_until_empty()
        times = self.arrived(sink)
        refused = {name: self.refused[name] for name in times if name in self.refused}
        assert not refused, f"refused, and delivered all the same: {refused}"
        return times


def subject(octets):
    return re.search(rb"^Subject: (\S+)\r$", octets, re.M)[1].decode()
