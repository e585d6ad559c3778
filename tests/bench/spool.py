#!/usr/bin/env python3
"""Compares the spool with what fio gets out of the same disk, in the same directory and in one go.

Needs fio and a release build: `just bench-spool --directory DIR [--start MESSAGES]`. The ratios mean something only on
a machine that does nothing else meanwhile.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

KIB = 1024
# fio: octets of a write; whether the file was written before.
FILES = [(octets, filled) for octets in (256 * KIB, 4 * KIB) for filled in (True, False)]
# Load: writers; KiB of a message. The first is what fio's 4 KiB are, one commit after the other and nothing else.
SINGLE = (1, 4)
SHAPES = [SINGLE, (128, 4)] + [(writers, kib) for kib in (1, 10, 100) for writers in (1, 32, 128, 1000)]
# So many writers say what the full load is of which half is tried.
FULL = 128
EXPLANATION = """
writers     tasks that each commit a message, wait for the answer, remove the message without waiting, and go on
commits/s   messages made durable a second (the removals are not counted, but cost)
MB/s        octets of content a second; the journal writes their envelopes and removals besides
of fio      MB/s by those of fio's 256 KiB into a filled file, as the journal's are; where it says "r", whose messages
            are not removed, commits/s by fio's writes/s of 4 KiB into a filled file
us CPU      processor time of the whole process for each message: load program, spool and kernel on their behalf
p50, p99    milliseconds from commit to answer as a writer sees it, all writers always busy; max likewise
msgs/sync   messages made durable by one sync; sync: its mean time in milliseconds, with the write before it
half load   messages arrive at random moments, half as many a second as the column commits/s; p99: milliseconds from
            when a message is due to its answer; "x sync": p99 by the median fdatasync of fio's 4 KiB into a filled file
All of it, fio and load, was run --rounds times in turn; each line is that of its best round.
"""


class Bench:
    def __init__(self, directory, program, seconds):
        self.directory, self.program, self.seconds = directory, program, seconds

    def fio(self, octets, filled):
        """Sequential writes with an fdatasync after each: octets and writes a second, times of the sync in ms."""
        file = self.directory / "fio"
        # A file that grows must not begin again from the front: it would be a filled one then.
        size = "1g" if filled else "16g"
        arguments = ["--name=seq", f"--filename={file}", "--rw=write", f"--bs={octets}", f"--size={size}",
                     "--fdatasync=1", "--ioengine=psync", "--fallocate=none", f"--overwrite={int(filled)}",
                     f"--runtime={self.seconds}", "--output-format=json"] + ["--time_based=1"] * filled
        output = subprocess.run(["fio", *arguments], check=True, capture_output=True, text=True).stdout
        file.unlink()
        job = json.loads(output)["jobs"][0]
        write, sync = job["write"], job["sync"]["lat_ns"]
        percentile = {int(float(name)): value / 1e6 for name, value in sync["percentile"].items()}
        return {"bytes/s": write["bw_bytes"], "writes/s": write["iops"], "mean": sync["mean"] / 1e6,
                "p50": percentile[50], "p99": percentile[99]}

    def load(self, path, *arguments):
        """Runs the load program; its figures by name."""
        command = [self.program, path, *map(str, arguments)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return {name: float(value) for name, value in (pair.split("=") for pair in output.split())}

    def fresh(self, *arguments):
        path = self.directory / "spool"
        try:
            return self.load(path, *arguments)
        finally:
            shutil.rmtree(path)

    def speed(self, rounds):
        disk, load, half = {}, {}, {}
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            for octets, filled in FILES:
                keep(max, disk, (octets, filled), "writes/s", self.fio(octets, filled))
            for writers, kib in SHAPES:
                arguments = ["--octets", kib * KIB, "--seconds", self.seconds]
                alone = ["--keep"] * ((writers, kib) == SINGLE)
                found = self.fresh("commits", "--writers", writers, *arguments, *alone)
                keep(max, load, (writers, kib), "commits/s", found)
                if writers == FULL:
                    found = self.fresh("latency", "--rate", found["commits/s"] / 2, *arguments)
                    keep(min, half, (writers, kib), "p99", found)
        show(disk, load, half)

    def start(self, messages, octets, attempts):
        path = self.directory / "spool"
        arguments = ["--messages", messages, "--octets", octets, "--attempts", attempts]
        filled = self.load(path, "fill", *arguments)
        print(f"{messages} messages of {octets} octets, {attempts} attempts each: filled in {filled['seconds']:.1f} s")
        for name, cold in (("from disk", True), ("from the page cache", False)):
            if cold and not forget_pages():
                continue
            found = self.load(path, "start", *["--load"] * (not cold))
            loaded = f", then {found['us/message']:.1f} us to load a message" if "us/message" in found else ""
            print(f"start {name}: {found['open_seconds']:.2f} s, {found['memory'] / 1e6:.1f} MB, "
                  f"{found['memory/message']:.1f} octets a message{loaded}", flush=True)
        shutil.rmtree(path)


def keep(better, best, key, name, found):
    """Keeps the figures of the better of two rounds."""
    best[key] = better(best.get(key, found), found, key=lambda figures: figures[name])


def show(disk, load, half):
    print(f"{'fio':22} {'MB/s':>7} {'writes/s':>8} | fdatasync in ms: {'mean':>6} {'p50':>6} {'p99':>6}")
    for octets, filled in FILES:
        name, found = f"{octets // KIB:3} KiB, {'filled' if filled else 'growing'} file", disk[octets, filled]
        print(f"{name:22} {found['bytes/s'] / 1e6:7.1f} {found['writes/s']:8.0f} | {'':16} "
              f"{found['mean']:6.3f} {found['p50']:6.3f} {found['p99']:6.3f}")
    print(f"\n{'writers':>7} {'KiB':>4} {'commits/s':>9} {'MB/s':>7} {'of fio':>7} {'us CPU':>7} {'p50':>7} {'p99':>7} "
          f"{'max':>7} {'msgs/sync':>9} {'sync':>6} | half load: {'p99':>7} {'x sync':>6}")
    for writers, kib in SHAPES:
        found = load[writers, kib]
        single = (writers, kib) == SINGLE
        ratio = (found["commits/s"] / disk[4 * KIB, True]["writes/s"] if single else
                 found["content_bytes/s"] / disk[256 * KIB, True]["bytes/s"])
        line = (f"{writers:7} {kib:4} {found['commits/s']:9.0f} {found['content_bytes/s'] / 1e6:7.1f} "
                f"{ratio:6.0%}{'r' if single else ' '} {found['cpu']:7.1f} {found['p50'] / 1e3:7.2f} "
                f"{found['p99'] / 1e3:7.2f} {found['max'] / 1e3:7.1f} {found['commits/sync']:9.1f} "
                f"{found['sync_mean'] / 1e3:6.2f} |")
        if writers == FULL:
            p99 = half[writers, kib]["p99"] / 1e3
            line += f"{'':12}{p99:7.2f} {p99 / disk[4 * KIB, True]['p50']:6.1f}"
        print(line)
    print(EXPLANATION)


def forget_pages():
    """Makes the kernel forget what it knows of files; only root can."""
    subprocess.run(["sync"], check=True)
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError as failure:
        print(f"the start from disk is left out: {failure}", file=sys.stderr)
        return False
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=pathlib.Path, default="target", help="on the disk that is meant")
    parser.add_argument("--program", type=pathlib.Path, default="target/release/examples/spool_load")
    parser.add_argument("--seconds", type=int, default=3, help="for each figure")
    parser.add_argument("--rounds", type=int, default=3, help="of which the best is taken")
    parser.add_argument("--start", type=int, metavar="MESSAGES", help="measure the start with so many instead")
    parser.add_argument("--octets", type=int, default=1024, help="with --start: of each message")
    parser.add_argument("--attempts", type=int, default=0, help="with --start: that each message has behind it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-spool-", dir=arguments.directory) as directory:
        bench = Bench(pathlib.Path(directory).resolve(), arguments.program.resolve(), arguments.seconds)
        if arguments.start:
            bench.start(arguments.start, arguments.octets, arguments.attempts)
        else:
            bench.speed(arguments.rounds)


main()
