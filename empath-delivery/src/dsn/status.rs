//! The part for programs.

use std::{fmt::Write as _, net::IpAddr};

use empath_common::{EnhancedStatus, ForwardPath, OriginalRecipient};

use super::{
    Failed, Report, date,
    fields::{Folded, ascii, most_text, unicode, utf8_address},
    part::Part,
};
use crate::config::HostAddr;

/// What happened to each recipient (RFC 3464 §2). About an SMTPUTF8 message, addresses are written as they are
/// (RFC 6533 §4).
pub(super) fn status(report: &Report<'_>) -> Part {
    let mut fields = Fields { text: String::new(), global: report.envelope.smtputf8 };
    fields.of_message(report);
    let most = most_text(report.news);
    for failed in &report.news.failed {
        fields.recipient(failed.orcpt.as_ref(), &failed.recipient);
        fields.trouble("failed", failed, most);
    }
    for delayed in &report.news.delayed {
        fields.recipient(delayed.last.orcpt.as_ref(), &delayed.last.recipient);
        fields.trouble("delayed", &delayed.last, most);
        fields.put("Will-Retry-Until", &date(delayed.retry_until));
    }
    for success in &report.news.arrived {
        fields.recipient(success.orcpt.as_ref(), &success.recipient);
        let status = success.reply.enhanced.filter(|status| status.class == 2);
        fields.put("Action", &success.how.to_string());
        fields.put("Status", &status.unwrap_or(EnhancedStatus::new(2, 0, 0)).to_string());
        fields.remote_mta(success.host.as_ref());
        if success.host.is_some() {
            fields.diagnostic("smtp", &ascii(&success.reply.to_string(), most));
        }
    }
    let Fields { text, .. } = fields;
    let media_type =
        if text.is_ascii() { "message/delivery-status" } else { "message/global-delivery-status" };
    Part { media_type, octets: text.into_bytes() }
}

struct Fields {
    text: String,
    /// UTF-8 may be in them.
    global: bool,
}

impl Fields {
    fn put(&mut self, name: &str, value: &str) {
        let _ = write!(self.text, "{name}: {value}\r\n");
    }

    fn of_message(&mut self, report: &Report<'_>) {
        if let Some(envid) = &report.envelope.notification().envid {
            self.put("Original-Envelope-Id", &envid.decoded());
        }
        self.put("Reporting-MTA", &format!("dns; {}", report.reporting_mta));
        self.put("Arrival-Date", &date(report.envelope.received_at));
        if let Some(request) = report.envelope.future_release {
            // RFC 4865 updates RFC 3464 with it.
            self.put("Future-Release-Request", &request.to_string());
        }
    }

    /// The first fields of a recipient. Whom the sender meant is told as the sender did (RFC 3461 §6.3).
    fn recipient(&mut self, orcpt: Option<&OriginalRecipient>, recipient: &ForwardPath) {
        self.text.push_str("\r\n");
        if let Some((kind, address)) = orcpt.map(OriginalRecipient::decoded) {
            let upconverted = self.global && kind.eq_ignore_ascii_case("utf-8");
            let address = if upconverted { unicode(&address) } else { address };
            self.put("Original-Recipient", &format!("{kind}; {address}"));
        }
        let recipient = recipient.as_str();
        let recipient = if self.global && !recipient.is_ascii() {
            format!("utf-8; {recipient}")
        } else {
            utf8_address(recipient)
        };
        self.put("Final-Recipient", &recipient);
    }

    fn trouble(&mut self, action: &str, failed: &Failed, most: usize) {
        self.put("Action", action);
        self.put("Status", &failed.status.to_string());
        self.remote_mta(failed.host.as_ref());
        match &failed.reply {
            Some(reply) => self.diagnostic("smtp", &ascii(&reply.to_string(), most)),
            None => self.diagnostic("x-empath", &ascii(&failed.told(), most)),
        }
        if let Some(at) = failed.last_attempt {
            self.put("Last-Attempt-Date", &date(at));
        }
    }

    fn diagnostic(&mut self, kind: &str, text: &str) {
        self.put("Diagnostic-Code", &format!("{kind}; {}", Folded { text, indent: " " }));
    }

    fn remote_mta(&mut self, host: Option<&HostAddr>) {
        match host {
            Some(HostAddr::Name(name)) => self.put("Remote-MTA", &format!("dns; {name}")),
            // An address literal (RFC 5321 §4.1.3).
            Some(HostAddr::Ip(IpAddr::V6(ip))) => self.put("Remote-MTA", &format!("dns; [IPv6:{ip}]")),
            Some(HostAddr::Ip(ip)) => self.put("Remote-MTA", &format!("dns; [{ip}]")),
            None => {}
        }
    }
}
