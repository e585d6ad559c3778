use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
};

use empath_common::{Domain, MessageId};
use empath_control::{
    Changed, Client, Frozen, LastReply, NotificationEntry, QueueEntry, QueueStats, QueueView, QueueWhy,
    RecipientEntry, Request, Selection, WhyEntry,
};

use super::{
    CtlError,
    arguments::{Delete, List, Messages},
    output::{Output, Table, escaped},
};

/// Rows that are aligned together; a longer list is printed in pieces, so that it needs no memory.
pub(super) const PIECE: usize = 1000;

pub(super) async fn list(client: &mut Client, output: &mut Output, list: &List) -> Result<(), CtlError> {
    client.send(&Request::List { filter: list.conditions.filter(), limit: list.limit }).await?;
    let mut more = true;
    while more {
        let mut table =
            Table::new(["ID", "RECEIVED", "SIZE", "STATUS", "NEXT", "PRIORITY", "SENDER", "RECIPIENTS"]);
        let mut rows = 0;
        while rows < PIECE && more {
            let Some(entry) = client.next::<QueueEntry>().await? else {
                more = false;
                break;
            };
            rows += 1;
            if output.is_json() {
                output.answer(&entry, String::new)?;
                continue;
            }
            table.row([
                &entry.id.to_string(),
                &time(entry.received_at),
                &entry.size.to_string(),
                &entry.status.to_string(),
                &next(&entry),
                entry.priority.as_str(),
                sender(&entry),
                &recipients(&entry),
            ]);
        }
        if rows > 0 {
            output.text(&table.render())?;
        }
    }
    Ok(())
}

pub(super) async fn view(client: &mut Client, output: &mut Output, id: MessageId) -> Result<(), CtlError> {
    let view: QueueView = client.ask(&Request::View { id }).await?;
    output.answer(&view, || describe(&view))?;
    Ok(())
}

pub(super) async fn why(client: &mut Client, output: &mut Output, id: MessageId) -> Result<(), CtlError> {
    let why: QueueWhy = client.ask(&Request::Why { id }).await?;
    output.answer(&why, || {
        let mut table = Table::new(["RECIPIENT", "STATUS", "BECAUSE", "UNTIL", "DETAIL"]);
        for WhyEntry { address, state, because, until, detail } in &why.recipients {
            let until = until.map(time).unwrap_or_default();
            table.row([address, &state.to_string(), &because.to_string(), &until, detail]);
        }
        table.render()
    })?;
    Ok(())
}

pub(super) async fn stats(client: &mut Client, output: &mut Output) -> Result<(), CtlError> {
    let stats: QueueStats = client.ask(&Request::Stats {}).await?;
    output.answer(&stats, || {
        let oldest = stats.oldest_seconds.map(|age| format!(", the oldest {age} s old")).unwrap_or_default();
        let mut text = format!("{}{oldest}\n", messages(stats.total));
        let mut table = Table::new(["STATUS", "MESSAGES"]);
        stats.by_status.iter().for_each(|(status, n)| table.row([&status.to_string(), &n.to_string()]));
        let mut domains = Table::new(["DOMAIN", "MESSAGES"]);
        stats.by_domain.iter().for_each(|(domain, n)| domains.row([domain, &n.to_string()]));
        if stats.total > 0 {
            text.extend(["\n", &table.render(), "\n", &domains.render()]);
        }
        for domain in &stats.frozen {
            // Writing to a String never fails.
            let _ = writeln!(text, "frozen: {domain}");
        }
        text
    })?;
    Ok(())
}

pub(super) async fn retry(
    client: &mut Client,
    output: &mut Output,
    messages: &Messages,
) -> Result<(), CtlError> {
    let changed: Changed = client.ask(&Request::Retry { messages: messages.selection() }).await?;
    output
        .answer(&changed, || format!("{} of {} messages are due now\n", changed.changed, changed.matched))?;
    Ok(())
}

pub(super) async fn delete(
    client: &mut Client,
    output: &mut Output,
    delete: &Delete,
) -> Result<(), CtlError> {
    let changed: Changed = client.ask(&Request::Delete { messages: delete.messages.selection() }).await?;
    output
        .answer(&changed, || format!("{} of {} messages were deleted\n", changed.changed, changed.matched))?;
    Ok(())
}

pub(super) async fn hold(
    client: &mut Client,
    output: &mut Output,
    messages: &Messages,
) -> Result<(), CtlError> {
    let changed: Changed = client.ask(&Request::Hold { messages: messages.selection() }).await?;
    output
        .answer(&changed, || format!("{} of {} messages are held now\n", changed.changed, changed.matched))?;
    Ok(())
}

pub(super) async fn release(
    client: &mut Client,
    output: &mut Output,
    messages: &Messages,
) -> Result<(), CtlError> {
    let changed: Changed = client.ask(&Request::Release { messages: messages.selection() }).await?;
    output
        .answer(&changed, || format!("{} of {} messages are released\n", changed.changed, changed.matched))?;
    Ok(())
}

pub(super) async fn freeze(
    client: &mut Client,
    output: &mut Output,
    domain: &Domain,
) -> Result<(), CtlError> {
    let frozen: Frozen = client.ask(&Request::Freeze { domain: domain.clone() }).await?;
    let words = if frozen.changed { "is frozen now" } else { "was frozen already" };
    output.answer(&frozen, || format!("{domain} {words}\n"))?;
    Ok(())
}

pub(super) async fn thaw(client: &mut Client, output: &mut Output, domain: &Domain) -> Result<(), CtlError> {
    let frozen: Frozen = client.ask(&Request::Thaw { domain: domain.clone() }).await?;
    let words = if frozen.changed { "goes on now" } else { "was not frozen" };
    output.answer(&frozen, || format!("{domain} {words}\n"))?;
    Ok(())
}

/// Ids are meant as they are given. What a condition matches is not seen before, so a person is asked and a script
/// has to say `--yes`.
pub(super) fn confirm(delete: &Delete) -> Result<(), CtlError> {
    if delete.yes || matches!(delete.messages.selection(), Selection::Ids(_)) {
        return Ok(());
    }
    if !is_watched() {
        return Err(CtlError::Unconfirmed);
    }
    ask("Delete every message that matches, without telling anyone?")
}

/// Whether a person is there to be asked.
pub(super) fn is_watched() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Fails unless the person at the terminal says yes.
pub(super) fn ask(question: &str) -> Result<(), CtlError> {
    write!(io::stderr(), "{question} [y/N] ")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(CtlError::Declined) }
}

fn time(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

fn sender(entry: &QueueEntry) -> &str {
    if entry.sender.is_empty() { "<>" } else { &entry.sender }
}

/// When the first of its recipients is due, if they wait for a time.
fn next(entry: &QueueEntry) -> String {
    entry
        .recipients
        .iter()
        .filter_map(|recipient| recipient.next_attempt_at)
        .min()
        .map(time)
        .unwrap_or_default()
}

/// With the noun in singular or plural.
pub(super) fn messages(n: u64) -> String {
    if n == 1 { "1 message".to_owned() } else { format!("{n} messages") }
}

/// The first recipient, and how many more there are.
fn recipients(entry: &QueueEntry) -> String {
    let first = entry.recipients.first().map_or("", |recipient| &recipient.address);
    match entry.recipients.len() {
        0 | 1 => first.to_owned(),
        n => format!("{first} and {} more", n - 1),
    }
}

fn describe(view: &QueueView) -> String {
    let entry = &view.entry;
    let mut text = format!(
        "id        {}\nsender    {}\nreceived  {}\nsize      {} octets\nstatus    {}\npriority  {}\n",
        entry.id,
        escaped(sender(entry)),
        time(entry.received_at),
        entry.size,
        entry.status,
        entry.priority,
    );
    for (name, value) in [("ret", &view.ret), ("envid", &view.envid)] {
        if let Some(value) = value {
            // Writing to a String never fails.
            let _ = writeln!(text, "{name:<10}{}", escaped(value));
        }
    }
    text += "\n";
    let mut recipients =
        Table::new(["RECIPIENT", "STATUS", "ATTEMPTS", "NEXT ATTEMPT", "NEXT HOP", "LAST REPLY"]);
    for RecipientEntry { address, status, attempts, next_attempt_at, next_hop, last_reply, .. } in
        &entry.recipients
    {
        recipients.row([
            address,
            &status.to_string(),
            &attempts.to_string(),
            &next_attempt_at.map(time).unwrap_or_default(),
            next_hop.as_deref().unwrap_or_default(),
            &last_reply.as_ref().map(reply).unwrap_or_default(),
        ]);
    }
    text += &recipients.render();
    if !view.notifications.is_empty() {
        let mut notifications = Table::new(["RECIPIENT", "NOTIFY", "ORCPT"]);
        for NotificationEntry { address, notify, orcpt } in &view.notifications {
            notifications.row([
                address,
                notify.as_deref().unwrap_or_default(),
                orcpt.as_deref().unwrap_or_default(),
            ]);
        }
        text += "\n";
        text += &notifications.render();
    }
    if !view.history.is_empty() {
        let mut history = Table::new(["ATTEMPT", "RECIPIENT", "HOST", "RESULT"]);
        for attempt in &view.history {
            let host = attempt.host.as_deref().or(attempt.next_hop.as_deref()).unwrap_or_default();
            history.row([&time(attempt.at), &attempt.address, host, &reply(&attempt.reply)]);
        }
        text += "\n";
        text += &history.render();
    }
    text += "\n";
    for (name, value) in &view.headers {
        // Writing to a String never fails.
        let _ = writeln!(text, "{}: {}", escaped(name), escaped(value));
    }
    text
}

fn reply(reply: &LastReply) -> String {
    let code = reply.code.map(|code| code.to_string());
    let parts = [code.as_deref(), reply.enhanced.as_deref(), Some(&reply.text)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
