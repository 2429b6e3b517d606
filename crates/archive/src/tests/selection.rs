//! Tests of the selection of a batch's records.

use millrace_shared::stream;
use serde_json::json;

use super::*;

const ARN: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/Users/stream/2026-06-27T00:48:05.899";

fn expired(number: &str, second: i64) -> serde_json::Value {
    json!({
        "eventID": "e", "eventName": "REMOVE", "eventSourceARN": ARN,
        "userIdentity": {"type": "Service", "principalId": "dynamodb.amazonaws.com"},
        "dynamodb": {
            "ApproximateCreationDateTime": HOUR + second, "Keys": {"k": {"S": "a"}},
            "OldImage": {"k": {"S": "a"}}, "SequenceNumber": number, "StreamViewType": "NEW_AND_OLD_IMAGES",
        },
    })
}

fn with(path: &str, value: serde_json::Value) -> serde_json::Value {
    let mut record = expired("5", 0);
    let (parent, field) = path.rsplit_once('/').unwrap();
    record.pointer_mut(parent).unwrap()[field] = value;
    record
}

fn selected<T>(
    records: &[serde_json::Value],
    check: impl FnOnce(Result<ArchiveBatch<'_>, MissingOldImageError>) -> T,
) -> T {
    let payload = RawValue::from_string(json!({"Records": records}).to_string()).unwrap();
    let batch = stream::read(&payload).unwrap();
    check(rows_from_removals(&batch.records))
}

#[test]
fn every_removal_of_ttl_is_a_row_also_the_second_of_a_key() {
    selected(&[expired("5", 0), expired("6", 1)], |selection| {
        let selection = selection.unwrap();
        assert_eq!(selection.partitions[0].rows.len(), 2);
        assert_eq!((selection.unarchivable.len(), selection.skipped), (0, 0));
    });
}

#[test]
fn changes_other_than_ttl_deletes_are_skipped() {
    let mut inserted = with("/eventName", json!("INSERT"));
    inserted["dynamodb"]["NewImage"] = json!({"k": {"S": "a"}});
    let user = with("/userIdentity", json!({"type": "User", "principalId": "dynamodb.amazonaws.com"}));
    selected(&[inserted, with("/userIdentity", json!(null)), user], |selection| {
        let selection = selection.unwrap();
        assert_eq!((selection.partitions.len(), selection.unarchivable.len(), selection.skipped), (0, 0, 3));
    });
}

#[test]
fn each_table_and_hour_is_an_object_with_the_positions_of_its_records() {
    let other = ARN.replace("Users", "Orders");
    let mut foreign = expired("9", 0);
    foreign["eventSourceARN"] = json!(other);
    let records = [expired("7", 3599), expired("8", 3600), foreign, expired("6", 1), expired("10", 3601)];
    selected(&records, |selection| {
        let found: Vec<_> = (selection.unwrap().partitions.iter())
            .map(|one| (one.table.to_owned(), one.hour.to_string(), one.records.clone(), one.rows.len()))
            .collect();
        let hour = |hour| format!("dt=2026-11-22/hr={hour}");
        let wanted = [("Users", 14, vec![0, 3], 2), ("Users", 15, vec![1, 4], 2), ("Orders", 14, vec![2], 1)];
        assert_eq!(found, wanted.map(|(table, at, records, rows)| (table.to_owned(), hour(at), records, rows)));
    });
}

#[test]
fn a_time_that_is_none_is_a_reason_for_quarantine() {
    for time in [json!(null), json!(0), json!(1_795_356_000_000_i64), json!("soon"), json!(253_402_300_799_i64)] {
        selected(&[expired("4", 0), with("/dynamodb/ApproximateCreationDateTime", time.clone())], |selection| {
            let selection = selection.unwrap();
            assert_eq!(selection.partitions[0].rows.len(), 1, "its neighbour is archived");
            let refused = &selection.unarchivable[0];
            assert_eq!(refused.index, 1);
            assert!(refused.reason.contains("dynamodb.ApproximateCreationDateTime"), "{time}: {}", refused.reason);
        });
    }
}

#[test]
fn a_stream_without_old_images_is_a_fault_of_the_mapping_and_of_no_record() {
    for view in ["KEYS_ONLY", "NEW_IMAGE"] {
        let mut record = with("/dynamodb/StreamViewType", json!(view));
        record["dynamodb"].as_object_mut().unwrap().remove("OldImage");
        selected(&[expired("4", 0), record], |selection| {
            let message = selection.unwrap_err().to_string();
            assert!(
                message.contains(view) && message.contains(ARN) && message.contains("NEW_AND_OLD_IMAGES"),
                "{message}"
            );
        });
    }
}

#[test]
fn a_record_that_lost_its_image_is_a_reason_for_quarantine() {
    selected(&[with("/dynamodb/OldImage", json!(null)), expired("6", 0)], |selection| {
        let selection = selection.unwrap();
        let [RejectedRecord { index: 0, reason, contradicts: false }] = &selection.unarchivable[..] else { panic!() };
        assert!(reason.contains("dynamodb.OldImage is missing"), "{reason}");
        assert_eq!(selection.partitions[0].rows.len(), 1);
    });
}

#[test]
fn an_old_image_without_the_key_is_a_reason_for_quarantine() {
    for image in [json!({}), json!({"name": {"S": "Ada"}}), json!({"m": {"M": {"k": {"S": "a"}}}})] {
        selected(&[with("/dynamodb/OldImage", image.clone()), expired("6", 0)], |selection| {
            let selection = selection.unwrap();
            assert_eq!(selection.unarchivable.len(), 1, "{image}");
            assert!(selection.unarchivable[0].reason.contains("does not contain the key"), "{image}");
            assert_eq!(selection.partitions[0].rows.len(), 1);
        });
    }
}

#[test]
fn an_old_image_of_another_item_is_a_reason_for_quarantine() {
    selected(&[with("/dynamodb/OldImage", json!({"k": {"S": "b"}})), expired("6", 0)], |selection| {
        let selection = selection.unwrap();
        assert_eq!(selection.unarchivable.len(), 1);
        assert!(selection.unarchivable[0].reason.contains("differ in the key attribute \"k\""));
        assert_eq!(selection.partitions[0].rows.len(), 1);
    });
}

#[test]
fn contradicting_removal_with_the_same_sequence_number_is_unarchivable() {
    let image = |name: &str| with("/dynamodb/OldImage", json!({"k": {"S": "a"}, "name": {"S": name}}));
    // The last record is a repetition of the first.
    selected(&[image("one"), image("two"), expired("6", 0), image("one")], |selection| {
        let selection = selection.unwrap();
        let found: Vec<_> = selection.unarchivable.iter().map(|one| (one.index, one.contradicts)).collect();
        assert_eq!(found, [(1, true)]);
        assert_eq!(selection.partitions[0].rows.len(), 3);
    });
    let mut later = image("two");
    later["dynamodb"]["ApproximateCreationDateTime"] = json!(HOUR + 3600);
    selected(&[image("one"), later], |selection| {
        let selection = selection.unwrap();
        assert_eq!(selection.unarchivable.len(), 1, "in whatever hour");
        assert_eq!(selection.partitions.len(), 1);
    });
    let mut timeless = image("one");
    timeless["dynamodb"]["ApproximateCreationDateTime"] = json!(0);
    selected(&[timeless, image("two")], |selection| {
        let selection = selection.unwrap();
        let found: Vec<_> = selection.unarchivable.iter().map(|one| (one.index, one.contradicts)).collect();
        assert_eq!(found, [(0, false)], "what is no row contradicts none");
        assert_eq!(selection.partitions[0].rows.len(), 1);
    });
}
