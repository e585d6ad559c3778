"""A spool that cannot be written: on a file system that is read-only, or whose syncs fail, or for a user who may only read."""
import json
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import urllib.error
import urllib.request

from harness import PATIENCE, TestCase, program, strace, wait_until
from load import STORAGE_FAILED, STORAGE_FULL, Load
from test_full_disk import tmpfs

NOBODY = 65534


def verify(path, wrap=(), **more):
    return subprocess.run([*wrap, os.environ["EMPATH_BIN"], "spool", "verify", "--json", "--path", str(path)],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, **more)


def contents(directory):
    return {path.relative_to(directory): path.is_file() and path.read_bytes() for path in directory.rglob("*")}


class ReadOnly(TestCase):
    def begin(self):
        """A daemon with a few messages in the queue, killed, and what it delivers to."""
        self.next_hop = self.sink()
        self.next_hop.defer = "451 4.3.2 later"
        daemon = self.daemon(
            f'retry: (base_delay: "1s", max_delay: "1s", max_attempts: 10000), '
            f'domains: {{"example.test": (mx_override: "127.0.0.1:{self.next_hop.port}")}}',
            spool='segment_size: "4MiB"', limits="min_free_space: 0, min_free_inodes: 0", start=False)
        return daemon

    def queue(self, daemon):
        daemon.start()
        load = Load(self, daemon, clients=2)
        wait_until(lambda: len(load.acknowledged) > 20, "some messages are queued")
        load.stop()
        return load

    def is_ready(self, daemon):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{daemon.health}/health/ready", timeout=PATIENCE) as answer:
                return answer.status == 200
        except urllib.error.HTTPError:
            return False

    def remount(self, daemon, how):
        mount = [*daemon.wrap, program(self, "mount"), "-o", f"remount,{how}", str(daemon.dir / "spool")]
        done = subprocess.run(mount, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)

    def refuses(self, daemon, refusal):
        load = Load(self, daemon, clients=1)
        wait_until(lambda: load.refused_in_a_row > 5, "messages are refused")
        load.stop()
        self.assertEqual({r for r in load.refused.values() if not r.startswith(refusal)}, set())
        self.assertEqual(load.acknowledged, {})

    def recovers(self, daemon, load):
        process = daemon.process
        wait_until(lambda: self.is_ready(daemon), "ready again")
        load.wait_until_all_arrive(self.next_hop)
        before = len(self.next_hop.messages)
        load = Load(self, daemon, clients=1)
        wait_until(lambda: len(load.acknowledged) > 20, "messages are accepted again")
        load.stop()
        self.assertEqual(load.refused, {})
        self.next_hop.wait_for(before + len(load.acknowledged))
        self.assertIs(daemon.process, process)
        self.assertIsNone(process.poll())

    def test_a_file_system_that_becomes_read_only_is_read_and_a_start_on_it_waits_until_it_is_writable(self):
        daemon = self.begin()
        tmpfs(self, daemon)
        load = self.queue(daemon)
        daemon.kill()
        self.remount(daemon, "ro")
        done = verify(daemon.dir / "spool", daemon.wrap)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        daemon.start()
        self.assertFalse(self.is_ready(daemon))
        ids = {m["id"] for m in daemon.queue()}
        self.assertEqual(ids, set(load.acknowledged.values()))
        errors = [json.dumps(line) for line in daemon.lines() if line["level"] == "ERROR"]
        self.assertTrue([e for e in errors if "/spool/journal/" in e and "cannot" in e], errors)
        self.refuses(daemon, STORAGE_FULL)
        # What cannot be noted is delivered again; what is read is read.
        self.next_hop.defer = None
        wait_until(lambda: self.next_hop.messages, "messages are delivered")
        self.remount(daemon, "rw")
        self.recovers(daemon, load)

    def test_a_start_on_a_disk_that_cannot_sync_waits_until_it_can(self):
        daemon = self.begin()
        load = self.queue(daemon)
        daemon.kill()
        strace(self, daemon, "--inject=fdatasync:error=EIO", "--trace=fdatasync", "--interruptible=waiting")
        daemon.start()
        self.assertEqual({m["id"] for m in daemon.queue()}, set(load.acknowledged.values()))
        errors = [json.dumps(line) for line in daemon.lines() if line["level"] == "ERROR"]
        self.assertTrue([e for e in errors if "cannot write" in e and ".seg" in e], errors)
        self.refuses(daemon, STORAGE_FAILED)
        self.next_hop.defer = None
        # Without strace the calls do what they should.
        status = pathlib.Path(f"/proc/{daemon.process.pid}/status").read_text()
        os.kill(int(re.search(r"TracerPid:\s*(\d+)", status)[1]), signal.SIGTERM)
        self.recovers(daemon, load)

    def test_a_user_who_may_only_read_checks_a_spool(self):
        daemon = self.begin()
        self.queue(daemon)
        daemon.kill()
        with tempfile.TemporaryDirectory(prefix="empath-e2e-") as place:
            copy, binary = pathlib.Path(place, "spool"), pathlib.Path(place, "empath")
            shutil.copytree(daemon.dir / "spool", copy)
            # Where the binary lies is perhaps not for everybody.
            shutil.copy(os.environ["EMPATH_BIN"], binary)
            for path in [*pathlib.Path(place).rglob("*"), pathlib.Path(place)]:
                path.chmod(0o555 if path.is_dir() or path == binary else 0o444)
            before = contents(copy)
            done = subprocess.run([str(binary), "spool", "verify", "--json", "--path", str(copy)],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE,
                                  **({"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}))
            self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
            self.assertTrue(json.loads(done.stdout.splitlines()[-1])["clean"])
            self.assertEqual(contents(copy), before)
            for path in [pathlib.Path(place), *pathlib.Path(place).rglob("*")]:
                if path.is_dir():
                    path.chmod(stat.S_IRWXU)

    def test_a_directory_for_something_else_is_refused_and_named(self):
        daemon = self.daemon(start=False)
        place = daemon.dir / "spool"
        place.mkdir(mode=0o755)
        (place / "report.txt").write_text("mine")
        done = subprocess.run([os.environ["EMPATH_BIN"], "--config", str(daemon.config)], cwd=daemon.dir,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
        self.assertNotEqual(done.returncode, 0)
        for part in (str(place), "report.txt", "empty directory"):
            self.assertIn(part, done.stdout + done.stderr)
        self.assertEqual(stat.S_IMODE(place.stat().st_mode), 0o755)
        self.assertEqual([path.name for path in place.iterdir()], ["report.txt"])
