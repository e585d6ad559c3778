use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of octets, written `1024`, `"1KiB"`, `"25MiB"`, `"1.5GiB"` or with the decimal units `kB MB GB TB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// The text is not a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a size: a number with one of the units B, KiB, MiB, GiB, TiB, kB, MB, GB, TB was expected, as in \"25MiB\""
)]
pub struct ByteSizeError;

const UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
    ("", 1),
];

impl ByteSize {
    /// The size as a `usize`, at most what the machine can address.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(digits).ok_or(ByteSizeError)?;
        let unit = unit.trim();
        let &(_, unit) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(ByteSizeError)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let whole: u64 = whole.parse().map_err(|_| ByteSizeError)?;
        let octets = whole.checked_mul(unit).ok_or(ByteSizeError)?;
        octets.checked_add(part(fraction, unit)?).map(Self).ok_or(ByteSizeError)
    }
}

/// The octets of a decimal fraction of a unit, rounded down.
fn part(fraction: &str, unit: u64) -> Result<u64, ByteSizeError> {
    if fraction.is_empty() || fraction.len() > 6 {
        return Err(ByteSizeError);
    }
    let digits: u128 = fraction.parse().map_err(|_| ByteSizeError)?;
    let scale = (0..fraction.len()).fold(1_u128, |scale, _| scale * 10);
    u64::try_from(u128::from(unit) * digits / scale).map_err(|_| ByteSizeError)
}

/// The largest binary unit that divides the size: `25MiB`, `1536KiB`, `1001B`.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = UNITS.iter().filter(|(name, _)| name.ends_with("iB"));
        match binary.clone().find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as 1024 or \"25MiB\"")
            }
            fn visit_u64<E: de::Error>(self, octets: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(octets))
            }
            fn visit_i64<E: de::Error>(self, octets: i64) -> Result<ByteSize, E> {
                u64::try_from(octets).map(ByteSize).map_err(|_| E::custom(ByteSizeError))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl schemars::JsonSchema for ByteSize {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "size".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "size" })
    }
}
