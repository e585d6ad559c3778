//! `empath`: the daemon, and what an operator does with its configuration.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use empath::{config, daemon, spool_command, users};
use empath_common::{Clock as _, SystemClock};

/// The Empath mail transfer agent. Without a command it runs in the foreground until SIGTERM or SIGINT; SIGHUP has it read its
/// configuration again.
#[derive(Parser)]
#[command(name = "empath", version)]
struct Arguments {
    /// The configuration [default: `$EMPATH_CONFIG`, `./empath.config.ron`, `/etc/empath/empath.config.ron`].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Validate the configuration; print every error and exit 78, or print warnings and exit 0.
    Check,
    /// Print the reference of the configuration (docs/configuration.md).
    ConfigReference,
    /// Change a users file, which `smtp.auth.users_file` names. A running daemon reads it again.
    #[command(subcommand)]
    User(users::Command),
    /// Look after a spool that no daemon uses.
    #[command(subcommand)]
    Spool(SpoolCommand),
}

#[derive(Subcommand)]
enum SpoolCommand {
    /// Read everything that is stored, check it, and print what is damaged. Nothing is changed.
    ///
    /// Exit status: 0 nothing is damaged, 1 something is or there is no spool, 75 a daemon uses it (see `empathctl spool
    /// verify`).
    Verify {
        /// The directory of the spool.
        #[arg(long, value_name = "DIR")]
        path: PathBuf,
        /// Print JSON, one object per line.
        #[arg(long)]
        json: bool,
    },
}

/// The configuration is wrong (`EX_CONFIG` of sysexits.h).
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match &arguments.command {
        Some(Command::ConfigReference) => {
            print(&config::reference());
            return ExitCode::SUCCESS;
        }
        Some(Command::Spool(SpoolCommand::Verify { path, json })) => {
            return spool_command::verify(path, *json);
        }
        Some(Command::User(command)) => return user(command),
        None | Some(Command::Check) => {}
    }
    let loaded = match config::load(arguments.config.as_deref()) {
        Ok(loaded) => loaded,
        Err(errors) => {
            eprint(&errors.to_string());
            return ExitCode::from(EX_CONFIG);
        }
    };
    match arguments.command {
        Some(Command::Check) => {
            for warning in loaded.config.warnings(SystemClock.now()) {
                eprint(&format!("{}: warning: {warning}\n", loaded.path.display()));
            }
            print(&format!("{}: no errors\n", loaded.path.display()));
            ExitCode::SUCCESS
        }
        _ => run(&loaded),
    }
}

fn run(loaded: &config::Loaded) -> ExitCode {
    match daemon::run(loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint(&format!("empath: {failure}\n"));
            ExitCode::FAILURE
        }
    }
}

/// A reader that has gone away (`| head`) is no error.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

fn eprint(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

fn user(command: &users::Command) -> ExitCode {
    match users::run(command) {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprint(&format!("empath: {failure}\n"));
            ExitCode::FAILURE
        }
    }
}
