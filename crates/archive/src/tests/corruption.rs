//! A corrupt object is rejected with an error that names the object and the row.

use super::*;

fn rows() -> Vec<RowParts> {
    (0..40).map(|n| RowParts::new(&format!("user-{n:03}"), "1", "111222333444555666777", n, "")).collect()
}

/// Returns the number of rows that were read before the error, and the error.
fn read_corrupt(object: &EncodedObject, metadata: &HashMap<String, String>) -> (usize, CorruptObject) {
    let names = KeyNames::new(["user_id", "timestamp"]);
    let reader = match RowReader::open(&object.key.to_string(), metadata, names, object.bytes.as_slice()) {
        Ok(reader) => reader,
        Err(corrupt) => return (0, corrupt),
    };
    let mut rows = 0;
    let mut corrupt = None;
    for row in reader {
        assert!(corrupt.is_none(), "nothing comes after corruption");
        match row {
            Ok(_) => rows += 1,
            Err(found) => corrupt = Some(found),
        }
    }
    (rows, corrupt.unwrap())
}

/// Returns an object of these lines that is valid apart from its lines.
fn object_of(lines: &[u8]) -> EncodedObject {
    let mut object = object(&rows()[..3], Compression::Zstd);
    object.bytes = zstd::encode_all(lines, 3).unwrap();
    object.description.sha256 = millrace_shared::hash::sha256(&object.bytes);
    object
}

fn lines() -> Vec<String> {
    let bytes = object(&rows()[..3], Compression::Zstd).bytes;
    let text = String::from_utf8(zstd::decode_all(bytes.as_slice()).unwrap()).unwrap();
    text.split_inclusive('\n').map(str::to_owned).collect()
}

#[test]
fn the_lines_of_these_tests_are_valid_until_they_are_changed() {
    assert_eq!(read(&object_of(lines().concat().as_bytes())).len(), 3);
}

#[test]
fn a_wrong_row_is_named_by_its_number() {
    for (from, to, expected) in [
        ("}}\n", "}\n", "is not {\"Item\""),
        ("\"Item\":", "\"Thing\":", "is not {\"Item\""),
        ("{\"Item\"", "{\"More\":1,\"Item\"", "unknown field `More`"),
        ("\"user_id\"", "\"user\"", "Item has no key: user_id"),
        ("{\"N\":\"1\"}", "{\"N\":\"one\"}", "Item has no key"),
        ("#111", "#-111", "Metadata.Revision: sequence number"),
        ("2026-06-27T", "June ", "Metadata.Revision: stream label"),
        ("T14:00:01Z", "T14:00:01", "Metadata.RemovedAt"),
        ("T14:00:01Z", "T15:00:01Z", "outside of the hour"),
        ("user-001", "user-000", "does not sort after"),
        ("user-001", "a", "does not sort after"),
    ] {
        let mut lines = lines();
        assert!(lines[1].contains(from), "{from}");
        lines[1] = lines[1].replace(from, to);
        let object = object_of(lines.concat().as_bytes());
        let (rows, corrupt) = read_corrupt(&object, &metadata(&object));
        assert_eq!((rows, corrupt.row), (1, Some(2)), "{corrupt}");
        let message = corrupt.to_string();
        assert!(message.starts_with(&format!("{}: row 2: ", object.key)) && message.contains(expected), "{message}");
    }
}

#[test]
fn a_row_that_does_not_end_is_refused() {
    let lines = lines().concat();
    let object = object_of(lines.trim_end().as_bytes());
    assert!(read_corrupt(&object, &metadata(&object)).1.to_string().contains("row 3: does not end in a line feed"));
    let endless = object_of(&vec![b' '; 9 << 20]);
    assert!(matches!(
        read_corrupt(&endless, &metadata(&endless)).1,
        CorruptObject { row: Some(1), kind: CorruptionKind::UnterminatedRow, .. }
    ));
}

#[test]
fn rows_that_are_missing_or_too_many_are_noticed_at_the_end() {
    for (kept, expected) in [(0, "contains 0 rows"), (2, "contains 2 rows, but its metadata specifies 3")] {
        let object = object_of(lines()[..kept].concat().as_bytes());
        let (rows, corrupt) = read_corrupt(&object, &metadata(&object));
        assert_eq!((rows, corrupt.row), (kept, None));
        assert!(corrupt.to_string().contains(expected), "{corrupt}");
    }
    let mut object = object_of(lines()[..2].concat().as_bytes());
    object.description.rows = 2;
    object.description.last -= time::Duration::SECOND;
    assert!(
        matches!(read_corrupt(&object, &metadata(&object)).1.kind, CorruptionKind::Digest(_)),
        "the key names other rows"
    );
}

#[test]
fn a_description_that_is_not_the_object_s_is_refused() {
    let object = object(&rows(), Compression::Zstd);
    for (name, value, expected) in [
        ("format", "2", "metadata \"format\""),
        ("rows", "", "metadata \"rows\""),
        ("rows", "41", "contains 40 rows, but its metadata specifies 41"),
        ("first", "2026-11-22T14:00:01Z", "\"first\" and \"last\""),
        ("last", "2026-11-22T14:00:01Z", "\"first\" and \"last\""),
        ("sha256", &"00".repeat(32), "SHA-256"),
    ] {
        let mut metadata = metadata(&object);
        metadata.insert(name.to_owned(), value.to_owned());
        let corrupt = read_corrupt(&object, &metadata).1.to_string();
        assert!(corrupt.starts_with(&object.key.to_string()) && corrupt.contains(expected), "{corrupt}");
    }
}

#[test]
fn a_foreign_object_is_refused() {
    let object = object(&rows(), Compression::Zstd);
    let names = KeyNames::new(["user_id"]);
    let foreign = RowReader::open("archive/notes.txt", &metadata(&object), names, object.bytes.as_slice());
    assert!(foreign.err().unwrap().to_string().starts_with("archive/notes.txt: unrecognized key: expected archive/"));
}

#[test]
fn every_truncation_is_refused() {
    for compression in [Compression::Zstd, Compression::Gzip] {
        let whole = object(&rows(), compression);
        for length in (0..whole.bytes.len()).step_by(7) {
            let object = EncodedObject { bytes: whole.bytes[..length].to_vec(), ..whole.clone() };
            read_corrupt(&object, &metadata(&object));
        }
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    for compression in [Compression::Zstd, Compression::Gzip] {
        let whole = object(&rows(), compression);
        for index in 0..whole.bytes.len() {
            let mut object = whole.clone();
            object.bytes[index] ^= 1 << (index % 8);
            read_corrupt(&object, &metadata(&object));
        }
    }
}
