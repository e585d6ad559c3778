"""Figures of delivery: other mail, beside much that has to wait or goes to many places."""
import asyncio
import multiprocessing
import time

import peers
from measured import MIB, harness, in_turn, milliseconds, say
from setting import daemon, resolver, sink, source, stopped


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


def nameless(a):
    names = {"test": "deny", "well.test": ["m.well.test. A 127.0.0.1"]}
    names["well.test"] += [f"n{number}.well.test. MX 10 m.well.test." for number in range(1000)]

    def run():
        with resolver(names) as dns, stopped(peers.Probe()) as probe, \
                daemon(f'mx_port: {probe.port}, dns: (servers: ["127.0.0.1:{dns.port}"]),') as d:
            probe.connect(d)
            send_each(d.port, range(a.silent))
            began, others = time.perf_counter(), []
            while time.perf_counter() < began + 15 and len(others) < 1000:
                others.append(probe.send(f"n{len(others)}.well.test")[2])
                time.sleep(0.01)
            return (max(others),)

    [longest] = in_turn(a.rounds, nameless=run)["nameless"]
    say("nameless", f"{a.silent} domains whose name servers are silent: others waited {longest:.2f} s at most")


def queue_size(d):
    [status] = d.ctl("system", "status")
    return status["queue_size"]


def rerouted(d, probe, to):
    """Gives the sender of all that is queued a route of his own: seconds until the last message has it, and what others
    took meanwhile."""
    last = d.queue()[-1]["id"]
    text = d.config.read_text()
    d.config.write_text(text.replace("sender_routes: {}", f'sender_routes: {{"a@home.test": (mx_override: "{to}")}}'))
    others, began = [], time.perf_counter()
    d.ctl("config", "reload")
    while True:
        others.append(probe.send()[2])
        [why] = d.ctl("queue", "why", last)
        if to in why["recipients"][0]["detail"]:
            return time.perf_counter() - began, others


def queued(a):
    """Once, whatever --rounds says: it takes long, and is long enough."""
    port = harness.free_port()
    with stopped(peers.Dead(["127.0.0.2", "127.0.0.3"], port)), stopped(peers.Probe()) as probe, daemon(
            f'retry: (base_delay: "1h"), sender_routes: {{}}, domains: {{"*": (mx_override: "127.0.0.2:{port}"), '
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
                      f"{(full - empty) / a.queued:.0f} octets each; {used / 1e3:.0f} ms CPU in 10 s; "
                      f"others {milliseconds(others)}")
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
        took, others = rerouted(d, probe, f"127.0.0.3:{port}")
        say("queued", f"a new route for their sender: all have it after {took:.2f} s; others {milliseconds(others)}, "
                      f"at most {max(others) * 1e3:.0f} ms")
