//! The PostgreSQL replica of a table of any shape: the table, columns and identifiers of a replication document.

mod contract;
mod keys;
mod maintenance_tasks;
mod questions;
mod schema;
pub(crate) mod stack;
mod values;

use millrace_sinks::SinkName;
use millrace_sinks::document::{PostgresTable, ReplicationDocument, SinkSettings};
use millrace_sinks::postgres::{PostgresSink, migrate_table};
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::store::{empty, sink, soon};
use crate::postgres::connect;

/// A migrated table of a document, a sink for it, and a separate connection for the test.
pub(super) struct TableStore {
    pub(super) sink: PostgresSink,
    pub(super) client: Client,
    pub(super) url: String,
    pub(super) table: PostgresTable,
}

/// The table of a document.
pub(crate) fn declared(name: &str, columns: &Value, otherwise: &str) -> PostgresTable {
    let replica = json!({"name": "sql", "sink": "postgres", "table": name, "columns": columns, "otherwise": otherwise});
    let text = json!({"version": 1, "replicas": [replica]}).to_string();
    let document = ReplicationDocument::parse(&text).unwrap();
    match &document.replicas()[0].sink {
        SinkSettings::Postgres(table) => table.clone(),
        other => panic!("{other:?}"),
    }
}

/// A sink for this table, as the function creates it.
pub(crate) fn table_sink(url: &str, table: &PostgresTable) -> PostgresSink {
    let name = SinkName::parse("sql").unwrap();
    sink(url).with_table(name, "REPLICATION /replicas/0".to_owned(), table.clone())
}

impl TableStore {
    pub(super) async fn start(columns: &Value) -> Self {
        Self::with_table(declared("orders", columns, "null")).await
    }

    pub(super) async fn with_table(table: PostgresTable) -> Self {
        let url = empty().await;
        let sink = table_sink(&url, &table);
        migrate_table(sink.database(), &table, soon()).await.unwrap();
        Self { sink, client: connect(&url).await, url, table }
    }

    /// The text of a query's only value.
    pub(super) async fn text(&self, sql: &str) -> Option<String> {
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }

    pub(super) async fn count(&self, sql: &str) -> i64 {
        self.client.query_one(&format!("select count(*) from {sql}"), &[]).await.unwrap().get(0)
    }
}
