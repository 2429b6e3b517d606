//! Everything on one machine: [`Stack::boot`] reads the template, starts the engines, connects the functions to them
//! and the streams to the functions.
//!
//! The order is that of trust: the template is read and every port is bound before anything is opened, and nothing is
//! written before the data folder was found sound.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::future::join_all;
use shared::clock::Clock;
use shared::environment::{Environment, Problems};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::expiry::Expiry;
use crate::http::{Front, proxy};
use crate::stream_pump::checkpoints::{CheckpointError, CheckpointFile};
use crate::stream_pump::discard::Destination;
use crate::stream_pump::filter::{Filter, FilterError};
use crate::stream_pump::invoke::{Invoke, InvokeError, ServedFunction};
use crate::stream_pump::settings::Settings;
use crate::stream_pump::{self, Pump};
use crate::template::{self, Function, Template, TemplateError};
use crate::token::{Auth, Authorizer, AuthorizerError};
use crate::{clients, dynamodb, s3};

/// The longest that a batch waits to be filled, unless windows are true.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(1);

/// What seals cursors on this machine: no secret, so that they outlive a restart.
pub const CURSOR_KEYS: &str = "local:bm8gc2VjcmV0OiBmb3IgdGhpcyBtYWNoaW5lIG9ubHk=";

/// How to run the stack.
#[derive(Debug, Clone)]
pub struct Options {
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
    pub auth: Auth,
}

impl Default for Options {
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
            auth: Auth::None,
        }
    }
}

/// Why the stack does not start.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The template cannot be read, or lacks something.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The template has something that this program cannot run.
    #[error("{}: {problem}", path.display())]
    Unrunnable {
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
    DynamoDb(#[from] dynamodb::EngineError),
    /// The S3 engine refused its folder.
    #[error(transparent)]
    S3(#[from] s3::EngineError),
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
        problems: Problems,
    },
    /// A function does not start.
    #[error("function {function}: {reason}")]
    Function {
        /// The function.
        function: String,
        /// Why.
        reason: String,
    },
    /// No token can be verified.
    #[error(transparent)]
    Authorizer(#[from] AuthorizerError),
    /// `--functions` is no URL.
    #[error("--functions: {0}")]
    Functions(#[from] InvokeError),
}

/// The running stack. Dropping it stops it too, without waiting for anything.
pub struct Stack {
    options: Options,
    template: Template,
    api_url: String,
    front: Front,
    expiry: Expiry,
    pumps: Vec<Pump>,
    authorizer: Option<Arc<Authorizer>>,
    dynamodb: Arc<dynamodb::Engine>,
    s3: s3::Engine,
    /// Held until the end: without `--data` S3's objects are here.
    _objects: Option<TempDir>,
}

impl Stack {
    /// Starts everything; when it returns, requests are answered and streams are read.
    ///
    /// # Errors
    /// [`Refusal`], one clear line that names what to change.
    pub async fn boot(options: Options) -> Result<Self, Refusal> {
        let template = Template::load(&options.template)?;
        let (front, address) = bind(options.port, "--port").await?;
        let (dynamodb, _) = bind(options.dynamodb_port, "--dynamodb-port").await?;
        let (s3, _) = bind(options.s3_port, "--s3-port").await?;
        let api_url = format!("http://{address}");

        let dynamodb = dynamodb::Engine::start(dynamodb, options.data.as_deref()).await?;
        let (folder, objects) = object_folder(options.data.as_deref())?;
        let s3 = s3::Engine::start(s3, &folder).await?;
        dynamodb.create_tables(&template.tables)?;
        s3.create_buckets(&template.buckets)?;

        let wiring = Wiring { options: &options, dynamodb: dynamodb.endpoint(), s3: s3.endpoint() };
        let mut mappings = Vec::new();
        let mut api = None;
        for function in &template.functions {
            match function.name.as_str() {
                "api" => api = Some(wiring.api(function)?),
                _ => mappings.extend(wiring.mappings(function).await?),
            }
        }
        let mut api = api.ok_or_else(|| wiring.unrunnable("has no function whose binary is api".to_owned()))?;
        let authorizer = Authorizer::of(&options.auth)?;
        if let Some(authorizer) = &authorizer {
            api = Arc::clone(authorizer).before(api);
        }
        // Nothing runs before all is known to be sound.
        let pumps = mappings.into_iter().map(Pump::start).collect();
        let front = Front::start(front, api);
        let dynamodb = Arc::new(dynamodb);
        let expiry = Expiry::start(Arc::clone(&dynamodb), options.expire_every);
        Ok(Self { options, template, api_url, front, expiry, pumps, authorizer, dynamodb, s3, _objects: objects })
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

    /// A token for the API, where this program signs them.
    #[must_use]
    pub fn token(&self, subject: &str, scope: &str) -> Option<String> {
        self.authorizer.as_ref()?.token(subject, scope, Clock::system().now().unix_timestamp())
    }

    /// What is run.
    #[must_use]
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// How it is run.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Removes what is expired now, without waiting for the next sweep; answers how many items that were.
    ///
    /// # Errors
    /// [`dynamodb::EngineError`] if the engine fails.
    pub async fn expire_now(&self) -> Result<usize, dynamodb::EngineError> {
        self.dynamodb.sweep_ttl().await
    }

    /// Waits until every mapping has handed over and finished all records that are in the streams now.
    pub async fn drained(&self) {
        join_all(self.pumps.iter().map(Pump::drained)).await;
    }

    /// Stops in the order of the flow, so that what is under way still finds what it needs.
    pub async fn stop(self) {
        self.front.stop().await;
        self.expiry.stop().await;
        join_all(self.pumps.into_iter().map(Pump::stop)).await;
        self.s3.stop().await;
        if let Some(engine) = Arc::into_inner(self.dynamodb) {
            engine.stop().await;
        }
    }
}

async fn bind(port: u16, option: &'static str) -> Result<(TcpListener, SocketAddr), Refusal> {
    let refused = |source| Refusal::Port { port, option, source };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

/// Where S3's objects are, and the temporary folder around them if they are not to be kept.
fn object_folder(data: Option<&Path>) -> Result<(PathBuf, Option<TempDir>), Refusal> {
    if let Some(data) = data {
        return Ok((data.join("s3"), None));
    }
    let folder = tempfile::Builder::new().prefix("millrace-").tempdir().map_err(Refusal::Folder)?;
    Ok((folder.path().to_owned(), Some(folder)))
}

/// A function's environment on this machine: the template's, except that nobody signs requests here.
#[must_use]
pub fn environment(function: &Function) -> Environment {
    let open = |name: &str, value: &str| if name == "AUTH" { "none".to_owned() } else { value.to_owned() };
    function.environment.iter().map(|(name, value)| (name.clone(), open(name, value))).collect()
}

/// What it takes to connect a function.
struct Wiring<'a> {
    options: &'a Options,
    dynamodb: &'a str,
    s3: &'a str,
}

impl Wiring<'_> {
    fn unrunnable(&self, problem: String) -> Refusal {
        Refusal::Unrunnable { path: self.options.template.clone(), problem }
    }

    fn api(&self, function: &Function) -> Result<Router, Refusal> {
        if let Some(base) = &self.options.functions {
            return Ok(proxy(base));
        }
        let auth = if self.options.auth == Auth::None { "none" } else { "jwt" };
        let variables = function.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let own = [("AUTH", auth), ("CURSOR_KEYS", CURSOR_KEYS)];
        let environment = variables.chain(own).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let config = api::config::Config::parse(&environment).map_err(misconfigured(function))?;
        Ok(api::app(&config, clients::dynamodb(self.dynamodb), Clock::system()))
    }

    /// The function that the mappings of `function` invoke.
    async fn invoked(&self, function: &Function) -> Result<Arc<dyn Invoke>, Refusal> {
        if let Some(base) = &self.options.functions {
            return Ok(Arc::new(ServedFunction::new(base, &function.name)?));
        }
        let environment = environment(function);
        match function.name.as_str() {
            "replicator" => {
                let config = replicator::config::Config::parse(&environment).map_err(misconfigured(function))?;
                let replica = clients::dynamodb(self.dynamodb);
                let replicator = replicator::connect(&config, replica, clients::s3(self.s3));
                let refused = |fault: replicator::Fault| Refusal::Function {
                    function: function.name.clone(),
                    reason: fault.to_string(),
                };
                replicator.check().await.map_err(refused)?;
                Ok(Arc::new(replicator))
            }
            "archiver" => {
                let config = archiver::config::Config::parse(&environment).map_err(misconfigured(function))?;
                Ok(Arc::new(archiver::connect(&config, clients::s3(self.s3))))
            }
            name => Err(self.unrunnable(format!(
                "{} is built from {name}, which local does not know: connect it in local/src/stack.rs",
                function.logical_id
            ))),
        }
    }

    async fn mappings(&self, function: &Function) -> Result<Vec<stream_pump::Mapping>, Refusal> {
        let invoke = self.invoked(function).await?;
        let mut mappings = Vec::new();
        for mapping in &function.mappings {
            mappings.push(self.mapping(function, mapping, Arc::clone(&invoke)).await?);
        }
        Ok(mappings)
    }

    async fn mapping(
        &self,
        function: &Function,
        mapping: &template::Mapping,
        invoke: Arc<dyn Invoke>,
    ) -> Result<stream_pump::Mapping, Refusal> {
        let name = format!("{}-{}", function.name, mapping.name);
        let described = clients::dynamodb(self.dynamodb).describe_table().table_name(&mapping.table).send().await;
        let stream_arn = described.ok().and_then(|answer| answer.table?.latest_stream_arn);
        let stream_arn = stream_arn.ok_or_else(|| {
            self.unrunnable(format!("mapping {} reads table {}, which has no stream", mapping.name, mapping.table))
        })?;
        let destination = |bucket: &String| Destination { s3: clients::s3(self.s3), bucket: bucket.clone() };
        let folder = self.options.data.as_ref().map(|data| data.join("checkpoints"));
        let checkpoints = folder.map(|folder| CheckpointFile::new(&folder, &name));
        let from = checkpoints.as_ref().map(|file| file.load(&stream_arn)).transpose()?;
        Ok(stream_pump::Mapping {
            settings: Settings::of(mapping, (!self.options.true_windows).then_some(LONGEST_WINDOW)),
            filter: Filter::parse(&mapping.name, &mapping.filters)?,
            stream_arn,
            from_latest: mapping.starting_position == "LATEST",
            streams: clients::streams(self.dynamodb),
            function: function.name.clone(),
            invoke,
            timeout: Duration::from_secs(function.timeout_s.into()),
            on_failure: mapping.on_failure_bucket.as_ref().map(destination),
            from: from.unwrap_or_default(),
            checkpoints,
            clock: Clock::system(),
            name,
        })
    }
}

fn misconfigured(function: &Function) -> impl FnOnce(Problems) -> Refusal {
    let function = function.name.clone();
    |problems| Refusal::Environment { function, problems }
}
