"""Mail that waits for a rate limit or for a destination that is down, as an operator sees it."""
import time
import urllib.request

from harness import TestCase, free_port, message, wait_until

CONTENT = b"Subject: lanes\r\n\r\nhello\r\n"


class Lanes(TestCase):
    def why(self, mta, message):
        [answer] = mta.ctl("queue", "why", message)
        self.assertEqual(answer["id"], message)
        [recipient] = answer["recipients"]
        self.assertEqual(set(recipient), {"address", "state", "because", "until", "detail"})
        return recipient

    def metric(self, mta, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{mta.metrics}/metrics", timeout=10) as page:
            for line in page.read().decode().splitlines():
                if line.startswith(name + " "):
                    return float(line.split()[-1])

    def test_mail_over_the_limit_of_its_domain_goes_when_it_may(self):
        sink = self.sink()
        mta = self.daemon(f'''domains: {{
            "slow.test": (mx_override: "127.0.0.1:{sink.port}", rate_limit: 60, rate_burst: 2),
            "fast.test": (mx_override: "127.0.0.1:{sink.port}"),
        }}''')
        start = time.monotonic()
        ids = [mta.send("s@home.test", [f"u{n}@slow.test"], CONTENT) for n in range(5)]
        mta.send("s@home.test", ["u@fast.test"], CONTENT)
        sink.wait_for(3)
        waiting = self.why(mta, ids[4])
        self.assertEqual((waiting["because"], waiting["state"]), ("rate_limited", "pending"))
        self.assertIsNotNone(waiting["until"])
        mta.wait_until_empty()
        self.assertGreaterEqual(time.monotonic() - start, 2.5)
        [*first, u2, u3, u4] = [to[0] for _, to, _ in sink.messages if to[0].endswith("slow.test")]
        # Two may go at once, over a connection each.
        self.assertEqual([*sorted(first), u2, u3, u4], [f"u{n}@slow.test" for n in range(5)])
        self.assertGreaterEqual(self.metric(mta, 'empath_delivery_rate_limited_total{domain="slow.test"}'), 3)
        self.assertEqual(self.metric(mta, 'empath_delivery_attempts_total{status="deferred"}'), 0)

    def test_a_destination_that_is_down_is_left_alone_and_found_again(self):
        port = free_port()
        mta = self.daemon(f'''circuit_breaker: (failure_threshold: 3, timeout: "2s", half_open_max_calls: 1),
            domains: {{"down.test": (mx_override: "127.0.0.1:{port}")}}''')
        ids = [mta.send("s@home.test", [f"u{n}@down.test"], CONTENT) for n in range(12)]
        waiting = wait_until(lambda: (w := self.why(mta, ids[11]))["because"] == "breaker_open" and w, "the breaker is open")
        self.assertEqual(waiting["state"], "pending")
        self.assertEqual(self.why(mta, ids[0])["because"], "deferred")
        tried = self.metric(mta, 'empath_delivery_attempts_total{status="deferred"}')
        self.assertLessEqual(tried, 6)
        self.assertGreaterEqual(self.metric(mta, 'empath_delivery_circuit_breaker_trips_total{domain="down.test"}'), 1)
        sink = self.sink(port=port)
        sink.wait_for(6)
        wait_until(lambda: self.metric(mta, 'empath_delivery_circuit_breaker_state{domain="down.test"}') == 0, "closed")
        mta.ctl("queue", "retry", "--all")
        mta.wait_until_empty()
        self.assertEqual(len(sink.messages), 12)
        self.assertEqual(self.metric(mta, 'empath_delivery_circuit_breaker_recoveries_total{domain="down.test"}'), 1)
        mta.logged(lambda line: "circuit breaker" in str(line) and "closed again" in message(line))
        changes = [message(line) for line in mta.lines() if "circuit breaker" in str(line)]
        self.assertTrue("opened" in changes[0] and "closed again" in changes[-1], changes)
