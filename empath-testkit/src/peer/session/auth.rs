//! AUTH: who the client is, by a password or a token.

use std::io;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Act, Answered, At, Session, crlf};

impl<S> Session<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// AUTH PLAIN with its initial response, AUTH LOGIN (RFC 4954), or a token.
    pub(super) async fn auth(&mut self, line: &str) -> io::Result<()> {
        if !self.encrypted {
            self.log.violation(format!("{} AUTH in clear text", self.number));
        }
        let script = self.script.clone();
        let (user, password) = script.login.clone().unwrap_or_default();
        let words: Vec<_> = line.split_whitespace().skip(1).collect();
        let right = match *words {
            ["PLAIN", response] => response == STANDARD.encode(format!("\0{user}\0{password}")),
            ["LOGIN"] => {
                let mut right = true;
                for (challenge, expected) in [("Username:", user), ("Password:", password)] {
                    self.write(crlf(&format!("334 {}", STANDARD.encode(challenge))).as_bytes()).await?;
                    let response = self.line().await?;
                    self.log.said(self.number, 'C', &response);
                    right &= response.trim_ascii() == STANDARD.encode(expected).as_bytes();
                }
                right
            }
            [mechanism @ ("OAUTHBEARER" | "XOAUTH2"), ref initial @ ..] => {
                let response = match initial {
                    [] => self.challenged("334 ").await?,
                    initial => initial.concat().into_bytes(),
                };
                if !is_right_token(mechanism, &response, &user, &password) {
                    return self.refuse_token(mechanism).await;
                }
                true
            }
            _ => return self.write(b"504 5.5.4 Not that\r\n").await,
        };
        if !right {
            return self.write(b"535 5.7.8 Wrong\r\n").await;
        }
        self.authenticated = self.answer(&At::Auth, "235 2.7.0 Welcome").await? == Answered::AsUsual;
        Ok(())
    }

    /// What the client says to a challenge.
    async fn challenged(&mut self, challenge: &str) -> io::Result<Vec<u8>> {
        self.write(crlf(challenge).as_bytes()).await?;
        let response = self.line().await?;
        self.log.said(self.number, 'C', &response);
        Ok(response.trim_ascii_end().to_vec())
    }

    /// RFC 7628 §3.2.3: why the token is refused, then, when the client has heard that, the reply.
    async fn refuse_token(&mut self, mechanism: &str) -> io::Result<()> {
        let challenge = match self.script.clone().act(&At::Challenge) {
            Some(Act::Reply(text)) => text.clone(),
            _ => format!("334 {}", STANDARD.encode(r#"{"status":"invalid_token"}"#)),
        };
        let response = self.challenged(&challenge).await?;
        let expected: &[u8] = if mechanism == "XOAUTH2" { b"" } else { b"AQ==" };
        if response != expected {
            self.log.violation(format!("{} AUTH {mechanism}: the refusal is not acknowledged", self.number));
        }
        self.answer(&At::Auth, "535 5.7.8 Wrong").await.map(|_| ())
    }
}

/// Whether a message of OAUTHBEARER (RFC 7628 §3.1) or XOAUTH2 shows this token.
fn is_right_token(mechanism: &str, response: &[u8], user: &str, token: &str) -> bool {
    let message = STANDARD.decode(response).ok().and_then(|message| String::from_utf8(message).ok());
    let Some(fields) = message.as_deref().and_then(|message| message.strip_suffix("\x01\x01")) else {
        return false;
    };
    let mut fields = fields.split('\x01');
    let name = if mechanism == "XOAUTH2" { format!("user={user}") } else { format!("n,a={user},") };
    let auth = format!("auth=Bearer {token}");
    fields.next() == Some(name.as_str())
        && fields.filter(|field| field.starts_with("auth=")).eq([auth.as_str()])
}
