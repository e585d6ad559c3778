"""What the benchmarks of delivery put together: the daemon, and programs that send and that take."""
import contextlib
import shutil
import subprocess
import sys
import time

import measured
from measured import harness
from smtp_sink import SmtpSink
from unbound import Unbound

# Messages before what is measured.
WARM_UP = 200
CONFIG = """Empath(
    hostname: "mx.home.test",
    smtp: (
        listeners: [(socket: "127.0.0.1:{port}")],
        relay_networks: ["127.0.0.0/8"],
        limits: (
            connections: 100000, connections_per_address: 100000, messages_per_connection: 10000000,
            queue_size: 10000000,
        ),
    ),
    spool: (path: "spool"),
    delivery: ({delivery}),
    control_socket: "control.sock",
    health: (listen_address: "127.0.0.1:{health}"),
    metrics: (listen_address: "127.0.0.1:{metrics}"),
    log: (level: "{level}"),
)
"""


@contextlib.contextmanager
def daemon(delivery, level="warn"):
    running = measured.Daemon(config=CONFIG, delivery=delivery, level=level)
    try:
        yield running
    finally:
        running.close()


@contextlib.contextmanager
def stopped(peer):
    """Stops this peer at the end."""
    try:
        yield peer
    finally:
        peer.stop()


def program(name):
    return shutil.which(name, path="/usr/sbin:/usr/bin") or sys.exit(f"needs {name}")


def sink(*options, **keywords):
    return stopped(SmtpSink(program("smtp-sink"), *options, **keywords))


def resolver(zones):
    """A resolver that knows these zones, or these records of `test.`"""
    zones = zones if isinstance(zones, dict) else {"test": zones}
    return contextlib.closing(Unbound(program("unbound"), zones))


def source(port, messages, octets=4096, to="example.test"):
    subprocess.run([program("smtp-source"), "-d", "-s", str(min(20, messages)), "-l", str(octets), "-m", str(messages),
                    "-f", "a@home.test", "-t", f"b@{to}", f"127.0.0.1:{port}"], check=True, stdin=subprocess.DEVNULL)


def over(port, terms=""):
    return f'domains: {{"example.test": (mx_override: "127.0.0.1:{port}", {terms})}},'


def relay(to, sinks, messages):
    """Messages a second from smtp-source to the sinks, through the daemon or what else listens at the port `to`."""
    before, began = sum(each.count for each in sinks), time.perf_counter()
    source(to, messages)
    harness.wait_until(lambda: sum(each.count for each in sinks) >= before + messages, "all arrived", 600, every=0.002)
    return messages / (time.perf_counter() - began)


def through(d, sinks, messages):
    """Rate and microseconds of the daemon's processor time of a message, once it is warm."""
    relay(d.port, sinks, min(WARM_UP, messages))
    before = d.cpu()
    rate = relay(d.port, sinks, messages)
    return rate, (d.cpu() - before) / messages
