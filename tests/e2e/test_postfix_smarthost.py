"""Mail goes to a Postfix that asks Dovecot who we are."""
import http.server
import json
import pathlib
import tempfile
import threading
import urllib.parse

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

# Tokens are asked of the server that has given them (RFC 7662).
TOKENS = """
passdb {{
  driver = oauth2
  mechanisms = oauthbearer xoauth2
  args = {file}
}}
"""

INTROSPECTION = """
introspection_mode = post
introspection_url = http://127.0.0.1:{port}/
username_attribute = username
active_attribute = active
active_value = true
"""

# As long as tokens are that say themselves what they are good for, and by far too long for a command.
TOKEN = "eyJhbGciOiJSUzI1NiJ9." + "c2VzYW1l" * 300 + ".c2lnbmVk-_~+/horse=="


class Tokens(http.server.BaseHTTPRequestHandler):
    """Knows one token."""

    def do_POST(self):
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        active = form["token"] == [TOKEN]
        answer = json.dumps({"active": True, "username": ALICE} if active else {"active": False}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@needs_root
@needs_dovecot
class PostfixSmarthost(test_smarthost.Smarthost):
    """As another Empath is told who we are, so is Postfix."""

    def relay(self, mechanism, tls):
        names = {"ScramSha256": "scram-sha-256", "Plain": "plain", "Login": "login"}
        self.mechanism = names.get(mechanism, mechanism)
        config = DOVECOT.format(mechanism=self.mechanism) + (self.tokens() if mechanism not in names else "")
        dovecot = Dovecot(config, {ALICE: (PASSWORD, "")}, "auth")
        self.addCleanup(dovecot.close)
        main = MAIN.replace("{socket}", str(dovecot.dir / "auth"))
        # RFC 8314 §3.
        main += f"smtpd_tls_wrappermode = {'yes' if tls else 'no'}\n"
        self.postfix = Postfix(self, main, "relay.test,IP:127.0.0.1")
        return self.postfix.port, self.postfix.authority, lambda: self.postfix.mail(1)

    def tokens(self):
        """Who gives tokens out, as Dovecot asks him."""
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tokens)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        directory = tempfile.TemporaryDirectory(prefix="tokens-e2e-")
        self.addCleanup(directory.cleanup)
        file = pathlib.Path(directory.name) / "oauth2.conf"
        file.parent.chmod(0o755)
        file.write_text(INTROSPECTION.format(port=server.server_port))
        return TOKENS.replace("{file}", str(file))

    def deliver(self, mechanism, tls=False, **secret):
        super().deliver(mechanism, tls, **secret)
        log = self.postfix.log()
        self.assertIn(f"sasl_method={self.mechanism.upper()}, sasl_username={ALICE}", log)
        self.assertRegex(log, f"SASL {self.mechanism.upper()} authentication failed")

    def test_oauthbearer(self):
        self.deliver("oauthbearer", key="token_file", right=TOKEN)

    def test_xoauth2(self):
        self.deliver("xoauth2", key="token_file", right=TOKEN)

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
