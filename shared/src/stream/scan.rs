//! One pass over a payload: the records, their fields, and whether an image belongs to the key of its record.
//!
//! [`scan_records`] reads what DynamoDB sends. It accepts nothing that `serde_json` would read in another way: a payload
//! or a record with anything unusual (a member that is given twice or has an escape sequence in its name, a value of
//! another type, invalid JSON) is left to `serde_json`, which also finds the reason of an error.

use std::borrow::Cow;

use millrace_json_scanner::{JsonScanner, JsonText};

use super::{RawChange, RawIdentity, RawImage, RawKey, RawRecord};
use crate::change::{BorrowedText, CanonicalKey, ItemKey};

/// The one or two attributes of a key, each with the text of its value.
type KeyAttributes<'a> = [Option<(&'a str, JsonText<'a>)>; 2];

/// Scans a payload and passes on the text and the fields of each record; the fields are `None` if the record is left to
/// `serde_json`. The third argument is the number of bytes after the record.
///
/// Returns `None` if the payload is left to `serde_json`; some of its records may have been passed on.
pub(super) fn scan_records<'a>(
    payload: &'a str,
    mut found: impl FnMut(JsonText<'a>, Option<RawRecord<'a>>, usize),
) -> Option<()> {
    let mut scanner = JsonScanner::new(payload);
    if !scanner.eat(b'{') || scanner.plain_string()? != "Records" || !scanner.eat(b':') || !scanner.eat(b'[') {
        return None;
    }
    let mut is_first = true;
    while !scanner.eat(b']') {
        if !std::mem::take(&mut is_first) && !scanner.eat(b',') {
            return None;
        }
        let before = scanner.clone();
        let (text, fields) = if let Some((text, fields)) = scanner.with_text(record) {
            (text, Some(fields))
        } else {
            scanner = before;
            (scanner.value()?, None)
        };
        found(text, fields, scanner.remaining_bytes());
    }
    (scanner.eat(b'}') && scanner.is_at_end()).then_some(())
}

/// The members of an object that have been read, as one bit each.
#[derive(Default)]
struct GivenMembers(u8);

impl GivenMembers {
    /// Returns the value of the member with this number, or `None` if the member was given before.
    fn once<T>(&mut self, member: u8, value: T) -> Option<T> {
        let bit = 1 << member;
        let is_first = self.0 & bit == 0;
        self.0 |= bit;
        is_first.then_some(value)
    }
}

fn record<'a>(scanner: &mut JsonScanner<'a>) -> Option<RawRecord<'a>> {
    let (mut record, mut given) = (RawRecord::default(), GivenMembers::default());
    let mut members = scanner.object()?;
    while let Some(name) = scanner.plain_member(&mut members)? {
        match name {
            "eventID" => record.event_id = given.once(0, scanner.optional(text)?)?,
            "eventName" => record.event_name = given.once(1, scanner.optional(text)?)?,
            "eventSourceARN" => record.arn = given.once(2, scanner.optional(text)?)?,
            "userIdentity" => record.user_identity = given.once(3, scanner.optional(identity)?)?,
            "dynamodb" => record.dynamodb = given.once(4, scanner.optional(change)?)?,
            _ => drop(scanner.value()?),
        }
    }
    Some(record)
}

fn text<'a>(scanner: &mut JsonScanner<'a>) -> Option<BorrowedText<'a>> {
    scanner.plain_string().map(|text| BorrowedText(Cow::Borrowed(text)))
}

fn identity<'a>(scanner: &mut JsonScanner<'a>) -> Option<RawIdentity<'a>> {
    let (mut identity, mut given) = (RawIdentity { kind: None, principal: None }, GivenMembers::default());
    let mut members = scanner.object()?;
    while let Some(name) = scanner.plain_member(&mut members)? {
        match name {
            "type" | "Type" => identity.kind = given.once(0, scanner.optional(text)?)?,
            "principalId" | "PrincipalId" => identity.principal = given.once(1, scanner.optional(text)?)?,
            _ => drop(scanner.value()?),
        }
    }
    Some(identity)
}

fn change<'a>(scanner: &mut JsonScanner<'a>) -> Option<RawChange<'a>> {
    let (mut change, mut given) = (RawChange::default(), GivenMembers::default());
    let mut attributes: KeyAttributes<'a> = [None, None];
    let mut members = scanner.object()?;
    while let Some(name) = scanner.plain_member(&mut members)? {
        match name {
            "ApproximateCreationDateTime" => {
                change.approximate_creation_date_time = given.once(0, scanner.optional(JsonScanner::value)?)?;
            }
            "Keys" => change.keys = given.once(1, scanner.optional(|scanner| key(scanner, &mut attributes))?)?,
            "NewImage" => change.new_image = given.once(2, scanner.optional(|scanner| image(scanner, &attributes))?)?,
            "OldImage" => change.old_image = given.once(3, scanner.optional(|scanner| image(scanner, &attributes))?)?,
            "SequenceNumber" => change.sequence_number = given.once(4, scanner.optional(text)?)?,
            "StreamViewType" => change.stream_view_type = given.once(5, scanner.optional(text)?)?,
            _ => drop(scanner.value()?),
        }
    }
    Some(change)
}

/// Reads a key. It is parsed if it has one or two different attributes; `attributes` then contains them.
fn key<'a>(scanner: &mut JsonScanner<'a>, attributes: &mut KeyAttributes<'a>) -> Option<RawKey<'a>> {
    let (text, is_usual) = scanner.with_text(|scanner| {
        let mut members = scanner.object()?;
        let mut is_usual = true;
        while let Some(name) = scanner.plain_member(&mut members)? {
            let value = scanner.value()?;
            match attributes {
                [first @ None, _] => *first = Some((name, value)),
                [Some((first, _)), second @ None] if *first != name => *second = Some((name, value)),
                _ => is_usual = false,
            }
        }
        Some(is_usual)
    })?;
    let canonical = if is_usual { canonical(attributes) } else { None };
    if canonical.is_none() {
        *attributes = [None, None];
    }
    Some(canonical.map_or(RawKey::Text(text), |canonical| RawKey::Parsed(ItemKey::with_canonical(text, canonical))))
}

fn canonical(attributes: &KeyAttributes<'_>) -> Option<CanonicalKey> {
    let [first, second] = attributes;
    let mut sorted = [first, second];
    if second.is_some_and(|(second, _)| first.is_some_and(|(first, _)| second < first)) {
        sorted.swap(0, 1);
    }
    let attributes = sorted.into_iter().flatten().map(|(name, value)| (*name, value.get()));
    CanonicalKey::from_attributes(attributes).ok()
}

/// Reads an image. It certainly belongs to the key if it has each attribute of the key, with the same text; otherwise
/// the values have to be compared.
fn image<'a>(scanner: &mut JsonScanner<'a>, key: &KeyAttributes<'a>) -> Option<RawImage<'a>> {
    if scanner.peek()? != b'{' {
        return Some(RawImage { text: scanner.value()?, has_key: false });
    }
    let (text, has_key) = scanner.with_text(|scanner| {
        let (mut found, mut is_same) = ([false; 2], key[0].is_some());
        let mut members = scanner.object()?;
        while let Some((name, is_escaped)) = scanner.member(&mut members)? {
            let value = scanner.value()?;
            // With escape sequences, it may be another name for an attribute of the key.
            is_same &= !is_escaped;
            for (attribute, found) in key.iter().zip(&mut found) {
                if let Some((own, expected)) = attribute
                    && *own == name
                {
                    *found = true;
                    is_same &= value == *expected;
                }
            }
        }
        Some(is_same && key.iter().zip(found).all(|(attribute, found)| found || attribute.is_none()))
    })?;
    Some(RawImage { text, has_key })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::stream::{BatchBuilder, parse_records, read_bytes};

    const ARN: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/Users/stream/2015-06-27T00:48:05.899";

    /// Returns a payload in the text and the order of Lambda.
    fn payload(record: &str) -> String {
        format!(r#"{{"Records":[{record}]}}"#)
    }

    fn record(name: &str, keys: &str, images: &str) -> String {
        format!(
            r#"{{"eventID":"e","eventName":"{name}","eventVersion":"1.1","eventSource":"aws:dynamodb","awsRegion":"r","dynamodb":{{"ApproximateCreationDateTime":1732283949.0,"Keys":{keys},{images}"SequenceNumber":"100","SizeBytes":26,"StreamViewType":"NEW_AND_OLD_IMAGES"}},"userIdentity":{{"type":"Service","principalId":"dynamodb.amazonaws.com"}},"eventSourceARN":"{ARN}"}}"#
        )
    }

    /// The result of the scan and of `serde_json` alone, as text.
    fn both(payload: &str) -> (String, String) {
        let payload = payload.as_bytes();
        let parsed = parse_records(payload).map(|records| {
            let mut batch = BatchBuilder::default();
            for raw in records {
                batch.push(raw.into(), None);
            }
            batch.records
        });
        (format!("{:?}", read_bytes(payload).map(|batch| batch.records)), format!("{parsed:?}"))
    }

    #[test]
    fn usual_records_are_scanned_once() {
        let image = r#"{"n":{"N":"7"},"t":{"M":{"k":{"S":"\u00e9"}}},"k":{"S":"a"}}"#;
        for (keys, images) in [
            (r#"{"k":{"S":"a"}}"#, format!(r#""NewImage":{image},"OldImage":{image},"#)),
            (r#"{"n":{"N":"7"},"k":{"S":"a"}}"#, format!(r#""OldImage":{image},"#)),
        ] {
            let payload = payload(&record("MODIFY", keys, &images));
            let mut scanned = 0;
            let complete = scan_records(&payload, |_, fields, left| {
                let change = fields.unwrap().dynamodb.unwrap();
                assert!(matches!(change.keys, Some(RawKey::Parsed(_))), "{payload}");
                let images = [change.new_image, change.old_image];
                assert!(images.into_iter().flatten().all(|image| image.has_key), "{payload}");
                assert_eq!(left, "]}".len());
                scanned += 1;
            });
            assert_eq!((complete, scanned), (Some(()), 1));
            let (scanned, parsed) = both(&payload);
            assert_eq!(scanned, parsed);
        }
    }

    #[test]
    fn unusual_records_and_payloads_are_read_as_by_serde_json() {
        let (key, image) = (r#"{"k":{"S":"a"}}"#, r#""NewImage":{"k":{"S":"a"}},"#);
        let usual = record("INSERT", key, image);
        let replaced = |from: &str, to: &str| payload(&usual.replacen(from, to, 1));
        for text in [
            payload(""),
            payload(&format!("{usual},{usual}")),
            payload(&format!("{usual},")),
            payload(&format!("{usual},7,[],null,\"x\",{{}},{usual}")),
            format!("{} ", payload(&usual)),
            format!("{}x", payload(&usual)),
            format!(r#"{{"Records":[{usual}],"Records":[]}}"#),
            format!(r#"{{"Records":[{usual}],"More":1}}"#),
            format!(r#"{{"More":[],"Records":[{usual}]}}"#),
            format!("[[{usual}]]"),
            replaced("eventID", "eventName"),
            replaced("eventID", "event\\u0049D"),
            replaced("\"e\"", "\"\\ud800\""),
            replaced("\"e\"", "\"\\u00e9\""),
            replaced("\"e\"", "null"),
            replaced("\"e\"", "7"),
            replaced("principalId", "type"),
            replaced("principalId", "Type"),
            replaced("\"type\"", "\"PrincipalId\":\"x\",\"type\""),
            replaced(r#"{"type":"Service","principalId":"dynamodb.amazonaws.com"}"#, "null"),
            replaced(
                r#"{"type":"Service","principalId":"dynamodb.amazonaws.com"}"#,
                r#"["Service","dynamodb.amazonaws.com"]"#,
            ),
            replaced("1732283949.0", "null"),
            replaced("1732283949.0", "\"x\""),
            replaced("\"100\"", "100"),
            replaced(key, "{}"),
            replaced(key, "null"),
            replaced(key, "[]"),
            replaced(key, r#"{"k":{"S":"a"},"k":{"S":"a"}}"#),
            replaced(key, r#"{"k":{"S":"a"},"l":{"S":"a"},"m":{"S":"a"}}"#),
            replaced(key, r#"{"k":{"S":"\u0061"}}"#),
            replaced(key, r#"{"\u006b":{"S":"a"}}"#),
            replaced(key, r#"{"k":{"S":"\ud800"}}"#),
            replaced(key, r#"{"k":{"N":"1.0"}}"#),
            replaced(key, r#"{"k":{"B":"YQ=="}}"#),
            replaced(key, r#"{"k":{"L":[]}}"#),
            replaced(key, r#" { "k" : { "S" : "a" } } "#),
            replaced(r#"NewImage":{"k":{"S":"a"}}"#, r#"NewImage":{"k":{"S":"\u0061"}}"#),
            replaced(r#"NewImage":{"k":{"S":"a"}}"#, r#"NewImage":{"k":{"S":"a"},"k":{"S":"b"}}"#),
            replaced(r#"NewImage":{"k":{"S":"a"}}"#, r#"NewImage":{"k":{"S":"a"},"\u006b":{"S":"b"}}"#),
            replaced(r#"NewImage":{"k":{"S":"a"}}"#, r#"NewImage":{"k":{"S":"a"},"\ud800":{"S":"b"}}"#),
            replaced(r#"NewImage":{"k":{"S":"a"}}"#, r#"NewImage":{"k":{"S":"a"},}"#),
            replaced(r#"NewImage":{"k":{"S":"a"}}"#, r#"NewImage":["k"]"#),
            replaced("NewImage", "OldImage"),
            // The image before the key.
            replaced(&format!("\"Keys\":{key},{image}"), &format!("{image}\"Keys\":{key},")),
            replaced(&format!("\"Keys\":{key},{image}"), &format!(r#""NewImage":{{"k":{{"S":"b"}}}},"Keys":{key},"#)),
        ] {
            let (scanned, parsed) = both(&text);
            assert_eq!(scanned, parsed, "{text}");
        }
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            "[abk\"\\\\é]{0,3}".prop_map(|text| json!({"S": text})),
            "-?[0-9]{1,3}(\\.0)?".prop_map(|number| json!({"N": number})),
            Just(json!({"B": "YQ=="})),
            Just(json!({"BOOL": true})),
            Just(json!(null)),
        ];
        leaf.prop_recursive(2, 6, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(|list| json!({"L": list})),
                prop::collection::btree_map("[abk]", inner, 0..3).prop_map(|members| json!({"M": members})),
            ]
        })
    }

    fn item() -> impl Strategy<Value = serde_json::Value> {
        prop::collection::btree_map("[abk\"é]", value(), 0..4).prop_map(|members| json!(members))
    }

    proptest! {
        #[test]
        fn every_payload_is_read_as_by_serde_json(
            name in prop_oneof!["INSERT", "MODIFY", "REMOVE", "R"], keys in item(), new in prop::option::of(item()),
            old in prop::option::of(item()), shares_key: bool, chosen: prop::sample::Index, damage: Option<char>,
            cut in 0..2_usize,
        ) {
            let with_key = |image: &serde_json::Value| match (image.clone(), &keys, shares_key) {
                (serde_json::Value::Object(mut members), serde_json::Value::Object(keys), true) => {
                    members.extend(keys.clone());
                    json!(members).to_string()
                }
                (image, ..) => image.to_string(),
            };
            let member = |name: &str, image: &Option<serde_json::Value>| {
                image.as_ref().map_or_else(String::new, |image| format!("\"{name}\":{},", with_key(image)))
            };
            let images = member("NewImage", &new) + &member("OldImage", &old);
            let text = payload(&record(&name, &keys.to_string(), &images));
            let (scanned, parsed) = both(&text);
            prop_assert_eq!(scanned, parsed, "{}", text);

            let starts: Vec<usize> = text.char_indices().map(|(start, _)| start).collect();
            let first = chosen.index(starts.len() - 1);
            let (start, end) = (starts[first], starts[first + cut]);
            let changed = format!("{}{}{}", &text[..start], damage.map_or_else(String::new, String::from), &text[end..]);
            let (scanned, parsed) = both(&changed);
            prop_assert_eq!(scanned, parsed, "{}", changed);
        }
    }
}
