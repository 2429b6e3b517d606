//! `millrace athena`: the statement that creates an Athena table over the Parquet files of an archive
//! ([`AthenaCommand`]).
//!
//! CloudFormation cannot compute the columns of a Glue table from a replication document, so the template's table has
//! the columns of every source table, and this statement creates one that also has those of the document.

use std::path::PathBuf;
use std::process::ExitCode;

use millrace_maintenance::parquet::{AthenaTable, ColumnDefinition, ParquetSchema};
use millrace_shared::item::restored::SourceSchema;
use millrace_sinks::document::ReplicationDocument;

use crate::options::{read_document, refuse};
use crate::standard_output::write_output;

/// The arguments of `millrace athena`.
#[derive(Debug, clap::Args)]
pub(crate) struct AthenaCommand {
    /// Replication document with the columns
    #[arg(long, value_name = "FILE")]
    document: PathBuf,
    /// Name of the source table, as in the keys of the archive's objects
    #[arg(long, value_name = "TABLE")]
    source_table: String,
    /// Name and type (S, N or B) of the table's partition key, such as pk:S
    #[arg(long, value_name = "NAME:TYPE", value_parser = key_attribute)]
    partition_key: (String, String),
    /// Name and type of the table's sort key, if it has one
    #[arg(long, value_name = "NAME:TYPE", value_parser = key_attribute)]
    sort_key: Option<(String, String)>,
    /// Kind of the table's items, as the functions have it: any or users
    #[arg(long, value_name = "KIND", value_parser = SourceSchema::parse, default_value = "any")]
    source_schema: SourceSchema,
    /// Archive bucket
    #[arg(long, value_name = "BUCKET", value_parser = bucket)]
    bucket: String,
    /// Glue database of the archive, which the stack's outputs name
    #[arg(long, value_name = "NAME", value_parser = glue_name)]
    database: String,
    /// Name of the table to create
    #[arg(long, value_name = "NAME", value_parser = glue_name, default_value = "expired_items_typed")]
    name: String,
}

/// Parses the name and the type of a key attribute.
fn key_attribute(text: &str) -> Result<(String, String), String> {
    match text.rsplit_once(':') {
        Some((name, kind @ ("S" | "N" | "B"))) if !name.is_empty() => Ok((name.to_owned(), kind.to_owned())),
        _ => Err("set it to the name and the type S, N or B, such as pk:S".to_owned()),
    }
}

fn bucket(text: &str) -> Result<String, String> {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    if (3..=63).contains(&text.len()) && text.bytes().all(is_name) {
        return Ok(text.to_owned());
    }
    Err("set it to the name of a bucket: 3 to 63 lowercase letters, digits, dots or hyphens".to_owned())
}

fn glue_name(text: &str) -> Result<String, String> {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    if (1..=255).contains(&text.len()) && text.bytes().all(is_name) {
        return Ok(text.to_owned());
    }
    Err("set it to 1 to 255 lowercase letters, digits, underscores or hyphens, as Athena requires".to_owned())
}

impl AthenaCommand {
    /// Prints the statement.
    pub(crate) fn run(&self) -> ExitCode {
        match self.statement() {
            Ok(text) => write_output(text).map_or_else(|problem| refuse(&problem), |()| ExitCode::SUCCESS),
            Err(problems) => refuse(&problems),
        }
    }

    fn statement(&self) -> Result<String, String> {
        let path = self.document.display();
        let text = read_document(&self.document)?;
        let document = ReplicationDocument::parse(&text).map_err(|invalid| invalid.to_string())?;
        let declared = document.columns().clone();
        if declared.definitions().is_empty() {
            return Err(format!(
                "--document: {path} has no member columns: add it, or use the table expired_items of the template"
            ));
        }
        let attributes = match self.source_schema {
            SourceSchema::Users => ColumnDefinition::for_users(),
            SourceSchema::Any => Vec::new(),
        };
        let key: Vec<(String, String)> = [&self.partition_key].into_iter().chain(&self.sort_key).cloned().collect();
        let schema = ParquetSchema::new(&key, &attributes).with_declared(declared);
        let AthenaCommand { database, name, bucket, source_table, .. } = self;
        Ok(AthenaTable { database, name, bucket, source_table, schema: &schema }.to_string())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct TestCommand {
        #[command(flatten)]
        athena: AthenaCommand,
    }

    const DOCUMENT: &str = r#"{"version":1,"replicas":[{"name":"copy","sink":"dynamodb","table":"Copy"}],
        "columns":{"amount":{"path":"total","type":"numeric"},"tags":{"path":"tags","type":"text[]"}}}"#;

    fn statement(document: &str, more: &[&str]) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), document).unwrap();
        let path = file.path().to_str().unwrap();
        let usual = ["athena", "--document", path, "--source-table", "Orders", "--partition-key", "pk:S"];
        let line = [&usual, &["--bucket", "orders-archive", "--database", "orders_archive"][..], more].concat();
        TestCommand::try_parse_from(line).map_err(|error| error.to_string())?.athena.statement()
    }

    #[test]
    fn statement_has_the_columns_of_the_document() {
        let text = statement(DOCUMENT, &["--sort-key", "a:b:N"]).unwrap();
        for part in [
            "CREATE EXTERNAL TABLE `orders_archive`.`expired_items_typed` (\n  `partition_key` string,\n",
            "  `sort_key_integer` bigint,\n  `amount` string,\n  `tags` array<string>,\n  `key` string,\n",
            "LOCATION 's3://orders-archive/parquet/Orders/'\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let users = statement(DOCUMENT, &["--source-schema", "users", "--name", "removed"]).unwrap();
        assert!(users.contains("`removed`") && users.contains("  `status` string,\n"), "{users}");
    }

    #[test]
    fn invalid_arguments_are_rejected_with_the_fix() {
        for (document, more, part) in [
            (r#"{"version":1,"replicas":[]}"#, &[][..], "REPLICATION /replicas is empty"),
            (&DOCUMENT.replace("amount", "Amount"), &[], "REPLICATION /columns/Amount is not a name"),
            (
                &DOCUMENT.replace("\"columns\":{", "\"columns\":{\"x\":"),
                &[],
                " is not JSON (expected `,` or `}` at line 2",
            ),
            (
                r#"{"version":1,"replicas":[{"name":"copy","sink":"dynamodb","table":"Copy"}]}"#,
                &[],
                "has no member columns",
            ),
            (DOCUMENT, &["--sort-key", "sk:X"], "such as pk:S"),
            (DOCUMENT, &["--name", "Typed Items"], "lowercase letters"),
        ] {
            let error = statement(document, more).unwrap_err();
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
