use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::{config, converse};

/// The first octet chooses the server, the second the mechanism; then come the initial response and the client's
/// responses, a line each. Those that begin with `*` are sent as they are, the others in base64.
pub fn authentication(data: &[u8]) {
    let [flags, mechanism, responses @ ..] = data else {
        return;
    };
    // Users there are, and TLS is not asked for.
    let config = config(flags & !8 & !1 | 4);
    let mechanism = ["SCRAM-SHA-256", "PLAIN", "LOGIN"][usize::from(mechanism % 3)];
    let mut stream = format!("EHLO c.example\r\nAUTH {mechanism} ").into_bytes();
    for response in responses.split(|octet| *octet == b'\n') {
        match response {
            [b'*', ..] => stream.extend(response),
            _ => stream.extend(BASE64_STANDARD.encode(response).bytes()),
        }
        stream.extend(b"\r\n");
    }
    stream.extend(b"*\r\nNOOP\r\n");
    converse(&config, *flags, &stream);
}
