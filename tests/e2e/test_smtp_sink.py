"""smtp-sink of Postfix misbehaves in every way it knows, at each command; what becomes of the mail."""
import pathlib
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor

from harness import TestCase, free_port, program, wait_until
from smtp_sink import SmtpSink

CONTENT = b"Subject: x\r\n\r\nhello\r\n"
# Seconds that we wait for a reply, and those that a slow and a very slow host takes.
PATIENT, LEISURELY, SLOW = 4, 1, 60
TIMEOUTS = ("greeting", "ehlo", "mail_from", "rcpt_to", "data", "data_termination")
DELIVERED = ("delivered", "2.0.0", "250 2.0.0 Ok")
# Of a host that is configured and refuses us, not the mail.
REFUSES_US = "4.7.0"
CLOSED = "the server closed the connection"
HARD, SOFT, BYE = "500 5.3.0 Error: command failed", "450 4.3.0 Error: command failed", "421 4.0.0 Server closing connection"
STAGES = {"CONNECT": "greeting", "EHLO": "EHLO", "MAIL": "MAIL FROM", "RCPT": "RCPT TO", "DATA": "DATA", ".": "end of data"}


def cases():
    """What a sink is told to do; how the first attempt ends: the event, its status, what is said about it."""
    for command, stage in STAGES.items():
        # A host that knows no EHLO may know HELO; one that does not want to know us says nothing of the mail.
        refused = {"EHLO": DELIVERED, "CONNECT": ("deferred", REFUSES_US, f"{stage}: {HARD}")}
        yield ("-f", command), refused.get(command, ("bounced", "5.3.0", f"{stage}: {HARD}"))
        yield ("-r", command), ("deferred", "4.3.0", f"{stage}: {SOFT}")
        yield ("-q", command), ("deferred", "4.4.2", f"{stage}: {CLOSED}")
        yield ("-Q", command), ("deferred", "4.0.0", f"{stage}: {BYE}")
        # Its replies come in the wrong order if commands are pipelined.
        yield ("-p", "-W", f"{command}:{SLOW}"), ("deferred", "4.4.2", f"{stage}: timed out")
        yield ("-p", "-W", f"{command}:{LEISURELY}"), DELIVERED
    # What the host says after the mail is nothing that the mail suffers from.
    for command in ("QUIT", "RSET", "NOOP", "VRFY"):
        for option in ("-f", "-r", "-q", "-Q"):
            yield (option, command), DELIVERED
        yield ("-W", f"{command}:{SLOW}"), DELIVERED
    # One that is left with a sender and no recipient is told RSET.
    for options in (("-r",), ("-q",), ("-Q",), ("-W",)):
        command = f"RSET:{SLOW}" if options == ("-W",) else "RSET"
        yield ("-f", "RCPT", *options, command), ("bounced", "5.3.0", f"RCPT TO: {HARD}")
    # A host that offers less, one that is called as we are, one that takes but one session.
    for options in (["-p"], ["-8"], ["-e"], ["-E"], ["-F", "-C", "-a"], ["-N"], ["-P"], ["-h", "mx.home.test"], ["-n", "1"],
                    ["-H", "1", "-T", "1024"], ["-w", "1"]):
        yield tuple(options), DELIVERED
    yield ("-f", "RCPT", "-B", "554 5.7.1 no \x07bells"), ("bounced", "5.7.1", r"RCPT TO: 554 5.7.1 no \x07bells")
    # RFC 5321 §4.5.3.1.10: from older servers it means 452.
    yield ("-f", "RCPT", "-B", "552 5.5.3 too many"), ("deferred", "4.5.3", "RCPT TO: 552 5.5.3 too many")
    yield ("-r", "RCPT", "-b", "452 4.2.2 full"), ("deferred", "4.2.2", "RCPT TO: 452 4.2.2 full")
    yield ("-r", "DATA", "-b", "451 later"), ("deferred", "4.0.0", "DATA: 451 later")


class Case:
    def __init__(self, test, port, options, end):
        self.options, self.end = options, end
        self.domain = f"case{port}.test"
        self.recipients = [f"{who}@{self.domain}" for who in "ab"]
        self.sink = SmtpSink(test.program, *options, dump=test.dumps / self.domain, port=port)
        test.addCleanup(self.sink.stop)

    def __repr__(self):
        return " ".join(self.options)

    def given(self):
        """How often the sink was given the message, as far as it says so: what it refuses behind the content counts."""
        mail = self.sink.mail()
        assert len({mail[recipient] for recipient in self.recipients}) == 1, (self, mail)
        return mail[self.recipients[0]]


class Misbehaviour(TestCase):
    def setUp(self):
        self.program = program(self, "smtp-sink")
        directory = tempfile.TemporaryDirectory(prefix="empath-sinks-")
        self.addCleanup(directory.cleanup)
        self.dumps = pathlib.Path(directory.name)
        self.dumps.chmod(0o777)

    def begin(self, cases, to='mx_override: "127.0.0.1:{}"'):
        """A daemon that knows a sink for each case, by the way `to` it, and where reports go to."""
        self.home = self.sink()
        cases, ports = list(cases), set()
        while len(ports) < len(cases):
            ports.add(free_port())
        with ThreadPoolExecutor() as pool:
            self.cases = list(pool.map(lambda port, case: Case(self, port, *case), ports, cases))
        domains = [f'"{case.domain}": ({to.format(case.sink.port)})' for case in self.cases]
        domains.append(f'"home.test": (mx_override: "127.0.0.1:{self.home.port}")')
        patience = ", ".join(f'{name}: "{PATIENT}s"' for name in TIMEOUTS)
        self.mta = self.daemon(
            f'retry: (base_delay: "1h"), smtp_timeouts: ({patience}, quit: "1s"), '
            f'connection_pool: (idle_timeout: "1s"), domains: {{{", ".join(domains)}}}')

    def send(self, case, content=CONTENT):
        return self.mta.send("s@home.test", case.recipients, content)

    def ends(self):
        """How attempts ended, by recipient of a sink, once all have an end."""
        def look():
            found = {line["recipient"]: (line["message"], line["status"], line["reply"]) for line in self.mta.lines()
                     if line.get("message") in ("delivered", "deferred", "bounced")
                     and line["domain"].startswith("case")}
            return found if len(found) == 2 * len(self.cases) else None
        return wait_until(look, "all have an end")

    def check_ends(self):
        ends = self.ends()
        wrong = {case: ends[recipient] for case in self.cases for recipient in case.recipients
                 if ends[recipient] != case.end}
        self.assertEqual(wrong, {})

    def such(self, event):
        return [case for case in self.cases if case.end[0] == event]

    def reply(self, case):
        """What ended the attempt, as `queue view` shows it: what the host said, or what happened."""
        _, status, what = case.end
        said = re.fullmatch(r".*?: (\d{3}) (?:(\d\.\d\.\d) )?(.*)", what)
        return {"code": int(said[1]), "enhanced": said[2], "text": said[3]} if said and status != REFUSES_US else \
            {"code": None, "enhanced": status, "text": what}

    def test_each_has_its_end_and_what_was_deferred_arrives_when_the_host_behaves(self):
        self.begin(cases())
        slow = {case for case in self.cases if case.end[2].endswith("timed out")}
        self.assertEqual(len(slow), len(STAGES))
        ids = {case: self.send(case) for case in sorted(self.cases, key=slow.__contains__)}
        # It came last, and goes first.
        self.mta.send("s@home.test", ["prompt@home.test"], CONTENT)
        wait_until(lambda: any(to == ["prompt@home.test"] for _, to, _ in self.home.messages), "other mail goes")
        going = {m["id"] for m in self.mta.queue() if m["status"] == "in_progress"}
        self.assertEqual({case for case in slow if ids[case] not in going}, set(), "these still wait for a reply")
        self.check_ends()

        # What the mail suffers is told: to the sender once, and to whoever looks at the queue.
        bounced, deferred = self.such("bounced"), self.such("deferred")
        reports = self.home.wait_for(1 + len(bounced))
        self.assertEqual(len(reports), 1 + len(bounced))
        text = "".join(octets.decode() for _, _, octets in reports)
        for case in bounced:
            self.assertEqual(text.count(f"Final-Recipient: rfc822; {case.recipients[0]}"), 1, case)
        queue = {m["id"]: m for m in self.mta.queue()}
        self.assertEqual(set(queue), {ids[case] for case in deferred})
        for case in deferred:
            [view] = self.mta.ctl("queue", "view", ids[case])
            self.assertEqual([r["address"] for r in view["recipients"]], case.recipients)
            told = [recipient["last_reply"] for recipient in view["recipients"]]
            told += [attempt["reply"] for attempt in view["history"]]
            self.assertEqual(told, [self.reply(case)] * 4, case)

        given = {case: case.given() for case in self.cases}
        # Behind the content there is only the reply to it: what comes then, the sink has.
        expected = {case: int(case.end == DELIVERED or "." in case.options or f".:{SLOW}" in case.options)
                    for case in self.cases}
        self.assertEqual(given, expected)

        # The same hosts, mended: what waited goes, and nothing goes that was gone.
        for case in deferred:
            case.sink.stop()
            case.sink.start()
        self.mta.ctl("queue", "retry", "--all")
        self.mta.wait_until_empty()
        self.assertEqual(len(self.home.messages), len(reports))
        expected = {case: given[case] + (case.end[0] == "deferred") for case in self.cases}
        self.assertEqual({case: case.given() for case in self.cases}, expected)
        # Whatever they make of QUIT.
        self.assertEqual(self.mta.terminate(), 0)

    def test_the_next_host_gets_what_one_does_not_take_in_the_same_attempt(self):
        # What a host says of the mail for good, it says for all hosts.
        ends = [(options, end, end[0] == "bounced") for options, end in cases()]
        spare = SmtpSink(self.program, dump=self.dumps / "spare")
        self.addCleanup(spare.stop)
        self.begin([(options, end if final else DELIVERED) for options, end, final in ends],
                   to=f'smarthost: (hosts: ["127.0.0.1:{{}}", "127.0.0.1:{spare.port}"])')
        for case in self.cases:
            self.send(case)
        self.check_ends()
        failing = {case for case, (_, end, final) in zip(self.cases, ends) if end != DELIVERED and not final}
        self.assertEqual(spare.mail(), {to: 1 for case in failing for to in case.recipients})
        self.assertEqual(self.mta.queue(), [])

    def test_mail_that_a_host_cannot_take_as_it_is_bounces(self):
        eight_bit = ("bounced", "5.6.3", "MAIL FROM: the server does not support 8BITMIME")
        self.begin([(("-8",), eight_bit), (("-e",), eight_bit), (("-P",), eight_bit), (("-p",), DELIVERED)])
        for case in self.cases:
            self.send(case, "Subject: x\r\n\r\ngrüße\r\n".encode())
        self.check_ends()
        self.home.wait_for(3)

    def test_a_host_that_refuses_the_content_before_it_has_come_is_heard(self):
        self.begin([(("-A", "0"), None)])
        # Both fit into what the system keeps of a connection, or don't.
        for content in (CONTENT, CONTENT + b"0123456789 the quick brown fox\r\n" * 500_000):
            self.send(self.cases[0], content)
        reports = self.home.wait_for(2)
        for _, _, report in reports:
            self.assertRegex(report.decode(), "(?m)^Diagnostic-Code: smtp; 550 This violates SMTP\r$")
        self.mta.wait_until_empty()
        self.assertEqual(self.cases[0].given(), 0)

    def test_over_lmtp_nothing_bounces_before_the_host_has_heard_of_the_mail(self):
        delivered = ("delivered", "2.2.0", "250 2.2.0 Ok")
        cases = [((), delivered), (("-p",), delivered),
                 (("-f", "LHLO"), ("deferred", "4.3.5", f"LHLO: {HARD}")),
                 (("-r", "LHLO"), ("deferred", "4.3.5", f"LHLO: {SOFT}")),
                 (("-q", "LHLO"), ("deferred", "4.4.2", f"LHLO: {CLOSED}")),
                 (("-Q", "LHLO"), ("deferred", "4.0.0", f"LHLO: {BYE}")),
                 (("-f", "RCPT"), ("bounced", "5.3.0", f"RCPT TO: {HARD}")),
                 (("-r", "."), ("deferred", "4.3.0", f"end of data: {SOFT}")),
                 (("-f", "."), ("bounced", "5.3.0", f"end of data: {HARD}")),
                 (("-q", "."), ("deferred", "4.4.2", f"end of data: {CLOSED}"))]
        self.begin([(("-L", *options), end) for options, end in cases], to='lmtp: "127.0.0.1:{}"')
        for case in self.cases:
            self.send(case)
        self.check_ends()
        self.home.wait_for(2)
