use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use empath_common::{Domain, MessageId};
use empath_control::{Filter, Selection, Status};
use empath_delivery::config::Override;

/// Looks into a running Empath daemon, and changes its queue.
///
/// Exit status: 0 done, 1 refused or failed, 2 called wrongly, 3 no daemon answers.
#[derive(Debug, Parser)]
#[command(name = "empathctl", version)]
pub(super) struct Arguments {
    /// The control socket of the daemon.
    #[arg(
        short,
        long,
        global = true,
        value_name = "PATH",
        env = "EMPATH_CONTROL_SOCKET",
        default_value = "/run/empath/control.sock"
    )]
    pub(super) control_socket: PathBuf,
    /// Print JSON, one object per line; errors too, on standard error.
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The daemon as a whole.
    #[command(subcommand)]
    System(SystemCommand),
    /// The messages that are on their way.
    #[command(subcommand)]
    Queue(QueueCommand),
    /// Where messages are stored.
    #[command(subcommand)]
    Spool(SpoolCommand),
    /// What is known about next hops, and where mail goes instead.
    #[command(subcommand)]
    Dns(DnsCommand),
    /// The configuration of the daemon.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Read the configuration again and apply what is new, to mail that is queued as well.
    ///
    /// Sessions and attempts that are under way go on as they began. Keys that need a restart are named, and keep their old
    /// values until then. If anything is wrong with the configuration, nothing changes, and every error is printed.
    Reload,
}

#[derive(Debug, Subcommand)]
pub(super) enum SystemCommand {
    /// Ask whether the daemon answers.
    Ping,
    /// Show how the daemon is.
    Status,
}

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// List messages, oldest first.
    List(List),
    /// Show everything about a message but its body.
    View {
        /// The id of the message.
        id: MessageId,
    },
    /// Say what keeps a message in the queue.
    Why {
        /// The id of the message.
        id: MessageId,
    },
    /// Count messages by status and by domain.
    Stats,
    /// Make deferred messages due now; scheduled ones only by their ids.
    Retry(Messages),
    /// Delete messages; nobody is told.
    ///
    /// An attempt that is being made goes on and may deliver the message yet; if it fails, that is the end of it. Nothing
    /// is tried after a restart.
    Delete(Delete),
    /// Stop messages until they are released, also over a restart; they don't expire meanwhile.
    ///
    /// What is in flight is finished. A message that fails then stays held.
    Hold(Messages),
    /// Let held messages go on; what is due starts at once.
    Release(Messages),
    /// Start nothing more to a domain until it is thawed, also over a restart; mail for it expires in its time.
    Freeze {
        /// The domain of recipients.
        domain: Domain,
    },
    /// Let mail to a frozen domain go on.
    Thaw {
        /// The domain of recipients.
        domain: Domain,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum SpoolCommand {
    /// Show how much is stored, and how much room there is.
    Stats,
    /// Read everything that is stored and check it; exit status 1 if something is damaged.
    ///
    /// Mail goes on meanwhile. It takes as long as the disk needs to read the spool; one check runs at a time. For a
    /// spool that no daemon uses there is `empath spool verify`.
    Verify,
    /// What was set aside because it could not be read; without a command, list it.
    Damaged {
        #[command(subcommand)]
        command: Option<DamagedCommand>,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub(super) enum DnsCommand {
    /// List the answers of name servers that are remembered.
    ListCache {
        /// Only those about this domain and the names below it.
        #[arg(long)]
        domain: Option<Domain>,
    },
    /// Forget them: what is needed is asked again.
    ClearCache {
        /// Only those about this domain and the names below it.
        #[arg(long)]
        domain: Option<Domain>,
    },
    /// Look the mail hosts of a domain and their addresses up anew.
    Refresh {
        /// The domain.
        domain: Domain,
    },
    /// List the domains whose mail goes elsewhere by order.
    ListOverrides,
    /// Send mail for a domain to this host, without looking for its mail hosts, until the daemon ends.
    ///
    /// It counts more than `delivery.domains`. Messages that wait for their next attempt go there then; `empathctl queue
    /// retry --domain DOMAIN` makes it now.
    SetOverride {
        /// The domain, exactly.
        domain: Domain,
        /// `mx.example.test`, `mx.example.test:25`, `127.0.0.1:25` or `[::1]:25`.
        host: Override,
    },
    /// Send mail for a domain again where the configuration says.
    RemoveOverride {
        /// The domain.
        domain: Domain,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum DamagedCommand {
    /// List what is kept, and the messages that it seems to be about.
    List,
    /// Write the octets of one to standard output; they may hold mail.
    Export {
        /// Its name in the list.
        name: String,
        /// Write to this file, which must not exist.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Delete some for good.
    Discard {
        /// Their names in the list.
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        /// Don't ask.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    pub(super) conditions: Conditions,
    /// List at most this many.
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    #[command(flatten)]
    pub(super) messages: Messages,
    /// Don't ask.
    #[arg(long)]
    pub(super) yes: bool,
}

/// Messages by their ids, by conditions, or all.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("selection")
    .args(["ids", "all", "status", "domain", "sender"])
    .required(true)
    .multiple(true))]
pub(super) struct Messages {
    /// Ids of messages.
    #[arg(value_name = "ID", conflicts_with_all = ["status", "domain", "sender", "all"])]
    pub(super) ids: Vec<MessageId>,
    /// The whole queue.
    #[arg(long, conflicts_with_all = ["status", "domain", "sender"])]
    pub(super) all: bool,
    #[command(flatten)]
    pub(super) conditions: Conditions,
}

/// All of them must hold.
#[derive(Debug, Args)]
pub(super) struct Conditions {
    /// Only messages with this status: pending, `in_progress`, deferred, held, completed, failed or expired.
    #[arg(long, value_parser = status)]
    status: Option<Status>,
    /// Only messages with a recipient in this domain.
    #[arg(long)]
    domain: Option<Domain>,
    /// Only messages of this sender; "" is the null reverse-path.
    #[arg(long, value_name = "ADDRESS")]
    sender: Option<String>,
}

impl Conditions {
    pub(super) fn filter(&self) -> Filter {
        Filter { status: self.status, domain: self.domain.clone(), sender: self.sender.clone() }
    }
}

impl Messages {
    pub(super) fn selection(&self) -> Selection {
        if self.all {
            Selection::All
        } else if self.ids.is_empty() {
            Selection::Filter(self.conditions.filter())
        } else {
            Selection::Ids(self.ids.clone())
        }
    }
}

/// The name of no status.
#[derive(Debug, thiserror::Error)]
#[error("one of pending, in_progress, deferred, held, completed, failed, expired was expected")]
struct StatusError;

fn status(text: &str) -> Result<Status, StatusError> {
    Status::ALL.into_iter().find(|status| status.to_string() == text).ok_or(StatusError)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    const ID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(["empathctl"].into_iter().chain(line.split(' ')))
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn messages_are_selected_in_exactly_one_way() {
        for (line, good) in [
            ("queue retry", false),
            ("queue retry --all", true),
            ("queue retry --domain b.test --status deferred", true),
            ("queue retry --sender=", true),
            ("queue retry --all --domain b.test", false),
            ("queue retry --domain not/a/domain", false),
            ("queue delete --status late", false),
            ("queue delete ../../etc/passwd", false),
            ("queue delete", false),
        ] {
            assert_eq!(parse(line).is_ok(), good, "{line}");
        }
        assert!(parse(&format!("queue delete {ID} {ID}")).is_ok());
        assert!(parse(&format!("queue delete {ID} --all")).is_err());
        assert!(parse(&format!("queue delete {ID} --domain b.test")).is_err());
    }

    #[test]
    fn overrides_name_a_domain_and_a_host() {
        for (line, good) in [
            ("dns set-override b.test mx.test", true),
            ("dns set-override b.test [::1]:2525", true),
            ("dns set-override b.test", false),
            ("dns set-override b.test mx.test:0", false),
            ("dns set-override *.test mx.test", false),
            ("dns remove-override", false),
        ] {
            assert_eq!(parse(line).is_ok(), good, "{line}");
        }
    }

    #[test]
    fn global_options_are_taken_behind_the_command_too() {
        let arguments = parse("queue stats --json -c /x").unwrap();
        assert!(arguments.json);
        assert_eq!(arguments.control_socket, PathBuf::from("/x"));
    }
}
