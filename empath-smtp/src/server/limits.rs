use std::time::Duration;

use empath_common::{ByteSize, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much of anything a client may use. Every limit has a defined answer.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest message, in octets of content.
    ///
    /// It is announced with SIZE (RFC 1870). A client that declares more is answered 552 5.3.4 at MAIL, one that
    /// sends more after the end of the content. RFC 5321 §4.5.3.1.7 asks for at least 64 KiB. Default: `"25MiB"`.
    pub message_size: ByteSize,
    /// Most recipients of a message.
    ///
    /// The rest is answered 452 4.5.3, so that the client sends it in another transaction (RFC 5321
    /// §4.5.3.1.10, which asks for at least 100). Default: `1000`.
    pub recipients: usize,
    /// Most sessions at a time, over all listeners.
    ///
    /// More are greeted with 421 4.3.2. Each needs a file descriptor and some 10 KiB of memory. Default: `10000`.
    pub connections: usize,
    /// Most sessions at a time from one address; for IPv6 from one /64, which is what one customer has.
    ///
    /// More are greeted with 421 4.7.0. Default: `200`.
    pub connections_per_address: usize,
    /// Most messages in one session.
    ///
    /// MAIL after that is answered 421 4.7.0, and the client connects anew. Default: `1000`.
    pub messages_per_connection: u32,
    /// Most replies 5yz in a session before the next one is 421 4.7.0 instead.
    ///
    /// An accepted message sets the count back. Default: `20`.
    pub errors: u32,
    /// Most commands that bring no message nearer (NOOP, RSET, EHLO, VRFY, HELP, BDAT 0) before the next is answered
    /// 421 4.7.0.
    ///
    /// An accepted message sets the count back. Default: `100`.
    pub idle_commands: u32,
    /// Most `Received` fields of a message; one with more is in a loop.
    ///
    /// It is refused with 554 5.4.6 after the content. RFC 5321 §6.3 asks for at least 100. Default: `100`.
    pub hops: usize,
    /// Longest command line in octets, CRLF included.
    ///
    /// A longer one is read to its end, kept nowhere, and answered 500 5.5.6. RFC 5321 §4.5.3.1.4 asks for at least 512,
    /// and extensions add to that (RFC 3461 §5.4 brings RCPT to 1036). Lines of AUTH may always have the 12288 octets of
    /// RFC 4954 §4. Default: `2048`.
    pub command_line: usize,
    /// Most fields in the header section of a message, however they are folded.
    ///
    /// A message with more is refused with 552 5.3.4 after the content. Default: `1000`.
    pub header_fields: usize,
    /// Largest header section of a message.
    ///
    /// A message with more is refused with 552 5.3.4 after the content. Default: `"256KiB"`.
    pub header_size: ByteSize,
    /// Longest line of content in octets, CRLF included.
    ///
    /// A message with a longer one is refused with 554 5.6.0 after the content. RFC 5321 §4.5.3.1.6 allows 1000;
    /// much software sends more. Default: `2048`.
    pub content_line: usize,
    /// Memory for the content of all messages that are being received, or wait for their first delivery attempt.
    ///
    /// Messages above `spool.large_threshold` need 64 KiB of it, whatever their size, and may use a quarter of it. When the
    /// rest is used up, smaller ones go the same way, and when that quarter is too, clients are answered 452 4.3.1.
    /// With less than 1 MiB one message at a time goes that way. Default: `"256MiB"`.
    pub content_memory: ByteSize,
    /// Space that stays free on the file system of the spool.
    ///
    /// With less, MAIL is answered 452 4.3.1 and `/health/ready` says no, while delivery goes on and frees space; the
    /// rest of the machine, and the spool's own records, still have something to write to. It is looked at once a
    /// second at most, so leave more than a second of mail takes. On a small file system give less; `0` is no limit.
    /// Default: `"100MiB"`.
    pub min_free_space: ByteSize,
    /// Files that can still be created on the file system of the spool.
    ///
    /// With fewer the answer is that of `min_free_space`. File systems without such a bound always have enough; `0` is
    /// no limit. Default: `1000`.
    pub min_free_inodes: u64,
    /// How long a client may have a message wait here before it is sent on (FUTURERELEASE, RFC 4865); `None` offers it to
    /// nobody.
    ///
    /// It is for users who have authenticated, for listeners where users must, and for clients in `relay_networks`; others
    /// are answered 555 5.5.4, and 501 5.5.4 whoever wants more. What waits counts in `queue_size`. The times of
    /// `delivery.retry.expire_after` and `dsn.delay_after` begin when the waiting ends. At most `"365d"`. Default: `"7d"`.
    #[serde(with = "humantime_serde::option")]
    #[schemars(with = "Option<String>")]
    pub future_release: Option<Duration>,
    /// Most messages in the queue.
    ///
    /// When there are as many, DATA is answered 452 4.3.1. Default: `1000000`.
    pub queue_size: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_size: ByteSize(25 << 20),
            recipients: 1000,
            connections: 10_000,
            connections_per_address: 200,
            messages_per_connection: 1000,
            errors: 20,
            idle_commands: 100,
            hops: 100,
            command_line: 2048,
            header_fields: 1000,
            header_size: ByteSize(256 << 10),
            content_line: 2048,
            content_memory: ByteSize(256 << 20),
            min_free_space: ByteSize(100 << 20),
            min_free_inodes: 1000,
            future_release: Some(Duration::from_hours(7 * 24)),
            queue_size: 1_000_000,
        }
    }
}

impl Limits {
    /// What serde can't say: a limit of nothing would refuse everything, and so would lines shorter than those that every
    /// client may send.
    pub fn validate(&self) -> Vec<Problem> {
        let zero = [
            ("message_size", self.message_size.0 == 0),
            ("recipients", self.recipients == 0),
            ("connections", self.connections == 0),
            ("connections_per_address", self.connections_per_address == 0),
            ("messages_per_connection", self.messages_per_connection == 0),
            ("errors", self.errors == 0),
            ("idle_commands", self.idle_commands == 0),
            ("hops", self.hops == 0),
            ("header_fields", self.header_fields == 0),
            ("header_size", self.header_size.0 == 0),
            ("content_memory", self.content_memory.0 == 0),
            ("queue_size", self.queue_size == 0),
        ];
        let zero = zero.into_iter().filter(|(_, is_zero)| *is_zero);
        let zero = zero.map(|(key, _)| Problem::new(key, "0 would refuse everything: give at least 1"));
        let lines = [
            ("command_line", self.command_line, 512, "RFC 5321 §4.5.3.1.4"),
            ("content_line", self.content_line, 1000, "RFC 5321 §4.5.3.1.6"),
        ];
        let short = lines.into_iter().filter(|(_, most, least, _)| most < least);
        let short = short.map(|(key, _, least, section)| {
            Problem::new(key, format!("clients may send lines of {least} octets ({section}): give no less"))
        });
        let second_to_year = Duration::from_secs(1)..=Duration::from_hours(365 * 24);
        let odd = self.future_release.filter(|longest| !second_to_year.contains(longest));
        let odd = odd.map(|_| {
            Problem::new(
                "future_release",
                "give at least \"1s\" and at most \"365d\", or None to offer it to nobody",
            )
        });
        zero.chain(short).chain(odd).collect()
    }
}
