//! DynamoDB and DynamoDB Streams on this machine: the dynoxide engine, served on a listener of ours.
//!
//! Without a data folder the engine is held in memory and forgotten. With one, its file `dynamodb.sqlite` keeps the
//! tables, and a folder that another process uses, a file that is damaged, and a table that no longer has the
//! template's shape are each refused before anything is written.
//!
//! Three things differ from AWS and are the stream pump's to absorb: a stream has one shard that never closes, its
//! label is an epoch, and TTL removes items only when [`Engine::sweep_ttl`] is called (`ttl.rs`).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dynoxide::Database;
use dynoxide::storage::Storage;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::template::Table;

mod file;
mod schema;
mod ttl;

/// How long a stop waits for requests under way before it cuts them off.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Why the DynamoDB engine does not start or does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The folder cannot be made, read or written.
    #[error("data folder {}: {source}: choose another with --data", path.display())]
    Folder {
        /// The folder, or the file in it.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// Another process holds the folder.
    #[error("data folder {} is in use by another local: stop that one, or choose another with --data", .0.display())]
    InUse(PathBuf),
    /// The file is not an engine's database, or a damaged one.
    #[error("data file {} is {reason}; nothing was written: move it away, or choose another folder with --data", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A table of the data folder has not the template's shape.
    #[error(
        "table {table} in the data folder has {found}, the template wants {wanted}: choose another folder with --data"
    )]
    OtherShape {
        /// The local table name.
        table: String,
        /// What the folder holds.
        found: String,
        /// What the template says.
        wanted: String,
    },
    /// The engine refused a table or failed.
    #[error("dynamodb engine: {0}")]
    Engine(String),
    /// The listener has no address.
    #[error("dynamodb listener: {0}")]
    Listener(std::io::Error),
}

impl From<dynoxide::DynoxideError> for EngineError {
    fn from(error: dynoxide::DynoxideError) -> Self {
        Self::Engine(error.to_string())
    }
}

impl From<rusqlite::Error> for EngineError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Engine(error.to_string())
    }
}

/// A running engine. Dropping it stops it too, without waiting.
pub struct Engine {
    endpoint: String,
    database: Database,
    /// A second connection, for TTL.
    second: Arc<Mutex<Storage>>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), String>>,
    /// The data folder's lock, held until the database is closed.
    held: Option<std::fs::File>,
}

impl Engine {
    /// Serves a new in-memory database on `listener`, or the one kept in the folder `data`.
    ///
    /// # Errors
    ///
    /// An [`EngineError`] if the folder is unusable, in use, or holds a damaged file.
    pub async fn start(listener: TcpListener, data: Option<&Path>) -> Result<Self, EngineError> {
        let address = listener.local_addr().map_err(EngineError::Listener)?;
        let folder = data.map(Path::to_path_buf);
        let opened = tokio::task::spawn_blocking(move || match folder {
            Some(folder) => file::open(&folder).map(|(database, second, lock)| (database, second, Some(lock))),
            None => file::memory().map(|(database, second)| (database, second, None)),
        });
        let (database, second, held) = opened.await.map_err(|panic| EngineError::Engine(panic.to_string()))??;
        let (stop, stopped) = oneshot::channel();
        let shared = database.clone();
        let server = tokio::spawn(async move {
            dynoxide::server::serve_with_shutdown(listener, shared, async {
                // An engine that was dropped is an engine to stop.
                let _ = stopped.await;
            })
            .await
        });
        let second = Arc::new(Mutex::new(second));
        Ok(Self { endpoint: format!("http://{address}"), database, second, stop, server, held })
    }

    /// The URL that SDKs take as their DynamoDB (and streams) endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Creates the tables with their indexes, streams and TTL. A table that exists with the same shape is left
    /// alone, so that a data folder can be opened again.
    ///
    /// # Errors
    ///
    /// [`EngineError::OtherShape`] if a kept table differs from the template, [`EngineError::Engine`] if the engine
    /// refuses one.
    pub fn create_tables(&self, tables: &[Table]) -> Result<(), EngineError> {
        tables.iter().try_for_each(|table| schema::create(&self.database, table))
    }

    /// Removes every item whose TTL is past at `now`, as DynamoDB does by and by, and answers how many.
    ///
    /// # Errors
    ///
    /// [`EngineError::Engine`] if the engine fails.
    pub async fn sweep_ttl(&self, now: OffsetDateTime) -> Result<usize, EngineError> {
        let second = Arc::clone(&self.second);
        // The sweep waits for the engine's writes: not on the runtime's thread.
        let swept = tokio::task::spawn_blocking(move || {
            ttl::sweep(&second.lock().unwrap_or_else(PoisonError::into_inner), now)
        });
        swept.await.map_err(|panic| EngineError::Engine(panic.to_string()))?
    }

    /// Stops serving, lets requests under way finish, and closes the database.
    pub async fn stop(self) {
        let Self { database, second, stop, mut server, held, .. } = self;
        // The server may have ended by itself: there is nothing to stop then.
        let _ = stop.send(());
        if tokio::time::timeout(STOP_WITHIN, &mut server).await.is_err() {
            server.abort();
            let _ = server.await;
        }
        drop((database, second));
        drop(held);
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::AttributeValue;

    use shared::clock::Clock;

    use super::*;
    use crate::clients;
    use crate::template::{Attribute, Index, KeyElement};

    fn users() -> Table {
        let key = |name: &str, role: &str| KeyElement { name: name.to_owned(), role: role.to_owned() };
        let attribute = |name: &str, kind: &str| Attribute { name: name.to_owned(), kind: kind.to_owned() };
        Table {
            logical_id: "UsersTable".to_owned(),
            name: "Users".to_owned(),
            keys: vec![key("user_id", "HASH"), key("timestamp", "RANGE")],
            attributes: vec![attribute("user_id", "S"), attribute("timestamp", "N"), attribute("email", "S")],
            indexes: vec![Index {
                name: "EmailIndex".to_owned(),
                keys: vec![key("email", "HASH"), key("timestamp", "RANGE")],
                projection: "ALL".to_owned(),
                non_key_attributes: Vec::new(),
            }],
            ttl_attribute: Some("expires_at".to_owned()),
            stream_view: Some("NEW_AND_OLD_IMAGES".to_owned()),
        }
    }

    async fn start(data: Option<&Path>) -> Engine {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Engine::start(listener, data).await.unwrap()
    }

    async fn put(engine: &Engine, id: &str, expires_at: &str) {
        let client = clients::dynamodb(engine.endpoint());
        let put = client.put_item().table_name("Users").item("user_id", AttributeValue::S(id.to_owned()));
        let put = put.item("timestamp", AttributeValue::N("1".to_owned()));
        put.item("expires_at", AttributeValue::N(expires_at.to_owned())).send().await.unwrap();
    }

    #[tokio::test]
    async fn a_table_of_the_template_streams_and_expires_what_the_sdk_writes() {
        let engine = start(None).await;
        engine.create_tables(&[users()]).unwrap();
        put(&engine, "stays", "99999999999").await;
        let now = Clock::system().now();
        put(&engine, "goes", &(now.unix_timestamp() - 1).to_string()).await;
        assert_eq!(engine.sweep_ttl(now).await.unwrap(), 1);

        let streams = clients::streams(engine.endpoint());
        let listed = streams.list_streams().table_name("Users").send().await.unwrap();
        let arn = listed.streams()[0].stream_arn().unwrap().to_owned();
        let described = streams.describe_stream().stream_arn(&arn).send().await.unwrap();
        let shard = described.stream_description().unwrap().shards()[0].shard_id().unwrap().to_owned();
        let iterator = streams.get_shard_iterator().stream_arn(arn).shard_id(shard);
        let iterator = iterator.shard_iterator_type("TRIM_HORIZON".into()).send().await.unwrap();
        let read = streams.get_records().set_shard_iterator(iterator.shard_iterator).send().await.unwrap();
        let events: Vec<&str> = read
            .records()
            .iter()
            .filter_map(|record| record.event_name())
            .map(aws_sdk_dynamodbstreams::types::OperationType::as_str)
            .collect();
        assert_eq!(events, ["INSERT", "INSERT", "REMOVE"]);
        assert!(read.records()[2].user_identity().is_some(), "a removal by ttl names the service");
        engine.stop().await;
    }

    #[tokio::test]
    async fn a_data_folder_opens_again_with_its_items_and_refuses_a_table_of_another_shape() {
        let folder = tempfile::tempdir().unwrap();
        let engine = start(Some(folder.path())).await;
        engine.create_tables(&[users()]).unwrap();
        put(&engine, "kept", "99999999999").await;
        engine.stop().await;

        let engine = start(Some(folder.path())).await;
        engine.create_tables(&[users()]).unwrap();
        let scanned = clients::dynamodb(engine.endpoint()).scan().table_name("Users").send().await.unwrap();
        assert_eq!(scanned.count(), 1);
        let mut changed = [users(), users(), users(), users()];
        changed[0].attributes[1].kind = "S".to_owned();
        changed[1].indexes[0].projection = "KEYS_ONLY".to_owned();
        changed[2].stream_view = None;
        changed[3].ttl_attribute = None;
        for (table, part) in changed.into_iter().zip(["attributes", "indexes", "stream", "ttl"]) {
            let refused = engine.create_tables(&[table]).unwrap_err().to_string();
            assert!(refused.contains(part) && refused.contains("Users"), "{refused}");
        }
        engine.stop().await;
    }

    #[tokio::test]
    async fn two_engines_in_one_process_share_nothing() {
        let (one, other) = (start(None).await, start(None).await);
        one.create_tables(&[users()]).unwrap();
        let listed = clients::dynamodb(other.endpoint()).list_tables().send().await.unwrap();
        assert!(listed.table_names().is_empty());
    }
}
