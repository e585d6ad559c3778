"""A plugin module in C, built with the header that comes along."""
import subprocess

from harness import CONFIG, ROOT, TestCase

SOURCE = r"""
#include <string.h>
#include "empath.h"

static const char *refused;

static int init(const char *argument) { refused = argument ? strdup(argument) : NULL; return refused == NULL; }

static int rcpt_to(em_context *context) {
    if (strcmp(em_context_recipient(context, 0), refused) != 0) return EM_ACCEPT;
    em_context_set_response(context, "5.1.1 the module says no");
    return 550;
}

EM_DECLARE_MODULE(Validation, .name = "refuse", .init = init, .rcpt_to = rcpt_to)
"""


class Module(TestCase):
    def load(self, module):
        daemon = self.daemon(config=CONFIG.replace("    spool:", f"    modules: [{module}],\n    spool:"), start=False)
        (daemon.dir / "module.c").write_text(SOURCE)
        subprocess.run(["cc", "-shared", "-fPIC", f"-I{ROOT}/empath-ffi/include", "-o", "module.so", "module.c"],
                       cwd=daemon.dir, check=True)
        return daemon

    def test_a_module_refuses_a_recipient_and_leaves_the_others_alone(self):
        daemon = self.load('(path: "module.so", argument: "no@example.test")')
        daemon.start()
        with daemon.smtp() as smtp:
            smtp.ehlo()
            smtp.mail("s@home.test")
            self.assertEqual(smtp.rcpt("no@example.test"), (550, b"5.1.1 the module says no"))
            self.assertEqual(smtp.rcpt("yes@example.test")[0], 250)

    def test_a_module_that_can_not_be_initialised_keeps_the_daemon_from_starting(self):
        daemon = self.load('(path: "module.so")')
        with self.assertRaisesRegex(AssertionError, r"the daemon ended with [1-9]"):
            daemon.start()
        self.assertIn("module.so", daemon.log_file.read_text())
