//! What the fuzz targets do with the octets that they are given. See `fuzz/README.md`.
#![expect(dead_code, reason = "the tests of the server use more of their modules than the targets do")]

#[path = "../../empath-smtp/tests/server/intake.rs"]
mod intake;
#[path = "../../empath-smtp/tests/server/machine.rs"]
mod machine;
#[path = "../../empath-smtp/tests/server/model.rs"]
mod model;
#[path = "../../empath-smtp/tests/server/script.rs"]
mod script;
#[path = "../../empath-smtp/tests/server/users.rs"]
mod users;

mod authentication;
mod command;
mod content;
mod proxy;
mod seeds;
mod session;

pub use authentication::authentication;
pub use command::command;
pub use content::content;
pub use proxy::proxy;
pub use seeds::seeds;
pub use session::session;

use empath_smtp::server::{BareNewlines, Config, Mode};
use intake::Shelf;
use machine::Machine;
use model::Model;
use serde_json::json;

/// A server as the bits of `flags` would have it.
fn config(flags: u8) -> Config {
    let mut config = script::default_config();
    if flags & 1 != 0 {
        config["tls"] = json!([{"names": ["*"], "certificate": "cert.pem", "key": "key.pem"}]);
    }
    let mut config: Config = serde_json::from_value(config).expect("the default of the tests is valid");
    if flags & 2 != 0 {
        config.bare_newlines = BareNewlines::Normalize;
    }
    if flags & 4 != 0 {
        config.auth.users_file = Some("users".into());
        config.auth.require_tls = flags & 8 != 0;
    }
    if flags & 16 != 0 {
        config.listeners[0].mode = Mode::Submission;
    }
    config
}

/// Who is trusted, or a stranger.
fn peer(flags: u8) -> std::net::IpAddr {
    if flags & 32 != 0 { [198, 51, 100, 7].into() } else { [203, 0, 113, 9].into() }
}

/// Sends these octets in one write, and compares the session with the model's.
fn converse(config: &Config, flags: u8, stream: &[u8]) -> (String, Vec<Vec<u8>>) {
    let shelf = Shelf::default();
    let mut machine = Machine::new(config, peer(flags), &shelf);
    machine.feed(stream);
    let messages: Vec<_> = shelf.messages().into_iter().map(|(_, content)| content).collect();
    let submission = config.listeners[0].mode.is_submission();
    if let Some(taken) = Model::new(submission).follow(stream, &machine.output(), machine.closed) {
        assert_eq!(taken, messages.len(), "{}", machine.output());
    }
    messages.iter().for_each(|content| assert_clean(content));
    (machine.output(), messages)
}

/// What is stored can be sent on without anything that a line-based reader could take for an end.
fn assert_clean(content: &[u8]) {
    let text = String::from_utf8_lossy(content).replace("\r\n", "");
    assert!(!text.contains(['\r', '\n', '\0']), "{}", content.escape_ascii());
}
