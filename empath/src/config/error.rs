use std::{fmt, io, path::PathBuf};

use empath_common::{Escaped, Problem};
use ron::Error as RonError;

/// Everything that is wrong with a configuration, in the order of the text. Each error is a line:
/// `file:line:column: message`.
#[derive(Debug)]
pub struct Errors {
    /// The file, unless none was found.
    pub file: Option<PathBuf>,
    /// The errors, at least one.
    pub errors: Vec<Error>,
}

/// One thing that is wrong.
#[derive(Debug)]
pub struct Error {
    /// Where; `None` when it concerns the file as a whole.
    pub place: Option<Place>,
    /// What.
    pub reason: Reason,
}

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

/// What is wrong. Values are never part of it: they might be secrets.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// There is no file at any of the usual places.
    #[error("there is no configuration: neither --config nor EMPATH_CONFIG is given, and none of {0} exists")]
    NoFile(String),
    /// The file can't be read.
    #[error("can't be read: {0}")]
    Read(#[source] io::Error),
    /// It is a pipe or a device, whose end may never come, or a directory.
    #[error("is not a regular file")]
    NotRegular,
    /// The file is too large to be a configuration.
    #[error("is larger than {} MiB: this is not a configuration", .0 >> 20)]
    TooLarge(u64),
    /// The file begins with a byte order mark.
    #[error("begins with a byte order mark: save it as UTF-8 without one")]
    ByteOrderMark,
    /// The file is not UTF-8.
    #[error("an octet that is not UTF-8: save the file as UTF-8")]
    NotUtf8,
    /// A key that does not exist.
    #[error("unknown key `{key}`{}", advice(.key, .known))]
    UnknownKey {
        /// The key.
        key: String,
        /// The keys that exist there.
        known: &'static [&'static str],
    },
    /// A name that none of the possible values has.
    #[error("unknown value `{value}`{}", advice(.value, .known))]
    UnknownValue {
        /// The name.
        value: String,
        /// The names of the values.
        known: &'static [&'static str],
    },
    /// A key that its table has already.
    #[error("the key `{0}` is given twice")]
    Duplicate(String),
    /// A key without which its table makes no sense.
    #[error("the key `{0}` is missing")]
    Missing(String),
    /// A whole number that is none of those which are possible.
    #[error("the number is out of range: it is negative, or too large for this key")]
    OutOfRange,
    /// Text that is no duration.
    #[error("expected a duration, such as \"30s\", \"5m\" or \"1d 12h\"")]
    Duration,
    /// A value of another type.
    #[error("expected {expected}, found {found}")]
    Type {
        /// What is possible.
        expected: String,
        /// What kind of value is there.
        found: String,
    },
    /// A value that its type refuses, or text that is not RON.
    #[error("{0}")]
    Ron(#[source] RonError),
    /// A value that its key can't have.
    #[error("{key}: {reason}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: Box<Self>,
    },
    /// A value that makes no sense.
    #[error("{0}")]
    Invalid(Problem),
}

/// `; did you mean …?` with the known name that differs by a slip of the hand, else all that are known.
fn advice(name: &str, known: &[&str]) -> String {
    let slips = |known: &&str| strsim::osa_distance(name, known);
    match known.iter().copied().min_by_key(slips) {
        Some(nearest) if slips(&nearest) <= (name.chars().count() / 3).max(1) => {
            format!("; did you mean `{nearest}`?")
        }
        Some(_) => format!("; known are {}", known.join(", ")),
        None => String::new(),
    }
}

impl Reason {
    /// The reason with the key whose value is wrong, where it doesn't tell by itself what it is about.
    pub(super) fn of(self, key: &str) -> Self {
        match self {
            Self::Type { .. } | Self::Ron(_) | Self::Missing(_) | Self::OutOfRange | Self::Duration => {
                Self::Value { key: key.to_owned(), reason: Box::new(self) }
            }
            other => other,
        }
    }
}

impl From<RonError> for Reason {
    fn from(error: RonError) -> Self {
        match error {
            RonError::NoSuchStructField { expected, found, .. } => {
                Self::UnknownKey { key: found, known: expected }
            }
            RonError::NoSuchEnumVariant { expected, found, .. } => {
                Self::UnknownValue { value: found, known: expected }
            }
            RonError::DuplicateStructField { field, .. } => Self::Duplicate(field.to_owned()),
            RonError::MissingStructField { field, .. } => Self::Missing(field.to_owned()),
            RonError::IntegerOutOfBounds => Self::OutOfRange,
            RonError::InvalidValueForType { expected, .. } if expected == "a duration" => Self::Duration,
            RonError::InvalidValueForType { expected, found } => {
                let kind = found.split(['"', '`', '\'']).next().unwrap_or_default().trim_end().to_owned();
                Self::Type { expected, found: kind }
            }
            other => Self::Ron(other),
        }
    }
}

impl std::error::Error for Errors {}

/// A line for each error.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.errors {
            if let Some(file) = &self.file {
                write!(f, "{}:", file.display())?;
                if let Some(Place { line, column }) = error.place {
                    write!(f, "{line}:{column}:")?;
                }
                f.write_str(" ")?;
            }
            writeln!(f, "{}", Escaped(error.reason.to_string().as_bytes()))?;
        }
        Ok(())
    }
}
