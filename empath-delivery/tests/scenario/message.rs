//! Messages as they stand in a file.

use bytes::Bytes;
use empath_common::{
    Body, Envelope, EnvelopeId, ForwardPath, FutureRelease, MessageNotification, MtPriority, Notify,
    OriginalRecipient, RecipientNotification, Ret,
};

use crate::file::{Line, Read, Wrong};

/// Content of messages that have none of their own.
const CONTENT: &str = "Subject: hello\r\n\r\n.dot\r\nbody\r\n";

#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) envelope: Envelope,
    pub(crate) content: Bytes,
}

/// The messages of a section: each a line `<sender> -> <recipient>` and lines with further recipients, `-> <recipient>`;
/// then, behind an empty line, the content of all.
pub(crate) fn parse(lines: &[Line<'_>]) -> Read<Vec<Message>> {
    let lines = lines.iter().map(|(number, line)| (*number, line.trim()));
    let mut parts = lines.skip_while(|(_, line)| line.is_empty() || line.starts_with('#'));
    let mut messages: Vec<(usize, Envelope, usize)> = Vec::new();
    for (number, line) in parts.by_ref().take_while(|(_, line)| !line.is_empty()) {
        let wrong = || Wrong(number, format!("not a message: {line}"));
        let (sender, recipient) = line.split_once("->").ok_or_else(wrong)?;
        let (count, sender) = match sender.split_once(" x ") {
            Some((count, sender)) => (count.parse().map_err(|_| wrong())?, sender.trim()),
            None => (1, sender.trim()),
        };
        let mut words = recipient.split_whitespace();
        let path: ForwardPath = words.next().and_then(|path| path.parse().ok()).ok_or_else(wrong)?;
        let asked = about_recipient(number, words)?;
        if sender.is_empty() {
            let (_, envelope, _) = messages.last_mut().ok_or_else(wrong)?;
            envelope.add(path, usize::MAX).map_err(|_| wrong())?;
            envelope.ask_about(envelope.recipients().len() - 1, asked);
        } else {
            let mut words = sender.split_whitespace();
            let sender = words.next().and_then(|path| path.parse().ok()).ok_or_else(wrong)?;
            let mut envelope = Envelope::new(sender, path);
            envelope.ask_about(0, asked);
            let octets = about_message(number, words, &mut envelope)?;
            messages.extend(std::iter::repeat_n((number, envelope, octets), count));
        }
    }
    let content: String = parts.map(|(_, line)| format!("{line}\r\n")).collect();
    let content = match content.trim_end() {
        "" => CONTENT.to_owned(),
        content => format!("{content}\r\n"),
    };
    let message = |(_, envelope, octets): (usize, Envelope, usize)| {
        let filler = octets.saturating_sub(content.len()).div_ceil(80);
        let content = Bytes::from(content.clone() + &format!("{}\r\n", "x".repeat(78)).repeat(filler));
        Message { envelope, content }
    };
    Ok(messages.into_iter().map(message).collect())
}

/// Reads parameters of the sender; says how many octets there are at least.
fn about_message<'a>(
    number: usize,
    words: impl Iterator<Item = &'a str>,
    envelope: &mut Envelope,
) -> Read<usize> {
    let (mut octets, mut asked) = (0, MessageNotification::default());
    for word in words {
        let wrong = || Wrong(number, format!("not a parameter of a sender: {word}"));
        match word.split_once('=').unwrap_or((word, "")) {
            ("RET", ret) => asked.ret = Some(Ret::parse(ret.as_bytes()).ok_or_else(wrong)?),
            ("ENVID", id) => asked.envid = Some(EnvelopeId::parse(id.as_bytes()).ok_or_else(wrong)?),
            ("BODY", "8BITMIME") => envelope.body = Body::EightBitMime,
            ("SMTPUTF8", "") => envelope.smtputf8 = true,
            ("HOLDFOR", seconds) => {
                envelope.future_release =
                    Some(FutureRelease::parse_for(seconds.as_bytes()).ok_or_else(wrong)?);
            }
            ("MT-PRIORITY", priority) => {
                envelope.mt_priority = Some(MtPriority::parse(priority.as_bytes()).ok_or_else(wrong)?);
            }
            ("OCTETS", count) => octets = count.parse().map_err(|_| wrong())?,
            _ => return Err(wrong()),
        }
    }
    envelope.ask(asked);
    Ok(octets)
}

fn about_recipient<'a>(number: usize, words: impl Iterator<Item = &'a str>) -> Read<RecipientNotification> {
    let mut asked = RecipientNotification::default();
    for word in words {
        let wrong = || Wrong(number, format!("not a parameter of a recipient: {word}"));
        match word.split_once('=') {
            Some(("NOTIFY", notify)) => {
                asked.notify = Some(Notify::parse(notify.as_bytes()).ok_or_else(wrong)?);
            }
            Some(("ORCPT", path)) => {
                asked.orcpt = Some(OriginalRecipient::parse(path.as_bytes()).ok_or_else(wrong)?);
            }
            _ => return Err(wrong()),
        }
    }
    Ok(asked)
}
