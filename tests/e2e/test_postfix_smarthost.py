"""Mail goes to a Postfix that asks Dovecot who we are."""
import test_smarthost
from dovecot import Dovecot, needs_dovecot
from harness import wait_until
from postfix import MAILDIR, Postfix, needs_root
from test_auth import ALICE, CONTENT, PASSWORD

MAIN = MAILDIR + """myhostname = relay.test
mynetworks =
virtual_mailbox_domains = elsewhere.test
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {socket}
smtpd_sasl_security_options = noanonymous
smtpd_tls_auth_only = yes
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
"""

DOVECOT = """
protocols =
auth_mechanisms = {mechanism}
auth_failure_delay = 0
service auth {{{{
  chroot =
  unix_listener {{dir}}/auth {{{{
    mode = 0666
  }}}}
}}}}
"""


@needs_root
@needs_dovecot
class PostfixSmarthost(test_smarthost.Smarthost):
    """As another Empath is told who we are, so is Postfix."""

    def relay(self, mechanism, tls):
        names = {"ScramSha256": "scram-sha-256", "Plain": "plain", "Login": "login"}
        self.mechanism = names[mechanism]
        dovecot = Dovecot(DOVECOT.format(mechanism=self.mechanism), {ALICE: (PASSWORD, "")}, "auth")
        self.addCleanup(dovecot.close)
        main = MAIN.replace("{socket}", str(dovecot.dir / "auth"))
        # RFC 8314 §3.
        main += f"smtpd_tls_wrappermode = {'yes' if tls else 'no'}\n"
        self.postfix = Postfix(self, main, "relay.test,IP:127.0.0.1")
        return self.postfix.port, self.postfix.authority, lambda: self.postfix.mail(1)

    def deliver(self, mechanism, tls=False):
        super().deliver(mechanism, tls)
        log = self.postfix.log()
        self.assertIn(f"sasl_method={self.mechanism.upper()}, sasl_username={ALICE}", log)
        self.assertRegex(log, f"SASL {self.mechanism.upper()} authentication failed")

    def test_a_host_that_is_not_known_for_sure_is_shown_nothing(self):
        port, _, _ = self.relay("Plain", tls=False)
        daemon = self.daemon(f"""domains: {{"*": (smarthost: (
            hosts: ["127.0.0.1:{port}"], auth: (user: "{ALICE}", password_file: "secret"),
        ))}}""", start=False)
        (daemon.dir / "secret").write_text(PASSWORD)
        daemon.start()
        daemon.send(ALICE, ["bob@elsewhere.test"], CONTENT)
        [waiting] = wait_until(lambda: [m for m in daemon.queue() if m["status"] == "deferred"], "it is deferred")
        reply = waiting["recipients"][0]["last_reply"]
        self.assertEqual(reply["enhanced"], "4.7.5", reply)
        self.assertRegex(reply["text"], "certificate")
        self.assertEqual(daemon.terminate(), 0)
        log = wait_until(lambda: "disconnect from" in self.postfix.log() and self.postfix.log(), "Postfix saw it leave")
        self.assertIn("starttls=0/1", log)
        self.assertNotIn("auth=", log)
