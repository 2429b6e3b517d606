//! An archive row: an item that TTL removed, and the stream record's metadata of the removal.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::io::{self, Write as _};

use millrace_shared::change::{CanonicalKey, ItemImage};
use millrace_shared::revision::{Revision, StreamLabel};
use serde_json::value::RawValue;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// A row to be written, borrowed from the batch.
#[derive(Debug, Clone)]
pub struct ArchiveRow<'a> {
    /// The item's key.
    pub key: &'a CanonicalKey,
    /// The removal's revision; it identifies the row together with the key.
    pub revision: Revision,
    /// The time of the removal according to the stream record.
    pub removed_at: OffsetDateTime,
    /// The stream record's identifier.
    pub event_id: Option<Cow<'a, str>>,
    /// The item before its removal: a DynamoDB JSON map.
    pub item: &'a str,
}

impl ArchiveRow<'_> {
    /// Compares two rows by key and revision, the sort order of an object. The remaining fields only decide which of
    /// two rows with the same key and revision is retained, so that the result does not depend on the order of the
    /// input.
    pub(super) fn cmp_identity(&self, other: &Self) -> Ordering {
        let name = self.key.cmp(other.key).then_with(|| self.revision.cmp(&other.revision));
        name.then_with(|| self.removed_at.cmp(&other.removed_at))
            .then_with(|| self.item.cmp(other.item))
            .then_with(|| self.event_id.cmp(&other.event_id))
    }

    pub(super) fn has_same_identity(&self, other: &Self) -> bool {
        self.revision == other.revision && self.key == other.key
    }
}

/// The text of an item: a JSON map, exactly as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemText(Box<str>);

impl ItemText {
    /// Copies an item's JSON. Returns `None` if it is not a JSON object.
    #[must_use]
    pub fn from_json(json: &RawValue) -> Option<Self> {
        ItemImage::parse(json).map(|image| Self(image.get().into()))
    }

    /// Wraps JSON that has already been parsed as an object.
    pub(super) fn read(json: &str) -> Self {
        Self(json.into())
    }

    /// Returns the text, from `{` to `}`.
    #[must_use]
    pub fn get(&self) -> &str {
        &self.0
    }
}

/// A row that was read; it owns its data.
#[derive(Debug, Clone)]
pub struct ArchivedRow {
    /// The item's key.
    pub key: CanonicalKey,
    /// The removal's revision; it identifies the row together with the key.
    pub revision: Revision,
    /// The time of the removal according to the stream record.
    pub removed_at: OffsetDateTime,
    /// The stream record's identifier.
    pub event_id: Option<String>,
    /// The item before its removal: a DynamoDB JSON map.
    pub item: ItemText,
}

impl ArchivedRow {
    /// Compares two rows by key and revision, the sort order of an object.
    #[must_use]
    pub fn cmp_identity(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key).then_with(|| self.revision.cmp(&other.revision))
    }

    /// Returns the row in the form in which it is written.
    #[must_use]
    pub fn as_row(&self) -> ArchiveRow<'_> {
        ArchiveRow {
            key: &self.key,
            revision: self.revision,
            removed_at: self.removed_at,
            event_id: self.event_id.as_deref().map(Into::into),
            item: self.item.get(),
        }
    }
}

/// Writes rows as lines. The formatted stream label and removal time are cached from row to row: nearly all rows of an
/// object share them, and formatting them costs more than the rest of the line.
#[derive(Default)]
pub(super) struct NdjsonRowWriter {
    label: Option<(StreamLabel, String)>,
    time: Option<(OffsetDateTime, String)>,
}

impl NdjsonRowWriter {
    /// Appends the row as a line, including the line feed.
    pub(super) fn push(&mut self, row: &ArchiveRow<'_>, lines: &mut Vec<u8>) -> io::Result<()> {
        lines.extend_from_slice(b"{\"Item\":");
        push_compact_json(row.item, lines);
        lines.extend_from_slice(b",\"Metadata\":{\"Revision\":\"");
        self.push_revision(row.revision, lines)?;
        lines.extend_from_slice(b"\",\"RemovedAt\":\"");
        self.push_time(row.removed_at, lines)?;
        lines.push(b'"');
        if let Some(event_id) = &row.event_id {
            lines.extend_from_slice(b",\"EventId\":");
            serde_json::to_writer(&mut *lines, event_id)?;
        }
        lines.extend_from_slice(b"}}\n");
        Ok(())
    }

    fn push_revision(&mut self, revision: Revision, lines: &mut Vec<u8>) -> io::Result<()> {
        let label = match self.label.take() {
            Some((label, text)) if label == revision.label() => (label, text),
            _ => (revision.label(), revision.label().to_string()),
        };
        lines.extend_from_slice(label.1.as_bytes());
        self.label = Some(label);
        write!(lines, "#{}", revision.sequence())?;
        revision.reconciled().map_or(Ok(()), |count| write!(lines, "+{count}"))
    }

    fn push_time(&mut self, at: OffsetDateTime, lines: &mut Vec<u8>) -> io::Result<()> {
        let time = match self.time.take() {
            Some((time, text)) if time == at => (time, text),
            _ => (at, at.to_offset(UtcOffset::UTC).format(&Rfc3339).map_err(io::Error::other)?),
        };
        lines.extend_from_slice(time.1.as_bytes());
        self.time = Some(time);
        Ok(())
    }
}

/// Appends the JSON unchanged or, if it spans several lines, without the white space between its tokens.
pub(super) fn push_compact_json(json: &str, line: &mut Vec<u8>) {
    let json = json.as_bytes();
    if memchr::memchr2(b'\n', b'\r', json).is_none() {
        line.extend_from_slice(json);
        return;
    }
    let (mut in_string, mut escaped) = (false, false);
    for &byte in json {
        if in_string {
            (in_string, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
        } else if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            continue;
        } else {
            in_string = byte == b'"';
        }
        line.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_line(json: &str) -> String {
        let mut line = Vec::new();
        push_compact_json(json, &mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn json_on_one_line_keeps_its_bytes() {
        let json = r#"{ "a" : {"N": "1.50"},  "b":{"S":"x \" y \\"} }"#;
        assert_eq!(one_line(json), json);
    }

    #[test]
    fn json_on_several_lines_loses_white_space_between_its_tokens_alone() {
        let json =
            "{\n \"a b\" : { \"S\" :\t\"x \\\" \\\\\" },\r\n\"c\":{\"N\": \"1.50\"}, \"d\\\\\":{\"S\":\"\\n { \"}\n}";
        assert_eq!(one_line(json), r#"{"a b":{"S":"x \" \\"},"c":{"N":"1.50"},"d\\":{"S":"\n { "}}"#);
    }
}
