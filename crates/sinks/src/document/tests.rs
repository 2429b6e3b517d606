use millrace_transform::AttributePath;
use millrace_transform::columns::{ColumnDefinition, ColumnType, OtherwiseRule, TableColumns, TimestampFormat};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const STAGING: &str = "arn:aws:dynamodb:eu-west-1:111122223333:table/Orders-staging";
const ROLE: &str = "arn:aws:iam::111122223333:role/replication";

fn document(replicas: &serde_json::Value) -> String {
    json!({"version": 1, "replicas": replicas}).to_string()
}

/// The problems of a document, as pointer and reason.
fn problems(text: &str) -> Vec<(String, String)> {
    let invalid = ReplicationDocument::parse(text).unwrap_err();
    invalid.problems().iter().map(|problem| (problem.pointer.clone(), problem.reason.clone())).collect()
}

/// The problem of a replica that differs from a valid one in one member; `null` removes the member.
fn problem_of(member: &str, value: serde_json::Value) -> (String, String) {
    let mut replica = json!({"name": "staging", "sink": "dynamodb", "table": STAGING});
    let members = replica.as_object_mut().unwrap();
    if value.is_null() {
        drop(members.remove(member));
    } else {
        drop(members.insert(member.to_owned(), value));
    }
    let mut found = problems(&document(&json!([replica])));
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn dynamodb(entry: &ReplicaEntry) -> &TableSettings {
    match &entry.sink {
        SinkSettings::DynamoDb(settings) => settings,
        SinkSettings::Postgres(_) | SinkSettings::Archive { .. } => panic!("{entry:?}"),
    }
}

#[test]
fn the_region_of_an_arn_is_that_of_the_client() {
    let text = document(&json!([
        {"name": "staging", "sink": "dynamodb", "table": STAGING, "role_arn": ROLE, "max_concurrency": 64},
        {"name": "other", "sink": "dynamodb", "table": "Orders", "region": "us-east-2"},
        {"name": "near", "sink": "dynamodb", "table": "Orders"},
        {"name": "archive", "sink": "archive", "records": "expired"},
    ]));
    let document = ReplicationDocument::parse(&text).unwrap();
    let [staging, other, near, cold] = document.replicas() else { panic!("four replicas") };
    assert_eq!(dynamodb(staging).region.as_deref(), Some("eu-west-1"));
    assert_eq!(dynamodb(staging).role_arn.as_ref().unwrap().as_str(), ROLE);
    assert_eq!(dynamodb(staging).max_concurrency, 64);
    assert_eq!((dynamodb(other).region.as_deref(), dynamodb(other).max_concurrency), (Some("us-east-2"), 128));
    assert_eq!(dynamodb(near).region, None);
    assert_eq!(cold.sink, SinkSettings::Archive { records: ArchivedRecords::Expired });
}

#[test]
fn every_problem_is_reported_at_once_by_its_pointer() {
    let found = problems(
        r#"{"version": 2, "replica": [], "hash_keys": {}, "replicas": [
            {"name": "Staging", "sink": "dynamodb", "tables": "Orders", "region": "ireland", "max_concurrency": 0},
            {"sink": "postgres", "name": "sql", "table": "shop.orders", "otherwise": "drop", "columns": {
                "key": {"path": "id", "type": "text"}, "city": {"path": "address..city", "type": "varchar"},
                "city": {}, "paid": {"path": "paid", "type": "bool", "format": "rfc3339"}, "n": 7,
                "at": {"path": "at", "type": "timestamptz", "format": "epoch"}, "d/d": {"type": "date", "format":
                "rfc3339", "unit": "s"}}},
            {"name": "archive", "sink": "archive", "records": "all"},
            7
        ]}"#,
    );
    let pointers: Vec<&str> = found.iter().map(|(pointer, _)| pointer.as_str()).collect();
    assert_eq!(
        pointers,
        [
            "/replica",
            "/version",
            "/replicas/0/tables",
            "/replicas/0/name",
            "/replicas/0/table",
            "/replicas/0/region",
            "/replicas/0/max_concurrency",
            "/replicas/1/table",
            "/replicas/1/columns/key",
            "/replicas/1/columns/city/path",
            "/replicas/1/columns/city/type",
            "/replicas/1/columns/city",
            "/replicas/1/columns/paid/type",
            "/replicas/1/columns/n",
            "/replicas/1/columns/at/format",
            "/replicas/1/columns/d~1d/unit",
            "/replicas/1/columns/d~1d/path",
            "/replicas/1/columns/d~1d/format",
            "/replicas/1/otherwise",
            "/replicas/2/records",
            "/replicas/3",
            "/hash_keys",
        ]
    );
    assert!(found[0].1.contains("did you mean \"replicas\"?"), "{}", found[0].1);
    assert!(found[2].1.contains("did you mean \"table\"?"), "{}", found[2].1);
    for (pointer, part) in [
        ("table", "without a schema"),
        ("columns/city/path", "at character 9"),
        ("columns/city/type", "set it to one of text, numeric"),
        ("columns/paid/type", "did you mean \"boolean\"?"),
        ("columns/d~1d/format", "is only for the types timestamptz and text, not for date"),
        ("otherwise", "set it to \"null\" or \"quarantine\""),
    ] {
        let location = format!("/replicas/1/{pointer}");
        let (_, reason) = found.iter().find(|(pointer, _)| *pointer == location).unwrap();
        assert!(reason.contains(part), "{pointer}: {reason}");
    }
    let text = ReplicationDocument::parse(r#"{"version":1}"#).unwrap_err().to_string();
    assert_eq!(text, "REPLICATION /replicas is missing: set it to a list of replicas");
}

#[test]
fn a_wrong_member_names_its_value_and_the_fix() {
    for (member, value, reason) in [
        ("name", json!(null), "is missing: set it to a name such as"),
        ("name", json!(7), "is 7: set it to a name"),
        ("name", json!("a/b"), "lowercase letter, then up to 31"),
        ("name", json!("read"), "reserved"),
        ("name", json!("postgres"), "reserved"),
        ("name", json!("archive"), "reserved"),
        ("sink", json!(null), "set it to \"dynamodb\" or \"postgres\" or \"archive\""),
        ("sink", json!("dynamo"), "did you mean \"dynamodb\"?"),
        ("sink", json!({}), "is an object: set it to \"dynamodb\""),
        ("table", json!(null), "is missing: set it to a table name or ARN"),
        ("table", json!("x"), "3 to 255 characters"),
        (
            "table",
            json!("arn:aws:dynamodb:eu-west-1:1:table/Orders"),
            "arn:aws:dynamodb:<region>:<account>:table/<name>",
        ),
        ("region", json!("Ireland"), "set it to a Region such as eu-west-1"),
        ("region", json!("us-east-2"), "but the table's ARN is in eu-west-1"),
        ("role_arn", json!("replicator"), "set it to arn:aws:iam::<account>:role/<name>"),
        ("role_arn", json!("arn:aws-cn:iam::111122223333:role/r"), "another partition: name a role in aws,"),
        ("max_concurrency", json!(901), "set it to a number from 1 to 900"),
        ("max_concurrency", json!("64"), "is \"64\": set it to a number from 1 to 900"),
        ("max_concurrency", json!(1.5), "is 1.5: set it to a number from 1 to 900"),
    ] {
        let (pointer, found) = problem_of(member, value.clone());
        assert_eq!(pointer, format!("/replicas/0/{member}"));
        assert!(found.contains(reason), "{member} {value}: {found}");
    }
}

#[test]
fn other_problems_of_a_replica_with_an_unknown_sink_are_reported_too() {
    for (replica, pointers) in [
        // Read as the sink that is probably meant.
        (
            json!({"name": "A", "sink": "dynamo", "tabel": "Orders", "max_concurrency": 0}),
            &["sink", "tabel", "name", "table", "max_concurrency"][..],
        ),
        (json!({"name": "archive", "sink": "archiv", "records": "all"}), &["sink", "records"]),
        // No sink is similar: only the members that every replica has.
        (
            json!({"name": "A", "sink": "kafka", "table": "Orders", "topic": "orders", "where": 7}),
            &["sink", "topic", "name", "where"],
        ),
        (json!({"records": "expired"}), &["sink", "name"]),
        (json!({"name": "archive", "sink": "s3", "records": "expired"}), &["sink"]),
    ] {
        let found = problems(&document(&json!([replica])));
        let found: Vec<&str> = found.iter().map(|(pointer, _)| pointer.rsplit('/').next().unwrap()).collect();
        assert_eq!(found, pointers, "{replica}");
    }
    let members = [&DYNAMODB_MEMBERS[..], &POSTGRES_MEMBERS, &ARCHIVE_MEMBERS].concat();
    assert!(members.iter().all(|member| REPLICA_MEMBERS.contains(member)), "{members:?}");
    assert!(REPLICA_MEMBERS.iter().all(|member| members.contains(member)), "{members:?}");
}

#[test]
fn members_of_other_replicas_and_of_the_document_are_refused_by_pointer() {
    for member in ["columns", "otherwise", "hash_keys", "records"] {
        let (pointer, reason) = problem_of(member, json!({"include": ["pk"]}));
        assert_eq!(pointer, format!("/replicas/0/{member}"));
        assert!(reason.contains("is not a member of a dynamodb replica: use name, sink"), "{reason}");
    }
}

#[test]
fn replicas_are_compared_with_each_other() {
    let replica = |name: &str, table: &str| json!({"name": name, "sink": "dynamodb", "table": table});
    for (replicas, pointer, reason) in [
        (json!([]), "/replicas", "is empty"),
        (json!([replica("a", "One"), replica("a", "Two")]), "/replicas/1/name", "the name of /replicas/0"),
        (json!([replica("a", "One"), replica("b", "One")]), "/replicas/1/table", "the table or view of /replicas/0"),
        (
            json!([replica("a", STAGING), {"name": "b", "sink": "dynamodb", "table": "Orders-staging",
                "region": "eu-west-1", "role_arn": ROLE}]),
            "/replicas/1/table",
            "the table or view of /replicas/0",
        ),
        (
            json!([{"name": "a", "sink": "postgres", "table": "orders"},
                {"name": "b", "sink": "postgres", "table": "orders"}]),
            "/replicas/1/table",
            "the table or view of /replicas/0",
        ),
        (
            json!([{"name": "a", "sink": "postgres", "table": "orders"},
                {"name": "b", "sink": "postgres", "table": "orders_live"}]),
            "/replicas/1/table",
            "the table or view of /replicas/0",
        ),
        (
            json!([{"name": "archive", "sink": "archive", "records": "expired"},
                {"name": "archive", "sink": "archive", "records": "expired"}]),
            "/replicas/1/name",
            "the name of /replicas/0",
        ),
        (
            json!([{"name": "cold", "sink": "archive", "records": "expired"}]),
            "/replicas/0/name",
            "set it to \"archive\"",
        ),
        (
            json!((0..8).map(|n| replica(&format!("r{n}"), &format!("Table{n}"))).collect::<Vec<_>>()),
            "/replicas",
            "max_concurrency of 1024 in total",
        ),
        (
            json!(
                (0..33)
                    .map(|n| json!({"name": format!("r{n}"), "sink": "dynamodb", "table": format!("Table{n}"),
                "max_concurrency": 1}))
                    .collect::<Vec<_>>()
            ),
            "/replicas",
            "at most 32 are allowed",
        ),
    ] {
        let found = problems(&document(&replicas));
        assert!(matches!(&found[..], [(at, why)] if at == pointer && why.contains(reason)), "{found:?}");
    }
    let elsewhere =
        json!([replica("a", "One"), {"name": "b", "sink": "dynamodb", "table": "One", "region": "us-east-2"}]);
    assert!(ReplicationDocument::parse(&document(&elsewhere)).is_ok(), "a table of that name in another Region");
}

#[test]
fn replicas_are_compared_although_they_have_other_problems() {
    let text = json!({"version": 2, "replicas": [
        {"name": "a", "sink": "dynamodb", "table": "One", "max_concurrency": 800},
        {"name": "a", "sink": "dynamodb", "tables": "Two", "table": "One", "max_concurrency": 0},
        {"name": "sql", "sink": "postgres", "table": "orders", "columns": {"key": {"path": "id", "type": "text"}}},
        {"name": "sql", "sink": "postgres", "table": "orders_live", "otherwise": "drop"},
        {"name": "a", "sink": "dynamo", "table": "Three", "max_concurrency": 200},
        {"name": "sql"},
    ]});
    let found = problems(&text.to_string());
    let assert_reported = |pointer: &str, part: &str| {
        let reasons = found.iter().filter(|(its, reason)| its == pointer && reason.contains(part));
        assert_eq!(reasons.count(), 1, "{pointer} {part}: {found:?}");
    };
    assert_reported("/replicas/1/name", "the name of /replicas/0");
    assert_reported("/replicas/1/table", "the table or view of /replicas/0");
    assert_reported("/replicas/3/name", "the name of /replicas/2");
    assert_reported("/replicas/3/table", "the table or view of /replicas/2");
    assert_reported("/replicas/4/name", "the name of /replicas/0");
    assert_reported("/replicas/5/name", "the name of /replicas/2");
    assert_reported("/replicas", "max_concurrency of 1000 in total");
}

#[test]
fn contradictions_of_rules_are_reported_although_other_rules_have_problems() {
    for (rules, expected) in [
        (
            json!({"include": ["pk", "a..b"], "hash": {"c": "none"}, "rename": {"x": "z", "y": "z"}}),
            ["/include/1", "/hash/c", "/rename/y"],
        ),
        (json!({"exclude": ["a"], "hash": {"a": "pii"}, "truncate": {"b": -1}}), ["/truncate/b", "/hash/a", ""]),
        // The path that is missing may be the one that the others need.
        (json!({"include": ["pk", 7], "hash": {"c": "pii"}}), ["/include/1", "", ""]),
        (json!({"include": ["a", "b"], "rename": {"a": "b", "b": 7}}), ["/rename/b", "", ""]),
    ] {
        let replica = json!({"name": "a", "sink": "dynamodb", "table": "One", "attributes": rules});
        let secret = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:pii";
        let text = json!({"version": 1, "replicas": [replica], "hash_keys": {"pii": secret}});
        let found = problems(&text.to_string());
        let pointers: Vec<&str> = found.iter().map(|(pointer, _)| pointer.as_str()).collect();
        let expected = expected.iter().filter(|location| !location.is_empty());
        let expected: Vec<String> = expected.map(|location| format!("/replicas/0/attributes{location}")).collect();
        assert_eq!(pointers, expected, "{rules}: {found:?}");
    }
}

#[test]
fn rename_that_leaves_a_column_without_its_value_is_rejected() {
    let document = |path: &str, rename: &serde_json::Value| {
        let columns = json!({"amount": {"path": path, "type": "numeric"}});
        let replica = json!({"name": "sql", "sink": "postgres", "table": "orders", "attributes": {"rename": rename}});
        json!({"version": 1, "columns": columns, "replicas": [replica]}).to_string()
    };
    let rename = json!({"total": "sum"});
    let found = problems(&document("total", &rename));
    assert!(
        matches!(&found[..], [(pointer, reason)] if pointer == "/replicas/0/attributes/rename/total"
            && reason.contains("the column \"amount\"") && reason.contains("set the path of the column to sum")),
        "{found:?}"
    );
    assert_eq!(problems(&document("total.amount", &rename)).len(), 1, "a part of the renamed value");
    for (path, rename) in
        [("sum", rename), ("total", json!({"total": "sum", "other": "total"})), ("other", json!({"total": "sum"}))]
    {
        assert!(ReplicationDocument::parse(&document(path, &rename)).is_ok(), "{path} {rename}");
    }
    let found = problems(&document("other", &json!({"total": "a\u{0}"})));
    assert!(matches!(&found[..], [(_, reason)] if reason.contains("U+0000")), "{found:?}");
}

#[test]
fn a_table_of_postgres_has_its_columns_in_their_order() {
    let text = r#"{"version":1,"replicas":[{"name":"sql","sink":"postgres","table":"order items","columns":{
        "b":{"path":"x.y[0]","type":"text"},"a\"b":{"path":"t","type":"timestamptz","format":"epoch_seconds"},
        "select":{"path":"s","type":"text[]"},"größe":{"path":"g","type":"numeric"}},"otherwise":"quarantine"}]}"#;
    let document = ReplicationDocument::parse(text).unwrap();
    let SinkSettings::Postgres(table) = &document.replicas()[0].sink else { panic!("a table") };
    assert_eq!(table.view().quoted(), "\"order items_live\"");
    assert_eq!(table.reader_role().as_str(), "millrace_order items_reader");
    let names: Vec<&str> = table.columns.definitions().iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["b", "a\"b", "select", "größe"]);
    assert_eq!(ReplicationDocument::parse(&document.to_json()).unwrap(), document);
    let long = |length: usize| document_of_table(&"t".repeat(length));
    assert!(ReplicationDocument::parse(&long(47)).is_ok());
    assert!(problems(&long(48))[0].1.contains("at most 47"));
}

#[test]
fn text_column_may_be_folded_and_has_no_other_format() {
    let with_format = |format: &str| {
        let columns = json!({"name": {"path": "name", "type": "text", "format": format}});
        let replica = json!({"name": "sql", "sink": "postgres", "table": "users", "columns": columns});
        json!({"version": 1, "replicas": [replica]}).to_string()
    };
    let document = ReplicationDocument::parse(&with_format("case_folded")).unwrap();
    let table = document.replicas()[0].postgres_table().unwrap();
    assert_eq!(table.columns.definitions()[0].kind, ColumnType::FoldedText);
    assert!(document.to_json().contains(r#""format":"case_folded""#), "{}", document.to_json());
    let [(pointer, reason)] = &problems(&with_format("rfc3339"))[..] else { panic!("one problem") };
    assert_eq!(pointer, "/replicas/0/columns/name/format");
    assert_eq!(reason, "is \"rfc3339\": set it to case_folded");
}

/// Returns the problems of a document with these shared columns and one PostgreSQL replica.
fn with_columns(columns: &serde_json::Value) -> String {
    let replicas = json!([
        {"name": "sql", "sink": "postgres", "table": "orders"},
        {"name": "own", "sink": "postgres", "table": "lines", "columns": {"sku": {"path": "sku", "type": "text"}}},
        {"name": "none", "sink": "postgres", "table": "parts", "columns": {}},
    ]);
    json!({"version": 1, "replicas": replicas, "columns": columns}).to_string()
}

#[test]
fn columns_of_the_document_are_those_of_each_table_without_its_own() {
    let columns = json!({"amount": {"path": "total", "type": "numeric"}, "city_2": {"path": "a.b", "type": "text"}});
    let document = ReplicationDocument::parse(&with_columns(&columns)).unwrap();
    let names = |columns: &TableColumns| -> Vec<String> {
        columns.definitions().iter().map(|column| column.name.clone()).collect()
    };
    assert_eq!(names(document.columns()), ["amount", "city_2"]);
    let of = |index: usize| match &document.replicas()[index].sink {
        SinkSettings::Postgres(table) => names(&table.columns),
        other => panic!("{other:?}"),
    };
    assert_eq!((of(0), of(1), of(2)), (names(document.columns()), vec!["sku".to_owned()], Vec::new()));
    assert_eq!(ReplicationDocument::parse(&document.to_json()).unwrap(), document);
}

#[test]
fn column_of_the_document_has_a_name_that_every_store_reads_alike() {
    let column = json!({"path": "total", "type": "text"});
    for (name, part) in [
        ("Amount", "use a lowercase letter"),
        ("größe", "use a lowercase letter"),
        ("order date", "use a lowercase letter"),
        ("_id", "use a lowercase letter"),
        ("7days", "use a lowercase letter"),
        ("a\"b", "use a lowercase letter"),
        ("", "is empty"),
        (&*"x".repeat(64), "64 bytes"),
        ("removed_at", "every Parquet file has"),
        ("dt", "every Parquet file has"),
        ("sort_key_integer", "every Parquet file has"),
        ("item", "every table has"),
        ("deleted_at", "every table has"),
    ] {
        let found = problems(&with_columns(&json!({ name: column })));
        let [(pointer, reason)] = &found[..] else { panic!("{name}: {found:?}") };
        assert_eq!(*pointer, member_pointer("/columns", name));
        assert!(reason.contains(part), "{name}: {reason}");
    }
    let found = problems(&with_columns(&json!({"amount": {"path": "total", "type": "decimal"}})));
    assert_eq!(found[0].0, "/columns/amount/type");
    let found = problems(&with_columns(&json!([])));
    assert_eq!((&*found[0].0, found.len()), ("/columns", 1));
}

fn document_of_table(table: &str) -> String {
    document(&json!([{"name": "sql", "sink": "postgres", "table": table}]))
}

#[test]
fn a_member_that_occurs_twice_is_refused() {
    let text = r#"{"version":1,"version":1,"replicas":[
        {"name":"a","sink":"dynamodb","table":"One","table":"Two"}]}"#;
    let found = problems(text);
    assert_eq!(found.iter().map(|(at, _)| at.as_str()).collect::<Vec<_>>(), ["/version", "/replicas/0/table"]);
    assert!(found.iter().all(|(_, why)| why.contains("occurs twice")), "{found:?}");
}

#[test]
fn invalid_replication_document_error_names_the_expected_value() {
    for (text, reason) in [
        ("Orders", "is not valid JSON"),
        ("{\"version\":1,", "is not valid JSON"),
        ("[]", "is a list: set it to a replication document"),
        ("null", "is null: set it to a replication document"),
        ("{\"version\":1,\"replicas\":{}}", "is an object: set it to a list of replicas"),
    ] {
        let error = ReplicationDocument::parse(text).unwrap_err().to_string();
        assert!(error.starts_with("REPLICATION ") && error.contains(reason), "{error}");
    }
}

#[test]
fn a_location_is_an_s3_url_with_a_bucket_and_a_key() {
    let location = DocumentLocation::parse(" s3://orders-config/replication/v1.json").unwrap().unwrap();
    assert_eq!((location.bucket.as_str(), location.key.as_str()), ("orders-config", "replication/v1.json"));
    assert_eq!(DocumentLocation::parse("{\"version\":1}").unwrap(), None);
    for text in ["s3://", "s3://bucket", "s3://bucket/", "s3:///key", "s3://A_b/key"] {
        let problem = DocumentLocation::parse(text).unwrap_err().to_string();
        assert!(problem.contains(text) && problem.contains("s3://<bucket>/<key>"), "{problem}");
    }
}

/// JSON of any shape, with the names of members that a document has.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let texts = prop_oneof![
        Just("dynamodb"),
        Just("archive"),
        Just("postgres"),
        Just("numeric"),
        Just("timestamptz"),
        Just("expired"),
        Just("staging"),
        Just("Orders"),
        Just(STAGING),
        Just(ROLE),
        Just("eu-west-1"),
        Just(""),
    ];
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        texts.prop_map(|text| json!(text)),
        ".{0,12}".prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let names = DOCUMENT_MEMBERS.iter().chain(&DYNAMODB_MEMBERS).chain(&ARCHIVE_MEMBERS);
        let names = names.chain(&POSTGRES_MEMBERS).chain(&postgres_table::COLUMN_MEMBERS);
        let names: Vec<String> = names.map(|name| (*name).to_owned()).collect();
        let name = prop_oneof![proptest::sample::select(names), ".{0,6}"];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(|values| json!(values)),
            proptest::collection::hash_map(name, inner, 0..6).prop_map(|members| json!(members)),
        ]
    })
}

fn valid_table() -> impl Strategy<Value = PostgresTable> {
    let kind = proptest::sample::select(ColumnType::NAMES.to_vec()).prop_map(|name| ColumnType::parse(name).unwrap());
    let time = proptest::sample::select(TimestampFormat::NAMES.to_vec());
    let time = time.prop_map(|name| ColumnType::Timestamp(TimestampFormat::parse(name).unwrap()));
    let column = (r"[a-zé.\[\]\\]{1,6}", prop_oneof![kind, time, Just(ColumnType::FoldedText)])
        .prop_map(|(attribute, kind)| (AttributePath::from_attribute(attribute), kind));
    let columns = proptest::collection::btree_map("[a-zé \"']{1,12}", column, 0..6);
    (r#"[a-z "é$]{1,20}"#, columns, any::<bool>()).prop_map(|(table, columns, quarantines)| {
        let is_free = |name: &String| !["key", "revision", "item", "expired", "xmin", "cmin"].contains(&name.as_str());
        let columns = columns.into_iter().filter(|(name, _)| is_free(name));
        let columns = columns.map(|(name, (path, kind))| ColumnDefinition { name, path, kind }).collect();
        let otherwise = if quarantines { OtherwiseRule::Quarantine } else { OtherwiseRule::Null };
        PostgresTable {
            table: SqlIdentifier::parse(&table, 47).unwrap(),
            columns: TableColumns::new(columns, otherwise),
        }
    })
}

fn valid_document() -> impl Strategy<Value = ReplicationDocument> {
    let table = |index: usize| {
        let role = proptest::option::of(Just(RoleArn::parse(ROLE).unwrap()));
        let region = proptest::option::of(proptest::sample::select(vec!["eu-west-1", "us-gov-east-1"]));
        (any::<bool>(), region, role, 1..=28_usize).prop_map(move |(by_arn, own, role_arn, max_concurrency)| {
            let text = if by_arn { format!("{STAGING}-{index}") } else { format!("Table_{index}") };
            let table = TableAddress::parse(&text).unwrap();
            let region = table.region().or(own).map(str::to_owned);
            let settings = TableSettings { table, region, role_arn, max_concurrency };
            let name = SinkName::parse(&format!("replica-{index}")).unwrap();
            ReplicaEntry { name, sink: SinkSettings::DynamoDb(settings), transform: TransformSettings::default() }
        })
    };
    (1..=8_usize, any::<bool>(), valid_table()).prop_flat_map(move |(count, archives, relational)| {
        let tables: Vec<_> = (0..count).map(table).collect();
        tables.prop_map(move |mut replicas| {
            let name = SinkName::parse("sql").unwrap();
            let (sink, transform) = (SinkSettings::Postgres(relational.clone()), TransformSettings::default());
            replicas.push(ReplicaEntry { name, sink, transform });
            if archives {
                let name = SinkName::parse("archive").unwrap();
                let sink = SinkSettings::Archive { records: ArchivedRecords::Expired };
                replicas.push(ReplicaEntry { name, sink, transform: TransformSettings::default() });
            }
            let path = AttributePath::from_attribute("total".to_owned());
            let column = ColumnDefinition { name: "amount_7".to_owned(), path, kind: ColumnType::Numeric };
            let columns = if archives { vec![column] } else { Vec::new() };
            let columns = TableColumns::new(columns, OtherwiseRule::Null);
            ReplicationDocument { version: 1, replicas, columns, hash_keys: BTreeMap::new() }
        })
    })
}

proptest! {
    #[test]
    fn parsing_never_panics_and_quotes_a_pointer_for_each_problem(
        text in prop_oneof![".{0,200}", any_json().prop_map(|value| value.to_string())]
    ) {
        if let Err(invalid) = ReplicationDocument::parse(&text) {
            prop_assert!(!invalid.problems().is_empty());
            let value: Option<serde_json::Value> = serde_json::from_str(&text).ok();
            for problem in invalid.problems() {
                // A member that is missing has the pointer of the object that lacks it, and its name.
                let parent = problem.pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
                prop_assert!(value.as_ref().is_none_or(|value| value.pointer(parent).is_some()), "{problem}");
            }
        }
    }

    #[test]
    fn a_valid_document_round_trips(document in valid_document()) {
        let parsed = ReplicationDocument::parse(&document.to_json());
        prop_assert_eq!(parsed, Ok(document));
    }
}

const SECRET: &str = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:pii-AbCdEf";

fn masked() -> serde_json::Value {
    json!({
        "version": 1,
        "replicas": [{
            "name": "staging", "sink": "dynamodb", "table": STAGING,
            "where": [{"status": {"S": [{"anything-but": ["draft"]}]}}],
            "attributes": {
                "include": ["pk", "sk", "status", "total", "address.city", "email"],
                "hash": {"email": "pii"},
                "truncate": {"status": 4},
                "rename": {"total": "amount"},
            },
        }],
        "hash_keys": {"pii": SECRET},
    })
}

#[test]
fn transformation_is_read_with_its_hash_keys_and_round_trips() {
    let document = ReplicationDocument::parse(&masked().to_string()).unwrap();
    let transform = &document.replicas()[0].transform;
    let attributes = &transform.attributes;
    assert_eq!(attributes.include.as_ref().unwrap().len(), 6);
    assert_eq!(attributes.hash.values().collect::<Vec<_>>(), ["pii"]);
    assert_eq!(attributes.truncate.values().collect::<Vec<_>>(), [&4]);
    assert!(transform.filter.is_some());
    assert_eq!(document.hash_keys()["pii"].as_str(), SECRET);
    assert_eq!(ReplicationDocument::parse(&document.to_json()), Ok(document));
}

#[test]
fn every_problem_of_a_transformation_is_reported_at_once() {
    let found = problems(
        r#"{"version": 1, "hash_keys": {"pii": "secret", "pii": "x"}, "replicas": [
            {"name": "a", "sink": "dynamodb", "table": "One", "attributes": {
                "includes": ["pk"], "include": ["a..b", 7], "hash": {"email": "pi", "x[": "pii"},
                "truncate": {"note": -1}, "rename": {"total": 3}}},
            {"name": "b", "sink": "dynamodb", "table": "Two",
             "where": [{"$or": []}, {"a": {"N": [{"numeric": [">", 1]}]}}, {"a": {"S": ["x"], "S": ["y"]}}]},
            {"name": "c", "sink": "dynamodb", "table": "Three", "where": {}, "attributes": {}},
            {"name": "d", "sink": "dynamodb", "table": "Four", "attributes": {
                "include": ["pk", "a", "b"], "exclude": ["c"], "rename": {"a": "b"}}},
            {"name": "archive", "sink": "archive", "records": "expired", "where": []}
        ]}"#,
    );
    for (pointer, part) in [
        ("/replicas/0/attributes/includes", "did you mean \"include\"?"),
        ("/replicas/0/attributes/include/0", "is not a path at character 3: has an empty name"),
        ("/replicas/0/attributes/include/1", "is 7: set it to a path"),
        ("/replicas/0/attributes/hash/email", "did you mean \"pii\"?"),
        ("/replicas/0/attributes/hash/x[", "is not a path at character 3"),
        ("/replicas/0/attributes/truncate/note", "is -1: set it to a number of characters"),
        ("/replicas/0/attributes/rename/total", "is 3: set it to the new name"),
        ("/replicas/1/where/0/$or", "pattern of its own"),
        ("/replicas/1/where/1/a/N/0/numeric", "is not supported"),
        ("/replicas/1/where/2/a/S", "occurs twice"),
        ("/replicas/2/where", "is an object: set it to a list of patterns"),
        ("/replicas/2/attributes", "is empty"),
        ("/replicas/3/attributes/exclude", "in addition to include"),
        ("/replicas/3/attributes/rename/a", "which include contains as well"),
        ("/replicas/4/where", "is not a member of an archive"),
        ("/hash_keys/pii", "set it to arn:aws:secretsmanager"),
        ("/hash_keys/pii", "occurs twice"),
    ] {
        assert!(
            found.iter().any(|(at, reason)| at == pointer && reason.contains(part)),
            "{pointer} {part}: {found:#?}"
        );
    }
}

#[test]
fn paths_of_a_replica_are_limited_in_number() {
    let paths = |count: usize| (0..count).map(|n| format!("a{n}")).collect::<Vec<_>>();
    let document = |excluded: usize| {
        let attributes = json!({"exclude": paths(excluded), "rename": {"x": "y"}});
        let replica = json!({"name": "a", "sink": "dynamodb", "table": "One", "attributes": attributes});
        json!({"version": 1, "replicas": [replica]}).to_string()
    };
    assert!(ReplicationDocument::parse(&document(999)).is_ok());
    let expected = "has 1001 paths: at most 1000 are allowed".to_owned();
    assert_eq!(problems(&document(1_000)), [("/replicas/0/attributes".to_owned(), expected)]);
}

#[test]
fn reserved_names_depend_on_the_prefix() {
    let mut document = masked();
    document["replicas"][0]["attributes"]["rename"]["total"] = json!("mr_rev");
    let document = ReplicationDocument::parse(&document.to_string()).unwrap();
    let problems =
        |prefix| document.reserved_problems(&millrace_shared::replica_item::ReservedNames::parse(prefix).unwrap());
    assert_eq!(problems("_"), []);
    let found = problems("mr_");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].pointer, "/replicas/0/attributes/rename/total");
    assert!(found[0].reason.contains("is reserved"), "{}", found[0].reason);
}
