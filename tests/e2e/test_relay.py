"""No open relay: whatever a stranger writes is refused at RCPT, and nothing leaves."""
import socket

from harness import PATIENCE, TestCase, free_port

CONFIG = """Empath(
    hostname: "mx.home.test",
    smtp: (
        listeners: [
            (socket: "127.0.0.1:{port}"),
            (socket: "[::ffff:127.0.0.1]:{mapped}"),
            (socket: "127.0.0.1:{submission}", mode: Submission),
        ],
        relay_networks: ["127.0.0.2/31", "10.0.0.0/8"],
        local_domains: ["home.test"],
        relay_domains: ["relayed.test"],
        limits: (errors: 1000),
    ),
    spool: (path: "spool"),
    delivery: (domains: {"*": (mx_override: "127.0.0.1:{sink}"), "home.test": (maildir: "mail/{address}")}),
    control_socket: "control.sock",
    health: (listen_address: "127.0.0.1:{health}"),
    metrics: (listen_address: "127.0.0.1:{metrics}"),
)
"""
# With evil.test for "elsewhere".
RECIPIENTS = [
    "r@evil.test", "R@EVIL.TEST", "r@evil.test.", "r%evil.test@home.test", "r%evil.test@mx.home.test",
    "r%evil.test@[127.0.0.1]", '"r@evil.test"', '"r@evil.test"@home.test', '"r@evil.test"@[127.0.0.1]',
    '"r%evil.test"@relayed.test', "@home.test:r@evil.test", "@mx.home.test,@home.test:r@evil.test",
    "@[127.0.0.1]:r@evil.test", "evil.test!r@home.test", "evil.test!r@mx.home.test", '"evil.test!r"@home.test',
    "evil.test!r", "r@evil.test@home.test", "r@home.test@evil.test", "r@[127.0.0.1]", "r@[127.0.0.9]",
    "r@[IPv6:::1]", "r@[IPv6:::ffff:127.0.0.1]", "r@localhost", "r@sub.home.test", "r@xhome.test",
    "r@h\u043eme.test", "r@xn--hme-nxc.test", "\u00e9@evil.test", "r@\uff45vil.test", "r@evil\u3002test",
]


class Relay(TestCase):
    def setUp(self):
        self.sink_server = self.sink()
        self.mapped, self.submission = free_port(), free_port()
        self.server = self.daemon(config=CONFIG, sink=self.sink_server.port, mapped=self.mapped, submission=self.submission)

    def codes(self, port, source, commands):
        with socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0)) as s, s.makefile("rwb") as stream:
            codes = [stream.readline()[:3]]
            for command in commands:
                stream.write(command.encode() + b"\r\n")
                stream.flush()
                while (line := stream.readline())[3:4] == b"-":
                    pass
                codes.append(line[:3])
            return [int(code) for code in codes]

    def test_whatever_a_stranger_writes_is_refused_and_nothing_leaves(self):
        for port in (self.server.port, self.mapped):
            for helo, sender in [("evil.test", "a@evil.test"), ("mx.home.test", "a@mx.home.test"),
                                 ("[127.0.0.1]", "postmaster@home.test"), ("localhost", "")]:
                start = [f"EHLO {helo}", f"MAIL FROM:<{sender}> SMTPUTF8"]
                codes = self.codes(port, "127.0.0.1", start + [f"RCPT TO:<{r}>" for r in RECIPIENTS] + ["DATA"])
                self.assertEqual(codes[:3], [220, 250, 250])
                passed = [r for r, code in zip(RECIPIENTS, codes[3:]) if not 500 <= code < 600]
                self.assertEqual(passed, [], (helo, sender))
                self.assertEqual(codes[-1], 503)
        codes = self.codes(self.submission, "127.0.0.2", ["EHLO c.test", "MAIL FROM:<a@home.test>", "RCPT TO:<r@evil.test>"])
        self.assertEqual(codes[2:], [530, 503])
        self.assertEqual(self.server.queue(), [])
        self.assertEqual(self.sink_server.messages, [])

    def test_a_network_ends_where_it_ends_and_header_fields_name_nobody(self):
        for source, code in [("127.0.0.1", 550), ("127.0.0.2", 250), ("127.0.0.3", 250), ("127.0.0.4", 550)]:
            for port in (self.server.port, self.mapped):
                commands = ["EHLO c.test", "MAIL FROM:<a@home.test>", "RCPT TO:<r@evil.test>"]
                self.assertEqual(self.codes(port, source, commands)[-1], code, source)
        content = "To: r@evil.test\r\nCc: r2@evil.test\r\nBcc: r3@evil.test\r\nResent-To: r4@evil.test\r\n\r\nx\r\n."
        commands = ["EHLO c.test", "MAIL FROM:<a@evil.test>", "RCPT TO:<r@home.test>", "DATA", content]
        self.assertEqual(self.codes(self.server.port, "127.0.0.1", commands)[-2:], [354, 250])
        self.server.wait_until_empty()
        self.assertEqual(self.sink_server.messages, [])

    def test_postmaster_is_reached_by_everybody(self):
        for sender in ("", "a@evil.test"):
            for recipient in ("Postmaster", "POSTMASTER@home.test", "postmaster@relayed.test"):
                commands = ["EHLO c.test", f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>", "DATA", "Subject: x\r\n\r\n."]
                self.assertEqual(self.codes(self.server.port, "127.0.0.1", commands)[-1], 250, recipient)
