#!/usr/bin/env python3
"""Measures delivery: what a message costs, what reuse and pipelining gain, and what trouble elsewhere does to other mail.

Needs Postfix's smtp-source and smtp-sink, unbound, and a release build: `just bench-delivery [FIGURE...]`. Figures mean
something only on a machine that does nothing else meanwhile; what is compared was measured in turn, in one run.
"""
import argparse
import multiprocessing
import re
import time

import crowds
import measured
import peers
from measured import harness, in_turn, milliseconds, say
from setting import WARM_UP, daemon, over, relay, resolver, sink, source, stopped, through

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
nameless    as many domains as for silent, whose name servers answer nothing; others, each for a domain that was not looked up
            before: the longest from the end of the content to its arrival
queued      so many messages wait for a host that answers no packet: memory of the daemon, before and with them; its
            processor time in 10 s; others as above; a start: until it listens, until all are queued again; a reload that
            gives their sender a route: until the last has it, of envelopes that are read from the spool for that
Each figure is the median of --rounds; all variants are measured in each round, in turn.
"""


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
        say("limited", f"{where}: {a.limited} messages in {took:.1f} s, {share:.2f} % ever deferred; "
                       f"{refused:.0f} connections were answered 421")


FIGURES = {figure.__name__: figure for figure in (
    cpu, reuse, pipelining, first, dead, limited, crowds.many, crowds.silent, crowds.nameless, crowds.queued)}


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
    parser.add_argument("--silent", type=int, default=1500, help="destinations for silent and nameless")
    parser.add_argument("--queued", type=int, default=100000, help="messages for queued")
    parser.add_argument("--queued-octets", type=int, default=1024, help="of each of those")
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"{', '.join(FIGURES)}; none means all of them")
    arguments = parser.parse_args()
    if unknown := set(arguments.figures) - FIGURES.keys():
        parser.error(f"there is no figure {', '.join(unknown)}")
    measured.prepare(arguments, files=max(arguments.destinations, 3 * arguments.silent) + 1000)
    for name in arguments.figures or FIGURES:
        FIGURES[name](arguments)
    print(EXPLANATION)


if __name__ == "__main__":
    main()
