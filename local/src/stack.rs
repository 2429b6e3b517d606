//! Everything on one machine: [`LocalStack::boot`] reads the template, starts the engines, connects the functions to them
//! and the streams to the functions.
//!
//! The order is that of trust: the template is read and every port is bound before anything is opened, and nothing is
//! written before the data folder was found sound. How a function is connected stands in `wiring`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use shared::clock::Clock;
use shared::environment::EnvironmentError;
use shared::http::caller::ScopeMapping;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::event_source_mapping::EventSourceMapping;
use crate::event_source_mapping::checkpoints::CheckpointError;
use crate::event_source_mapping::filter::FilterError;
use crate::event_source_mapping::invoke::InvokeError;
use crate::http::HttpServer;
use crate::lambda;
use crate::template::{SamTemplate, TemplateError};
use crate::tier::{TierServer, TierUrls};
use crate::token::{AuthorizerError, LocalAuth, TokenAuthorizer};
use crate::ttl_sweeper::TtlSweeper;
use crate::{cache, clients, dynamodb, postgres, s3};

mod tiers;
mod wiring;

use tiers::{EnabledTiers, TierServers};
pub use wiring::environment;
use wiring::{FunctionWiring, listed, mount_search_routes, variables};

/// The longest that a batch waits to be filled, unless windows are true.
pub const MAX_BATCH_WINDOW: Duration = Duration::from_secs(1);

/// What seals cursors on this machine: no secret, so that they outlive a restart. Without padding, since `cargo lambda`
/// reads no value with a `=` in it.
pub const CURSOR_KEYS: &str = "local:bm8gc2VjcmV0OiBmb3IgdGhpcyBtYWNoaW5lIG9ubHk";

/// How to run the stack.
#[derive(Debug, Clone)]
pub struct StackOptions {
    /// The template that says what to run.
    pub template: PathBuf,
    /// Where to keep data; `None` keeps none.
    pub data: Option<PathBuf>,
    /// The API's port; 0 is any, here and below.
    pub port: u16,
    /// DynamoDB's port.
    pub dynamodb_port: u16,
    /// S3's port.
    pub s3_port: u16,
    /// The base URL of functions to invoke instead of those in this process.
    pub functions: Option<String>,
    /// How often expired items are removed.
    pub expire_every: Duration,
    /// Wait for batches as long as the template says, instead of a second.
    pub true_windows: bool,
    /// Who lets requests in.
    pub auth: LocalAuth,
    /// The claims that list a token's scopes; none are the template's.
    pub scope_claim: Option<String>,
    /// What stands before each scope; none is the template's.
    pub scope_prefix: Option<String>,
    /// Which PostgreSQL the relational tier runs on.
    pub postgres: TierServer,
    /// Which server the cache tier runs on.
    pub cache: TierServer,
}

impl Default for StackOptions {
    /// The workspace's own template in memory, on free ports.
    fn default() -> Self {
        Self {
            template: Path::new(env!("CARGO_MANIFEST_DIR")).join("../template.yaml"),
            data: None,
            port: 0,
            dynamodb_port: 0,
            s3_port: 0,
            functions: None,
            expire_every: Duration::from_secs(3),
            true_windows: false,
            auth: LocalAuth::None,
            scope_claim: None,
            scope_prefix: None,
            postgres: TierServer::Off,
            cache: TierServer::Off,
        }
    }
}

/// Why the stack does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The template cannot be read, or lacks something.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The template has something that this program cannot run.
    #[error("{}: {problem}", path.display())]
    UnsupportedTemplate {
        /// The template.
        path: PathBuf,
        /// What it is.
        problem: String,
    },
    /// A port is taken or forbidden.
    #[error("port {port} cannot be used ({source}): choose another with {option}")]
    Port {
        /// The port.
        port: u16,
        /// The option that changes it.
        option: &'static str,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// No temporary folder can be made.
    #[error("a temporary folder cannot be made: {0}")]
    Folder(#[source] std::io::Error),
    /// The DynamoDB engine refused its data or tables.
    #[error(transparent)]
    DynamoDb(#[from] dynamodb::DynamoDbEngineError),
    /// The S3 engine refused its folder.
    #[error(transparent)]
    S3(#[from] s3::S3EngineError),
    /// A filter cannot be honoured.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// A mapping's checkpoints cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A function's environment, as the template has it, is not what the function needs.
    #[error("function {function}: {problems}")]
    Environment {
        /// The function.
        function: String,
        /// All that is wrong.
        problems: EnvironmentError,
    },
    /// A function does not start.
    #[error("function {function}: {reason}")]
    Function {
        /// The function.
        function: String,
        /// Why.
        reason: String,
    },
    /// There is no cache.
    #[error("--cache: {0}")]
    Cache(#[from] cache::CacheServerError),
    /// There is no PostgreSQL.
    #[error("--postgres: {0}")]
    Postgres(#[from] postgres::PostgresServerError),
    /// Its tables cannot be made.
    #[error("--postgres: {0}")]
    Tables(String),
    /// A tier's server would forget what the tables keep.
    #[error("{option} auto keeps nothing, and --data does: give {option} the URL of a server that keeps its data, too")]
    EphemeralTierWithData {
        /// The tier's option.
        option: &'static str,
    },
    /// No token can be verified.
    #[error(transparent)]
    Authorizer(#[from] AuthorizerError),
    /// `--functions` is no URL.
    #[error("--functions: {0}")]
    Functions(#[from] InvokeError),
}

/// The running stack. Dropping it stops it too, without waiting for anything.
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
    maintenance: Option<maintenance::config::MaintenanceConfig>,
    urls: TierUrls,
    servers: TierServers,
    /// Held until the end: without `--data` S3's objects are here.
    _objects: Option<TempDir>,
}

impl LocalStack {
    /// Starts everything; when it returns, requests are answered and streams are read.
    ///
    /// # Errors
    /// [`StartError`], one clear line that names what to change.
    pub async fn start(options: StackOptions) -> Result<Self, StartError> {
        let tiers = EnabledTiers::plan(&options)?;
        let mut choices = tiers.urls.choices();
        let scopes = [("ScopeClaim", &options.scope_claim), ("ScopePrefix", &options.scope_prefix)];
        for (parameter, chosen) in scopes {
            choices.parameters.extend(chosen.iter().map(|chosen| (parameter.to_owned(), chosen.clone())));
        }
        let template = SamTemplate::load_with(&options.template, &choices)?;
        let urls = tiers.urls.clone();
        let (front, address) = bind(options.port, "--port").await?;
        let (dynamodb, _) = bind(options.dynamodb_port, "--dynamodb-port").await?;
        let (s3, _) = bind(options.s3_port, "--s3-port").await?;
        let api_url = format!("http://{address}");

        let dynamodb = dynamodb::DynamoDbEngine::start(dynamodb, options.data.as_deref()).await?;
        let (folder, objects) = object_folder(options.data.as_deref())?;
        let s3 = s3::S3Engine::start(s3, &folder).await?;
        dynamodb.create_tables(&template.tables)?;
        s3.create_buckets(&template.buckets)?;
        let servers = tiers.start().await?;

        let wiring = FunctionWiring { options: &options, dynamodb: dynamodb.endpoint(), s3: s3.endpoint() };
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
                "maintenance" => maintenance = Some(wiring.maintenance(function)?),
                _ => mappings.extend(wiring.mappings(function).await?),
            }
        }
        let mut api = api.ok_or_else(|| wiring.unrunnable("has no function whose binary is api".to_owned()))?;
        if let Some(search) = search {
            api = mount_search_routes(api, search, &template);
        }
        let authorizer = TokenAuthorizer::of(&options.auth, scopes)?;
        if let Some(authorizer) = &authorizer {
            api = Arc::clone(authorizer).layer(api);
        }
        // Not behind the authorizer: it is Lambda's answer, and not the API's.
        let environments =
            template.functions.iter().map(|function| (function.name.clone(), variables(function))).collect();
        let api = api.merge(lambda::router(mappings.iter().map(listed).collect(), environments));
        // Nothing runs before all is known to be sound.
        let pumps = mappings.into_iter().map(EventSourceMapping::start).collect();
        let front = HttpServer::start(front, api);
        let dynamodb = Arc::new(dynamodb);
        let expiry = TtlSweeper::start(Arc::clone(&dynamodb), options.expire_every, Clock::system());
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
            urls,
            servers,
            _objects: objects,
        })
    }

    /// Where the API listens.
    #[must_use]
    pub fn api_url(&self) -> &str {
        &self.api_url
    }

    /// Where DynamoDB listens, its streams too.
    #[must_use]
    pub fn dynamodb_url(&self) -> &str {
        self.dynamodb.endpoint()
    }

    /// Where S3 listens.
    #[must_use]
    pub fn s3_url(&self) -> &str {
        self.s3.endpoint()
    }

    /// A DynamoDB client.
    #[must_use]
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        clients::dynamodb(self.dynamodb_url())
    }

    /// A DynamoDB Streams client.
    #[must_use]
    pub fn streams(&self) -> aws_sdk_dynamodbstreams::Client {
        clients::streams(self.dynamodb_url())
    }

    /// An S3 client.
    #[must_use]
    pub fn s3(&self) -> aws_sdk_s3::Client {
        clients::s3(self.s3_url())
    }

    /// The maintenance function over these engines; nothing if the template has none.
    #[must_use]
    pub fn maintenance(&self) -> Option<maintenance::MaintenanceHandler> {
        let clients = maintenance::AwsClients {
            source: self.dynamodb(),
            replica: self.dynamodb(),
            signer: None,
            s3: self.s3(),
            lambda: clients::lambda(&self.api_url),
        };
        self.maintenance.as_ref().map(|config| maintenance::connect(config, clients))
    }

    /// The PostgreSQL that was started for the relational tier, if one was.
    #[must_use]
    pub fn postgres(&self) -> Option<&postgres::PostgresServer> {
        self.servers.postgres.as_ref()
    }

    /// Where the relational tier's PostgreSQL is, if the tier is on. It may hold a password.
    #[must_use]
    pub fn postgres_url(&self) -> Option<&str> {
        self.urls.postgres.as_deref()
    }

    /// Where the cache is, if the tier is on. It may hold a password.
    #[must_use]
    pub fn cache_url(&self) -> Option<&str> {
        self.urls.cache.as_deref()
    }

    /// A token for the API, where this program signs them.
    #[must_use]
    pub fn token(&self, subject: &str, scope: &str) -> Option<String> {
        self.authorizer.as_ref()?.token(subject, scope, Clock::system().now().unix_timestamp())
    }

    /// What is run.
    #[must_use]
    pub fn template(&self) -> &SamTemplate {
        &self.template
    }

    /// How it is run.
    #[must_use]
    pub fn options(&self) -> &StackOptions {
        &self.options
    }

    /// Removes what is expired now, without waiting for the next sweep; answers how many items that were.
    ///
    /// # Errors
    /// [`dynamodb::DynamoDbEngineError`] if the engine fails.
    pub async fn run_ttl_sweep(&self) -> Result<usize, dynamodb::DynamoDbEngineError> {
        self.dynamodb.sweep_ttl(Clock::system().now()).await
    }

    /// Waits until every mapping has handed over and finished all records that are in the streams now.
    pub async fn wait_until_drained(&self) {
        join_all(self.pumps.iter().map(EventSourceMapping::drained)).await;
    }

    /// Stops in the order of the flow, so that what is under way still finds what it needs.
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

async fn bind(port: u16, option: &'static str) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |source| StartError::Port { port, option, source };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

/// Where S3's objects are, and the temporary folder around them if they are not to be kept.
fn object_folder(data: Option<&Path>) -> Result<(PathBuf, Option<TempDir>), StartError> {
    if let Some(data) = data {
        return Ok((data.join("s3"), None));
    }
    let folder = tempfile::Builder::new().prefix("millrace-").tempdir().map_err(StartError::Folder)?;
    Ok((folder.path().to_owned(), Some(folder)))
}
