//! AUTH where a dialogue does not reach: SCRAM with a client, long lines, and the users file.

use std::{fs, net::IpAddr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use empath_smtp::server::{
    AuthConfig, Authenticator, Config,
    auth::{AuthAnswer, AuthQuery, Secret, Verifier},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    intake::Shelf,
    machine::Machine,
    users::{self, NAME, PASSWORD},
};

fn machine() -> Machine {
    let config = json!({"auth": {"users_file": "users", "require_tls": false}});
    let config: Config = serde_json::from_value(config).unwrap();
    let mut machine = Machine::new(&config, address(), &Shelf::default());
    machine.feed(b"EHLO client.example\r\n");
    machine.output.clear();
    machine
}

fn address() -> IpAddr {
    "203.0.113.9".parse().unwrap()
}

/// Sends a line and returns the reply.
fn exchange(machine: &mut Machine, line: &str) -> String {
    let seen = machine.output.len();
    machine.feed(format!("{line}\r\n").as_bytes());
    machine.output().split_off(seen)
}

fn challenge(reply: &str) -> String {
    let challenge = reply.strip_prefix("334 ").and_then(|rest| rest.strip_suffix("\r\n")).unwrap();
    String::from_utf8(STANDARD.decode(challenge).unwrap()).unwrap()
}

#[test]
fn scram_shows_each_side_that_the_other_knows_the_password() {
    for (password, accepted) in [(PASSWORD, true), ("wrong", false)] {
        let mut machine = machine();
        let mut client = scram::Client::new(NAME, password);
        let first = STANDARD.encode(client.first());
        let server_first = challenge(&exchange(&mut machine, &format!("AUTH SCRAM-SHA-256 {first}")));
        let reply = exchange(&mut machine, &STANDARD.encode(client.last(&server_first)));
        if accepted {
            assert_eq!(challenge(&reply), client.expected());
            assert_eq!(exchange(&mut machine, ""), "235 2.7.0 Authentication successful\r\n");
            assert_eq!(machine.session.client().user.as_deref(), Some(NAME));
        } else {
            assert_eq!(reply, "535 5.7.8 Authentication failed: invalid-proof\r\n");
            assert_eq!(machine.session.client().user, None);
        }
    }
}

#[test]
fn nothing_but_an_empty_response_follows_the_servers_signature() {
    for (response, code) in [("*", "501"), ("eA==", "501"), ("=", "501")] {
        let mut machine = machine();
        let mut client = scram::Client::new(NAME, PASSWORD);
        let first = STANDARD.encode(client.first());
        let server_first = challenge(&exchange(&mut machine, &format!("AUTH SCRAM-SHA-256 {first}")));
        exchange(&mut machine, &STANDARD.encode(client.last(&server_first)));
        assert!(exchange(&mut machine, response).starts_with(code), "{response}");
        assert_eq!(machine.session.client().user, None);
    }
}

#[test]
fn a_line_of_12288_octets_is_taken_and_a_longer_one_is_refused_in_step() {
    // PLAIN with a password that makes the whole line as long as wanted.
    let message = |octets: usize| STANDARD.encode([b"\0u\0", &vec![b'x'; octets / 4 * 3 - 3][..]].concat());
    for (before, most) in [("AUTH PLAIN ", 12288 - 2 - 11), ("AUTH PLAIN\r\n", 12288 - 2)] {
        let reply = exchange(&mut machine(), &format!("{before}{}", message(most)));
        assert!(reply.ends_with("535 5.7.8 Authentication credentials invalid\r\n"), "{reply}");
        for len in [most + 4, 100_000, 1_000_000] {
            let mut machine = machine();
            let reply = exchange(&mut machine, &format!("{before}{}", message(len)));
            assert!(reply.contains("500 5.5.6 "), "{reply}");
            assert_eq!(exchange(&mut machine, "NOOP"), "250 2.0.0 Ok\r\n");
        }
    }
}

#[test]
fn what_the_users_file_says_has_its_reply() {
    let plain = |name: &str| format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{name}\0x")));
    let mut machine = machine();
    assert!(exchange(&mut machine, &plain("broken")).starts_with("454 4.7.0 "));
    assert!(exchange(&mut machine, &plain("guessed")).starts_with("421 4.7.0 "));
    assert!(machine.closed);
}

struct World {
    dir: TempDir,
    auth: Authenticator,
}

fn world(config: AuthConfig) -> World {
    world_of(users::FILE, config)
}

fn world_of(users: &str, config: AuthConfig) -> World {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("users");
    fs::write(&file, users).unwrap();
    let auth = Authenticator::load(&AuthConfig { users_file: Some(file), ..config }).unwrap().unwrap();
    World { dir, auth }
}

impl World {
    async fn password(&self, address: &str, name: &str, password: &str) -> AuthAnswer {
        let password = Secret::from(password.as_bytes());
        self.auth.answer(address.parse().unwrap(), AuthQuery::Password(name, &password)).await
    }

    async fn keys(&self, name: &str) -> Verifier {
        match self.auth.answer(address(), AuthQuery::Keys(name)).await {
            AuthAnswer::Keys(verifier, nonce) => {
                assert!(nonce.len() >= 24 && !nonce.contains(','), "{nonce}");
                verifier
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_users_file_knows_passwords_and_what_users_may_send_as() {
    let world = world(AuthConfig::default());
    let AuthAnswer::Accepted(identity) = world.password("192.0.2.1", NAME, PASSWORD).await else {
        panic!("the password is right");
    };
    assert_eq!(&*identity.name, NAME);
    assert!(identity.owns(&"x@alice.example".parse().unwrap()));
    for (name, password) in
        [(NAME, "Secret"), (NAME, "secre\u{ad}t"), ("ALICE@test.example", PASSWORD), ("", "")]
    {
        let answer = world.password("192.0.2.1", name, password).await;
        let right = name == NAME && password.contains('\u{ad}');
        assert_eq!(matches!(answer, AuthAnswer::Accepted(_)), right, "{name} {password}: {answer:?}");
    }
    assert!(matches!(
        world.auth.answer(address(), AuthQuery::Proof(NAME, true)).await,
        AuthAnswer::Accepted(_)
    ));
    assert!(matches!(world.auth.answer(address(), AuthQuery::Proof(NAME, false)).await, AuthAnswer::Refused));
    assert!(matches!(world.auth.answer(address(), AuthQuery::Proof("x", true)).await, AuthAnswer::Refused));
}

#[tokio::test(start_paused = true)]
async fn scram_keys_of_nobody_look_like_those_of_somebody_and_stay_the_same() {
    let world = world(AuthConfig::default());
    let somebody = world.keys(NAME).await.to_string();
    assert!(users::FILE.contains(&somebody), "{somebody}");
    let [one, again, other] = [world.keys("one").await, world.keys("one").await, world.keys("other").await];
    assert_eq!(one, again);
    assert_ne!(one, other);
    let shape = |verifier: &str| verifier.split(['$', ':']).map(str::len).collect::<Vec<_>>();
    assert_eq!(shape(&one.to_string()), shape(&somebody));
    assert!(one.to_string().starts_with("SCRAM-SHA-256$4096:"));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_fails_is_slowed_down_then_sent_away_and_others_are_served() {
    let world = world(AuthConfig { failures: 6, ..AuthConfig::default() });
    let mut waits = Vec::new();
    for _ in 0..6 {
        let before = Instant::now();
        assert!(matches!(world.password("192.0.2.1", NAME, "wrong").await, AuthAnswer::Refused));
        waits.push(before.elapsed().as_millis());
    }
    assert_eq!(waits, [0, 0, 0, 250, 500, 1000]);
    for name in [NAME, "bob@test.example"] {
        assert!(matches!(world.password("192.0.2.1", name, PASSWORD).await, AuthAnswer::TooMany));
    }
    // The user comes from elsewhere: later, but in.
    let before = Instant::now();
    assert!(matches!(world.password("192.0.2.2", NAME, PASSWORD).await, AuthAnswer::Accepted(_)));
    assert_eq!(before.elapsed(), Duration::from_secs(2));
    let before = Instant::now();
    assert!(matches!(world.password("192.0.2.2", "bob@test.example", "x").await, AuthAnswer::Refused));
    assert_eq!(before.elapsed(), Duration::ZERO);
    tokio::time::advance(Duration::from_mins(1)).await;
    assert!(matches!(world.password("192.0.2.1", NAME, PASSWORD).await, AuthAnswer::Accepted(_)));
}

#[tokio::test]
async fn passwords_that_wait_to_be_checked_are_bounded() {
    // Long enough that none is checked before all have come. Made for another cost, the hash fits no password.
    let users = users::FILE.replace("m=64,", "m=65536,");
    let world = world_of(&users, AuthConfig { verifications: 1, waiting: 2, ..AuthConfig::default() });
    let attempt = |n: u8| {
        let (world, address) = (&world, format!("192.0.2.{n}"));
        async move { world.password(&address, NAME, PASSWORD).await }
    };
    let answers = tokio::join!(attempt(1), attempt(2), attempt(3), attempt(4));
    assert!(matches!(answers.0, AuthAnswer::Refused), "{answers:?}");
    assert!(matches!(answers.1, AuthAnswer::Refused), "{answers:?}");
    assert!(matches!(answers.2, AuthAnswer::Refused), "{answers:?}");
    assert!(matches!(answers.3, AuthAnswer::Unavailable), "{answers:?}");
    assert!(matches!(attempt(5).await, AuthAnswer::Refused), "places are given back");
}

#[tokio::test(start_paused = true)]
async fn a_changed_users_file_is_read_again_and_a_broken_one_is_not() {
    let world = world(AuthConfig { failures: 100, ..AuthConfig::default() });
    let file = world.dir.path().join("users");
    let put = async |text: &str| {
        let new = world.dir.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &file).unwrap();
        tokio::time::advance(Duration::from_millis(100)).await;
    };
    let known = async |name: &str| {
        matches!(world.password("192.0.2.1", name, PASSWORD).await, AuthAnswer::Accepted(_))
    };
    assert!(known(NAME).await);
    put(&users::FILE.replace("alice@test.example", "bob@test.example")).await;
    assert!(!known(NAME).await);
    assert!(known("bob@test.example").await);
    for broken in [&format!("{}carol\n", users::FILE), "\u{0}", &users::FILE.repeat(2)] {
        put(broken).await;
        assert!(known("bob@test.example").await);
    }
    fs::remove_file(&file).unwrap();
    assert!(known("bob@test.example").await);
    put(users::FILE).await;
    assert!(known(NAME).await);
    put("# nobody\n").await;
    assert!(!known(NAME).await);
}

#[test]
fn a_configuration_under_which_nobody_could_authenticate_is_refused_or_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    fs::write(&users, format!("{}alice\n{}", users::FILE, users::FILE)).unwrap();
    let problems = |auth: serde_json::Value| {
        let config: AuthConfig = serde_json::from_value(auth).unwrap();
        config.validate().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for (auth, key) in [
        (json!({"failures": 0}), "failures: "),
        (json!({"verifications": 0}), "verifications: "),
        (json!({"waiting": 0}), "waiting: "),
        (json!({"mechanisms": []}), "mechanisms: "),
        (json!({"mechanisms": ["Plain", "Login", "Plain"]}), "mechanisms[2]: "),
        (json!({"users_file": dir.path().join("nowhere")}), "users_file: "),
    ] {
        let problems = problems(auth);
        assert!(matches!(&problems[..], [problem] if problem.starts_with(key)), "{problems:?}");
    }
    let problems = problems(json!({"users_file": users}));
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("users:4: a line has three or four fields"), "{problems:?}");
    assert!(problems[1].contains("users:7: alice@test.example is in line 3 already"), "{problems:?}");

    let warnings = |config: serde_json::Value| {
        let config: Config = serde_json::from_value(config).unwrap();
        config.warnings().into_iter().map(|warning| warning.key).collect::<Vec<_>>()
    };
    let submission = json!([{}, {"mode": "Submission"}]);
    assert_eq!(warnings(json!({"listeners": submission})), ["listeners[1].mode"]);
    assert_eq!(warnings(json!({"auth": {"users_file": "users"}})), ["auth.require_tls"]);
    let works = json!({"listeners": submission, "auth": {"users_file": "users", "require_tls": false}});
    assert_eq!(warnings(works), [""; 0]);
}

/// The client's side of SCRAM-SHA-256 (RFC 5802 §3).
mod scram {
    use aws_lc_rs::{digest, hmac, pbkdf2};
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    pub(super) struct Client {
        password: String,
        bare: String,
        expected: String,
    }

    impl Client {
        pub(super) fn new(name: &str, password: &str) -> Self {
            let bare = format!("n={name},r=clientNonce");
            Self { password: password.to_owned(), bare, expected: String::new() }
        }

        pub(super) fn first(&self) -> String {
            format!("n,,{}", self.bare)
        }

        pub(super) fn last(&mut self, server_first: &str) -> String {
            let mut attributes = server_first.split(',').map(|attribute| attribute.get(2..).unwrap());
            let nonce = attributes.next().unwrap();
            let salt = STANDARD.decode(attributes.next().unwrap()).unwrap();
            let iterations = attributes.next().unwrap().parse().unwrap();
            assert!(nonce.starts_with("clientNonce") && nonce.len() > "clientNonce".len());
            let mut salted = [0; 32];
            let password = self.password.as_bytes();
            pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password, &mut salted);
            let sign =
                |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
            let client_key = sign(&salted, "Client Key");
            let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
            let without_proof = format!("c=biws,r={nonce}");
            let messages = format!("{},{server_first},{without_proof}", self.bare);
            let signature = sign(stored_key.as_ref(), &messages);
            let proof: Vec<u8> =
                client_key.as_ref().iter().zip(signature.as_ref()).map(|(k, s)| k ^ s).collect();
            let server_key = sign(&salted, "Server Key");
            self.expected = format!("v={}", STANDARD.encode(sign(server_key.as_ref(), &messages)));
            format!("{without_proof},p={}", STANDARD.encode(proof))
        }

        pub(super) fn expected(&self) -> String {
            self.expected.clone()
        }
    }
}
