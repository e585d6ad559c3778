//! AUTH (RFC 4954) from the client's side.

use empath_smtp::client::{Credentials, Expected, Feature, Mechanisms, Proof, Roots, Secret, Tls};
use empath_testkit::tls::Authority;

use super::*;

fn password(password: &str) -> Proof {
    Proof::Password(Secret::from(password.as_bytes()))
}

fn token(token: &str) -> Proof {
    Proof::Token(Secret::from(token.as_bytes()).try_into().unwrap())
}

fn credentials(proof: Proof) -> Credentials {
    Credentials { user: "alice".into(), proof }
}

async fn authenticated(
    mechanisms: &str,
    proof: Proof,
    act: Option<Act>,
) -> (Peer, Result<Connection, Failure>) {
    let script = Script::new().login("alice", "sesame");
    let script = match act {
        Some(act) => script.on(At::Auth, act),
        None => script,
    };
    scripted(mechanisms, proof, script).await
}

async fn scripted(mechanisms: &str, proof: Proof, script: Script) -> (Peer, Result<Connection, Failure>) {
    let script = script.tls(Authority::new().sign("mx.x.test")).offer_in_tls([mechanisms]);
    let peer = Peer::start(script).await.unwrap();
    let tls = Tls::new(Roots::none()).unwrap();
    let expected = Expected { name: "mx.x.test", verified: false };
    let secured = open(&peer).await.unwrap().start_tls(&tls, &expected, Hello::smtp("client.test")).await;
    let connection = secured.unwrap().authenticate(credentials(proof), Some("mx.x.test")).await;
    (peer, connection)
}

#[tokio::test]
async fn mail_goes_out_after_plain_and_login() {
    for mechanisms in ["AUTH PLAIN LOGIN", "AUTH LOGIN"] {
        let (peer, connection) = authenticated(mechanisms, password("sesame"), None).await;
        let sent = send(&mut connection.unwrap(), &["bob@example.test"]).await;
        assert!(sent.recipients[0].is_ok() && sent.reusable, "{sent:?}");
        assert_eq!(peer.violations(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_the_server_has_against_us_is_told() {
    let table = [
        ("AUTH PLAIN", "other", None, "AUTH: 535 5.7.8 Wrong"),
        ("AUTH LOGIN", "other", None, "AUTH: 535 5.7.8 Wrong"),
        ("AUTH PLAIN", "sesame", Some(Act::Close), "AUTH: the server closed the connection"),
        (
            "AUTH PLAIN",
            "sesame",
            Some(Act::reply("354 go on")),
            "AUTH: garbled reply: a code that doesn't fit the command",
        ),
        (
            "AUTH PLAIN",
            "sesame",
            Some(Act::reply("334 bW9yZQ==")),
            "AUTH: garbled reply: a challenge that is none",
        ),
        ("AUTH SCRAM-SHA-256", "sesame", None, "AUTH: 504 5.5.4 Not that"),
    ];
    for (mechanisms, shown, act, expected) in table {
        let (_peer, connection) = authenticated(mechanisms, password(shown), act).await;
        assert_eq!(connection.unwrap_err().to_string(), expected);
    }
    let (peer, connection) = authenticated("AUTH CRAM-MD5", password("sesame"), None).await;
    let nothing_known = FailureKind::Unsupported(Feature::Password(Mechanisms::default()));
    assert_eq!(connection.unwrap_err(), failure(Stage::Auth, nothing_known));
    peer.wait_until_left().await;
    assert!(peer.transcript().contains("QUIT"));
}

#[tokio::test]
async fn mail_goes_out_after_a_token_whatever_its_length() {
    let (short, long) = ("sesame".to_owned(), "x".repeat(8192));
    for (mechanisms, said) in
        [("AUTH PLAIN XOAUTH2 OAUTHBEARER", "AUTH OAUTHBEARER"), ("AUTH PLAIN XOAUTH2", "AUTH XOAUTH2")]
    {
        for (shown, in_command) in [(&short, true), (&long, false)] {
            let script = Script::new().login("alice", shown);
            let (peer, connection) = scripted(mechanisms, token(shown), script).await;
            let sent = send(&mut connection.unwrap(), &["bob@example.test"]).await;
            assert!(sent.recipients[0].is_ok() && sent.reusable, "{sent:?}");
            assert_eq!(peer.violations(), Vec::<String>::new());
            let transcript = peer.transcript();
            let command = transcript.lines().find(|line| line.contains(said)).unwrap();
            assert_eq!(command.ends_with(said), !in_command, "{command}");
        }
    }
}

#[tokio::test]
async fn a_token_that_is_refused_is_acknowledged_and_the_reply_is_heard() {
    let garbled = "334 {\"status\": \"not in base64\"}";
    let table = [
        (None, None, "AUTH: 535 5.7.8 Wrong (invalid_token)"),
        (Some(garbled), None, "AUTH: 535 5.7.8 Wrong"),
        (Some("334 "), None, "AUTH: 535 5.7.8 Wrong"),
        (None, Some(Act::reply("454 4.7.0 Later")), "AUTH: 454 4.7.0 Later"),
        (None, Some(Act::reply("235 2.7.0 Ok")), "AUTH: garbled reply: a code that doesn't fit the command"),
        (None, Some(Act::reply("334 e30=")), "AUTH: garbled reply: a challenge that is none"),
        (None, Some(Act::Close), "AUTH: the server closed the connection"),
    ];
    for mechanism in ["AUTH OAUTHBEARER", "AUTH XOAUTH2"] {
        for (challenge, act, expected) in &table {
            let mut script = Script::new().login("alice", "sesame");
            if let Some(challenge) = challenge {
                script = script.on(At::Challenge, Act::reply(*challenge));
            }
            if let Some(act) = act {
                script = script.on(At::Auth, act.clone());
            }
            let (peer, connection) = scripted(mechanism, token("expired"), script).await;
            assert_eq!(connection.unwrap_err().to_string(), *expected, "{mechanism}");
            assert_eq!(peer.violations(), Vec::<String>::new());
        }
    }
}

#[tokio::test]
async fn a_token_is_shown_to_nobody_who_takes_only_passwords_nor_a_password_to_who_takes_only_tokens() {
    for (mechanisms, proof, expected) in [
        (
            "AUTH PLAIN LOGIN",
            token("sesame"),
            "AUTH: the server does not take a token: it offers PLAIN, LOGIN",
        ),
        ("AUTH XOAUTH2", password("sesame"), "AUTH: the server does not take a password: it offers XOAUTH2"),
    ] {
        let (peer, connection) = authenticated(mechanisms, proof, None).await;
        assert_eq!(connection.unwrap_err().to_string(), expected);
        peer.wait_until_left().await;
        assert!(!peer.transcript().contains("C: AUTH") && peer.transcript().contains("QUIT"));
    }
}

#[tokio::test]
async fn nobody_is_shown_who_we_are_in_clear_text() {
    let peer = Peer::start(Script::new().offer(["AUTH PLAIN"]).login("alice", "sesame")).await.unwrap();
    let failed =
        open(&peer).await.unwrap().authenticate(credentials(password("sesame")), None).await.unwrap_err();
    assert_eq!(failed, failure(Stage::Auth, FailureKind::Unsupported(Feature::StartTls)));
    peer.wait_until_left().await;
    assert!(!peer.transcript().contains("AUTH PLAIN AG"), "{}", peer.transcript());
}
