//! Fields of a record: number (u16), length (u32), value; all numbers little-endian. A reader takes the fields
//! it knows by their number, in any order, and skips the others, so that newer versions can add some.

use jiff::Timestamp;

/// Why octets are not the fields of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FieldError {
    /// A length reaches beyond the end.
    #[error("a field is cut off")]
    CutOff,
    /// A field that a record of this kind must have.
    #[error("a field is missing")]
    Missing,
    /// A value that its field can't have.
    #[error("a field has an impossible value")]
    Value,
}

/// Appends one field.
pub(crate) fn put(out: &mut Vec<u8>, number: u16, value: &[u8]) {
    nest(out, number, |out| out.extend_from_slice(value));
}

/// Appends one field whose value is what `write` appends.
pub(crate) fn nest(out: &mut Vec<u8>, number: u16, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&number.to_le_bytes());
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    // A value of more than 4 GiB can't get here: a batch of that size is refused by its estimate.
    let length = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

/// Appends a time: seconds since 1970 (i64) and nanoseconds (i32).
pub(crate) fn put_time(out: &mut Vec<u8>, number: u16, time: Timestamp) {
    nest(out, number, |out| {
        out.extend_from_slice(&time.as_second().to_le_bytes());
        out.extend_from_slice(&time.subsec_nanosecond().to_le_bytes());
    });
}

/// One field as it was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<'a> {
    pub(crate) number: u16,
    pub(crate) value: &'a [u8],
}

/// The fields in `octets`, one after another; the first error is the end.
pub(crate) fn fields(mut octets: &[u8]) -> impl Iterator<Item = Result<Field<'_>, FieldError>> {
    std::iter::from_fn(move || {
        if octets.is_empty() {
            return None;
        }
        let field = split(octets);
        octets = field.as_ref().map_or(&[], |(_, rest)| rest);
        Some(field.map(|(field, _)| field))
    })
}

fn split(octets: &[u8]) -> Result<(Field<'_>, &[u8]), FieldError> {
    let (number, rest) = octets.split_first_chunk::<2>().ok_or(FieldError::CutOff)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(FieldError::CutOff)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| FieldError::CutOff)?;
    let (value, rest) = rest.split_at_checked(length).ok_or(FieldError::CutOff)?;
    Ok((Field { number: u16::from_le_bytes(*number), value }, rest))
}

impl<'a> Field<'a> {
    pub(crate) fn octets<const N: usize>(self) -> Result<[u8; N], FieldError> {
        self.value.try_into().map_err(|_| FieldError::Value)
    }

    pub(crate) fn byte(self) -> Result<u8, FieldError> {
        self.octets().map(u8::from_le_bytes)
    }

    pub(crate) fn short(self) -> Result<u16, FieldError> {
        self.octets().map(u16::from_le_bytes)
    }

    pub(crate) fn word(self) -> Result<u32, FieldError> {
        self.octets().map(u32::from_le_bytes)
    }

    pub(crate) fn long(self) -> Result<u64, FieldError> {
        self.octets().map(u64::from_le_bytes)
    }

    pub(crate) fn text(self) -> Result<&'a str, FieldError> {
        str::from_utf8(self.value).map_err(|_| FieldError::Value)
    }

    pub(crate) fn time(self) -> Result<Timestamp, FieldError> {
        let (seconds, nanoseconds) = self.value.split_first_chunk::<8>().ok_or(FieldError::Value)?;
        let nanoseconds = nanoseconds.try_into().map_err(|_| FieldError::Value)?;
        Timestamp::new(i64::from_le_bytes(*seconds), i32::from_le_bytes(nanoseconds))
            .map_err(|_| FieldError::Value)
    }
}
