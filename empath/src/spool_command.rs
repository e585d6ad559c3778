//! `empath spool verify`: looks at a spool that no daemon uses.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use empath_control::Finding;
use empath_spool::OpenError;

use crate::{ctl::describe, operations::findings};

/// Another process uses the spool: try again when it does not (`EX_TEMPFAIL` of sysexits.h).
const EX_TEMPFAIL: u8 = 75;

/// Why a spool was not checked.
#[derive(Debug, thiserror::Error)]
enum VerifyError {
    /// There is no spool.
    #[error("{} is not a spool: {} cannot be looked at: {source}", path.display(), path.join("journal").display())]
    NotASpool {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It can't be read, or not now.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The reader of our output is gone, or the disk full.
    #[error("the output can't be written: {0}")]
    Output(#[from] io::Error),
}

/// Checks the spool in the directory `path`, for which the rights to read it are enough, changes nothing, and prints everything that is wrong and then what was
/// checked, as text or as JSON Lines. The exit status is 0 if nothing is wrong, 1 if something is or if there is no
/// spool, 75 if it is in use.
pub fn verify(path: &Path, json: bool) -> ExitCode {
    match check(path, json) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            // Without standard error there is nobody to tell.
            let _ = writeln!(io::stderr(), "empath: {failure}");
            match failure {
                VerifyError::Open(OpenError::InUse { .. }) => ExitCode::from(EX_TEMPFAIL),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// True if nothing is wrong.
fn check(path: &Path, json: bool) -> Result<bool, VerifyError> {
    fs::read_dir(path.join("journal"))
        .map_err(|source| VerifyError::NotASpool { path: path.to_owned(), source })?;
    let verification = empath_spool::verify(path)?;
    let clean = verification.is_clean();
    match findings(verification).try_for_each(|finding| print(&finding, json)) {
        // `… | head` is no failure; what was found decides.
        Err(failure) if failure.kind() != io::ErrorKind::BrokenPipe => Err(failure.into()),
        _ => Ok(clean),
    }
}

fn print(finding: &Finding, json: bool) -> io::Result<()> {
    let text = if json { format!("{}\n", serde_json::to_string(finding)?) } else { describe(finding) };
    io::stdout().write_all(text.as_bytes())
}
