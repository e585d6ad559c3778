//! AUTH (RFC 4954) from the client's side.

use empath_smtp::client::{Credentials, Expected, Feature, Roots, Secret, Tls};
use empath_testkit::tls::Authority;

use super::*;

fn credentials(password: &str) -> Credentials {
    Credentials { user: "alice".into(), password: Secret::from(password.as_bytes()) }
}

async fn authenticated(
    mechanisms: &str,
    password: &str,
    act: Option<Act>,
) -> (Peer, Result<Connection, Failure>) {
    let mut script = Script::new()
        .tls(Authority::new().sign("mx.x.test"))
        .offer_in_tls([mechanisms])
        .login("alice", "sesame");
    if let Some(act) = act {
        script = script.on(At::Auth, act);
    }
    let peer = Peer::start(script).await.unwrap();
    let tls = Tls::new(Roots::none()).unwrap();
    let expected = Expected { name: "mx.x.test", verified: false };
    let secured = open(&peer).await.unwrap().start_tls(&tls, &expected, Hello::smtp("client.test")).await;
    let connection = secured.unwrap().authenticate(credentials(password)).await;
    (peer, connection)
}

#[tokio::test]
async fn mail_goes_out_after_plain_and_login() {
    for mechanisms in ["AUTH PLAIN LOGIN", "AUTH LOGIN"] {
        let (peer, connection) = authenticated(mechanisms, "sesame", None).await;
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
    for (mechanisms, password, act, expected) in table {
        let (_peer, connection) = authenticated(mechanisms, password, act).await;
        assert_eq!(connection.unwrap_err().to_string(), expected);
    }
    let (peer, connection) = authenticated("AUTH CRAM-MD5", "sesame", None).await;
    let nothing_known = FailureKind::Unsupported(Feature::Auth);
    assert_eq!(connection.unwrap_err(), failure(Stage::Auth, nothing_known));
    peer.wait_until_left().await;
    assert!(peer.transcript().contains("QUIT"));
}

#[tokio::test]
async fn nobody_is_shown_who_we_are_in_clear_text() {
    let peer = Peer::start(Script::new().offer(["AUTH PLAIN"]).login("alice", "sesame")).await.unwrap();
    let failed = open(&peer).await.unwrap().authenticate(credentials("sesame")).await.unwrap_err();
    assert_eq!(failed, failure(Stage::Auth, FailureKind::Unsupported(Feature::StartTls)));
    peer.wait_until_left().await;
    assert!(!peer.transcript().contains("AUTH PLAIN AG"), "{}", peer.transcript());
}
