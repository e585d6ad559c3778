use empath_control::{Client, Pong, Reloaded, Request, SystemStatus};

use super::{
    CtlError,
    output::{Output, escaped},
    queue::messages,
};

pub(super) async fn ping(client: &mut Client, output: &mut Output) -> Result<(), CtlError> {
    let pong: Pong = client.ask(&Request::Ping {}).await?;
    output.answer(&pong, || format!("Empath {} answers\n", escaped(&pong.version)))?;
    Ok(())
}

pub(super) async fn status(client: &mut Client, output: &mut Output) -> Result<(), CtlError> {
    let status: SystemStatus = client.ask(&Request::Status {}).await?;
    output.answer(&status, || {
        let SystemStatus { uptime_seconds: up, queue_size, recovering, unreadable, ready, connections, dns_cache_entries, .. } = &status;
        let reading = match recovering {
            0 => String::new(),
            n => format!(", {n} of them are still being read from the spool"),
        };
        let lost = match unreadable {
            0 => String::new(),
            n => format!(", {n} of them cannot be read from the disk and are tried again"),
        };
        let dns = dns_cache_entries.map(|n| format!("dns cache    {n} answers\n")).unwrap_or_default();
        format!(
            "version      {}\nup           {}d {:02}:{:02}:{:02}\nready        {}\nqueue        {}{reading}{lost}\n\
             connections  {} in, {} out\n{dns}",
            escaped(&status.version),
            up / 86_400,
            up / 3600 % 24,
            up / 60 % 60,
            up % 60,
            if *ready { "yes" } else { "no" },
            messages(*queue_size),
            connections.inbound,
            connections.outbound,
        )
    })?;
    Ok(())
}

pub(super) async fn reload(client: &mut Client, output: &mut Output) -> Result<(), CtlError> {
    let reloaded: Reloaded = client.ask(&Request::Reload {}).await?;
    output.answer(&reloaded, || {
        let Reloaded { changed, needs_restart } = &reloaded;
        let lines = |what: &str, keys: &[String]| {
            let lines = keys.iter().map(|key| format!("{what}  {}\n", escaped(key)));
            lines.collect::<Vec<_>>().concat()
        };
        let nothing = if changed.is_empty() { "nothing new applies\n" } else { "" };
        format!("{nothing}{}{}", lines("applied      ", changed), lines("needs restart", needs_restart))
    })?;
    Ok(())
}
