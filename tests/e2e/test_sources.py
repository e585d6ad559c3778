"""Mail leaves from the addresses of its pool."""
import os
import subprocess

from harness import PATIENCE, TestCase, message, wait_until

CONTENT = b"Subject: sources\r\n\r\nhello\r\n"


class Sources(TestCase):
    def pools(self, sink):
        return f'''
            sources: {{
                "bulk": [(ipv4: "127.0.0.2", hostname: "two.home.test"), (ipv4: "127.0.0.3", hostname: "three.home.test")],
                "lost": [(ipv4: "192.0.2.99")],
            }},
            source: "bulk",
            domains: {{
                "bulk.test": (mx_override: "127.0.0.1:{sink.port}", max_connections: 2),
                "lost.test": (mx_override: "127.0.0.1:{sink.port}", source: "lost"),
            }}'''

    def test_each_address_has_connections_and_a_name_of_its_own(self):
        sink = self.sink()
        mta = self.daemon(self.pools(sink))
        # That both are chosen is as certain as that a coin falls on both sides in 60 throws.
        for number in range(60):
            mta.send("s@home.test", [f"u{number}@bulk.test"], CONTENT)
        mta.wait_until_empty()
        self.assertEqual(set(sink.clients), {"127.0.0.2", "127.0.0.3"})
        self.assertEqual({line for line in sink.commands if line.startswith("EHLO")},
                         {"EHLO two.home.test", "EHLO three.home.test"})
        self.assertEqual({line["source"] for line in mta.logged("delivered", 60)}, {"127.0.0.2", "127.0.0.3"})

    def test_an_address_that_the_machine_lacks_is_warned_of_and_its_mail_waits(self):
        sink = self.sink()
        mta = self.daemon(self.pools(sink))
        [warning] = [line for line in mta.lines() if "192.0.2.99" in message(line)]
        self.assertEqual(warning["key"], 'delivery.sources["lost"][0].ipv4')
        mta.send("s@home.test", ["u@lost.test"], CONTENT)
        [waiting] = wait_until(lambda: [m for m in mta.queue() if m["status"] == "deferred"], "it is deferred")
        reply = waiting["recipients"][0]["last_reply"]
        self.assertEqual(reply["enhanced"], "4.3.5", reply)
        self.assertIn("192.0.2.99", reply["text"])
        mta.send("s@home.test", ["u@bulk.test"], CONTENT)
        sink.wait_for(1)

    def test_a_pool_that_does_not_exist_has_its_place(self):
        config = 'Empath(\n    delivery: (\n        sources: {"a": [(ipv4: "127.0.0.1")]},\n        source: "b",\n    ),\n)\n'
        daemon = self.daemon(config=config, start=False)
        done = subprocess.run([os.environ["EMPATH_BIN"], "check", "--config", str(daemon.config)], cwd=daemon.dir,
                              capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 78, done.stdout + done.stderr)
        self.assertRegex(done.stdout + done.stderr, r'(?m)empath\.config\.ron:4:\d+: .*no pool "b"')
