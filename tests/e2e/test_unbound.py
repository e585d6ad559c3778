"""A resolver that people run: what it says of a domain decides what becomes of the mail for it."""
import json
import urllib.error
import urllib.request

import unbound
from harness import TestCase, program, wait_until

ZONES = {
    "good.test": ["good.test. MX 10 mx.good.test.", "mx.good.test. A 127.0.0.1", "cn.good.test. CNAME mx.good.test."],
    # As the first, with other numbers.
    "again.test": ["again.test. MX 5 mx.good.test."],
    "alias.test": ["alias.test. CNAME good.test."],
    "mxalias.test": ["mxalias.test. MX 10 cn.good.test."],
    "implicit.test": ["implicit.test. A 127.0.0.1"],
    # One host is not there, the other is.
    "second.test": ["second.test. MX 10 gone.good.test.", "second.test. MX 20 mx.good.test."],
    # Too much for 512 octets: only over TCP is it all there.
    "big.test": [f"big.test. MX {n} long-name-of-a-host-{n}.big.test." for n in range(1, 60)]
                + ["big.test. MX 0 mx.good.test."],
    "null.test": ["null.test. MX 0 ."],
    "nodata.test": ['nodata.test. TXT "nothing"'],
    "servfail.test": "transparent",
    "loop.test": ["loop.test. CNAME x.loop.test.", "x.loop.test. CNAME loop.test."],
    "refused.test": "refuse",
    "tarpit.test": "deny",
}

DELIVERED = ["good", "again", "alias", "mxalias", "implicit", "second", "big"]
BOUNCED = {"null": "5.1.10", "gone": "5.1.2", "nodata": "5.4.4"}
DEFERRED = {"servfail": "4.4.3", "refused": "4.4.3", "tarpit": "4.4.3", "loop": "4.4.3"}


class Unbound(TestCase):
    def setUp(self):
        self.hosts, self.home = self.sink(), self.sink()
        self.unbound = unbound.Unbound(program(self, "unbound"), ZONES)
        self.addCleanup(self.unbound.close)
        self.mta = self.daemon(
            f'mx_port: {self.hosts.port}, dns: (servers: ["127.0.0.1:{self.unbound.port}"], timeout: "1s"), '
            f'domains: {{"home.test": (mx_override: "127.0.0.1:{self.home.port}")}}')

    def outcomes(self, messages):
        """Status by first label of the domain, as logged with one of these messages."""
        return {line["domain"].split(".")[0]: line["status"] for line in self.mta.lines() if line.get("message") in messages}

    def ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.mta.health}/health/ready", timeout=10) as page:
                return json.load(page)["dns"]
        except urllib.error.HTTPError as page:
            return json.load(page)["dns"]

    def test_domains_with_the_same_hosts_share_a_connection(self):
        for name in ("good", "again", "good"):
            self.mta.send("alice@home.test", [f"bob@{name}.test"], b"Subject: x\r\n\r\nx\r\n")
            self.mta.wait_until_empty()
        self.assertEqual([to for _, to, _ in self.hosts.wait_for(3)],
                         [["bob@good.test"], ["bob@again.test"], ["bob@good.test"]])
        with urllib.request.urlopen(f"http://127.0.0.1:{self.mta.metrics}/metrics", timeout=10) as page:
            lines = dict(line.rsplit(" ", 1) for line in page.read().decode().splitlines() if line[:1] != "#")
        self.assertEqual([lines[f"empath_delivery_pool_{name}_total"] for name in ("misses", "hits")], ["1", "2"])
        self.assertEqual([line["next_hop"] for line in self.mta.logged("delivered", 3)], ["mx:good.test", "mx:again.test", "mx:good.test"])

    def test_what_it_says_of_a_domain_decides_what_becomes_of_the_mail(self):
        recipients = [f"bob@{name}.test" for name in [*DELIVERED, *BOUNCED, *DEFERRED] if name != "gone"]
        recipients.append("bob@gone.good.test")
        self.mta.send("alice@home.test", recipients, b"Subject: x\r\n\r\nx\r\n")
        wait_until(lambda: len(self.outcomes({"bounced", "deferred"})) == len(BOUNCED) + len(DEFERRED), "all are decided")
        self.assertEqual(self.outcomes({"bounced"}), BOUNCED)
        self.assertEqual(self.outcomes({"deferred"}), DEFERRED)
        got = sorted(path for _, paths, _ in self.hosts.wait_for(len(DELIVERED)) for path in paths)
        self.assertEqual(got, sorted(f"bob@{name}.test" for name in DELIVERED))
        [*_, (sender, _, _)] = self.home.wait_for(1)
        self.assertEqual(sender, "")
        # A silent domain is not a silent server.
        self.assertTrue(self.ready())
        answers = {(a["name"], a["type"]): a for a in self.mta.ctl("dns", "list-cache")}
        big = answers["big.test", "MX"]["records"]
        self.assertEqual((len(big), big[0]), (32, "0 mx.good.test"))
        # RFC 2308: the least of the SOA's time to live and its minimum.
        self.assertLessEqual(answers["gone.good.test", "MX"]["expires_in_seconds"], 60)
        self.assertGreater(answers["good.test", "MX"]["expires_in_seconds"], 60)

    def test_mail_goes_on_from_memory_while_it_is_down_and_the_rest_when_it_is_back(self):
        self.mta.send("alice@home.test", ["bob@good.test"], b"Subject: 1\r\n\r\nx\r\n")
        self.hosts.wait_for(1)
        self.unbound.stop()
        self.mta.send("alice@home.test", ["bob@good.test"], b"Subject: 2\r\n\r\nx\r\n")
        self.hosts.wait_for(2)
        names = ["alias", "mxalias", "implicit"]
        self.mta.send("alice@home.test", [f"bob@{name}.test" for name in names], b"Subject: 3\r\n\r\nx\r\n")
        wait_until(lambda: not self.ready(), "the daemon is not ready")
        wait_until(lambda: len(self.outcomes({"deferred"})) == 3, "all wait")
        self.assertEqual(set(self.outcomes({"deferred"}).values()), {"4.4.3"})
        self.unbound.start()
        wait_until(self.ready, "the daemon is ready again")
        self.mta.ctl("dns", "clear-cache")
        self.mta.ctl("queue", "retry", "--all")
        self.hosts.wait_for(5)
        self.mta.wait_until_empty()
