"""What the benchmarks of delivery deliver to: servers that are far away, busy, dead or observed."""
import asyncio
import multiprocessing
import selectors
import socket
import time

PATIENCE = 120
CONTENT = b"Subject: probe\r\n\r\nprobe\r\n"


class Conversation:
    """A server that takes everything: what it answers to octets, and what it has seen."""

    GREETING = b"220 peer.test ESMTP\r\n"

    def __init__(self):
        self.buffer, self.content, self.over = b"", False, False
        self.mails = self.messages = 0

    def feed(self, octets):
        self.buffer += octets
        replies = b""
        while True:
            before, end, after = self.buffer.partition(b"\r\n.\r\n" if self.content else b"\r\n")
            if not end:
                if self.content:
                    self.buffer = self.buffer[-4:]
                return replies
            self.buffer = after
            if self.content:
                self.content = False
                self.messages += 1
                replies += b"250 2.0.0 ok\r\n"
                continue
            verb = before[:4].upper()
            self.mails += verb == b"MAIL"
            if verb == b"EHLO":
                replies += b"250-peer.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
            elif verb == b"DATA":
                # A dot at once would be an end, too.
                self.content, self.buffer = True, b"\r\n" + after
                replies += b"354 go on\r\n"
            elif verb == b"QUIT":
                self.over = True
                replies += b"221 2.0.0 bye\r\n"
            else:
                replies += b"250 2.0.0 ok\r\n"


class Process:
    """A server in a process of its own, from `serve`, a coroutine function that never ends, and these arguments."""

    def __init__(self, serve, *arguments):
        self.process = multiprocessing.Process(target=lambda: asyncio.run(serve(*arguments)), daemon=True)
        self.process.start()

    def stop(self):
        self.process.kill()
        self.process.join()


def far_away(port, to, delay):
    """A proxy at `port` for the server at `to`: everything that the server says takes `delay` seconds."""
    async def serve():
        loop = asyncio.get_running_loop()

        async def forward(reader, write, end):
            try:
                while octets := await reader.read(65536):
                    write(octets)
            except OSError:
                pass
            end()

        async def connected(reader, writer):
            there, back = await asyncio.open_connection("127.0.0.1", to)
            await asyncio.gather(
                forward(reader, back.write, back.close),
                forward(there, lambda octets: loop.call_later(delay, writer.write, octets),
                        lambda: loop.call_later(delay, writer.close)))

        server = await asyncio.start_server(connected, "127.0.0.1", port, backlog=1000)
        await server.serve_forever()
    return Process(serve)


def busy(port, most, refused):
    """A server at `port` that answers 421 beyond so many connections, and counts those in the shared value `refused`."""
    class Server(asyncio.Protocol):
        active = 0

        def connection_made(self, transport):
            self.transport, self.conversation = transport, None
            if Server.active >= most:
                refused.value += 1
                transport.write(b"421 4.7.0 too many connections\r\n")
                return transport.close()
            Server.active += 1
            self.conversation = Conversation()
            transport.write(Conversation.GREETING)

        def data_received(self, octets):
            if self.conversation:
                self.transport.write(self.conversation.feed(octets))
                if self.conversation.over:
                    self.transport.close()

        def connection_lost(self, _error):
            Server.active -= self.conversation is not None

    async def serve():
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", port, backlog=1000)
        await server.serve_forever()
    return Process(serve)


class Dead:
    """Hosts that answer no packet: nobody takes their connections, and the system keeps no more of them."""

    def __init__(self, hosts, port):
        self.sockets = []
        for host in hosts:
            self.sockets.append(socket.create_server((host, port), backlog=0))
            # The first is kept by the system, the second waits as all others will.
            for _ in range(2):
                connection = socket.socket()
                connection.setblocking(False)
                connection.connect_ex((host, port))
                self.sockets.append(connection)

    def stop(self):
        for each in self.sockets:
            each.close()


class Probe:
    """Sends messages through the daemon to itself, one at a time, with one clock for both ends."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self.listener.getsockname()[1]
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.client = None

    def connect(self, daemon):
        if self.client:
            self.selector.unregister(self.client)
            self.client.close()
        self.client = socket.create_connection(("127.0.0.1", daemon.port), 60)
        self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.say(b"", 1)
        self.say(b"EHLO probe.test\r\n", 1)
        self.selector.register(self.client, selectors.EVENT_READ)

    def say(self, octets, replies):
        """Says this, and waits until the last of so many replies begins a line of its own."""
        self.client.sendall(octets)
        said = b""
        while sum(line[3:4] == b" " for line in said.splitlines(True) if line.endswith(b"\n")) < replies:
            said += (octets := self.client.recv(65536))
            assert octets, said
        return said

    def send(self, domain="probe.test"):
        """Sends a message; returns the seconds from 250 to the connection (None if there was one) and to MAIL, and those
        from the end of the content to its arrival."""
        said = self.say(b"MAIL FROM:<p@home.test>\r\nRCPT TO:<p@%s>\r\nDATA\r\n" % domain.encode(), 3)
        assert b"\n354 " in said, said
        self.times = {}
        began = time.perf_counter()
        self.client.sendall(CONTENT + b".\r\n")
        while not {"accepted", "mail", "arrived"} <= self.times.keys():
            self.wait(PATIENCE)
        accepted = self.times["accepted"]
        connected = self.times.get("connected")
        return connected and connected - accepted, self.times["mail"] - accepted, self.times["arrived"] - began

    def wait(self, seconds):
        events = self.selector.select(seconds)
        now = time.perf_counter()
        if not events:
            raise TimeoutError
        for key, _ in events:
            if key.fileobj is self.client:
                reply = self.client.recv(1000)
                assert reply.startswith(b"250"), reply
                self.times["accepted"] = now
            elif key.fileobj is self.listener:
                connection, _ = self.listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.sendall(Conversation.GREETING)
                self.selector.register(connection, selectors.EVENT_READ, Conversation())
                self.times["connected"] = now
            else:
                self.converse(key.fileobj, key.data, now)

    def converse(self, connection, conversation, now):
        octets = connection.recv(65536)
        mails, messages = conversation.mails, conversation.messages
        replies = conversation.feed(octets)
        if replies:
            connection.sendall(replies)
        if conversation.mails > mails:
            self.times["mail"] = now
        if conversation.messages > messages:
            self.times["arrived"] = now
        if not octets or conversation.over:
            self.selector.unregister(connection)
            connection.close()

    def many(self, count, pause=0.005):
        """Sends so many, with a pause between them; what `send` returned, as three lists."""
        sent = []
        for _ in range(count):
            sent.append(self.send())
            time.sleep(pause)
        return [sorted(value for value in column if value is not None) for column in zip(*sent)]

    def stop(self):
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        self.selector.close()
