//! A reader that decodes an object into rows, one at a time.
//!
//! A reader keeps one row and the decoder's window in memory, whatever the object's size. It yields a row only if
//! everything up to and including that row is valid. At the end it reports, once, if the object as a whole does not
//! match its key and metadata. A caller that acts on rows before the end therefore acts on rows of an object that may
//! still turn out to be corrupt.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::LazyLock;

use memchr::memmem::FinderRev;
use millrace_json_scanner::JsonScanner;
use millrace_shared::change::CanonicalKey;
use millrace_shared::hash::Sha256Hasher;
use millrace_shared::revision::{Revision, StreamLabel};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::compression::RowDecoder;
use super::key::RowsDigest;
use super::row::ItemText;
use super::{ArchiveKey, ArchivedRow, ObjectMetadata};

/// The maximum length of a row: an item has at most 400 KB, and its most verbose JSON is shorter than 3 MB.
const ROW_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Number of bytes that are read and decompressed at a time.
const BLOCK_BYTES: usize = 64 * 1024;

/// The names of a table's key attributes, which identify the key within an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyNames(Vec<String>);

impl KeyNames {
    /// Accepts the names in any order.
    pub fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut names: Vec<String> = names.into_iter().map(Into::into).collect();
        names.sort_unstable();
        Self(names)
    }

    /// Returns the key of an item. The item is parsed to its end, which also verifies that it is valid JSON.
    fn key_of(&self, item: &str) -> Result<CanonicalKey, CorruptionKind> {
        CanonicalKey::from_item_text(item, &self.0).map_or_else(|| self.parse_key(item), Ok)
    }

    /// Returns the key of any item, or the reason why it has none.
    fn parse_key(&self, item: &str) -> Result<CanonicalKey, CorruptionKind> {
        let mut json = serde_json::Deserializer::from_str(item);
        let found = KeyOf(&self.0).deserialize(&mut json).map_err(CorruptionKind::Row)?;
        json.end().map_err(CorruptionKind::Row)?;
        if let Some((name, _)) = self.0.iter().zip(&found).find(|(_, value)| value.is_none()) {
            return Err(CorruptionKind::NoKey(name.clone()));
        }
        let named = self.0.iter().zip(&found).filter_map(|(name, value)| Some((name.as_str(), value.as_ref()?.get())));
        CanonicalKey::from_attributes(named).map_err(|_| CorruptionKind::NoKey(self.0.join(", ")))
    }
}

/// Extracts the key attributes from an item and ignores the other attributes.
struct KeyOf<'n>(&'n [String]);

impl<'de> DeserializeSeed<'de> for KeyOf<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for KeyOf<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of attributes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = vec![None; self.0.len()];
        while let Some(AttributeName(name)) = map.next_key()? {
            match self.0.iter().position(|wanted| *wanted == name) {
                Some(index) => found[index] = Some(map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// An attribute's name, borrowed if it contains no escape sequence.
#[derive(Deserialize)]
#[serde(transparent)]
struct AttributeName<'a>(#[serde(borrow)] Cow<'a, str>);

/// The error of a corrupt object: the object, the row and the kind of corruption.
#[derive(Debug, thiserror::Error)]
pub struct CorruptObject {
    /// The object's key.
    pub object: String,
    /// The row number, from 1; `None` if the error concerns the object as a whole.
    pub row: Option<u64>,
    /// The kind of corruption.
    #[source]
    pub kind: CorruptionKind,
}

impl fmt::Display for CorruptObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.object)?;
        self.row.map_or(Ok(()), |row| write!(f, "row {row}: "))?;
        self.kind.fmt(f)
    }
}

/// The kinds of corruption of an object.
#[derive(Debug, thiserror::Error)]
pub enum CorruptionKind {
    /// The key has neither layout of the archive.
    #[error(transparent)]
    Key(#[from] super::UnrecognizedKeyError),
    /// A metadata entry is missing or malformed.
    #[error("metadata {0:?} is missing, malformed or not of format {format}", format = super::FORMAT)]
    Metadata(&'static str),
    /// The source cannot be read, or its content cannot be decompressed.
    #[error("cannot be decompressed, or is truncated: {0}")]
    Content(#[source] io::Error),
    /// A row is not terminated by a line feed.
    #[error("does not end in a line feed within {ROW_BYTES_MAX} bytes")]
    UnterminatedRow,
    /// A row does not have the JSON structure of an archive row.
    #[error("is not {{\"Item\":…,\"Metadata\":{{…}}}}: {0}")]
    Row(#[source] serde_json::Error),
    /// A row's revision is malformed.
    #[error("Metadata.Revision: {0}")]
    Revision(#[from] millrace_shared::revision::RevisionError),
    /// A row's time is malformed.
    #[error("Metadata.RemovedAt is not an RFC 3339 time: {0:?}")]
    Time(String),
    /// A row's item lacks a key attribute.
    #[error("Item has no key: {0}")]
    NoKey(String),
    /// A row was removed in another hour or day than the key says.
    #[error("Metadata.RemovedAt is outside of the hour or day in the object's key")]
    Hour,
    /// A row is not greater than the row before it.
    #[error("does not sort after the previous row by (key, revision)")]
    Order,
    /// The object contains fewer or more rows than its metadata says.
    #[error("contains {0} rows, but its metadata specifies {1}")]
    Rows(u64, u64),
    /// The times in the metadata are not those of the rows.
    #[error("metadata \"first\" and \"last\" differ from the times of the rows")]
    Times,
    /// The digest of the rows is not the one in the key.
    #[error("the digest of the rows is {0}, which differs from the digest in the key")]
    Digest(String),
    /// The bytes are not those that were written.
    #[error("the SHA-256 of the bytes differs from the SHA-256 in the metadata")]
    Sha256,
}

/// Reads an object row by row. After an error it yields nothing more.
pub struct RowReader<R: Read> {
    object: String,
    name: ArchiveKey,
    description: ObjectMetadata,
    names: KeyNames,
    lines: BufReader<RowDecoder<BufReader<HashingReader<R>>>>,
    line: Vec<u8>,
    rows: u64,
    times: Option<(OffsetDateTime, OffsetDateTime)>,
    /// The key and revision of the previous row.
    last: Option<(String, Revision)>,
    repeating: ParseCache,
    digest: RowsDigest,
    ended: bool,
}

/// The parsed values that nearly all rows of an object share, cached so that they are not parsed again for each row.
#[derive(Default)]
struct ParseCache {
    label: Option<(String, StreamLabel)>,
    time: Option<(String, OffsetDateTime)>,
}

impl<R: Read> RowReader<R> {
    /// Opens the object with this key and metadata, whose bytes are read from `source`.
    ///
    /// # Errors
    /// [`CorruptObject`] if the key or the metadata is not that of an archive object.
    pub fn open(
        object: &str,
        metadata: &HashMap<String, String>,
        names: KeyNames,
        source: R,
    ) -> Result<Self, CorruptObject> {
        let open = || {
            let name = ArchiveKey::parse(object)?;
            let description = ObjectMetadata::parse(metadata).map_err(CorruptionKind::Metadata)?;
            let source = BufReader::with_capacity(BLOCK_BYTES, HashingReader { source, digest: Sha256Hasher::new() });
            let decoder = name.compression().decoder(source).map_err(CorruptionKind::Content)?;
            Ok(Self {
                object: object.to_owned(),
                name,
                description,
                names,
                lines: BufReader::with_capacity(BLOCK_BYTES, decoder),
                line: Vec::new(),
                rows: 0,
                times: None,
                last: None,
                repeating: ParseCache::default(),
                digest: RowsDigest::default(),
                ended: false,
            })
        };
        open().map_err(|kind| CorruptObject { object: object.to_owned(), row: None, kind })
    }

    fn next_row(&mut self) -> Result<Option<ArchivedRow>, CorruptionKind> {
        self.line.clear();
        let read =
            (&mut self.lines).take(ROW_BYTES_MAX).read_until(b'\n', &mut self.line).map_err(CorruptionKind::Content)?;
        if read == 0 {
            return Ok(None);
        }
        let line = self.line.strip_suffix(b"\n").ok_or(CorruptionKind::UnterminatedRow)?;
        let row = parse(line, &self.names, &mut self.repeating)?;
        if !self.name.contains(row.removed_at) {
            return Err(CorruptionKind::Hour);
        }
        let (key, revision) = (row.key.as_str(), row.revision);
        match &mut self.last {
            Some((last, before)) if (last.as_str(), *before) >= (key, revision) => return Err(CorruptionKind::Order),
            Some((last, before)) => {
                last.clear();
                last.push_str(key);
                *before = revision;
            }
            none => *none = Some((key.to_owned(), revision)),
        }
        let (first, last) = self.times.unwrap_or((row.removed_at, row.removed_at));
        self.times = Some((first.min(row.removed_at), last.max(row.removed_at)));
        if self.name.digest().is_some() {
            self.digest.push(&row.key, row.revision);
        }
        self.rows += 1;
        Ok(Some(row))
    }

    /// Compares the complete content with the key and the metadata.
    fn finish(&mut self) -> Result<(), CorruptionKind> {
        let stated = &self.description;
        if self.rows != stated.rows {
            return Err(CorruptionKind::Rows(self.rows, stated.rows));
        }
        if self.times.is_some_and(|times| times != (stated.first, stated.last)) {
            return Err(CorruptionKind::Times);
        }
        let digest = std::mem::take(&mut self.digest).finish();
        if self.name.digest().is_some_and(|named| named != digest) {
            return Err(CorruptionKind::Digest(digest));
        }
        let sha256: [u8; 32] = self.lines.get_ref().source().get_ref().digest.clone().finish();
        if sha256 == stated.sha256 { Ok(()) } else { Err(CorruptionKind::Sha256) }
    }
}

impl<R: Read> Iterator for RowReader<R> {
    type Item = Result<ArchivedRow, CorruptObject>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let (row, kind) = match self.next_row() {
            Ok(Some(row)) => return Some(Ok(row)),
            Ok(None) => (None, self.finish().err()),
            Err(kind) => (Some(self.rows + 1), Some(kind)),
        };
        self.ended = true;
        kind.map(|kind| Err(CorruptObject { object: self.object.clone(), row, kind }))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct RawArchiveRow<'a> {
    #[serde(borrow)]
    item: &'a RawValue,
    #[serde(borrow)]
    metadata: RawRowMetadata<'a>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct RawRowMetadata<'a> {
    #[serde(borrow)]
    revision: Cow<'a, str>,
    #[serde(borrow)]
    removed_at: Cow<'a, str>,
    event_id: Option<String>,
}

fn parse(line: &[u8], names: &KeyNames, repeating: &mut ParseCache) -> Result<ArchivedRow, CorruptionKind> {
    let (item, key, metadata) = if let Some(parts) = split(line, names) {
        parts
    } else {
        let RawArchiveRow { item, metadata } = serde_json::from_slice(line).map_err(CorruptionKind::Row)?;
        (item.get(), names.key_of(item.get())?, metadata)
    };
    Ok(ArchivedRow {
        key,
        revision: Revision::parse_with_label_cache(&metadata.revision, &mut repeating.label)?,
        removed_at: repeating.time(&metadata.removed_at)?,
        event_id: metadata.event_id,
        item: ItemText::read(item),
    })
}

impl ParseCache {
    fn time(&mut self, text: &str) -> Result<OffsetDateTime, CorruptionKind> {
        match &self.time {
            Some((last, time)) if last == text => Ok(*time),
            _ => {
                let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| CorruptionKind::Time(text.to_owned()))?;
                self.time = Some((text.to_owned(), time));
                Ok(time)
            }
        }
    }
}

/// Splits a line that has the exact layout in which rows are written, so that its item is parsed only once, as JSON and
/// for its key at the same time. The separator between item and metadata cannot occur inside a JSON string, because its
/// quotes would be escaped there. Returns `None` if the line has another layout or is invalid.
fn split<'l>(line: &'l [u8], names: &KeyNames) -> Option<(&'l str, CanonicalKey, RawRowMetadata<'l>)> {
    const METADATA: &str = ",\"Metadata\":";
    static BETWEEN: LazyLock<FinderRev<'static>> = LazyLock::new(|| FinderRev::new(METADATA));
    let line = str::from_utf8(line).ok()?.strip_prefix("{\"Item\":")?.strip_suffix('}')?;
    let end = BETWEEN.rfind(line.as_bytes())?;
    let (item, metadata) = (&line[..end], &line[end + METADATA.len()..]);
    let metadata = scan_metadata(metadata).or_else(|| serde_json::from_str(metadata).ok())?;
    Some((item, names.key_of(item).ok()?, metadata))
}

/// Scans the metadata of a row. Returns `None` if it has to be parsed: a member is unknown, given twice or missing,
/// or a text has escape sequences.
fn scan_metadata(json: &str) -> Option<RawRowMetadata<'_>> {
    let (mut revision, mut removed_at, mut event_id) = (None, None, None);
    let mut scanner = JsonScanner::new(json);
    let mut members = scanner.object()?;
    while let Some(name) = scanner.plain_member(&mut members)? {
        let slot = match name {
            "Revision" => &mut revision,
            "RemovedAt" => &mut removed_at,
            "EventId" => &mut event_id,
            _ => return None,
        };
        if slot.replace(scanner.plain_string()?).is_some() {
            return None;
        }
    }
    scanner.is_at_end().then_some(())?;
    Some(RawRowMetadata {
        revision: Cow::Borrowed(revision?),
        removed_at: Cow::Borrowed(removed_at?),
        event_id: event_id.map(str::to_owned),
    })
}

/// Forwards the source's bytes and computes their digest.
pub(super) struct HashingReader<R> {
    pub(super) source: R,
    pub(super) digest: Sha256Hasher,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.digest.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(line: &str) -> Result<ArchivedRow, CorruptionKind> {
        parse(line.as_bytes(), &KeyNames::new(["user_id"]), &mut ParseCache::default())
    }

    #[test]
    fn a_row_is_read_in_whatever_shape_its_json_comes() {
        let metadata = r#"{"Revision":"2026-11-01T08:00:00.000#7","RemovedAt":"2026-11-22T09:30:00Z"}"#;
        let tricky = r#"{"user_id":{"S":"ada"},"Metadata":{"M":{"x":{"S":",\"Metadata\":{"}}}}"#;
        for (line, item) in [
            (format!(r#"{{"Item":{tricky},"Metadata":{metadata}}}"#), tricky),
            (format!(r#"{{"Metadata":{metadata},"Item":{tricky}}}"#), tricky),
            (format!(r#" {{ "Item" : {tricky} , "Metadata" : {metadata} }} "#), tricky),
        ] {
            let row = read(&line).unwrap();
            assert_eq!((row.item.get(), row.key.as_str()), (item, r#"{"user_id":{"S":"ada"}}"#), "{line}");
            assert_eq!(row.revision.to_string(), "2026-11-01T08:00:00.000#7");
        }
    }

    proptest! {
        #[test]
        fn a_key_is_scanned_as_it_is_parsed(
            members in proptest::collection::vec(
                ("(id|at|i|i\\\\u0064|é)", "(\"x\"|7|null|[{]\"[SNB]\": ?\"[a1=\\\\]{0,4}\"[}])"),
                0..5,
            ),
            sorted in "(id|at|x)", at: proptest::sample::Index, damage in "[{}\",:\\\\ ]{0,2}",
        ) {
            let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
            let item = format!("{{{}}}", members.join(","));
            let at = at.index(item.len() + 1);
            let at = (at..=item.len()).find(|at| item.is_char_boundary(*at)).unwrap();
            let changed = format!("{}{damage}{}", &item[..at], &item[at..]);
            for names in [KeyNames::new(["id"]), KeyNames::new(["id", &sorted])] {
                for item in [&item, &changed] {
                    if let Some(key) = CanonicalKey::from_item_text(item, &names.0) {
                        prop_assert_eq!(Some(key), names.parse_key(item).ok(), "{}", item);
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn metadata_are_scanned_as_they_are_parsed(
            members in proptest::collection::vec(
                ("(Revision|RemovedAt|EventId|Other|Removed\\\\u0041t)", "(\"[a#\\\\]{0,3}\"|7|null)"),
                0..5,
            ),
            at: proptest::sample::Index, damage in "[{}\",:\\\\ ]{0,2}",
        ) {
            let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
            let metadata = format!("{{{}}}", members.join(","));
            let at = at.index(metadata.len() + 1);
            let changed = format!("{}{damage}{}", &metadata[..at], &metadata[at..]);
            for metadata in [&metadata, &changed] {
                if let Some(scanned) = scan_metadata(metadata) {
                    prop_assert_eq!(Some(scanned), serde_json::from_str(metadata).ok(), "{}", metadata);
                }
            }
        }
    }

    #[test]
    fn metadata_as_they_are_written_need_no_parser() {
        for event in ["", r#","EventId":"e1""#] {
            let metadata =
                format!(r#"{{"Revision":"2026-11-01T08:00:00.000#7","RemovedAt":"2026-11-22T09:30:00Z"{event}}}"#);
            assert_eq!(scan_metadata(&metadata), serde_json::from_str(&metadata).ok());
            assert!(scan_metadata(&metadata).is_some());
        }
    }

    #[test]
    fn scanned_key_needs_no_parser() {
        let names = KeyNames::new(["user_id", "timestamp"]);
        let item = r#"{"timestamp":{"N":"7"},"x":{"M":{"user_id":{"S":"b"}}},"user_id":{"S":"a"}}"#;
        let scanned = CanonicalKey::from_item_text(item, &names.0);
        assert!(scanned.is_some());
        assert_eq!(scanned, names.parse_key(item).ok());
    }

    #[test]
    fn malformed_row_is_rejected_as_corrupt() {
        let metadata = r#"{"Revision":"2026-11-01T08:00:00.000#7","RemovedAt":"2026-11-22T09:30:00Z"}"#;
        for line in [
            format!(r#"{{"Item":{{"user_id":{{"S":"ada"}}}} {{}},"Metadata":{metadata}}}"#),
            format!(r#"{{"Item":{{"user_id":{{"S":"ada"}},"Metadata":{metadata}}}"#),
            format!(r#"{{"Item":{{"user_id":{{"S":"ada"}}}},"Metadata":{metadata}}}}}"#),
            format!(r#"{{"Item":[{{"user_id":1}}],"Metadata":{metadata}}}"#),
            r#"{"Item":{"user_id":{"S":"ada"}},"Metadata":{"Revision":"x","Other":1}}"#.to_owned(),
            String::new(),
        ] {
            assert!(matches!(read(&line), Err(CorruptionKind::Row(_))), "{line}");
        }
        let without_key = format!(r#"{{"Item":{{"other":{{"S":"ada"}}}},"Metadata":{metadata}}}"#);
        assert!(matches!(read(&without_key), Err(CorruptionKind::NoKey(name)) if name == "user_id"));
    }
}
