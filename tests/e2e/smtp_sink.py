"""smtp-sink of Postfix: it takes mail fast, counts and keeps it, and misbehaves as it is told."""
import collections
import os
import pathlib
import re
import subprocess
import threading

from harness import PATIENCE, free_port, wait_until


class SmtpSink:
    """Runs `program` with these options; what comes is kept in `dump`, if that is given, and counted otherwise. A sink
    that is restarted has the same address and the same dump."""

    def __init__(self, program, *options, dump=None, host="127.0.0.1", port=None):
        self.program, self.dump, self.host, self.port = program, dump and pathlib.Path(dump), host, port or free_port()
        self.process = None
        self.start(*options)

    def start(self, *options):
        # It gives up its rights before it opens the file.
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        output = ["-D", self.dump] if self.dump else ["-c"]
        self.count = 0
        self.process = subprocess.Popen(
            [self.program, *user, *output, "-m", "1000", *options, f"{self.host}:{self.port}", "1000"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.reader = threading.Thread(target=self.read, args=(self.process.stdout,), daemon=True)
        self.reader.start()
        wait_until(self.listens, "smtp-sink listens")

    def listens(self):
        """Asked of the system, since one that is to serve but one connection would have served it."""
        assert self.process.poll() is None, self.process.args
        address = "".join(f"{int(octet):02X}" for octet in reversed(self.host.split(".")))
        local = f" {address}:{self.port:04X} 00000000:0000 0A "
        return local in pathlib.Path("/proc/net/tcp").read_text()

    def read(self, output):
        tail = b""
        while chunk := os.read(output.fileno(), 65536):
            tail += chunk
            if counts := re.findall(rb"mesg=(\d+)", tail):
                self.count = int(counts[-1])
            tail = tail[-40:]

    def wait_for(self, count, seconds=PATIENCE):
        """Waits until so many messages were taken."""
        wait_until(lambda: self.count >= count, f"{count} messages are in the sink", seconds, every=0.002)

    def mail(self):
        """How often each recipient was given a message, whatever the reply was."""
        text = self.dump.read_bytes() if self.dump.exists() else b""
        return collections.Counter(found.decode() for found in re.findall(rb"^X-Rcpt-Args: <(.*?)>", text, re.M))

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()
