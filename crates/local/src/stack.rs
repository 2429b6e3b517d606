//! Local stack: [`LocalStack::start`] reads the template, starts the engines, and connects the functions to the engines
//! and the streams to the functions.
//!
//! Checks come before effects: the template is read and every port is bound before a data folder is opened, and nothing
//! is written to a data folder before it has been found valid. `wiring` connects the functions.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::Router;
use futures::future::join_all;
use millrace_shared::clock::Clock;
use millrace_shared::environment::EnvironmentError;
use millrace_shared::error_chain::error_chain;
use millrace_shared::http::caller::ScopeMapping;
use millrace_sinks::document::ReplicationDocument;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::http::HttpServer;
use crate::import::{ImportError, ImportOutcome, ImportProgress, ImportSource, import};
use crate::lambda;
use crate::observer::ChangeObserver;
use crate::template::{FunctionResource, SamTemplate, SourceTable, TableResource, TemplateError};
use crate::tier::{TierServer, TierUrls};
use crate::token::{AuthorizerError, LocalAuth, TokenAuthorizer};
use crate::ttl_sweeper::TtlSweeper;
use crate::{cache, clients, dynamodb, postgres, s3};
use millrace_event_source_mapping::EventSourceMapping;
use millrace_event_source_mapping::checkpoints::CheckpointError;
use millrace_event_source_mapping::filter::FilterError;
use millrace_event_source_mapping::invoke::InvokeError;

mod declared;
mod embedded;
mod quarantine;
mod replicas;
mod reserved;
mod tiers;
mod wiring;

use declared::DeclaredStores;
pub use quarantine::{QuarantineReason, QuarantineSummary};
pub use replicas::{ReplicaStore, StackReplica};
use tiers::{EnabledTiers, TierServers};
pub use wiring::environment;
pub(crate) use wiring::localize;
use wiring::{FunctionWiring, listed, mount_search_routes, variables};

/// The longest time that a batch waits for more records, unless the template's windows are used.
pub const MAX_BATCH_WINDOW: Duration = Duration::from_secs(1);

/// The key that seals cursors on this machine. It is not secret and is constant, so that cursors stay valid after a
/// restart. It has no padding, since `cargo lambda` reads no value that contains a `=`.
pub const CURSOR_KEYS: &str = "local:bm8gc2VjcmV0OiBmb3IgdGhpcyBtYWNoaW5lIG9ubHk";
/// The constant key of all hashes on this machine, in place of the secrets that a replication document names.
pub const HASH_KEY: &str = "no secret: for this machine only";

/// Options of the local stack.
#[derive(Debug, Clone)]
pub struct StackOptions {
    /// The deployment template.
    pub template: PathBuf,
    /// Parameters of the template with values other than their defaults.
    pub parameters: BTreeMap<String, String>,
    /// The source table of a template that replicates a table outside of it.
    pub source: SourceTable,
    /// The data folder; `None` for data in memory.
    pub data: Option<PathBuf>,
    /// The port of the API; 0 selects a free port, as it does for the other ports.
    pub port: u16,
    /// The port of DynamoDB.
    pub dynamodb_port: u16,
    /// The port of S3.
    pub s3_port: u16,
    /// The base URL of functions that are invoked instead of those in this process.
    pub functions: Option<String>,
    /// The interval at which expired items are removed.
    pub ttl_interval: Duration,
    /// Use the batch windows of the template instead of at most [`MAX_BATCH_WINDOW`].
    pub full_batch_windows: bool,
    /// The authentication mode of the API.
    pub auth: LocalAuth,
    /// The claims that list a token's scopes; `None` for the template's.
    pub scope_claim: Option<String>,
    /// The prefix of each scope; `None` for the template's.
    pub scope_prefix: Option<String>,
    /// The PostgreSQL server of the relational tier.
    pub postgres: TierServer,
    /// The server of the cache tier.
    pub cache: TierServer,
    /// Observe the changes and their verdicts, and offer switches for faults ([`LocalStack::observer`]).
    pub observe: bool,
}

impl Default for StackOptions {
    /// The workspace's own template with data in memory, on free ports.
    fn default() -> Self {
        Self {
            template: Path::new(env!("CARGO_MANIFEST_DIR")).join("../../template.yaml"),
            parameters: BTreeMap::new(),
            source: SourceTable::default(),
            data: None,
            port: 0,
            dynamodb_port: 0,
            s3_port: 0,
            functions: None,
            ttl_interval: Duration::from_secs(3),
            full_batch_windows: false,
            auth: LocalAuth::None,
            scope_claim: None,
            scope_prefix: None,
            postgres: TierServer::Off,
            cache: TierServer::Off,
            observe: false,
        }
    }
}

/// A stack that does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The template cannot be read, or is incomplete.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The template contains something that this program cannot run.
    #[error("{}: {problem}", path.display())]
    UnsupportedTemplate {
        /// The path of the template.
        path: PathBuf,
        /// The unsupported part.
        problem: String,
    },
    /// A port is in use or not permitted.
    #[error("port {port} cannot be used ({source}): choose another with {option}")]
    Port {
        /// The port.
        port: u16,
        /// The option that changes the port.
        option: &'static str,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A temporary folder cannot be created.
    #[error("cannot create a temporary folder: {0}")]
    Folder(#[source] std::io::Error),
    /// The DynamoDB engine rejected its data or tables.
    #[error(transparent)]
    DynamoDb(#[from] dynamodb::DynamoDbEngineError),
    /// The S3 engine rejected its folder.
    #[error(transparent)]
    S3(#[from] s3::S3EngineError),
    /// A filter pattern is not supported.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The checkpoints of a mapping cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The template's environment of a function is not valid for the function.
    #[error("function {function}: {problems}")]
    Environment {
        /// The name of the function.
        function: String,
        /// All problems of the environment.
        problems: EnvironmentError,
    },
    /// A function does not start.
    #[error("function {function}: {reason}")]
    Function {
        /// The name of the function.
        function: String,
        /// The reason why it does not start.
        reason: String,
    },
    /// The cache does not start or cannot be reached.
    #[error("--cache: {0}")]
    Cache(#[from] cache::CacheServerError),
    /// PostgreSQL does not start.
    #[error("--postgres: {0}")]
    Postgres(#[from] postgres::PostgresServerError),
    /// The tables in PostgreSQL cannot be created.
    #[error("--postgres: {0}")]
    Tables(String),
    /// No replica is a table in PostgreSQL.
    #[error("--postgres: {problem}, such as {example}")]
    NoPostgresTable {
        /// The problem and the fix.
        problem: &'static str,
        /// An entry of a replication document, or a document.
        example: String,
    },
    /// A replica is a table in PostgreSQL, and the tier is off.
    #[error(
        "the replica {replica:?} of the replication document is a table in PostgreSQL: set --postgres to auto or to the \
         URL of a database, or remove the replica"
    )]
    PostgresOff {
        /// The name of the replica.
        replica: String,
    },
    /// A replica has the table of the source or of another replica.
    #[error(
        "the table {table} of the replica {replica:?} is also that of {other}: this machine does not distinguish Regions \
         and accounts, so name another table in the replication document"
    )]
    SharedTable {
        /// The name of the replica.
        replica: String,
        /// The name of the table.
        table: String,
        /// The source, or the other replica.
        other: String,
    },
    /// A temporary server would lose its data, while the data folder retains the tables.
    #[error("{option} auto keeps no data, but --data does: set {option} to the URL of a persistent server")]
    EphemeralTierWithData {
        /// The option of the tier.
        option: &'static str,
    },
    /// An attribute of the source table has a name that replication adds to the items of the replica.
    #[error(
        "the {role} {attribute:?} of table {table} has a name that replication adds to the items of the replica: \
         choose another prefix of these names with --parameter ReservedPrefix=mr_, or describe the source if this \
         table is a replica of Millrace"
    )]
    ReservedAttribute {
        /// The name of the table.
        table: String,
        /// The name of the attribute.
        attribute: String,
        /// `key attribute` or `TTL attribute`.
        role: &'static str,
    },
    /// A replica is a table of an account in AWS.
    #[error("{setting} is {arn}, a table of an account, and this machine replicates to its own tables only: {fix}")]
    RemoteReplica {
        /// The parameter, or the place in the replication document.
        setting: String,
        /// The ARN.
        arn: String,
        /// The fix.
        fix: &'static str,
    },
    /// The authentication mode concerns the API, which the template does not have.
    #[error("--auth jwt: {} has no API to authenticate callers of: omit --auth", path.display())]
    NoApi {
        /// The path of the template.
        path: PathBuf,
    },
    /// The authorizer cannot be created.
    #[error(transparent)]
    Authorizer(#[from] AuthorizerError),
    /// The URL of `--lambda-endpoint` is not valid.
    #[error("--lambda-endpoint: {0}")]
    Functions(#[from] InvokeError),
}

/// The running stack. Dropping it also stops it, without waiting.
pub struct LocalStack {
    options: StackOptions,
    template: SamTemplate,
    api_url: String,
    front: HttpServer,
    expiry: TtlSweeper,
    pumps: Vec<EventSourceMapping>,
    authorizer: Option<Arc<TokenAuthorizer>>,
    dynamodb: Arc<dynamodb::DynamoDbEngine>,
    s3: s3::S3Engine,
    maintenance: Option<millrace_maintenance::config::MaintenanceConfig>,
    replicas: Vec<StackReplica>,
    document: Option<ReplicationDocument>,
    urls: TierUrls,
    servers: TierServers,
    observer: Option<Arc<ChangeObserver>>,
    /// The temporary folder of S3's objects, if the data folder is not set; it is deleted when this is dropped.
    _objects: Option<TempDir>,
}

impl LocalStack {
    /// Starts the stack. When this returns, requests are served and streams are read.
    ///
    /// # Errors
    /// [`StartError`] with a one-line message that names what to change.
    pub async fn start(options: StackOptions) -> Result<Self, StartError> {
        let tiers = EnabledTiers::plan(&options)?;
        let mut choices = tiers.urls.choices();
        choices.parameters.extend(options.parameters.clone());
        let scopes = [("ScopeClaim", &options.scope_claim), ("ScopePrefix", &options.scope_prefix)];
        for (parameter, chosen) in scopes {
            choices.parameters.extend(chosen.iter().map(|chosen| (parameter.to_owned(), chosen.clone())));
        }
        let mut template = SamTemplate::load_for(&options.template, &choices, &options.source)?;
        if options.auth != LocalAuth::None && template.routes.is_empty() {
            return Err(StartError::NoApi { path: options.template.clone() });
        }
        reserved::check_attributes(&template)?;
        let urls = tiers.urls.clone();
        let (front, address) = bind(options.port, "--port").await?;
        let (dynamodb, _) = bind(options.dynamodb_port, "--dynamodb-port").await?;
        let (s3, _) = bind(options.s3_port, "--s3-port").await?;
        let api_url = format!("http://{address}");

        let dynamodb = dynamodb::DynamoDbEngine::start(dynamodb, options.data.as_deref()).await?;
        dynamodb.serve_lambda_at(address);
        let (folder, objects) = object_folder(options.data.as_deref())?;
        let observer = options.observe.then(|| Arc::new(ChangeObserver::new(Arc::default(), Clock::system())));
        let down = observer.as_ref().map(|observer| observer.switches().s3_switch()).unwrap_or_default();
        let s3 = s3::S3Engine::start_with_switch(s3, &folder, down).await?;
        let declared = DeclaredStores::read(&template, s3.endpoint(), urls.postgres.is_some()).await?;
        template.tables.extend(declared.tables);
        dynamodb.create_tables(&template.tables)?;
        s3.create_buckets(&template.buckets)?;
        let replicas = wiring::replicas(&template, s3.endpoint()).await?;
        replicas.iter().try_for_each(StackReplica::check_reachable)?;
        let servers = tiers.start(&declared.postgres).await?;

        let wiring = FunctionWiring {
            options: &options,
            dynamodb: dynamodb.endpoint(),
            writes: dynamodb.writes(),
            s3: s3.endpoint(),
            observer: observer.as_ref(),
        };
        let mut mappings = Vec::new();
        let (mut api, mut search, mut maintenance) = (None, None, None);
        let mut scopes = ScopeMapping::default();
        for function in &template.functions {
            match function.name.as_str() {
                "api" => {
                    scopes = wiring.scopes(function)?;
                    api = Some(wiring.api(function)?);
                }
                "search" => search = Some(wiring.search(function)?),
                "maintenance" => maintenance = Some(wiring.maintenance(function).await?),
                _ => mappings.extend(wiring.mappings(function).await?),
            }
        }
        if let Some(config) = &maintenance {
            wiring.check_replicas(config).await?;
        }
        let mut api = match api {
            Some(api) => api,
            // Replication of one table, without the users service.
            None if template.routes.is_empty() => Router::new(),
            None => return Err(wiring.unrunnable("has no function whose binary is api".to_owned())),
        };
        if let Some(search) = search {
            api = mount_search_routes(api, search, &template);
        }
        let authorizer = TokenAuthorizer::from_auth(&options.auth, scopes)?;
        if let Some(authorizer) = &authorizer {
            api = Arc::clone(authorizer).layer(api);
        }
        // Not behind the authorizer, since these routes belong to Lambda's API.
        let environments =
            template.functions.iter().map(|function| (function.name.clone(), variables(function))).collect();
        let api = api.merge(lambda::router(mappings.iter().map(listed).collect(), environments));
        // Nothing is started before all parts have been checked.
        let pumps = mappings.into_iter().map(EventSourceMapping::start).collect();
        let front = HttpServer::start(front, api);
        let dynamodb = Arc::new(dynamodb);
        let expiry = TtlSweeper::start(Arc::clone(&dynamodb), options.ttl_interval, Clock::system());
        Ok(Self {
            options,
            template,
            api_url,
            front,
            expiry,
            pumps,
            authorizer,
            dynamodb,
            s3,
            maintenance,
            replicas,
            document: declared.document,
            urls,
            servers,
            observer,
            _objects: objects,
        })
    }

    /// Returns the URL of the API.
    #[must_use]
    pub fn api_url(&self) -> &str {
        &self.api_url
    }

    /// Returns the endpoint of DynamoDB and its streams.
    #[must_use]
    pub fn dynamodb_url(&self) -> &str {
        self.dynamodb.endpoint()
    }

    /// Returns the endpoint of S3.
    #[must_use]
    pub fn s3_url(&self) -> &str {
        self.s3.endpoint()
    }

    /// Returns a DynamoDB client for this stack.
    #[must_use]
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        clients::dynamodb(self.dynamodb_url())
    }

    /// Returns a DynamoDB Streams client for this stack.
    #[must_use]
    pub fn streams(&self) -> aws_sdk_dynamodbstreams::Client {
        clients::streams(self.dynamodb_url())
    }

    /// Returns an S3 client for this stack.
    #[must_use]
    pub fn s3(&self) -> aws_sdk_s3::Client {
        clients::s3(self.s3_url())
    }

    /// Returns the maintenance function connected to these engines, or `None` if the template has none.
    #[must_use]
    pub fn maintenance(&self) -> Option<millrace_maintenance::MaintenanceHandler> {
        let clients = millrace_maintenance::AwsClients {
            source: self.dynamodb(),
            replicas: self.dynamodb().into(),
            signer: None,
            s3: self.s3(),
            lambda: clients::lambda(&self.api_url),
        };
        self.maintenance.as_ref().map(|config| millrace_maintenance::connect(config, clients))
    }

    /// Returns the PostgreSQL server that was started for the relational tier, if any.
    #[must_use]
    pub fn postgres(&self) -> Option<&postgres::PostgresServer> {
        self.servers.postgres.as_ref()
    }

    /// Returns the URL of the relational tier's PostgreSQL, if the tier is on. It may contain a password.
    #[must_use]
    pub fn postgres_url(&self) -> Option<&str> {
        self.urls.postgres.as_deref()
    }

    /// Returns the URL of the cache, if the tier is on. It may contain a password.
    #[must_use]
    pub fn cache_url(&self) -> Option<&str> {
        self.urls.cache.as_deref()
    }

    /// Signs a token for the API, if this program generated the key.
    #[must_use]
    pub fn token(&self, subject: &str, scope: &str) -> Option<String> {
        self.authorizer.as_ref()?.token(subject, scope, Clock::system().now().unix_timestamp())
    }

    /// Returns the template of the stack.
    #[must_use]
    pub fn template(&self) -> &SamTemplate {
        &self.template
    }

    /// Returns the replication document of the functions, if the template has one.
    #[must_use]
    pub fn replication_document(&self) -> Option<&ReplicationDocument> {
        self.document.as_ref()
    }

    /// Returns the table that is replicated, or `None` if the template has no maintenance function, which names it.
    #[must_use]
    pub fn source_table(&self) -> Option<&TableResource> {
        source_table(&self.template)
    }

    /// Returns the replicas that store items, which a task can compare with the source; not the archive and the cache.
    #[must_use]
    pub fn replicas(&self) -> &[StackReplica] {
        &self.replicas
    }

    /// Writes items to a table of this stack, whose streams deliver them like any other change, and shows the progress
    /// on standard error.
    ///
    /// # Errors
    /// [`ImportError`]; the items of the lines before it are in the table then.
    pub async fn import(&self, source: ImportSource, table: &TableResource) -> Result<ImportOutcome, ImportError> {
        let progress = ImportProgress::on_standard_error(&source);
        import(source, &self.dynamodb(), table, progress).await
    }

    /// Like [`LocalStack::import`], but `written` is the number of items that have been written so far.
    ///
    /// # Errors
    /// [`ImportError`]; the items of the lines before it are in the table then.
    pub async fn import_counted(
        &self,
        source: ImportSource,
        table: &TableResource,
        written: Arc<AtomicU64>,
    ) -> Result<ImportOutcome, ImportError> {
        import(source, &self.dynamodb(), table, ImportProgress::Count(written)).await
    }

    /// Returns the observer of the changes, if [`StackOptions::observe`] is set.
    #[must_use]
    pub fn observer(&self) -> Option<&Arc<ChangeObserver>> {
        self.observer.as_ref()
    }

    /// Deletes a table with all of its items, and creates it again, empty.
    ///
    /// # Errors
    /// [`dynamodb::DynamoDbEngineError`] if the engine rejects the table.
    pub async fn empty_table(&self, table: &TableResource) -> Result<(), dynamodb::DynamoDbEngineError> {
        let deleted = self.dynamodb().delete_table().table_name(&table.name).send().await;
        // Creating a table that still exists would do nothing.
        deleted.map_err(|error| dynamodb::DynamoDbEngineError::Engine(error_chain(&error)))?;
        self.dynamodb.create_tables(std::slice::from_ref(table))
    }

    /// Returns the options of the stack.
    #[must_use]
    pub fn options(&self) -> &StackOptions {
        &self.options
    }

    /// Removes the items that have expired, without waiting for the next interval; returns the number of removed items.
    ///
    /// # Errors
    /// [`dynamodb::DynamoDbEngineError`] if the engine fails.
    pub async fn run_ttl_sweep(&self) -> Result<usize, dynamodb::DynamoDbEngineError> {
        self.dynamodb.sweep_ttl(Clock::system().now()).await
    }

    /// Waits until every mapping has delivered and settled all records that are in the streams now.
    pub async fn wait_until_drained(&self) {
        join_all(self.pumps.iter().map(EventSourceMapping::wait_until_drained)).await;
    }

    /// Stops the parts in the order of the data flow, so that work in progress can still reach the later parts.
    pub async fn stop(self) {
        self.front.stop().await;
        self.expiry.stop().await;
        join_all(self.pumps.into_iter().map(EventSourceMapping::stop)).await;
        self.s3.stop().await;
        drop(self.servers);
        if let Some(engine) = Arc::into_inner(self.dynamodb) {
            engine.stop().await;
        }
    }
}

/// Returns the maintenance function of the template.
fn maintenance_function(template: &SamTemplate) -> Option<&FunctionResource> {
    template.functions.iter().find(|function| function.name == millrace_maintenance::config::FUNCTION)
}

/// Returns the table that is replicated.
fn source_table(template: &SamTemplate) -> Option<&TableResource> {
    let name = maintenance_function(template)?.environment.get("SOURCE_TABLE")?;
    template.tables.iter().find(|table| table.name == *name)
}

async fn bind(port: u16, option: &'static str) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |source| StartError::Port { port, option, source };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

/// Returns the folder of S3's objects, and its temporary parent folder if the data folder is not set.
fn object_folder(data: Option<&Path>) -> Result<(PathBuf, Option<TempDir>), StartError> {
    if let Some(data) = data {
        return Ok((data.join("s3"), None));
    }
    let folder = tempfile::Builder::new().prefix("millrace-").tempdir().map_err(StartError::Folder)?;
    Ok((folder.path().to_owned(), Some(folder)))
}
