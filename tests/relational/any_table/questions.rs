//! The questions in SQL of docs/configuration.md, over the table that the same document declares.

use std::fs;
use std::time::Duration;

use millrace_shared::clock::Clock;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::{TableStore, declared};
use crate::architecture;
use crate::postgres::connect;
use crate::relational::store::apply_within;
use crate::replication::events::{LABEL, event_of};

/// Returns the text between two marks.
fn between<'t>(text: &'t str, start: &str, end: &str) -> &'t str {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start}"));
    rest.split_once(end).unwrap_or_else(|| panic!("no {end} after {start}")).0
}

/// Returns the stream record of an order, or of its deletion.
fn record(number: u64, customer: &str, order: Option<(&str, &str, i64)>) -> String {
    let key = json!({"pk": {"S": customer}, "sk": {"N": number.to_string()}});
    let image = order.map(|(city, total, days)| {
        let placed = (Clock::system().now() - time::Duration::days(days)).format(&Rfc3339).unwrap();
        let mut image = key.clone();
        image["total"] = json!({"N": total});
        image["address"] = json!({"M": {"city": {"S": city}}});
        image["placedAt"] = json!({"S": placed});
        image
    });
    let arn = format!("arn:aws:dynamodb:eu-west-1:123456789012:table/Orders/stream/{LABEL}");
    let mut record = json!({
        "eventID": number.to_string(), "eventName": if image.is_some() { "INSERT" } else { "REMOVE" },
        "eventSource": "aws:dynamodb", "eventSourceARN": arn,
        "dynamodb": {"Keys": key, "SequenceNumber": number.to_string(), "StreamViewType": "NEW_AND_OLD_IMAGES"},
    });
    match image {
        Some(image) => record["dynamodb"]["NewImage"] = image,
        None => record["dynamodb"]["OldImage"] = key,
    }
    record.to_string()
}

#[tokio::test]
async fn documented_queries_run_as_the_reader_of_the_documented_table() {
    let text = fs::read_to_string(architecture::root().join("docs/configuration.md")).unwrap();
    let section = between(&text, "\n### A table in PostgreSQL\n", "\n### ");
    let entry: Value = serde_json::from_str(between(section, "```json\n", "```")).unwrap();
    let sql = between(section, "```sql\n", "```");
    let index = between(section, "for example `create index", "`");

    let table = declared(entry["table"].as_str().unwrap(), &entry["columns"], entry["otherwise"].as_str().unwrap());
    let store = TableStore::with_table(table).await;
    store.client.batch_execute(&format!("create index{index}")).await.unwrap();
    let orders = [
        ("paris-1", Some(("Paris", "10", 5))),
        ("paris-1", Some(("Paris", "20.5", 10))),
        ("rome-1", Some(("Rome", "100", 3))),
        ("rome-1", Some(("Rome", "7", 60))),
        ("oslo-1", Some(("Oslo", "50", 500))),
        ("rome-2", None),
    ];
    let records: Vec<String> =
        orders.into_iter().zip(1..).map(|((customer, order), number)| record(number, customer, order)).collect();
    let outcome = apply_within(&store.sink, &event_of(&records), Duration::from_secs(30)).await;
    assert_eq!((outcome.applied, outcome.tombstones), (6, 1), "{outcome:?}");

    // The role reads the view alone.
    let reader = connect(&store.url.replace("millrace@", "postgres@")).await;
    reader.batch_execute("set role millrace_orders_reader").await.unwrap();
    let questions: Vec<&str> = sql.split(';').map(str::trim).filter(|question| !question.is_empty()).collect();
    let mut responses = Vec::new();
    for question in questions {
        let rows = reader.query(&format!("select q::text from ({question}\n) q"), &[]).await.unwrap();
        responses.push(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>());
    }
    let [revenue, customers, outliers] = &responses[..] else { panic!("{responses:?}") };
    assert_eq!(revenue, &["(Rome,1,100)", "(Paris,2,30.5)"]);
    assert!(customers.len() == 1 && customers[0].starts_with("(oslo-1,"), "{customers:?}");
    assert!(
        outliers.len() == 1 && outliers[0].contains("rome-1") && outliers[0].ends_with(",100,20.5)"),
        "{outliers:?}"
    );
}
