//! `empath user`: who may authenticate.

use std::{
    fmt::Write as _,
    io::{self, BufRead as _, IsTerminal as _, Read as _},
    path::PathBuf,
};

use clap::Subcommand;
use empath_smtp::server::auth::{Secret, Sender, Users, UsersError, edit};

/// What is done with a users file.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a user, or give one another password. It is asked for on a terminal, else it is one line of standard input.
    Add {
        /// The name with which the user authenticates; where it is an address, the user may send as it.
        name: String,
        /// The users file. It is made if there is none, readable by its owner only.
        #[arg(long, value_name = "FILE")]
        users_file: PathBuf,
        /// What the user may send as besides the name: an address, or "@example.test" for a whole domain. It may be
        /// repeated. Without it, what was there stays.
        #[arg(long = "send-as", value_name = "ADDRESS")]
        senders: Vec<Sender>,
    },
    /// Take a user out.
    Remove {
        /// The user's name.
        name: String,
        /// The users file.
        #[arg(long, value_name = "FILE")]
        users_file: PathBuf,
    },
    /// List the users, one a line: the name, then what the user may send as besides.
    List {
        /// The users file.
        #[arg(long, value_name = "FILE")]
        users_file: PathBuf,
    },
}

/// Why a users file was not changed or listed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The file could not be changed.
    #[error(transparent)]
    Edit(#[from] edit::EditError),
    /// The file is no good.
    #[error("{}", lines(.0))]
    List(Vec<UsersError>),
    /// There is no password.
    #[error("the password could not be read: {0}")]
    Password(#[from] io::Error),
    /// It was typed differently the second time.
    #[error("the passwords differ")]
    Differ,
    /// There is more than a password.
    #[error("the password is one line of at most {MAX_PASSWORD} octets")]
    Long,
}

/// Octets of a password.
const MAX_PASSWORD: u64 = 1024;

/// Does what the command says, and returns what is to be printed.
pub fn run(command: &Command) -> Result<String, UserError> {
    match command {
        Command::Add { name, users_file, senders } => {
            let senders = (!senders.is_empty()).then(|| senders.clone());
            Ok(match edit::add(users_file, name, &password()?, senders)? {
                edit::Added::New => format!("{name} was added\n"),
                edit::Added::Changed => format!("{name} has a new password\n"),
            })
        }
        Command::Remove { name, users_file } => {
            edit::remove(users_file, name)?;
            Ok(format!("{name} was removed\n"))
        }
        Command::List { users_file } => {
            let mut list = String::new();
            for user in Users::read(users_file).map_err(UserError::List)?.iter() {
                list.push_str(&user.identity.name);
                for sender in user.identity.senders.iter() {
                    // Writing to a String cannot fail.
                    let _ = write!(list, " {sender}");
                }
                list.push('\n');
            }
            Ok(list)
        }
    }
}

/// Asks twice on a terminal, where nothing is shown; else reads one line.
fn password() -> Result<Secret, UserError> {
    if io::stdin().is_terminal() {
        let password = Secret::from(rpassword::prompt_password("Password: ")?.into_bytes());
        let again = Secret::from(rpassword::prompt_password("Again: ")?.into_bytes());
        return if password == again { Ok(password) } else { Err(UserError::Differ) };
    }
    let mut line = Vec::new();
    io::stdin().lock().take(MAX_PASSWORD + 2).read_until(b'\n', &mut line)?;
    let line = Secret::from(line);
    let password = line.octets();
    let password = password.strip_suffix(b"\n").unwrap_or(password);
    let password = password.strip_suffix(b"\r").unwrap_or(password);
    if password.len() as u64 > MAX_PASSWORD {
        return Err(UserError::Long);
    }
    Ok(Secret::from(password))
}

fn lines(errors: &[UsersError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
