//! `empathctl`: asks a running daemon over its control socket, for people and for scripts.

mod arguments;
mod dns;
mod output;
mod queue;
mod spool;
mod system;

use std::{io, path::PathBuf, process::ExitCode};

use clap::Parser as _;
use empath_control::{Client, ClientError, Failure};

use arguments::{
    Arguments, Command, ConfigCommand, DamagedCommand, QueueCommand, SpoolCommand, SystemCommand,
};
use output::Output;

pub(crate) use spool::describe;

/// Done.
const DONE: u8 = 0;
/// Refused or failed.
const FAILED: u8 = 1;
/// No daemon answers. (2 is for wrong usage, which clap tells.)
const UNREACHABLE: u8 = 3;

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
enum CtlError {
    /// The daemon can't be asked or refuses.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nobody confirmed a command that changes many messages.
    #[error("this changes every message that matches: add --yes to say that you mean it")]
    Unconfirmed,
    /// The person at the terminal said no.
    #[error("nothing was changed")]
    Declined,
    /// Octets of mail would go to a terminal.
    #[error("the octets may hold anything: send them to a file (--output FILE) or another program")]
    Terminal,
    /// The file of `--output` can't be written.
    #[error("{} can't be written: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A check found something.
    #[error(
        "the spool is damaged; what is met of it is set aside, and `empathctl spool damaged list` shows it then"
    )]
    Damaged,
    /// The reader of our output is gone, or the disk full.
    #[error("the output can't be written: {0}")]
    Output(#[from] io::Error),
}

/// Runs the command of the process' arguments.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let mut output = Output::new(arguments.json);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return ExitCode::from(report(&output, &error.into())),
    };
    let outcome = runtime.block_on(command(&arguments, &mut output));
    match outcome.and_then(|()| Ok(output.flush()?)) {
        Ok(()) => ExitCode::from(DONE),
        Err(error) => ExitCode::from(report(&output, &error)),
    }
}

async fn command(arguments: &Arguments, output: &mut Output) -> Result<(), CtlError> {
    match &arguments.command {
        Command::Queue(QueueCommand::Delete(delete)) => queue::confirm(delete)?,
        Command::Spool(SpoolCommand::Damaged {
            command: Some(DamagedCommand::Discard { names, yes: false }),
        }) => spool::confirm(names)?,
        _ => {}
    }
    let mut client = Client::connect(&arguments.control_socket).await?;
    match &arguments.command {
        Command::System(SystemCommand::Ping) => system::ping(&mut client, output).await,
        Command::System(SystemCommand::Status) => system::status(&mut client, output).await,
        Command::Queue(QueueCommand::List(list)) => queue::list(&mut client, output, list).await,
        Command::Queue(QueueCommand::View { id }) => queue::view(&mut client, output, *id).await,
        Command::Queue(QueueCommand::Why { id }) => queue::why(&mut client, output, *id).await,
        Command::Queue(QueueCommand::Stats) => queue::stats(&mut client, output).await,
        Command::Queue(QueueCommand::Retry(messages)) => queue::retry(&mut client, output, messages).await,
        Command::Queue(QueueCommand::Delete(delete)) => queue::delete(&mut client, output, delete).await,
        Command::Queue(QueueCommand::Hold(messages)) => queue::hold(&mut client, output, messages).await,
        Command::Queue(QueueCommand::Release(messages)) => {
            queue::release(&mut client, output, messages).await
        }
        Command::Queue(QueueCommand::Freeze { domain }) => queue::freeze(&mut client, output, domain).await,
        Command::Queue(QueueCommand::Thaw { domain }) => queue::thaw(&mut client, output, domain).await,
        Command::Config(ConfigCommand::Reload) => system::reload(&mut client, output).await,
        Command::Dns(wanted) => dns::run(&mut client, output, wanted).await,
        Command::Spool(SpoolCommand::Stats) => spool::stats(&mut client, output).await,
        Command::Spool(SpoolCommand::Verify) => spool::verify(&mut client, output).await,
        Command::Spool(SpoolCommand::Damaged { command }) => match command {
            None | Some(DamagedCommand::List) => spool::list(&mut client, output).await,
            Some(DamagedCommand::Export { name, output: None }) => {
                spool::export(&mut client, output, name).await
            }
            Some(DamagedCommand::Export { name, output: Some(path) }) => {
                spool::export_to(&mut client, output, name, path).await
            }
            Some(DamagedCommand::Discard { names, .. }) => spool::discard(&mut client, output, names).await,
        },
    }
}

/// Says what went wrong, and returns the exit code that says so to scripts.
fn report(output: &Output, error: &CtlError) -> u8 {
    let (exit, code) = match error {
        // `empathctl … | head` is no failure.
        CtlError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return DONE,
        CtlError::Output(_) | CtlError::File { .. } => (FAILED, "output"),
        CtlError::Terminal => (FAILED, "terminal"),
        CtlError::Damaged => (FAILED, "damaged"),
        CtlError::Unconfirmed => (FAILED, "unconfirmed"),
        CtlError::Declined => (FAILED, "declined"),
        CtlError::Client(ClientError::Unreachable { .. } | ClientError::Timeout) => {
            (UNREACHABLE, "unreachable")
        }
        CtlError::Client(ClientError::Refused(Failure { code, message })) => {
            output.failure(&code.to_string(), message);
            return FAILED;
        }
        CtlError::Client(_) => (FAILED, "protocol"),
    };
    output.failure(code, &error.to_string());
    exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_hangs_is_as_good_as_none() {
        let error = CtlError::Client(ClientError::Timeout);
        assert_eq!(report(&Output::new(true), &error), UNREACHABLE);
    }
}
