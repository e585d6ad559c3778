#!/usr/bin/env python3
"""Measures delivery: what a message costs, what reuse and pipelining gain, and what trouble elsewhere does to other mail.

Needs Postfix's smtp-source and smtp-sink, unbound, and a release build: `just bench-delivery [FIGURE...]`. Figures mean
something only on a machine that does nothing else meanwhile; what is compared was measured in turn, in one run.
"""
import argparse
import asyncio
import contextlib
import multiprocessing
import re
import shutil
import statistics
import subprocess
import sys
import time

import measured
import peers
from measured import MIB, harness
from smtp_sink import SmtpSink
from unbound import Unbound

CONFIG = """Empath(
    hostname: "mx.home.test",
    smtp: (
        listeners: [(socket: "127.0.0.1:{port}")],
        relay_networks: ["127.0.0.0/8"],
        limits: (
            connections: 100000, connections_per_address: 100000, messages_per_connection: 10000000, queue_size: 10000000,
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
WARM_UP = 200
EXPLANATION = """
cpu         smtp-source -> daemon -> smtp-sink: processor time of the daemon for each message, kernel and all; rate: until
            the sink has them; of direct: by the rate of smtp-source straight into smtp-sink
reuse       the same, with a connection for each message and with one for many (connection_pool.max_messages)
pipelining  the same with a peer whose every word takes --delay to come, over 4 connections that are reused
first       on a daemon that does nothing else: from 250 as the client reads it to the connection that the peer accepts
            (there was none before), and to the MAIL that it reads; and to MAIL over a connection that was there
dead        one of two MX hosts of the same preference answers no packet, after it was noticed; against both being well;
            noticing: how long the last of the messages waited that came before
limited     a peer that answers 421 beyond 5 connections, max_connections 20: messages that were ever deferred; the same with a
            peer whose every word takes --delay, so that more connections would be used if they were to be had
many        as many destinations at once, an MX and an address each; others: from the end of the content of a message for
            another destination to its arrival, as long as mail for those was left
silent      as many destinations at once, none of which answers a packet; others as above, for as long as a connection is
            waited for
queued      so many messages wait for a host that answers no packet: memory of the daemon, before and with them; its
            processor time in 10 s; others as above; a start: until it listens, until all are queued again
Each figure is the median of --rounds; all variants are measured in each round, in turn.
"""


@contextlib.contextmanager
def daemon(delivery, level="warn", start=True):
    running = measured.Daemon(config=CONFIG, delivery=delivery, level=level, start=start)
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


def resolver(records):
    return contextlib.closing(Unbound(program("unbound"), {"test": records}))


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


def in_turn(rounds, **variants):
    """Runs each variant in each round; the medians of what they return, by name."""
    found = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            found[name].append(run())
    return {name: [statistics.median(column) for column in zip(*rows)] for name, rows in found.items()}


def say(name, text):
    print(f"{name:11} {text}", flush=True)


def percentile(values, percent):
    values = sorted(values)
    return values[min(len(values) - 1, len(values) * percent // 100)]


def milliseconds(values):
    return f"p50 {percentile(values, 50) * 1e3:.2f} ms, p99 {percentile(values, 99) * 1e3:.2f} ms"


def gain(one, other):
    return f"{(other / one - 1) * 100:+.0f} %"


def cpu(a):
    def daemon_between():
        with sink() as s, daemon(over(s.port, "max_connections: 50")) as d:
            return through(d, [s], a.messages)

    def direct():
        with sink() as s:
            return (relay(s.port, [s], a.messages),)

    found = in_turn(a.rounds, daemon=daemon_between, direct=direct)
    rate, each = found["daemon"]
    say("cpu", f"{each:.0f} us CPU a message of 4 KiB; {rate:.0f}/s, {rate / found['direct'][0] * 100:.0f} % of direct")


def reuse(a):
    def run(pool):
        with sink() as s, daemon(over(s.port) + f"connection_pool: ({pool}),") as d:
            return through(d, [s], a.messages)

    found = in_turn(a.rounds, off=lambda: run("max_messages: 1"), on=lambda: run(""))
    (off, off_cpu), (on, on_cpu) = found["off"], found["on"]
    say("reuse", f"off {off:.0f}/s, {off_cpu:.0f} us CPU; on {on:.0f}/s, {on_cpu:.0f} us CPU; {gain(off, on)}")


def pipelining(a):
    def run(switch):
        port = harness.free_port()
        with sink() as s, stopped(peers.far_away(port, s.port, a.delay / 1000)), \
                daemon(over(port, f"max_connections: 4, pipelining: {switch}")) as d:
            return through(d, [s], a.far_messages)

    found = in_turn(a.rounds, off=lambda: run("false"), on=lambda: run("true"))
    off, on = found["off"][0], found["on"][0]
    say("pipelining", f"{a.delay} ms away: off {off:.0f}/s, on {on:.0f}/s; {gain(off, on)}")


def first(a):
    def run(pool):
        with stopped(peers.Probe()) as probe, daemon(to(probe) + f"connection_pool: ({pool}),") as d:
            probe.connect(d)
            probe.many(20)
            return probe.many(a.probes)

    def to(probe):
        return f'domains: {{"probe.test": (mx_override: "127.0.0.1:{probe.port}")}},'

    connected, mail, reused = [], [], []
    for _ in range(a.rounds):
        column = run('idle_timeout: "0s"')
        connected, mail = connected + column[0], mail + column[1]
        reused += run("")[1]
    say("first", f"after 250: connection {milliseconds(connected)}; MAIL {milliseconds(mail)}; "
                 f"MAIL over an open one {milliseconds(reused)}")


def dead(a):
    hosts = {"well": ("127.0.0.1", "127.0.0.3"), "ill": ("127.0.0.1", "127.0.0.2")}
    port = harness.free_port()
    records = ["example.test. MX 10 a.test.", "example.test. MX 10 b.test."]

    def run(addresses):
        zone = records + [f"{name}.test. A {address}" for name, address in zip("ab", addresses)]
        with resolver(zone) as names, daemon(f'mx_port: {port}, dns: (servers: ["127.0.0.1:{names.port}"]),') as d:
            began = time.perf_counter()
            relay(d.port, sinks, WARM_UP)
            noticed = time.perf_counter() - began
            return relay(d.port, sinks, a.messages), noticed

    with sink(host="127.0.0.1", port=port) as one, sink(host="127.0.0.3", port=port) as other, \
            stopped(peers.Dead(["127.0.0.2"], port)):
        sinks = [one, other]
        found = in_turn(a.rounds, well=lambda: run(hosts["well"]), ill=lambda: run(hosts["ill"]))
    well, ill = found["well"], found["ill"]
    say("dead", f"both well {well[0]:.0f}/s, one dead {ill[0]:.0f}/s: {ill[0] / well[0] * 100:.0f} %; "
                f"noticing {ill[1]:.1f} s ({well[1]:.1f} s where both are well)")


def limited(a):
    def run(delay):
        refused, busy, port = multiprocessing.Value("i", 0), harness.free_port(), harness.free_port()
        with stopped(peers.busy(busy, 5, refused)), stopped(peers.far_away(port, busy, delay)), \
                daemon(over(port, "max_connections: 20"), level="info") as d:
            began = time.perf_counter()
            source(d.port, a.limited)
            harness.wait_until(lambda: not d.queue(), "all are delivered", 600, every=0.05)
            took = time.perf_counter() - began
            log = d.log_file.read_text()
            deferred = set(re.findall(r'"message":"deferred","message_id":"(\w+)"', log))
            assert log.count('"message":"delivered"') == a.limited
            return len(deferred) / a.limited * 100, refused.value, took

    found = in_turn(a.rounds, near=lambda: run(0), far=lambda: run(a.delay / 1000))
    for name, (share, refused, took) in found.items():
        where = f"{a.delay} ms away" if name == "far" else "near"
        say("limited", f"{where}: {a.limited} messages in {took:.1f} s, {share:.2f} % ever deferred; {refused:.0f} connections "
                       "were answered 421")


def send_each(port, numbers, connections=16):
    """Sends a message to each of these domains, over so many connections at once."""
    numbers = iter(numbers)

    async def client():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def say(octets, *codes):
            writer.write(octets)
            for code in codes:
                while (line := await reader.readline())[3:4] == b"-":
                    pass
                assert line.startswith(code), line

        await say(b"", b"220")
        await say(b"EHLO c.test\r\n", b"250")
        for number in numbers:
            await say(b"MAIL FROM:<a@home.test>\r\nRCPT TO:<b@d%d.test>\r\nDATA\r\n" % number, b"250", b"250", b"354")
            await say(b"Subject: x\r\n\r\n" + b"x" * 76 + b"\r\n.\r\n", b"250")
        writer.close()

    async def clients():
        await asyncio.gather(*[client() for _ in range(connections)])

    asyncio.run(clients())


def zone(count):
    """Records of so many domains, each with an MX and an address of its own; and the addresses."""
    hosts = [f"127.{1 + n // 62500}.{n // 250 % 250}.{1 + n % 250}" for n in range(count)]
    return hosts, [record for n, host in enumerate(hosts)
                   for record in (f"d{n}.test. MX 10 m{n}.test.", f"m{n}.test. A {host}")]


def beside(probe, names, port):
    """Deliveries to hosts that these names lead to, and to the probe."""
    return (f'mx_port: {port}, dns: (servers: ["127.0.0.1:{names.port}"], cache_size: 100000), '
            f'domains: {{"probe.test": (mx_override: "127.0.0.1:{probe.port}")}},')


def many(a):
    port = harness.free_port()
    _, records = zone(a.destinations)

    def run():
        with resolver(records) as names, sink("-4", "-m", "100000", host="0.0.0.0", port=port) as s, \
                stopped(peers.Probe()) as probe, daemon(beside(probe, names, port)) as d:
            probe.connect(d)
            probe.many(20)
            idle, before, began = d.memory(), d.cpu(), time.perf_counter()
            d.forget_peak()
            senders = [multiprocessing.Process(target=send_each, args=(d.port, range(n, a.destinations, 2)), daemon=True)
                       for n in range(2)]
            for sender in senders:
                sender.start()
            others = []
            while s.count < a.destinations:
                others.append(probe.send()[1:])
                time.sleep(0.002)
            took = time.perf_counter() - began
            used = (d.cpu() - before) / a.destinations
            for sender in senders:
                sender.join()
            all_others.extend(others)
            return a.destinations / took, used, (d.memory("VmHWM") - idle) / MIB

    all_others = []
    rate, used, memory = in_turn(a.rounds, many=run)["many"]
    began, arrived = zip(*all_others)
    say("many", f"{a.destinations} destinations: {rate:.0f}/s, {used:.0f} us CPU each, {memory:.1f} MiB above idle; "
                f"others {milliseconds(arrived)}, from 250 to MAIL {milliseconds(began)}")


def silent(a):
    port = harness.free_port()
    hosts, records = zone(a.silent)

    def run():
        with resolver(records) as names, stopped(peers.Dead(hosts, port)), stopped(peers.Probe()) as probe, \
                daemon(beside(probe, names, port)) as d:
            probe.connect(d)
            probe.many(20)
            send_each(d.port, range(a.silent))
            began, others = time.perf_counter(), []
            while time.perf_counter() < began + 35:
                try:
                    others.append(probe.send()[2])
                except TimeoutError:
                    return (float("inf"),)
            return (max(others),)

    [longest] = in_turn(a.rounds, silent=run)["silent"]
    say("silent", f"{a.silent} destinations that answer no packet: others waited {longest:.2f} s at most")


def queue_size(d):
    [status] = d.ctl("system", "status")
    return status["queue_size"]


def queued(a):
    """Once, whatever --rounds says: it takes long, and is long enough."""
    port = harness.free_port()
    with stopped(peers.Dead(["127.0.0.2"], port)), stopped(peers.Probe()) as probe, daemon(
            f'retry: (base_delay: "1h"), domains: {{"example.test": (mx_override: "127.0.0.2:{port}"), '
            f'"probe.test": (mx_override: "127.0.0.1:{probe.port}")}},') as d:
        probe.connect(d)
        probe.many(20)
        empty, began = d.memory(), time.perf_counter()
        source(d.port, a.queued, a.queued_octets)
        filled = time.perf_counter() - began
        size = queue_size(d)
        assert size == a.queued, size
        full, before = d.memory(), d.cpu()
        time.sleep(10)
        used = d.cpu() - before
        probe.connect(d)
        others = probe.many(a.probes)[2]
        say("queued", f"{a.queued} messages in {filled:.0f} s: {empty / MIB:.1f} -> {full / MIB:.1f} MiB, "
                      f"{(full - empty) / a.queued:.0f} octets each; {used / 1e3:.0f} ms CPU in 10 s; others {milliseconds(others)}")
        d.terminate()
        began = time.perf_counter()
        d.start()
        listening = time.perf_counter() - began
        harness.wait_until(lambda: queue_size(d) == a.queued, "all are queued again", 600)
        loaded = time.perf_counter() - began
        probe.connect(d)
        others = probe.many(a.probes)[2]
        say("queued", f"after a start: listens after {listening:.2f} s, all queued after {loaded:.1f} s; "
                      f"{d.memory() / MIB:.1f} MiB; others {milliseconds(others)}")


FIGURES = {figure.__name__: figure for figure in (cpu, reuse, pipelining, first, dead, limited, many, silent, queued)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measured.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=5000, help="of 4 KiB, for cpu, reuse and dead")
    parser.add_argument("--delay", type=int, default=20, metavar="MS", help="for pipelining")
    parser.add_argument("--far-messages", type=int, default=500, help="for pipelining")
    parser.add_argument("--probes", type=int, default=500, help="messages whose way is timed, for first and queued")
    parser.add_argument("--limited", type=int, default=2000, help="messages for limited")
    parser.add_argument("--destinations", type=int, default=10000, help="for many")
    parser.add_argument("--silent", type=int, default=1500, help="destinations for silent")
    parser.add_argument("--queued", type=int, default=100000, help="messages for queued")
    parser.add_argument("--queued-octets", type=int, default=1024, help="of each of those")
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"{', '.join(FIGURES)}; none means all of them")
    arguments = parser.parse_args()
    if unknown := set(arguments.figures) - FIGURES.keys():
        parser.error(f"there is no figure {', '.join(unknown)}")
    measured.prepare(arguments, files=arguments.destinations + 1000)
    for name in arguments.figures or FIGURES:
        FIGURES[name](arguments)
    print(EXPLANATION)


if __name__ == "__main__":
    main()
