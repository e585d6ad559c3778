"""A bad configuration: exit 78, and every error with its place."""
import os
import re
import subprocess

from harness import PATIENCE, ROOT, TestCase

EX_CONFIG = 78


class ConfigErrors(TestCase):
    def check(self, config, *command):
        daemon = self.daemon(config=config, start=False)
        done = subprocess.run(
            [os.environ["EMPATH_BIN"], *command, "--config", str(daemon.config)], cwd=daemon.dir,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
        return done.returncode, done.stdout + done.stderr

    def test_every_unknown_key_is_named_with_its_place_and_the_nearest_known_one(self):
        config = 'Empath(\n    hostnam: "a.test",\n    delivery: (\n        retry: (max_dellay: "1h"),\n    ),\n)\n'
        for command in [("check",), ()]:
            status, output = self.check(config, *command)
            self.assertEqual(status, EX_CONFIG, output)
            for line, wrong, right in [(2, "hostnam", "hostname"), (4, "max_dellay", "max_delay")]:
                self.assertRegex(output, rf"(?m)empath\.config\.ron:{line}:\d+: .*\b{wrong}\b.*\b{right}\b")

    def test_values_that_make_no_sense_are_all_listed(self):
        config = ('Empath(\n    smtp: (\n        relay_networks: ["127.0.0.0/8"],\n    ),\n'
                  '    spool: (path: "/etc/empath-spool"),\n'
                  '    delivery: (\n        retry: (base_delay: "2h", max_delay: "1h"),\n'
                  '        domains: {"example.test": (mx_override: "not a host:99999")},\n    ),\n)\n')
        status, output = self.check(config, "check")
        self.assertEqual(status, EX_CONFIG, output)
        for line, about in [(5, "spool"), (7, "delay"), (8, "mx_override|not a host")]:
            self.assertRegex(output, rf"(?m)empath\.config\.ron:{line}:\d+: .*({about})")

    def test_a_value_of_the_wrong_type_and_a_syntax_error_have_places(self):
        for config, line in [
            ("Empath(\n    hostname: 5,\n)\n", 2),
            ('Empath(\n    delivery: (retry: (base_delay: "soon")),\n)\n', 2),
            ('Empath(\n    delivery: (retry: (delays: "1m,5x*2")),\n)\n', 2),
            ("Empath(\n    smtp: (\n", 2),
        ]:
            status, output = self.check(config, "check")
            self.assertEqual(status, EX_CONFIG, output)
            self.assertRegex(output, rf"empath\.config\.ron:[{line}-9]:\d+: ")

    def test_a_missing_file_is_a_configuration_error_that_names_it(self):
        done = subprocess.run([os.environ["EMPATH_BIN"], "check", "--config", "/nonexistent/empath.ron"],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, EX_CONFIG)
        self.assertIn("/nonexistent/empath.ron", done.stdout + done.stderr)

    def test_the_shipped_configurations_are_right(self):
        for name in ["empath.config.ron", "docker/empath.config.ron"]:
            config = (ROOT / name).read_text()
            # The container's directories don't exist here.
            config = re.sub(r'"/(var/spool|run)/empath', r'"./var/\1', config)
            status, output = self.check(config, "check")
            self.assertEqual(status, 0, f"{name}: {output}")
