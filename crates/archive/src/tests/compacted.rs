//! Compacted objects are read by the same reader, and verified without parsing rows.

use super::*;

const NAME: &str = "compacted/Users/dt=2026-11-22/0123456789abcdef0123456789abcdef-00000.ndjson.zst";

fn rows() -> Vec<RowParts> {
    // The rows are of two hours of the day.
    (0..40).map(|n| RowParts::new(&format!("user-{n:03}"), "1", "111", 3_590 + n, "")).collect()
}

fn written(rows: &[RowParts]) -> (HashMap<String, String>, Vec<u8>) {
    let mut writer = ObjectWriter::new(Compression::Zstd, Vec::new()).unwrap();
    for row in rows {
        writer.push(&row.row()).unwrap();
    }
    assert!(writer.content_bytes() > 0);
    let (description, bytes) = writer.finish(OffsetDateTime::UNIX_EPOCH).unwrap();
    (description.encode().unwrap().map(|(name, value)| (name.to_owned(), value)).into(), bytes)
}

fn read(name: &str, metadata: &HashMap<String, String>, bytes: &[u8]) -> Result<Vec<String>, CorruptObject> {
    let reader = RowReader::open(name, metadata, KeyNames::new(["user_id", "timestamp"]), bytes)?;
    reader.map(|row| row.map(|row| text(&row))).collect()
}

#[test]
fn a_day_s_rows_are_read_as_they_were_written() {
    let (metadata, bytes) = written(&rows());
    assert_eq!(read(NAME, &metadata, &bytes).unwrap(), rows().iter().map(RowParts::text).collect::<Vec<_>>());
    assert_eq!(verify_object(NAME, &metadata, bytes.as_slice()).unwrap(), ObjectMetadata::parse(&metadata).unwrap());
}

#[test]
fn a_row_of_another_day_is_refused() {
    let (metadata, bytes) = written(&rows());
    let corrupt = read(&NAME.replace("11-22", "11-23"), &metadata, &bytes).unwrap_err();
    assert_eq!((corrupt.row, corrupt.kind.to_string().contains("hour or day")), (Some(1), true));
}

#[test]
fn a_row_that_was_read_is_written_as_it_was() {
    let (metadata, bytes) = written(&rows());
    let reader = RowReader::open(NAME, &metadata, KeyNames::new(["user_id", "timestamp"]), bytes.as_slice()).unwrap();
    let mut writer = ObjectWriter::new(Compression::Zstd, Vec::new()).unwrap();
    for row in reader {
        writer.push(&row.unwrap().as_row()).unwrap();
    }
    assert_eq!(writer.finish(OffsetDateTime::UNIX_EPOCH).unwrap().1, bytes);
}

#[test]
fn no_damage_to_the_bytes_is_proven_sound() {
    let (metadata, whole) = written(&rows());
    for index in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[index] ^= 1 << (index % 8);
        assert!(verify_object(NAME, &metadata, bytes.as_slice()).is_err(), "byte {index}");
        assert!(verify_object(NAME, &metadata, &whole[..index]).is_err(), "cut at {index}");
    }
    let mut fewer = metadata.clone();
    fewer.insert("rows".to_owned(), "39".to_owned());
    let corrupt = verify_object(NAME, &fewer, whole.as_slice()).unwrap_err();
    assert_eq!(corrupt.kind.to_string(), "contains 40 rows, but its metadata specifies 39");
    assert!(verify_object("export/notes.txt", &metadata, whole.as_slice()).is_err());
}
