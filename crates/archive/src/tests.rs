//! Properties of the format and of the selection of rows.

mod compacted;
mod corruption;
mod selection;

use std::collections::HashMap;

use millrace_shared::change::{CanonicalKey, ItemKey};
use millrace_shared::revision::Revision;
use proptest::prelude::*;
use serde_json::value::RawValue;
use time::OffsetDateTime;

use super::*;

/// 2026-11-22 14:00:00 UTC.
const HOUR: i64 = 1_795_356_000;

/// The owned parts of a row.
#[derive(Debug, Clone)]
struct RowParts {
    key: CanonicalKey,
    revision: Revision,
    removed_at: OffsetDateTime,
    event_id: Option<String>,
    item: Box<RawValue>,
}

impl RowParts {
    fn new(user: &str, timestamp: &str, number: &str, second: i64, rest: &str) -> Self {
        let key =
            format!(r#""user_id":{{"S":{user}}},"timestamp":{{"N":"{timestamp}"}}"#, user = serde_json::json!(user));
        let item = RawValue::from_string(format!("{{{key}{rest}}}")).unwrap();
        let key = RawValue::from_string(format!("{{{key}}}")).unwrap();
        Self {
            key: ItemKey::parse(&key).unwrap().canonical().clone(),
            revision: Revision::parse(&format!("2026-06-27T00:48:05.899#{number}")).unwrap(),
            removed_at: OffsetDateTime::from_unix_timestamp(HOUR + second).unwrap(),
            event_id: Some(format!("event \"{number}\"")),
            item,
        }
    }

    fn row(&self) -> ArchiveRow<'_> {
        ArchiveRow {
            key: &self.key,
            revision: self.revision,
            removed_at: self.removed_at,
            event_id: self.event_id.as_deref().map(Into::into),
            item: self.item.get(),
        }
    }

    /// Formats the row for comparison with a row that a reader returned.
    fn text(&self) -> String {
        let (key, revision, at) = (&self.key, self.revision, self.removed_at);
        format!("{key} {revision} {at} {:?} {}", self.event_id, one_line(self.item.get()))
    }
}

fn text(row: &ArchivedRow) -> String {
    let (key, revision, at) = (&row.key, row.revision, row.removed_at);
    format!("{key} {revision} {at} {:?} {}", row.event_id, row.item.get())
}

/// Returns the expected text of a row's item in the archive. In these tests, line breaks occur only where a space is
/// allowed.
fn one_line(json: &str) -> String {
    if json.contains('\n') { json.replace(['\n', ' '], "") } else { json.to_owned() }
}

fn object(rows: &[RowParts], compression: Compression) -> EncodedObject {
    let rows = rows.iter().map(RowParts::row).collect();
    write("Users", ArchiveHour::from_datetime(OffsetDateTime::from_unix_timestamp(HOUR).unwrap()), rows, compression)
        .unwrap()
}

fn metadata(object: &EncodedObject) -> HashMap<String, String> {
    object.description.encode().unwrap().map(|(name, value)| (name.to_owned(), value)).into()
}

fn reader(object: &EncodedObject) -> RowReader<&[u8]> {
    let names = KeyNames::new(["user_id", "timestamp"]);
    RowReader::open(&object.key.to_string(), &metadata(object), names, object.bytes.as_slice()).unwrap()
}

fn read(object: &EncodedObject) -> Vec<String> {
    reader(object).map(|row| text(&row.unwrap())).collect()
}

fn compressions() -> impl Strategy<Value = Compression> {
    prop_oneof![Just(Compression::Zstd), Just(Compression::Gzip)]
}

/// Rows with few keys and numbers, so that rows with the same key and revision are common. Some numbers sort
/// differently as text.
fn rows() -> impl Strategy<Value = Vec<RowParts>> {
    let rest = prop_oneof![
        Just(String::new()),
        Just(",\n \"n\" : {\"N\":\"12345678901234567890123456789012345678\"}".to_owned()),
        Just(r#", "u" : {"S":"\u00e9 \" {}"}"#.to_owned()),
        "[a-z]{0,900}".prop_map(|text| format!(r#","text":{{"S":"{text}"}}"#)),
    ];
    let number = prop_oneof!["[1-9][0-9]{20,39}", Just("9".repeat(21)), Just("10".repeat(11))];
    let key = ("[ab\"é]{1,2}", prop_oneof![Just("1"), Just("1.0"), Just("2")]);
    let row = (key, number, 0..3600_i64, rest);
    let row = row
        .prop_map(|((user, timestamp), number, second, rest)| RowParts::new(&user, timestamp, &number, second, &rest));
    proptest::collection::vec(row, 1..40)
}

/// Returns the expected rows, sorted by key and revision; of rows with the same key and revision, the first in the
/// writer's order.
fn expected(rows: &[RowParts]) -> Vec<String> {
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by(|a, b| {
        let name = a.key.cmp(&b.key).then(a.revision.cmp(&b.revision));
        name.then(a.removed_at.cmp(&b.removed_at)).then(a.item.get().cmp(b.item.get()))
    });
    rows.dedup_by(|later, kept| later.key == kept.key && later.revision == kept.revision);
    rows.into_iter().map(RowParts::text).collect()
}

proptest! {
    #[test]
    fn written_rows_are_read_back(rows in rows(), compression in compressions()) {
        let object = object(&rows, compression);
        let expected = expected(&rows);
        prop_assert_eq!(object.description.rows, expected.len() as u64);
        prop_assert_eq!(read(&object), expected);
    }

    #[test]
    fn the_same_rows_give_the_same_object_in_any_order_and_number(
        (rows, shuffled) in rows().prop_flat_map(|rows| {
            let twice: Vec<_> = rows.iter().chain(&rows).cloned().collect();
            (Just(rows), Just(twice).prop_shuffle())
        }),
        compression in compressions(),
    ) {
        prop_assert_eq!(object(&rows, compression), object(&shuffled, compression));
    }

    #[test]
    fn other_rows_give_another_key(rows in rows()) {
        let whole = object(&rows, Compression::Zstd);
        let mut fewer = rows.clone();
        let dropped = fewer.swap_remove(0);
        fewer.retain(|row| row.key != dropped.key || row.revision != dropped.revision);
        prop_assert_ne!(whole.key, object(&fewer, Compression::Zstd).key);
    }

    #[test]
    fn slices_are_read_as_one_however_they_overlap(
        rows in rows(),
        cuts in proptest::collection::vec(any::<(proptest::sample::Index, proptest::sample::Index)>(), 1..4),
    ) {
        // In this test, rows with the same key and revision are equal, as rows from a stream are.
        let mut rows = rows;
        rows.sort_by(|a, b| a.row().cmp_identity(&b.row()));
        rows.dedup_by(|later, kept| later.row().has_same_identity(&kept.row()));
        let mut slices: Vec<&[RowParts]> = cuts.iter().map(|(a, b)| {
            let (a, b) = (a.index(rows.len()), b.index(rows.len()));
            &rows[a.min(b)..=a.max(b)]
        }).collect();
        slices.push(&rows);
        let objects: Vec<_> = slices.iter().map(|slice| object(slice, Compression::Zstd)).collect();
        let merged = MergeIterator::new(objects.iter().map(reader).collect());
        let merged: Vec<_> = merged.map(|row| text(&row.unwrap())).collect();
        prop_assert_eq!(merged, expected(&rows));
    }
}

#[test]
fn a_line_is_written_as_documented() {
    let mut parts = RowParts::new("ada", "7", "111", 5, r#", "name" : {"S":"Ada\/"}"#);
    let line = |parts: &RowParts| {
        let bytes = object(std::slice::from_ref(parts), Compression::Zstd).bytes;
        String::from_utf8(zstd::decode_all(bytes.as_slice()).unwrap()).unwrap()
    };
    let item = r#"{"user_id":{"S":"ada"},"timestamp":{"N":"7"}, "name" : {"S":"Ada\/"}}"#;
    let metadata = r#""Revision":"2026-06-27T00:48:05.899#111","RemovedAt":"2026-11-22T14:00:05Z""#;
    assert_eq!(
        line(&parts),
        format!("{{\"Item\":{item},\"Metadata\":{{{metadata},\"EventId\":\"event \\\"111\\\"\"}}}}\n")
    );
    parts.event_id = None;
    assert_eq!(line(&parts), format!("{{\"Item\":{item},\"Metadata\":{{{metadata}}}}}\n"));
}

#[test]
fn an_object_is_named_by_table_hour_and_digest() {
    // SHA-256 over, for each row: 8 bytes of length, the key's text; 8 bytes of length, the revision's 23 bytes.
    let key = object(&[RowParts::new("ada", "7", "111", 5, "")], Compression::Gzip).key.to_string();
    let (folder, name) = key.rsplit_once('/').unwrap();
    assert_eq!(folder, "archive/Users/dt=2026-11-22/hr=14");
    assert_eq!(name, "00fe022ccc31ff5abcdcc298d40699a2.ndjson.gz");
}
