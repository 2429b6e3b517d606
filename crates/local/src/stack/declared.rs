//! Stores that the replication document of a template declares: tables of DynamoDB, which this machine creates with the
//! key of the source table, and tables in PostgreSQL.

use millrace_shared::environment::Environment;
use millrace_shared::replica_item::ReservedNames;
use millrace_sinks::config::SinksConfig;
use millrace_sinks::document::{REPLICATION, ReplicationDocument};
use millrace_sinks::postgres::PostgresSchema;
use serde_json::{Value, json};

use super::StartError;
use super::wiring::{environment, misconfigured};
use crate::clients;
use crate::template::{SamTemplate, TableResource};

/// The maximum length of the name of a table in PostgreSQL, in bytes.
const TABLE_BYTES: usize = 47;

/// The stores of the replicator that are not resources of the template.
pub(super) struct DeclaredStores {
    /// The document, if the template has one.
    pub(super) document: Option<ReplicationDocument>,
    /// The tables of its DynamoDB replicas.
    pub(super) tables: Vec<TableResource>,
    /// The tables that the functions expect in PostgreSQL. Without a replicator, they are those of the users service.
    pub(super) postgres: PostgresSchema,
}

impl DeclaredStores {
    /// Reads the environment of the replicator; `has_postgres`: the relational tier is on.
    pub(super) async fn read(template: &SamTemplate, s3: &str, has_postgres: bool) -> Result<Self, StartError> {
        let Some(replicator) = template.functions.iter().find(|function| function.name == "replicator") else {
            return Ok(Self { document: None, tables: Vec::new(), postgres: PostgresSchema::for_users() });
        };
        let environment = environment(replicator, &clients::s3(s3)).await?;
        let document = environment.get(REPLICATION).map(ReplicationDocument::parse).transpose();
        // The sinks report the problems of a document that is not valid.
        if let Ok(document) = &document {
            check_tier(template, &environment, document.as_ref(), has_postgres)?;
        }
        let postgres = SinksConfig::parse(&environment).map_err(misconfigured(replicator))?.postgres_schema();
        let document = document.ok().flatten();
        let tables = document.as_ref().map(|document| tables(template, document, &environment)).transpose()?;
        Ok(Self { document, tables: tables.unwrap_or_default(), postgres })
    }
}

/// Checks that the tier is on if the document has a table in PostgreSQL, and the reverse.
fn check_tier(
    template: &SamTemplate,
    environment: &Environment,
    document: Option<&ReplicationDocument>,
    has_postgres: bool,
) -> Result<(), StartError> {
    let mut replicas = document.iter().flat_map(|document| document.replicas());
    let relational = replicas.find(|entry| entry.postgres_table().is_some());
    match relational {
        Some(replica) if !has_postgres => Err(StartError::PostgresOff { replica: replica.name.to_string() }),
        None if has_postgres && environment.get("SOURCE_SCHEMA") != Some("users") => {
            let source = template.tables.first().map_or("Source", |table| table.name.as_str());
            let entry = example_entry(source);
            Err(match document {
                Some(_) => StartError::NoPostgresTable {
                    problem: "no replica of the replication document is a table in PostgreSQL: add one to its replicas",
                    example: entry.to_string(),
                },
                None => StartError::NoPostgresTable {
                    problem: "a replication document declares the tables in PostgreSQL: pass one with --document FILE",
                    example: example_document(source, &entry).to_string(),
                },
            })
        }
        _ => Ok(()),
    }
}

/// Returns an entry for a table in PostgreSQL.
fn example_entry(source: &str) -> Value {
    let mut table = source.to_lowercase().replace('.', "_");
    table.truncate(TABLE_BYTES);
    json!({
        "name": "sql", "sink": "postgres", "table": table,
        "columns": {"status": {"path": "status", "type": "text"}},
    })
}

/// Returns a document with this entry and with the replica that the stack has without a document.
fn example_document(source: &str, entry: &Value) -> Value {
    let mut replica = format!("{source}Replica");
    replica.truncate(255);
    json!({
        "version": 1,
        "replicas": [{"name": "dynamodb", "sink": "dynamodb", "table": replica}, entry],
    })
}

/// Returns the tables of the DynamoDB replicas, which have the key of the source table and the TTL attribute of tombstones.
fn tables(
    template: &SamTemplate,
    document: &ReplicationDocument,
    environment: &Environment,
) -> Result<Vec<TableResource>, StartError> {
    let Some(source) = template.tables.first() else { return Ok(Vec::new()) };
    let reserved = environment.get("RESERVED_PREFIX").map(ReservedNames::parse);
    let reserved = reserved.and_then(Result::ok).unwrap_or_default();
    let mut tables: Vec<TableResource> = Vec::new();
    for entry in document.replicas() {
        let (name, Some(table)) = (&entry.name, entry.dynamodb_table()) else { continue };
        let other = if template.tables.iter().any(|other| other.name == table) {
            Some("the source or another table of the template".to_owned())
        } else {
            tables.iter().find(|other| other.name == table).map(|other| format!("the replica {:?}", other.logical_id))
        };
        if let Some(other) = other {
            return Err(StartError::SharedTable { replica: name.to_string(), table: table.to_owned(), other });
        }
        let is_key = |attribute: &str| source.keys.iter().any(|key| key.name == attribute);
        let attributes = source.attributes.iter().filter(|attribute| is_key(&attribute.name)).cloned().collect();
        tables.push(TableResource {
            logical_id: name.to_string(),
            name: table.to_owned(),
            keys: source.keys.clone(),
            attributes,
            indexes: Vec::new(),
            local_indexes: Vec::new(),
            ttl_attribute: Some(reserved.tombstone_expires_at.clone()),
            stream_view: None,
        });
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_is_a_valid_document_for_any_name_of_a_source() {
        for source in ["Orders", "prod.Order_Lines", &"a".repeat(255)] {
            let example = example_document(source, &example_entry(source)).to_string();
            let document = ReplicationDocument::parse(&example).unwrap();
            assert_eq!(document.replicas().len(), 2, "{example}");
        }
    }
}
