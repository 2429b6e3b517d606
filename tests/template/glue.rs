//! The Glue table of the Parquet files has the columns that the export writes, for each key schema.

use std::collections::BTreeMap;

use millrace_maintenance::parquet::{ColumnDefinition, ParquetSchema};
use serde_json::Value;

use super::tiers::section;

const PATH: &str = "infra/replication.yaml";

/// The conditions and the parameters of a deployment.
struct GlueChoices {
    conditions: BTreeMap<String, Value>,
    parameters: BTreeMap<&'static str, String>,
}

impl GlueChoices {
    /// Decides a condition that compares a parameter, or a part of it.
    fn holds(&self, condition: &str) -> bool {
        if condition == "HasEmails" {
            return self.parameters["EmailsTableArn"] != "none";
        }
        if condition == "HasSortKey" {
            return self.parameters["SortKey"] != "none";
        }
        let sides = self.conditions[condition].as_array().unwrap();
        let [Value::Array(select), Value::String(expected)] = &sides[..] else { panic!("{condition}: {sides:?}") };
        let (index, split) = (select[0].as_u64().unwrap(), select[1].as_array().unwrap());
        // `!Sub` of one parameter, with a text after it.
        let pattern = split[1].as_str().unwrap();
        let (name, rest) = pattern.strip_prefix("!Sub ${").and_then(|pattern| pattern.split_once('}')).unwrap();
        let text = format!("{}{rest}", self.parameters[name]);
        let parts: Vec<&str> = text.split(split[0].as_str().unwrap()).collect();
        parts[usize::try_from(index).unwrap()] == expected
    }

    /// Decides an `If`, which is a list here.
    fn decide<'n>(&self, node: &'n Value) -> &'n Value {
        match node.as_array().map(Vec::as_slice) {
            Some([condition, then, otherwise]) => {
                if self.holds(condition.as_str().unwrap()) {
                    then
                } else {
                    otherwise
                }
            }
            _ => node,
        }
    }

    /// Returns the name and the type of each column.
    fn columns(&self) -> Vec<(String, String)> {
        let resources = section(PATH, "Resources");
        let columns = &resources["ArchiveExpiredItems"]["Properties"]["TableInput"]["StorageDescriptor"]["Columns"];
        let columns = columns.as_array().unwrap().iter().map(|column| self.decide(column));
        let text = |node: &Value| self.decide(node).as_str().unwrap().to_owned();
        columns
            .filter(|column| *column != "!Ref AWS::NoValue")
            .map(|column| {
                assert!(column["Comment"].as_str().unwrap_or_default().len() <= 255, "Glue's limit: {column}");
                (text(&column["Name"]), text(&column["Type"]))
            })
            .collect()
    }
}

/// Returns the columns of the schema with the types that Glue has for them.
fn written(key: &[&str], users: bool) -> Vec<(String, String)> {
    let key: Vec<_> = key
        .iter()
        .map(|key| key.split_once(':').map(|(name, kind)| (name.to_owned(), kind.to_owned())).unwrap())
        .collect();
    let columns = if users { ColumnDefinition::for_users() } else { Vec::new() };
    let schema = ParquetSchema::new(&key, &columns).arrow();
    let column = |name: &String, kind: String| {
        let kind = match kind.as_str() {
            "Utf8" => "string",
            "Int64" => "bigint",
            "Binary" => "binary",
            other => other.split_once('(').map(|_| "timestamp").unwrap(),
        };
        (name.clone(), kind.to_owned())
    };
    schema.fields().iter().map(|field| column(field.name(), field.data_type().to_string())).collect()
}

/// Returns the columns of the statement that `millrace athena` prints.
fn of_athena(key: &[&str], users: bool) -> Vec<(String, String)> {
    let key: Vec<_> = key.iter().filter_map(|key| key.split_once(':')).collect();
    let key: Vec<_> = key.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect();
    let columns = if users { ColumnDefinition::for_users() } else { Vec::new() };
    let columns = ParquetSchema::new(&key, &columns).athena_columns();
    columns.into_iter().map(|(name, kind)| (name, kind.to_owned())).collect()
}

#[test]
fn table_of_parquet_files_has_the_columns_that_the_export_writes() {
    for (key, users) in [
        (&["pk:S"][..], false),
        (&["size:N"], false),
        (&["_id:B"], false),
        (&["user.id:S", "order:S"], false),
        (&["Größe:S", "sort key:N"], false),
        (&["version:N", "data:B"], false),
        (&["a:N", "b:N"], false),
        (&["user_id:S", "timestamp:N"], true),
    ] {
        let emails = if users { "arn:aws:dynamodb:eu-west-1:123456789012:table/Emails" } else { "none" };
        let parameters = [
            ("PartitionKey", key[0].to_owned()),
            ("SortKey", (*key.get(1).unwrap_or(&"none")).to_owned()),
            ("EmailsTableArn", emails.to_owned()),
        ];
        let choices = GlueChoices { conditions: section(PATH, "Conditions"), parameters: parameters.into() };
        assert_eq!(choices.columns(), written(key, users), "{key:?}");
        assert_eq!(choices.columns(), of_athena(key, users), "{key:?}");
    }
}
