#!/usr/bin/env python3
"""Measures the receiving of mail: sessions, connections, one large message, many small ones.

Needs openssl and a release build: `just bench-reception`. The clients are Python and on the same machine, so what is
compared with another day is the daemon's own processor time and memory; rates are what both reach together.
"""
import argparse
import contextlib
import multiprocessing
import socket
import ssl
import subprocess
import time

import measured
from measured import MIB, harness

CONFIG = """Empath(
    hostname: "mx.home.test",
    smtp: (
        listeners: [(socket: "127.0.0.1:{port}"), (socket: "127.0.0.1:{tls}", mode: Submissions)],
        tls: [(names: ["*"], certificate: "cert.pem", key: "key.pem")],
        relay_networks: ["127.0.0.0/8"],
        limits: (
            connections: 100000, connections_per_address: 100000, messages_per_connection: 10000000, message_size: "1TiB",
        ),
    ),
    spool: (path: "spool"),
    // Nobody listens there: after a few attempts no more are made.
    delivery: (retry: (base_delay: "1h"), domains: {"*": (mx_override: "127.0.0.1:{nowhere}")}),
    control_socket: "control.sock",
    health: (listen_address: "127.0.0.1:{health}"),
    metrics: (listen_address: "127.0.0.1:{metrics}"),
    log: (level: "warn"),
)
"""
LINE = b"0123456789 the quick brown fox jumps over the lazy dog, and so does everybody else\r\n"
EXPLANATION = """
idle        memory for each session that was greeted and says nothing
new         connections that were greeted, said QUIT and were closed, a second; us CPU: of the daemon, for each
large       a message of one size: MB/s from the first octet to 250, and the most memory above that of an idle daemon
small       one session, one message after the other, commands pipelined: us CPU of the daemon for each, with the journal's
            writes and syncs, and without its delivery
"""


class Daemon(measured.Daemon):
    """Has a certificate, and has answered."""

    def __init__(self):
        self.tls = harness.free_port()
        super().__init__(config=CONFIG, start=False, tls=self.tls, nowhere=harness.free_port())
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2",
             "-subj", "/CN=mx.home.test", "-keyout", self.dir / "key.pem", "-out", self.dir / "cert.pem"],
            check=True, capture_output=True)
        self.start()
        with self.smtp() as smtp:
            smtp.noop()


def connect(port, context=None):
    connection = socket.create_connection(("127.0.0.1", port), 60)
    return context.wrap_socket(connection) if context else connection


def careless():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@contextlib.contextmanager
def daemon():
    running = Daemon()
    try:
        yield running
    finally:
        running.close()


def idle(sessions):
    for name, context in [("clear", None), ("TLS", careless())]:
        with daemon() as d:
            before = d.memory()
            held = []
            for _ in range(sessions):
                held.append(connect(d.tls if context else d.port, context))
                assert held[-1].recv(100).startswith(b"220")
            after = d.memory()
            print(f"idle   {name:5} {sessions:7} sessions: {before / MIB:6.1f} -> {after / MIB:7.1f} MiB, "
                  f"{(after - before) / sessions / 1024:6.1f} KiB each", flush=True)
            for connection in held:
                connection.close()


def come_and_go(port, tls, until):
    context, count = careless() if tls else None, 0
    while time.monotonic() < until:
        with connect(port, context) as connection:
            connection.sendall(b"QUIT\r\n")
            while connection.recv(1000):
                pass
        count += 1
    return count


def new(clients, seconds):
    for name, tls in [("clear", False), ("TLS", True)]:
        with daemon() as d, multiprocessing.Pool(clients) as pool:
            cpu, began = d.cpu(), time.monotonic()
            work = (d.tls if tls else d.port, tls, began + seconds)
            count = sum(pool.starmap(come_and_go, [work] * clients))
            rate = count / (time.monotonic() - began)
            print(f"new    {name:5} {rate:7.0f} connections/s, {(d.cpu() - cpu) / count:7.0f} us CPU each", flush=True)


def begin(connection, stream):
    stream.readline()
    connection.sendall(b"EHLO c.test\r\n")
    keywords = []
    while not keywords or keywords[-1][3:4] == b"-":
        keywords.append(stream.readline())
    connection.sendall(b"MAIL FROM:<a@home.test>\r\nRCPT TO:<b@example.test>\r\n")
    assert [stream.readline()[:3] for _ in range(2)] == [b"250"] * 2
    return {keyword[4:].split()[0].upper() for keyword in keywords}


def large(octets):
    block = LINE * (MIB // len(LINE))
    blocks = max(1, octets // len(block))
    for command in (b"DATA", b"BDAT"):
        with daemon() as d, connect(d.port) as connection, connection.makefile("rb") as stream:
            if command == b"BDAT" and b"CHUNKING" not in begin(connection, stream):
                print("large  BDAT is not offered")
                return
            if command == b"DATA":
                begin(connection, stream)
                connection.sendall(b"DATA\r\n")
                assert stream.readline()[:3] == b"354"
            before, began = d.memory(), time.monotonic()
            d.forget_peak()
            for number in range(blocks):
                if command == b"BDAT":
                    last = b" LAST" if number == blocks - 1 else b""
                    connection.sendall(b"BDAT %d%s\r\n" % (len(block), last))
                connection.sendall(block)
                if command == b"BDAT":
                    assert (reply := stream.readline())[:3] == b"250", reply
            if command == b"DATA":
                connection.sendall(b".\r\n")
                assert (reply := stream.readline())[:3] == b"250", reply
            took = time.monotonic() - began
            size = blocks * len(block)
            print(f"large  {command.decode():5} {size / MIB:7.0f} MiB: {size / took / 1e6:6.0f} MB/s, "
                  f"{(d.memory('VmHWM') - before) / MIB:5.1f} MiB above idle", flush=True)


def small(messages, octets):
    with daemon() as d, connect(d.port) as connection, connection.makefile("rb") as stream:
        content = b"Subject: x\r\n\r\n" + LINE * (octets // len(LINE)) + b".\r\n"
        begin(connection, stream)
        connection.sendall(b"RSET\r\n")
        stream.readline()
        cpu, began = d.cpu(), time.monotonic()
        for _ in range(messages):
            connection.sendall(b"MAIL FROM:<a@home.test>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n")
            assert [stream.readline()[:3] for _ in range(3)] == [b"250", b"250", b"354"]
            connection.sendall(content)
            assert (reply := stream.readline())[:3] == b"250", reply
        took = time.monotonic() - began
        print(f"small  {messages} messages of {octets} octets: {(d.cpu() - cpu) / messages:.0f} us CPU each, "
              f"{messages / took:.0f} messages/s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measured.add_arguments(parser)
    parser.add_argument("--sessions", type=int, default=10000, help="that are idle; 0 leaves it out, as for the others")
    parser.add_argument("--seconds", type=int, default=10, help="of new connections")
    parser.add_argument("--clients", type=int, default=4, help="processes that make new connections")
    parser.add_argument("--large", type=int, default=1024, metavar="MIB", help="size of the large message")
    parser.add_argument("--messages", type=int, default=1000, help="small ones in one session")
    parser.add_argument("--octets", type=int, default=4096, help="of a small message")
    arguments = parser.parse_args()
    measured.prepare(arguments, files=arguments.sessions + 1000)
    if arguments.sessions:
        idle(arguments.sessions)
    if arguments.seconds:
        new(arguments.clients, arguments.seconds)
    if arguments.large:
        large(arguments.large * MIB)
    if arguments.messages:
        small(arguments.messages, arguments.octets)
    print(EXPLANATION)


if __name__ == "__main__":
    main()
