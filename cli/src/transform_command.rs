//! `millrace transform`: the items that each replica of a document would store, for sample items ([`TransformCommand`]).
//!
//! It reads the document and sample items, of a file or of a table, and changes nothing, so that a document is seen at
//! work before anything is deployed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use millrace_local::import::{ImportSource, sample_items};
use millrace_local::stack::HASH_KEY;
use millrace_shared::change::ItemImage;
use millrace_shared::replica_item::ReservedNames;
use millrace_sinks::document::{ReplicaEntry, ReplicationDocument, SinkSettings};
use millrace_transform::columns::{ColumnValue, TableColumns};
use millrace_transform::{HashKey, ItemTransform, RuleProblem};
use serde_json::value::RawValue;

use crate::attach::{AccountConnection, AccountOptions, TableReference, TableSample};
use crate::options::{read_document, refuse};
use crate::standard_output::write_output;

/// The maximum number of items that are read.
const MAX_ITEMS: usize = 10_000;

/// The arguments of `millrace transform`.
#[derive(Debug, clap::Args)]
pub(crate) struct TransformCommand {
    /// Replication document
    #[arg(long, value_name = "FILE")]
    document: PathBuf,
    /// Sample items: an export of DynamoDB to S3 in DynamoDB JSON (its folder or a data file), or a file with one item in
    /// DynamoDB JSON on each line; at most the first 10,000 are read
    #[arg(long, value_name = "PATH", required_unless_present = "table", requires = "key")]
    items: Option<PathBuf>,
    /// Names of the table's key attributes, separated by a comma; with --items
    #[arg(long, value_name = "NAMES", value_delimiter = ',', num_args = 1, conflicts_with = "table")]
    key: Vec<String>,
    /// Name or ARN of a table whose items are the sample; it is only read
    #[arg(long, value_name = "TABLE", conflicts_with = "items", value_parser = TableReference::parse)]
    table: Option<TableReference>,
    /// Maximum number of items to read from the table
    #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..),
          conflicts_with = "items")]
    sample: u16,
    /// Send the requests for the table to this URL, such as that of a running `millrace`
    #[arg(long, value_name = "URL", conflicts_with = "items")]
    endpoint_url: Option<String>,
    /// Profile of the AWS configuration files (default: as for the AWS CLI)
    #[arg(long, value_name = "NAME", conflicts_with = "items")]
    profile: Option<String>,
    /// Region of the table (default: that of the ARN, or as for the AWS CLI)
    #[arg(long, value_name = "NAME", conflicts_with = "items")]
    region: Option<String>,
    /// Number of items to print for each replica
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    show: usize,
}

impl TransformCommand {
    /// Prints the report.
    pub(crate) async fn run(&self) -> ExitCode {
        match self.report().await {
            Ok(text) => write_output(text).map_or_else(|problem| refuse(&problem), |()| ExitCode::SUCCESS),
            Err(problems) => refuse(&problems),
        }
    }

    async fn report(&self) -> Result<String, String> {
        let document = read_document(&self.document)?;
        let TableSample { key, items } = self.sample_items().await?;
        report(&document, &items, &key, self.show)
    }

    async fn sample_items(&self) -> Result<TableSample, String> {
        if let Some(table) = &self.table {
            let region = table.region(self.region.as_deref())?;
            let (profile, endpoint_url) = (self.profile.clone(), self.endpoint_url.clone());
            let connection = Box::pin(AccountConnection::open(AccountOptions { region, profile, endpoint_url })).await;
            let connection = connection.map_err(|error| error.to_string())?;
            let sample = Box::pin(connection.sample(&table.to_string(), self.sample.into())).await?;
            return if sample.items.is_empty() { Err(format!("--table: {table} has no item")) } else { Ok(sample) };
        }
        let Some(path) = &self.items else { return Err("--items or --table is missing".to_owned()) };
        let source = ImportSource::open(path).map_err(|error| format!("--items: {error}"))?;
        let items = sample_items(source, MAX_ITEMS).map_err(|error| format!("--items: {error}"))?;
        if items.is_empty() {
            return Err("--items: no item found: write one item in DynamoDB JSON on each line".to_owned());
        }
        Ok(TableSample { key: self.key.clone(), items })
    }
}

/// Returns the report about sample items, or the problems of the document.
fn report(document: &str, items: &[String], key: &[String], show: usize) -> Result<String, String> {
    let joined = |problems: Vec<String>| problems.join("\n");
    let document = ReplicationDocument::parse(document)
        .map_err(|invalid| joined(invalid.problems().iter().map(ToString::to_string).collect()))?;
    let constant = HashKey::new(HASH_KEY.as_bytes()).map_err(|error| error.to_string())?;
    let keys: BTreeMap<String, HashKey> =
        document.hash_keys().keys().map(|name| (name.clone(), constant.clone())).collect();
    let mut text = String::new();
    let mut problems = Vec::new();
    for (index, entry) in document.replicas().iter().enumerate() {
        let transform = ItemTransform::new(&entry.transform, &keys).map_err(|error| error.to_string())?;
        let of_rule = |problem: &RuleProblem| {
            format!("REPLICATION /replicas/{index}/attributes{} {}", problem.pointer, problem.reason)
        };
        problems.extend(transform.key_problems(key).iter().map(of_rule));
        describe(&mut text, entry, &transform, items, key, show);
    }
    problems.extend(missing_key(items, key));
    if !problems.is_empty() {
        return Err(joined(problems));
    }
    for problem in document.reserved_problems(&ReservedNames::default()) {
        add(&mut text, &format!("Rejected by a replicator without the parameter ReservedPrefix: {problem}"));
    }
    if !document.columns().definitions().is_empty() {
        add(&mut text, "Parquet files of the archive: the items as they are, with the columns of the document");
        for item in items.iter().take(show) {
            add(&mut text, &format!("    columns: {}", column_values(document.columns(), item)));
        }
    }
    if !document.hash_keys().is_empty() {
        text.push_str("Hashes are shown with a constant key, not with those of the secrets.\n");
    }
    Ok(text)
}

/// Returns the problem of the first item without one of the key attributes: every item of the table has them.
fn missing_key(items: &[String], key: &[String]) -> Option<String> {
    items.iter().zip(1..).find_map(|(item, number)| {
        let given: BTreeSet<String> = names(item).collect();
        let name = key.iter().find(|name| !given.contains(*name))?;
        Some(format!("--key: item {number} has no attribute {name:?}: pass the names of the table's key attributes"))
    })
}

/// Appends the part of the report about one replica.
fn describe(
    text: &mut String,
    entry: &ReplicaEntry,
    transform: &ItemTransform,
    items: &[String],
    key: &[String],
    show: usize,
) {
    let columns = match &entry.sink {
        SinkSettings::Postgres(table) => Some(&table.columns),
        SinkSettings::DynamoDb(_) => None,
        SinkSettings::Archive { .. } => {
            add(text, &format!("{}: items are archived as they are when TTL removes them", entry.name));
            return;
        }
    };
    let (mut replicated, mut quarantined) = (Vec::new(), Vec::new());
    let (mut stored, mut given) = (BTreeSet::new(), BTreeSet::new());
    for (item, number) in items.iter().zip(1..) {
        match transformed(transform, key, item) {
            Ok(Some(result)) => {
                given.extend(names(item));
                stored.extend(names(&result));
                replicated.push(result);
            }
            Ok(None) => {}
            Err(error) => quarantined.push(format!("item {number}: {error}")),
        }
    }
    let listed = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
    add(text, &format!("{}: {} of {} items are replicated", entry.name, replicated.len(), items.len()));
    add(text, &format!("  stored attributes: {}", listed(&stored)));
    let removed: BTreeSet<String> = given.difference(&stored).cloned().collect();
    if !removed.is_empty() {
        add(text, &format!("  removed or renamed attributes: {}", listed(&removed)));
    }
    let hash = &entry.transform.attributes.hash;
    if !hash.is_empty() {
        let hashed: Vec<String> = hash.iter().map(|(path, name)| format!("{path} ({name})")).collect();
        add(text, &format!("  hashed: {}", hashed.join(", ")));
    }
    for error in quarantined.iter().take(show) {
        add(text, &format!("  quarantined: {error}"));
    }
    if quarantined.len() > show {
        add(text, &format!("  quarantined: {} more items", quarantined.len() - show));
    }
    for item in replicated.iter().take(show) {
        add(text, &format!("  {item}"));
        if let Some(columns) = columns.filter(|columns| !columns.definitions().is_empty()) {
            add(text, &format!("    columns: {}", column_values(columns, item)));
        }
    }
}

fn add(text: &mut String, line: &str) {
    // Writing to a text does not fail.
    let _ = writeln!(text, "{line}");
}

fn transformed(transform: &ItemTransform, key: &[String], item: &str) -> Result<Option<String>, String> {
    let image: &RawValue = serde_json::from_str(item).map_err(|error| error.to_string())?;
    let image = ItemImage::parse(image).ok_or("the item is not an object")?;
    transform.apply(key, image).map_err(|error| error.to_string())
}

/// Returns the names of an item's attributes.
fn names(item: &str) -> impl Iterator<Item = String> {
    let attributes: Result<BTreeMap<String, &RawValue>, _> = serde_json::from_str(item);
    attributes.unwrap_or_default().into_keys()
}

/// Returns the typed columns of an item as one text.
fn column_values(columns: &TableColumns, item: &str) -> String {
    let values = match columns.read(item) {
        Ok(values) => values,
        Err(error) => return format!("quarantined: {error}"),
    };
    let column = |(index, value): (usize, &Option<ColumnValue<'_>>)| {
        let text = match value {
            Some(value) => column_text(value),
            None if values.replaced_by_null.contains(&index) => "null (the value does not fit)".to_owned(),
            None => "null".to_owned(),
        };
        format!("{} = {text}", columns.definitions()[index].name)
    };
    values.values.iter().enumerate().map(column).collect::<Vec<_>>().join(", ")
}

fn column_text(value: &ColumnValue<'_>) -> String {
    match value {
        ColumnValue::Text(text) => format!("{text:?}"),
        ColumnValue::Numeric(number) => number.to_string(),
        ColumnValue::BigInt(number) => number.to_string(),
        ColumnValue::Boolean(value) => value.to_string(),
        ColumnValue::Timestamp(time) => time.to_string(),
        ColumnValue::Date(date) => date.to_string(),
        ColumnValue::Json(json) => json.clone(),
        ColumnValue::Bytes(bytes) => format!("{} bytes", bytes.len()),
        ColumnValue::TextArray(texts) => format!("{texts:?}"),
        ColumnValue::NumericArray(numbers) => format!("[{}]", numbers.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct TestCommand {
        #[command(flatten)]
        transform: TransformCommand,
    }

    const DOCUMENT: &str = r#"{"version":1,"hash_keys":{"pii":"arn:aws:secretsmanager:eu-west-1:111122223333:secret:pii"},
        "replicas":[{"name":"staging","sink":"dynamodb","table":"Staging","where":[{"status":{"S":["paid"]}}],
        "attributes":{"include":["pk","status","email"],"hash":{"email":"pii"}}},
        {"name":"sql","sink":"postgres","table":"orders","columns":{"total":{"path":"total","type":"bigint"},
        "state":{"path":"status","type":"text"}}},
        {"name":"archive","sink":"archive","records":"expired"}],
        "columns":{"mail":{"path":"email","type":"text"}}}"#;
    const ITEMS: &str = "{\"pk\":{\"S\":\"1\"},\"status\":{\"S\":\"paid\"},\"email\":{\"S\":\"ada@example.com\"},\
        \"total\":{\"N\":\"1.5\"}}\n\n{\"Item\":{\"pk\":{\"S\":\"2\"},\"status\":{\"S\":\"draft\"}}}\n";

    async fn report_of(document: &str, items: &str, key: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let (document_file, items_file) = (folder.path().join("document.json"), folder.path().join("items.ndjson"));
        std::fs::write(&document_file, document).unwrap();
        std::fs::write(&items_file, items).unwrap();
        let paths = [document_file, items_file].map(|path| path.to_str().unwrap().to_owned());
        let line = ["transform", "--document", &paths[0], "--items", &paths[1], "--key", key, "--show", "1"];
        TestCommand::try_parse_from(line).unwrap().transform.report().await
    }

    #[tokio::test]
    async fn report_shows_what_each_replica_stores() {
        let text = report_of(DOCUMENT, ITEMS, "pk").await.unwrap();
        for part in [
            "staging: 1 of 2 items are replicated\n  stored attributes: email, pk, status\n",
            "  removed or renamed attributes: total\n  hashed: email (pii)\n  {\"pk\":{\"S\":\"1\"},\"status\":",
            "sql: 2 of 2 items are replicated\n  stored attributes: email, pk, status, total\n  {\"pk\"",
            "    columns: total = null (the value does not fit), state = \"paid\"\n",
            "archive: items are archived as they are",
            "Parquet files of the archive: the items as they are, with the columns of the document\n    columns: mail = \"ada",
            "Hashes are shown with a constant key",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let staging = text.split("sql:").next().unwrap();
        assert!(!staging.contains("ada@example.com"), "{text}");
    }

    #[tokio::test]
    async fn invalid_files_are_rejected_with_the_fix() {
        for (document, items, key, part) in [
            ("{}", ITEMS, "pk", "REPLICATION /version is missing"),
            ("# Replicas", ITEMS, "pk", "document.json is not JSON (expected value at line 1 column 1): correct it"),
            (DOCUMENT, "", "pk", "no item found"),
            (DOCUMENT, "{\"pk\":1}", "pk", "items.ndjson:1: attribute \"pk\" is plain JSON"),
            (DOCUMENT, "x", "pk", "items.ndjson:1: not JSON"),
            (DOCUMENT, ITEMS, "id", "REPLICATION /replicas/0/attributes/include lacks id"),
            (DOCUMENT, ITEMS, "pk,total", "--key: item 2 has no attribute \"total\": pass the names"),
        ] {
            let error = report_of(document, items, key).await.unwrap_err();
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[tokio::test]
    async fn rule_for_an_attribute_of_replication_is_pointed_out() {
        let document = r#"{"version":1,"replicas":[{"name":"copy","sink":"dynamodb","table":"Copy",
            "attributes":{"rename":{"status":"_rev"}}}]}"#;
        let text = report_of(document, ITEMS, "pk").await.unwrap();
        let expected = "without the parameter ReservedPrefix: REPLICATION /replicas/0/attributes/rename/status";
        assert!(text.contains(expected), "{text}");
    }
}
