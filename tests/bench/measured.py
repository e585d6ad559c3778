"""The daemon as the benchmarks measure it: its memory and processor time, and a start that can be timed."""
import contextlib
import os
import pathlib
import re
import resource
import socket
import statistics
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
sys.dont_write_bytecode = True

import harness  # noqa: E402

MIB = 1 << 20


class Daemon(harness.Daemon):
    # Its log may have warnings only.
    def is_ready(self):
        if self.process.poll() is not None:
            sys.exit(self.log_file.read_text())
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            return connection.recv(100).startswith(b"220")
        return False

    def memory(self, name="VmRSS"):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) * 1024

    def forget_peak(self):
        pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def cpu(self):
        """Microseconds that it has run, in the kernel and outside."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") * 1e6


def add_arguments(parser):
    parser.add_argument("--bin-dir", type=pathlib.Path, default="target/release")
    parser.add_argument("--directory", type=pathlib.Path, default="target", help="for the spool, on the disk that is meant")


def prepare(arguments, files):
    """Takes the binaries and the directory that were named, and as many open files as may be; `files` are needed."""
    for variable, name in (("EMPATH_BIN", "empath"), ("EMPATHCTL_BIN", "empathctl")):
        os.environ[variable] = str(arguments.bin_dir.resolve() / name)
    arguments.directory.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(arguments.directory.resolve())
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < files:
        sys.exit(f"needs {files} open files, and may have {hard}: ulimit -Hn")


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
