use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use empath_common::MessageId;
use empath_control::{Checked, Client, Discarded, Finding, Kept, KeptSegment, Piece, Request, SpoolStats};

use super::{
    CtlError,
    output::{Output, Table, escaped},
    queue::{PIECE, ask, is_watched},
};

pub(super) async fn stats(client: &mut Client, output: &mut Output) -> Result<(), CtlError> {
    let stats: SpoolStats = client.ask(&Request::SpoolStats {}).await?;
    output.answer(&stats, || {
        let SpoolStats { messages, journal_octets, live_octets, large_octets, .. } = &stats;
        let bound = |bound: Option<u64>| bound.map_or_else(|| "unbounded".to_owned(), |n| n.to_string());
        let kept = stats.kept_segments.iter().map(stays).collect::<String>();
        format!(
            "messages     {messages}\njournal      {journal_octets} octets, {live_octets} of them live\n\
             large        {large_octets} octets\nfree         {} octets, {} files\n\
             damaged      {}, {} octets\nhealthy      {}\n{kept}",
            bound(stats.free_octets),
            bound(stats.free_inodes),
            stats.damaged,
            stats.damaged_octets,
            if stats.healthy { "yes" } else { "no" },
        )
    })?;
    Ok(())
}

pub(super) async fn verify(client: &mut Client, output: &mut Output) -> Result<(), CtlError> {
    client.send(&Request::SpoolVerify {}).await?;
    let mut clean = true;
    while let Some(finding) = client.next::<Finding>().await? {
        output.answer(&finding, || describe(&finding))?;
        if let Finding::Summary(checked) = finding {
            clean = checked.clean;
        }
    }
    if clean {
        return Ok(());
    }
    output.flush()?;
    Err(CtlError::Damaged)
}

/// A finding for people: one line, or more for the summary.
pub(crate) fn describe(finding: &Finding) -> String {
    match finding {
        Finding::Damage { segment, offset, length, reason, messages } => {
            let reason = escaped(reason);
            let about = match messages.len() {
                0 => String::new(),
                _ => format!("; about {}", names(messages, ", ")),
            };
            format!("segment {segment:08}, offset {offset}, {length} octets: {reason}{about}\n")
        }
        Finding::Unreadable { id, reason } => format!("message {id}: {}\n", escaped(reason)),
        Finding::Kept(kept) => stays(kept),
        Finding::Summary(checked) => {
            let Checked { segments, records, octets, large, unfinished, damaged, unreadable, kept, .. } =
                checked;
            let kept = match kept {
                0 => String::new(),
                n => format!("{n} segments stay, and all younger ones with them\n"),
            };
            let unfinished = match unfinished {
                0 => String::new(),
                n => format!("{n} octets of a last write that did not finish, and was never acknowledged\n"),
            };
            format!(
                "checked {segments} segments with {records} records and {octets} octets, and {large} large messages\n\
                 {unfinished}{damaged} damaged ranges, {unreadable} unreadable messages\n{kept}"
            )
        }
    }
}

fn stays(KeptSegment { segment, path, reason }: &KeptSegment) -> String {
    format!("segment {segment:08} stays: {} ({})\n", escaped(reason), escaped(path))
}

fn names(messages: &[MessageId], separator: &str) -> String {
    let names: Vec<_> = messages.iter().map(ToString::to_string).collect();
    names.join(separator)
}

pub(super) async fn list(client: &mut Client, output: &mut Output) -> Result<(), CtlError> {
    client.send(&Request::DamagedList {}).await?;
    let heading = || Table::new(["NAME", "OCTETS", "REASON", "MESSAGES"]);
    let (mut table, mut rows) = (heading(), 0);
    while let Some(kept) = client.next::<Kept>().await? {
        if output.is_json() {
            output.answer(&kept, String::new)?;
            continue;
        }
        let reason = kept.report.get("reason").into_iter().chain(&kept.problem);
        let reason = reason.map(String::as_str).collect::<Vec<_>>().join("; ");
        table.row([&kept.name, &kept.octets.to_string(), &reason, &names(&kept.messages, " ")]);
        rows += 1;
        if rows == PIECE {
            output.text(&table.render())?;
            (table, rows) = (heading(), 0);
        }
    }
    if rows > 0 {
        output.text(&table.render())?;
    }
    Ok(())
}

/// To standard output: the octets, or their pieces as JSON.
pub(super) async fn export(client: &mut Client, output: &mut Output, name: &str) -> Result<(), CtlError> {
    if !output.is_json() && output.is_terminal() {
        return Err(CtlError::Terminal);
    }
    client.send(&Request::DamagedExport { name: name.to_owned() }).await?;
    while let Some(piece) = client.next::<Piece>().await? {
        if output.is_json() {
            output.answer(&piece, String::new)?;
        } else {
            output.octets(&piece.octets)?;
        }
    }
    Ok(())
}

pub(super) async fn export_to(
    client: &mut Client,
    output: &mut Output,
    name: &str,
    path: &Path,
) -> Result<(), CtlError> {
    let failed = |source| CtlError::File { path: path.to_owned(), source };
    // It may hold mail, which is not for everybody.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    match write(client, file, name).await {
        Ok(octets) => {
            let answer = serde_json::json!({ "name": name, "octets": octets });
            let text =
                || format!("{octets} octets were written to {}\n", escaped(&path.display().to_string()));
            Ok(output.answer(&answer, text)?)
        }
        Err(failure) => {
            // Half of it would be taken for all of it. The failure itself is what is told.
            let _ = fs::remove_file(path);
            Err(match failure {
                CtlError::Output(source) => failed(source),
                other => other,
            })
        }
    }
}

async fn write(client: &mut Client, mut file: File, name: &str) -> Result<u64, CtlError> {
    client.send(&Request::DamagedExport { name: name.to_owned() }).await?;
    let mut written = 0;
    while let Some(piece) = client.next::<Piece>().await? {
        file.write_all(&piece.octets)?;
        written += piece.octets.len() as u64;
    }
    file.sync_all()?;
    Ok(written)
}

pub(super) async fn discard(
    client: &mut Client,
    output: &mut Output,
    names: &[String],
) -> Result<(), CtlError> {
    let discarded: Discarded = client.ask(&Request::DamagedDiscard { names: names.to_vec() }).await?;
    output.answer(&discarded, || format!("{} were deleted\n", discarded.discarded))?;
    Ok(())
}

/// What is discarded is named one by one, so only a person is asked.
pub(super) fn confirm(names: &[String]) -> Result<(), CtlError> {
    if !is_watched() {
        return Ok(());
    }
    ask(&format!("Delete {} for good? It may be the last copy of some mail.", escaped(&names.join(", "))))
}
