//! The age of a change: [`Revision`], on which every write to a replica is conditional.
//!
//! Lambda delivers stream records at least once and may deliver old ones again, so every write to a replica is made on
//! the condition that the target has no revision or a lower one. The revision is therefore stored as bytes whose
//! unsigned byte order (the comparison of DynamoDB's B and PostgreSQL's `bytea`) is the order of age:
//!
//! ```text
//! 6 bytes   the stream label's time, milliseconds since 1970, big-endian
//! 17 bytes  the record's sequence number, big-endian
//! 8 bytes   only on a reconciled write: a count, big-endian; it sorts just above the 23 bytes it extends
//! ```
//!
//! Architecture invariant: revisions are compared in parsed form or as these bytes, never as text, and only between
//! changes of the same item. Sequence numbers are decimal strings of up to 40 digits
//! (<https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_StreamRecord.html>): as text they sort
//! in the wrong order, and `u128` has room for only 39 digits.

use std::fmt;

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

const LABEL_BYTES: usize = 6;
const SEQUENCE_BYTES: usize = 17;
const COUNT_BYTES: usize = 8;
const STREAMED_BYTES: usize = LABEL_BYTES + SEQUENCE_BYTES;
const RECONCILED_BYTES: usize = STREAMED_BYTES + COUNT_BYTES;

/// The largest power of ten that fits into a `u64` limb, and its number of digits.
const LIMB_BASE: u64 = 10_000_000_000_000_000_000;
const LIMB_DIGITS: usize = 19;

/// The format in which AWS writes a stream label, e.g. `2015-05-11T21:21:33.291`. The fraction may be absent when read.
const LABEL_WRITTEN: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]");
const LABEL_READ: &[BorrowedFormatItem<'_>] = format_description!(
    version = 2,
    "[year]-[month]-[day]T[hour]:[minute]:[second][optional [.[subsecond]]][optional [Z]]"
);

/// A text or a byte string that is not a revision or not a part of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevisionError {
    /// The stream label is neither an ISO time nor epoch seconds.
    #[error("stream label {0:?} is neither an ISO time such as 2015-05-11T21:21:33.291 nor epoch seconds")]
    Label(String),
    /// The sequence number is not 1 to 40 decimal digits.
    #[error("sequence number {0:?} is not 1 to 40 decimal digits")]
    Sequence(String),
    /// The bytes are neither 23 nor 31 long.
    #[error("a revision of {0} bytes is not valid: expected 23 (streamed) or 31 (reconciled)")]
    Bytes(usize),
    /// The text is not `<label>#<sequence number>`, with `+<count>` after a reconciled one.
    #[error("revision {0:?} is not <label>#<sequence number>[+<count>]")]
    Text(String),
}

/// The creation time of a stream: the last part of its ARN, with millisecond resolution.
///
/// A table whose stream is switched off and on again gets a new stream with a later label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamLabel {
    millis: u64,
}

impl StreamLabel {
    /// Parses a label: AWS's ISO time, or the epoch seconds (with or without a fraction) of an embedded engine.
    ///
    /// # Errors
    /// [`RevisionError::Label`] if the text is neither, or is before 1970, or exceeds six bytes of milliseconds.
    pub fn parse(text: &str) -> Result<Self, RevisionError> {
        let millis = epoch_millis(text).or_else(|| iso_millis(text));
        match millis {
            Some(millis) if millis < 1 << (8 * LABEL_BYTES) => Ok(Self { millis }),
            _ => Err(RevisionError::Label(text.to_owned())),
        }
    }

    fn time(self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.millis) * 1_000_000).ok()
    }
}

fn epoch_millis(text: &str) -> Option<u64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seconds) || !digits(fraction) {
        return None;
    }
    let mut millis = 0;
    for index in 0..3 {
        let digit = fraction.as_bytes().get(index).map_or(0, |byte| u64::from(byte - b'0'));
        millis = millis * 10 + digit;
    }
    seconds.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(millis)
}

fn iso_millis(text: &str) -> Option<u64> {
    let time = PrimitiveDateTime::parse(text, LABEL_READ).ok()?.assume_utc();
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

impl fmt::Display for StreamLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.time().filter(|time| time.year() <= 9999).and_then(|time| time.format(LABEL_WRITTEN).ok()) {
            Some(text) => f.write_str(&text),
            None => write!(f, "{}.{:03}", self.millis / 1000, self.millis % 1000),
        }
    }
}

/// A stream record's position in its stream: an integer of at most 40 digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber([u8; SEQUENCE_BYTES]);

impl SequenceNumber {
    /// Lower than the number of every record.
    pub const ZERO: Self = Self([0; SEQUENCE_BYTES]);

    /// Parses 1 to 40 decimal digits. AWS documents 21 to 40; its sample events contain three.
    ///
    /// # Errors
    /// [`RevisionError::Sequence`] for any other text.
    pub fn parse(text: &str) -> Result<Self, RevisionError> {
        let digits = text.as_bytes();
        if digits.is_empty() || digits.len() > 40 || !digits.iter().all(u8::is_ascii_digit) {
            return Err(RevisionError::Sequence(text.to_owned()));
        }
        // Three 64-bit limbs, least significant first: 40 digits need 133 bits.
        let mut limbs = [0_u64; 3];
        for chunk in digits.chunks(LIMB_DIGITS) {
            let mut carry = 0_u64;
            let mut scale = 1_u64;
            for digit in chunk {
                carry = carry * 10 + u64::from(digit - b'0');
                scale = scale.wrapping_mul(10);
            }
            for limb in &mut limbs {
                let wide = u128::from(*limb) * u128::from(scale) + u128::from(carry);
                *limb = low(wide);
                carry = low(wide >> 64);
            }
        }
        let mut bytes = [0; SEQUENCE_BYTES];
        bytes[0] = limbs[2].to_be_bytes()[7];
        bytes[1..9].copy_from_slice(&limbs[1].to_be_bytes());
        bytes[9..].copy_from_slice(&limbs[0].to_be_bytes());
        Ok(Self(bytes))
    }

    fn limbs(self) -> [u64; 3] {
        let (mut middle, mut last) = ([0; 8], [0; 8]);
        middle.copy_from_slice(&self.0[1..9]);
        last.copy_from_slice(&self.0[9..]);
        [u64::from_be_bytes(last), u64::from_be_bytes(middle), u64::from(self.0[0])]
    }
}

/// Returns the low 64 bits.
fn low(wide: u128) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&wide.to_le_bytes()[..8]);
    u64::from_le_bytes(bytes)
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut limbs = self.limbs();
        if limbs[2] == 0 {
            // The common case: a number of up to 38 digits takes one division.
            let value = u128::from(limbs[1]) << 64 | u128::from(limbs[0]);
            if let Ok(middle @ ..LIMB_BASE) = u64::try_from(value / u128::from(LIMB_BASE)) {
                let low = limbs[0].wrapping_sub(middle.wrapping_mul(LIMB_BASE));
                return if middle == 0 { write!(f, "{low}") } else { write!(f, "{middle}{low:019}") };
            }
        }
        let mut chunks = [0_u64; 3];
        for chunk in &mut chunks {
            let mut remainder = 0_u64;
            for limb in limbs.iter_mut().rev() {
                let wide = u128::from(remainder) << 64 | u128::from(*limb);
                *limb = low(wide / u128::from(LIMB_BASE));
                remainder = low(wide).wrapping_sub(limb.wrapping_mul(LIMB_BASE));
            }
            *chunk = remainder;
            if limbs == [0; 3] {
                break;
            }
        }
        match chunks {
            [low, 0, 0] => write!(f, "{low}"),
            [low, middle, 0] => write!(f, "{middle}{low:019}"),
            [low, middle, high] => write!(f, "{high}{middle:019}{low:019}"),
        }
    }
}

/// The age of a change of one item; a higher revision is later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    // The order of the fields is the order of the bytes, and therefore the order of age.
    label: StreamLabel,
    sequence: SequenceNumber,
    reconciled: Option<u64>,
}

impl Revision {
    /// Creates the revision of a streamed change.
    #[must_use]
    pub fn new(label: StreamLabel, sequence: SequenceNumber) -> Self {
        Self { label, sequence, reconciled: None }
    }

    /// Returns `(label, 0)`: above every change of earlier streams, below every change of this stream.
    #[must_use]
    pub fn lowest(label: StreamLabel) -> Self {
        Self::new(label, SequenceNumber::ZERO)
    }

    /// Returns the label of the stream that the change came from.
    #[must_use]
    pub fn label(self) -> StreamLabel {
        self.label
    }

    /// Returns the change's position in its stream.
    #[must_use]
    pub fn sequence(self) -> SequenceNumber {
        self.sequence
    }

    /// Returns how many times the item was reconciled at this position, if at all.
    #[must_use]
    pub fn reconciled(self) -> Option<u64> {
        self.reconciled
    }

    /// Returns the revision for a reconciled write over this one: just above it, and below the next streamed change.
    #[must_use]
    pub fn next_reconciled(self) -> Self {
        Self { reconciled: Some(self.reconciled.map_or(1, |count| count.saturating_add(1))), ..self }
    }

    /// Returns the bytes that are stored and compared.
    #[must_use]
    pub fn encode(self) -> RevisionBytes {
        let mut bytes = [0; RECONCILED_BYTES];
        bytes[..LABEL_BYTES].copy_from_slice(&self.label.millis.to_be_bytes()[8 - LABEL_BYTES..]);
        bytes[LABEL_BYTES..STREAMED_BYTES].copy_from_slice(&self.sequence.0);
        if let Some(count) = self.reconciled {
            bytes[STREAMED_BYTES..].copy_from_slice(&count.to_be_bytes());
        }
        RevisionBytes { bytes, length: if self.reconciled.is_some() { RECONCILED_BYTES } else { STREAMED_BYTES } }
    }

    /// Decodes the bytes that [`Revision::encode`] returns.
    ///
    /// # Errors
    /// [`RevisionError::Bytes`] if the input is not 23 or 31 bytes long.
    pub fn decode(bytes: &[u8]) -> Result<Self, RevisionError> {
        let wrong = || RevisionError::Bytes(bytes.len());
        let (label, rest) = bytes.split_at_checked(LABEL_BYTES).ok_or_else(wrong)?;
        let (sequence, count) = rest.split_at_checked(SEQUENCE_BYTES).ok_or_else(wrong)?;
        let mut millis = [0; 8];
        millis[8 - LABEL_BYTES..].copy_from_slice(label);
        let reconciled = match count.len() {
            0 => None,
            _ => Some(u64::from_be_bytes(count.try_into().map_err(|_| wrong())?)),
        };
        Ok(Self {
            label: StreamLabel { millis: u64::from_be_bytes(millis) },
            sequence: SequenceNumber(sequence.try_into().map_err(|_| wrong())?),
            reconciled,
        })
    }

    /// Same as [`Revision::parse`], for a text that usually has the same label as the previous one: a repeated label is
    /// not parsed again.
    ///
    /// # Errors
    /// The errors of [`Revision::parse`].
    pub fn parse_with_label_cache(
        text: &str,
        beside: &mut Option<(String, StreamLabel)>,
    ) -> Result<Self, RevisionError> {
        if let Some((label_text, label)) = beside
            && let Some(number) = text.strip_prefix(label_text.as_str()).and_then(|rest| rest.strip_prefix('#'))
            && !number.contains('+')
        {
            return Ok(Self::new(*label, SequenceNumber::parse(number)?));
        }
        let revision = Self::parse(text)?;
        *beside = text.split_once('#').map(|(label, _)| (label.to_owned(), revision.label));
        Ok(revision)
    }

    /// Parses the `Display` format: `<label>#<sequence number>`, followed by `+<count>` for a reconciled revision.
    ///
    /// # Errors
    /// [`RevisionError`], which names the part that is not valid.
    pub fn parse(text: &str) -> Result<Self, RevisionError> {
        let wrong = || RevisionError::Text(text.to_owned());
        let (label, rest) = text.split_once('#').ok_or_else(wrong)?;
        let (sequence, count) = match rest.split_once('+') {
            Some((sequence, count)) => (sequence, Some(count.parse().map_err(|_| wrong())?)),
            None => (rest, None),
        };
        let streamed = Self::new(StreamLabel::parse(label)?, SequenceNumber::parse(sequence)?);
        Ok(Self { reconciled: count, ..streamed })
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.label, self.sequence)?;
        self.reconciled.map_or(Ok(()), |count| write!(f, "+{count}"))
    }
}

/// A revision in its stored form: 23 bytes, or 31 if it was reconciled.
#[derive(Debug, Clone, Copy)]
pub struct RevisionBytes {
    bytes: [u8; RECONCILED_BYTES],
    length: usize,
}

impl AsRef<[u8]> for RevisionBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests;
