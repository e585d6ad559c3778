use empath_control::{CachedAnswer, Cleared, Client, DnsOverride, Request, ResolvedHost};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    CtlError,
    arguments::DnsCommand,
    output::{Output, Table, escaped},
    queue::PIECE,
};

pub(super) async fn run(
    client: &mut Client,
    output: &mut Output,
    wanted: &DnsCommand,
) -> Result<(), CtlError> {
    match wanted.clone() {
        DnsCommand::ListCache { domain } => {
            let heading = ["NAME", "TYPE", "EXPIRES", "HITS", "ANSWER"];
            list(client, output, &Request::CacheList { domain }, heading, cached).await
        }
        DnsCommand::ClearCache { domain } => {
            let cleared: Cleared = client.ask(&Request::CacheClear { domain }).await?;
            output.answer(&cleared, || format!("{} answers are forgotten\n", cleared.cleared))?;
            Ok(())
        }
        DnsCommand::Refresh { domain } => {
            let heading = ["PREFERENCE", "HOST", "ADDRESSES"];
            list(client, output, &Request::Refresh { domain }, heading, resolved).await
        }
        DnsCommand::ListOverrides => {
            let row = |to: &DnsOverride| [to.domain.to_string(), to.host.clone()];
            list(client, output, &Request::OverrideList {}, ["DOMAIN", "HOST"], row).await
        }
        DnsCommand::SetOverride { domain, host } => {
            let host = host.to_string();
            let set: DnsOverride = client.ask(&Request::OverrideSet { domain, host }).await?;
            output.answer(&set, || told(&set, "goes to"))?;
            Ok(())
        }
        DnsCommand::RemoveOverride { domain } => {
            let gone: DnsOverride = client.ask(&Request::OverrideRemove { domain }).await?;
            output.answer(&gone, || told(&gone, "no longer goes to"))?;
            Ok(())
        }
    }
}

/// Prints objects as they come, in pieces of aligned rows.
async fn list<T: Serialize + DeserializeOwned, const N: usize>(
    client: &mut Client,
    output: &mut Output,
    request: &Request,
    heading: [&str; N],
    row: impl Fn(&T) -> [String; N],
) -> Result<(), CtlError> {
    client.send(request).await?;
    let mut table = Table::new(heading);
    let mut rows = 0;
    while let Some(object) = client.next::<T>().await? {
        if output.is_json() {
            output.answer(&object, String::new)?;
            continue;
        }
        table.row(row(&object).each_ref().map(String::as_str));
        rows += 1;
        if rows == PIECE {
            output.text(&std::mem::replace(&mut table, Table::new(heading)).render())?;
            rows = 0;
        }
    }
    if rows > 0 {
        output.text(&table.render())?;
    }
    Ok(())
}

fn cached(answer: &CachedAnswer) -> [String; 5] {
    let CachedAnswer { name, kind, records, error, expires_in_seconds, hits } = answer;
    let said = error.clone().unwrap_or_else(|| records.join(", "));
    [name.clone(), kind.clone(), format!("{expires_in_seconds} s"), hits.to_string(), said]
}

fn resolved(found: &ResolvedHost) -> [String; 3] {
    let addresses: Vec<_> = found.addresses.iter().map(ToString::to_string).collect();
    let said = found.error.clone().unwrap_or_else(|| addresses.join(", "));
    [found.preference.to_string(), found.host.clone(), said]
}

fn told(to: &DnsOverride, goes: &str) -> String {
    format!("mail for {} {goes} {}\n", escaped(to.domain.as_str()), escaped(&to.host))
}
