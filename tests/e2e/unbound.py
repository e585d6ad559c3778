"""unbound, a resolver that people run, with zones of our own."""
import pathlib
import subprocess
import tempfile

from harness import free_port, wait_until

CONFIG = """
server:
    directory: "{dir}"
    chroot: ""
    username: ""
    pidfile: ""
    logfile: "{dir}/unbound.log"
    use-syslog: no
    do-daemonize: no
    interface: 127.0.0.1
    port: {port}
    do-ip6: no
    do-not-query-localhost: no
    module-config: "iterator"
    max-udp-size: 512
    {zones}
forward-zone:
    name: "servfail.test."
    forward-addr: 127.0.0.1@{closed}
remote-control:
    control-enable: no
"""


def zone(name, data):
    """A zone that this server knows all about, or treats in its own way."""
    if isinstance(data, str):
        return [f'local-zone: "{name}." {data}']
    soa = f"{name}. SOA ns.test. hostmaster.test. 1 3600 600 86400 60"
    return [f'local-zone: "{name}." static', *(f"local-data: '{record}'" for record in [soa, *data])]


class Unbound:
    """Runs `program`. By name, the zones: their records, or how they are treated; nobody answers for servfail.test. One
    that is started again has the same port."""

    def __init__(self, program, zones):
        self.directory = tempfile.TemporaryDirectory(prefix="empath-unbound-")
        base, self.port = pathlib.Path(self.directory.name), free_port()
        self.log, config = base / "unbound.log", base / "unbound.conf"
        lines = [line for name, data in zones.items() for line in zone(name, data)]
        config.write_text(CONFIG.format(dir=base, port=self.port, closed=free_port(), zones="\n    ".join(lines)))
        self.command = [program, "-d", "-c", config]
        self.start()

    def start(self):
        self.log.write_text("")
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        wait_until(lambda: "start of service" in self.log.read_text() or self.process.poll() is not None, "unbound serves")
        assert self.process.poll() is None, self.log.read_text()

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def close(self):
        self.stop()
        self.directory.cleanup()
