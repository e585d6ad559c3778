"""A message to 300 people in 40 domains, of which every one is ill in another way: each has the end that is his, the sender
is told of all of them in two reports, and other mail does not notice."""
import email
import json
import socket
import subprocess
import threading

import unbound
from harness import Sink, TestCase, free_port, program, wait_until

CONTENT = b"From: alice@home.test\r\nSubject: to everybody\r\nMessage-ID: <all@home.test>\r\n\r\nhello\r\n"

NO_USER, REFUSED, LATER = "550 5.1.1 no such user", "550 5.7.1 not for you", "451 4.7.1 later"
GOOD = ("delivered", "2.0.0")
EXPIRED = ("expired", "4.4.7")

# Kind of domain: how many there are, with how many people each, and what becomes of those.
KINDS = {
    "good": (10, 5, GOOD),
    # More than fit into a transaction.
    "large": (1, 110, GOOD),
    # The first host is dead.
    "second": (1, 5, GOOD),
    "partial": (6, 6, None),
    "nobody": (3, 5, ("bounced", "5.1.1")),
    "closed": (2, 5, ("bounced", "5.3.2")),
    "null": (2, 5, ("bounced", "5.1.10")),
    "gone": (2, 5, ("bounced", "5.1.2")),
    "nodata": (1, 4, ("bounced", "5.4.4")),
    "later": (3, 4, EXPIRED),
    "busy": (1, 4, EXPIRED),
    "servfail": (2, 4, EXPIRED),
    "dead": (2, 4, EXPIRED),
    "hole": (1, 4, EXPIRED),
    "stuck": (1, 6, EXPIRED),
    "tarpit": (2, 4, GOOD),
}
PARTIAL = [GOOD, GOOD, GOOD, ("bounced", "5.1.1"), ("bounced", "5.1.1"), ("bounced", "5.7.1")]

DELIVERY = """
    mx_port: {port},
    dns: (servers: ["127.0.0.1:{dns}"], timeout: "1s"),
    smtp_timeouts: (connect: "3s", ehlo: "8s"),
    retry: (base_delay: "6s", multiplier: 1.0, jitter: 0.0, expire_after: "20s"),
    domains: {{"home.test": (mx_override: "127.0.0.1:{home}")}},
"""


def domain(kind, number):
    # These names have zones of their own in the configuration of unbound, or are in none.
    parent = {"gone": "good0.test", "servfail": "servfail.test"}.get(kind)
    return f"{kind}{number}.{parent}" if parent else f"{kind}{number}.test"


DOMAINS = {domain(kind, n): kind for kind, (count, _, _) in KINDS.items() for n in range(count)}
PEOPLE = {f"u{n}@{name}": PARTIAL[n] if kind == "partial" else KINDS[kind][2]
          for name, kind in DOMAINS.items() for n in range(KINDS[kind][1])}


class Once(dict):
    """What is said the first time."""

    def get(self, key):
        return self.pop(key, None)


class Host(Sink):
    """A host with an address of its own. One that is `closed` says that in its greeting. A tarpit says nothing before it is
    let go, or nothing but the greeting."""

    def __init__(self, place, refuse, closed=None, tarpit=False, stuck=False):
        self.closed, self.tarpit, self.stuck = closed, tarpit, stuck
        self.caught, self.let_go = threading.Event(), threading.Event()
        super().__init__(port=place[1], address=place[0], refuse=refuse)

    def converse(self, stream):
        if self.stuck:
            stream.write(b"220 sink.test ESMTP\r\n")
            stream.flush()
        if self.tarpit or self.stuck:
            self.caught.set()
            self.let_go.wait()
        if self.closed:
            stream.write(self.closed)
        elif not self.stuck:
            super().converse(stream)

    def close(self):
        self.let_go.set()
        super().close()


class ManyDomains(TestCase):
    def setUp(self):
        program(self, "perl")
        self.home, self.port, self.hosts = self.sink(), free_port(), {}
        zones = {"servfail.test": "transparent"}
        for number, (name, kind) in enumerate(DOMAINS.items(), 1):
            records = self.domain(name, kind, f"127.0.9.{number}")
            zones |= {name: records} if records else {}
        names = unbound.Unbound(program(self, "unbound"), zones)
        self.addCleanup(names.close)
        self.mta = self.daemon(DELIVERY.format(port=self.port, dns=names.port, home=self.home.port),
                               limits="recipients: 1000")

    def domain(self, name, kind, address):
        """Starts the host of a domain; returns what name servers have about it."""
        people = [f"u{n}@{name}" for n in range(KINDS[kind][1])]
        said = {"nobody": NO_USER, "later": LATER}.get(kind)
        refuse = dict.fromkeys(people, said) if said else {}
        if kind == "partial":
            refuse = Once({people[2]: LATER, people[3]: NO_USER, people[4]: NO_USER, people[5]: REFUSED})
        closed = {"closed": b"554 5.3.2 closed for good\r\n", "busy": b"421 4.3.2 too busy\r\n"}.get(kind)
        if kind in ("null", "nodata", "gone", "servfail"):
            return {"null": [f"{name}. MX 0 ."], "nodata": [f'{name}. TXT "nothing"']}.get(kind)
        if kind == "hole":
            self.fill(address)
        elif kind != "dead":
            host = Host((address, self.port), refuse, closed, kind == "tarpit", kind == "stuck")
            self.addCleanup(host.close)
            self.hosts[name] = host
        records = [f"{name}. MX 20 mx.{name}.", f"mx.{name}. A {address}"]
        return records + ([f"{name}. MX 10 old.{name}.", f"old.{name}. A 127.0.8.1"] if kind == "second" else [])

    def fill(self, address):
        """What knocks at a full port gets no answer at all."""
        listener = socket.create_server((address, self.port), backlog=0)
        self.addCleanup(listener.close)
        for _ in range(8):
            knocking = socket.socket()
            knocking.setblocking(False)
            knocking.connect_ex((address, self.port))
            self.addCleanup(knocking.close)

    def ends(self, id):
        """What was logged as the end of each recipient of a message."""
        lines = [line for line in self.mta.lines() if line.get("message_id") == id
                 and line.get("message") in ("delivered", "bounced", "expired")]
        ends = {line["recipient"]: (line["message"], line["status"]) for line in lines}
        self.assertEqual(len(ends), len(lines), "each ends once")
        return ends

    def test_three_hundred_recipients_in_forty_domains_have_three_hundred_ends_and_two_reports(self):
        self.assertEqual((len(PEOPLE), len(DOMAINS)), (300, 40))
        everybody = self.mta.send("alice@home.test", list(PEOPLE), CONTENT)
        tarpits = [host for host in self.hosts.values() if host.tarpit]
        for host in tarpits:
            wait_until(host.caught.is_set, "tarpits are in the way")
        # Other mail takes no notice.
        others = [self.mta.send("bob@home.test", [f"other{n}@good{n % 10}.test"], CONTENT) for n in range(10)]
        wait_until(lambda: all(self.ends(id) for id in others), "other mail arrives")
        self.assertFalse([end for end in self.ends(everybody) if "tarpit" in end])
        for host in tarpits:
            host.let_go.set()
        self.mta.wait_until_empty()

        wait_until(lambda: len(self.ends(everybody)) == len(PEOPLE), "all ends are logged")
        ends = self.ends(everybody)
        self.assertEqual([(address, ends.get(address), end) for address, end in PEOPLE.items()
                          if ends.get(address) != end], [])
        got = [path for host in self.hosts.values() for _, paths, _ in host.messages for path in paths]
        arrived = [address for address, end in PEOPLE.items() if end == GOOD]
        self.assertEqual(sorted(path for path in got if not path.startswith("other")), sorted(arrived))
        self.assertEqual(len(got) - len(arrived), len(others))

        reports = self.home.wait_for(2)
        self.assertEqual([(sender, to) for sender, to, _ in reports], [("", ["alice@home.test"])] * 2)
        for (_, _, report), event in zip(reports, ("bounced", "expired")):
            told = {address: status for address, (what, status) in PEOPLE.items() if what == event}
            self.assertEqual(self.as_python_sees_it(report), told)
            seen = self.as_sisimai_sees_it(report)
            self.assertEqual(set(seen), set(told))
            # Of what has expired it gives the status that the host gave last.
            if event == "bounced":
                self.assertEqual(seen, told)

    def as_python_sees_it(self, report):
        report = email.message_from_bytes(report)
        self.assertEqual((report.get_content_type(), report.defects), ("multipart/report", []))
        text, status, _ = report.get_payload()
        _, *recipients = status.get_payload()
        self.assertEqual({recipient["Action"] for recipient in recipients}, {"failed"})
        told = {recipient["Final-Recipient"].split("; ")[1]: recipient for recipient in recipients}
        self.assertEqual(len(told), len(recipients))
        for address, recipient in told.items():
            self.assertIn(f"<{address}>\n", text.get_payload().replace("\r", ""))
            host = self.hosts.get(address.split("@")[1])
            if host and not host.stuck:
                self.assertEqual(recipient["Remote-MTA"], f"dns; mx.{address.split('@')[1]}")
                self.assertRegex(recipient["Diagnostic-Code"], "^smtp; [45]")
        return {address: recipient["Status"] for address, recipient in told.items()}

    def as_sisimai_sees_it(self, report):
        """A library that reads bounces of all kinds of mail systems."""
        path = self.mta.dir / "report.eml"
        path.write_bytes(report.replace(b"\r\n", b"\n"))
        done = subprocess.run(["perl", "-MSisimai", "-e", "print Sisimai->dump($ARGV[0])", str(path)],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
        if "Can't locate Sisimai.pm" in done.stderr:
            self.skipTest("Sisimai is not installed; `just setup` does it")
        self.assertEqual(done.returncode, 0, done.stderr)
        bounces = json.loads(done.stdout)
        self.assertEqual({bounce["action"] for bounce in bounces}, {"failed"})
        self.assertEqual({bounce["addresser"] for bounce in bounces}, {"alice@home.test"})
        told = {bounce["recipient"]: bounce["deliverystatus"] for bounce in bounces}
        self.assertEqual(len(told), len(bounces))
        return told

    def test_what_the_sender_was_not_told_before_a_kill_he_is_told_after_it_once(self):
        people = ["u0@nobody0.test", "u0@null0.test", "u0@tarpit0.test", "u3@partial0.test"]
        everybody = self.mta.send("alice@home.test", people, CONTENT)
        wait_until(self.hosts["tarpit0.test"].caught.is_set, "a tarpit is in the way")
        wait_until(lambda: len(self.ends(everybody)) == 3, "the others have ended")
        self.assertEqual(self.home.messages, [])
        self.mta.restart()
        [(_, _, report)] = self.home.wait_for(1)
        self.assertEqual(set(self.as_python_sees_it(report)), set(people) - {"u0@tarpit0.test"})
        self.hosts["tarpit0.test"].let_go.set()
        self.mta.wait_until_empty()
        self.assertEqual(len(self.home.messages), 1)
