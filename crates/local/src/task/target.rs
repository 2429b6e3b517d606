//! Target of a task: a running `millrace`, or the data folder of a stopped one.

use std::net::Ipv4Addr;

use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use millrace_maintenance::config::{FUNCTION, MaintenanceConfig};
use millrace_maintenance::lambda_client::LambdaClient;
use millrace_maintenance::{AwsClients, MaintenanceHandler};
use millrace_shared::environment::Environment;
use millrace_shared::error_chain::error_chain;
use millrace_sinks::document::{REPLICATION, ReplicationDocument};
use millrace_sinks::postgres::SETTING;
use tokio::net::TcpStream;

use super::RunTaskError;
use crate::clients;
use crate::stack::{self, LocalStack, StackOptions, StartError, localize};

/// The beginning of the names of all variables of the relational tier.
const POSTGRES: &str = "POSTGRES_";
/// The variable with the authentication mode of the relational tier.
const POSTGRES_AUTH: &str = "POSTGRES_AUTH";

/// The ports of a running `millrace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackPorts {
    /// The port of the API.
    pub api: u16,
    /// The port of DynamoDB.
    pub dynamodb: u16,
    /// The port of S3.
    pub s3: u16,
}

/// The stack that a task works on.
pub enum TaskTarget {
    /// The stack that listens on these ports, which reports the configuration of its maintenance function.
    Running {
        /// The ports.
        ports: StackPorts,
        /// The URL of PostgreSQL, with its password; without it, a task does not reach the relational replica.
        postgres: Option<String>,
    },
    /// A stack that is started with these options for the task and stopped afterwards.
    Own(Box<StackOptions>),
}

/// The maintenance function, and the stack to stop after the task if it was started for the task.
pub(super) struct ConnectedTarget {
    pub(super) maintenance: MaintenanceHandler,
    pub(super) failure_bucket: String,
    stack: Option<LocalStack>,
}

impl TaskTarget {
    pub(super) async fn open(self) -> Result<ConnectedTarget, RunTaskError> {
        match self {
            Self::Running { ports, postgres } => {
                for (port, option) in
                    [(ports.api, "--port"), (ports.dynamodb, "--dynamodb-port"), (ports.s3, "--s3-port")]
                {
                    let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
                    connected.map_err(|_| RunTaskError::NotListening { port, option })?;
                }
                let url = |port: u16| format!("http://{}:{port}", Ipv4Addr::LOCALHOST);
                let clients = AwsClients {
                    source: clients::dynamodb(&url(ports.dynamodb)),
                    replicas: clients::dynamodb(&url(ports.dynamodb)).into(),
                    signer: None,
                    s3: clients::s3(&url(ports.s3)),
                    lambda: clients::lambda(&url(ports.api)),
                };
                let environment = reported_environment(&clients.lambda, ports.api, postgres).await?;
                let (config, failure_bucket) = config(environment, &clients.s3).await?;
                Ok(ConnectedTarget {
                    maintenance: millrace_maintenance::connect(&config, clients),
                    failure_bucket,
                    stack: None,
                })
            }
            Self::Own(options) => {
                if let Some(folder) = options.data.as_ref().filter(|folder| !folder.is_dir()) {
                    return Err(RunTaskError::NoFolder(folder.clone()));
                }
                let stack = Box::pin(LocalStack::start(*options)).await?;
                let functions = &stack.template().functions;
                let function = functions.iter().find(|function| function.name == FUNCTION);
                let environment = stack::environment(function.ok_or(RunTaskError::NoFunction)?, &stack.s3()).await?;
                let (_, failure_bucket) = config(environment, &stack.s3()).await?;
                let maintenance = stack.maintenance().ok_or(RunTaskError::NoFunction)?;
                Ok(ConnectedTarget { maintenance, failure_bucket, stack: Some(stack) })
            }
        }
    }
}

impl ConnectedTarget {
    pub(super) async fn close(self) {
        if let Some(stack) = self.stack {
            stack.stop().await;
        }
    }
}

/// Returns the environment of the maintenance function that a running stack reports. It reports the URL of PostgreSQL
/// without the password, so the URL is the given one, and the tier is off without it.
async fn reported_environment(
    lambda: &LambdaClient,
    port: u16,
    postgres: Option<String>,
) -> Result<Environment, RunTaskError> {
    let reported = lambda.function_configuration(FUNCTION).await;
    let reported = reported.map_err(|error| match error.code() {
        Some("ResourceNotFoundException") => RunTaskError::NoFunction,
        _ => RunTaskError::NotMillrace { port, reason: error_chain(&error) },
    })?;
    let variables = reported.environment.and_then(|environment| environment.variables);
    let variables = variables.ok_or_else(|| {
        let reason = "the function maintenance has no environment".to_owned();
        RunTaskError::NotMillrace { port, reason }
    })?;
    let others = variables.into_iter().filter(|(name, _)| !name.starts_with(POSTGRES));
    let tier = postgres.map(|url| [(SETTING, url), (POSTGRES_AUTH, "password".to_owned())]);
    let tier = tier.into_iter().flatten().map(|(name, value)| (name.to_owned(), value));
    Ok(others.chain(tier).collect())
}

/// Returns the function's configuration, and the name of the bucket that reports are written to.
async fn config(
    environment: Environment,
    s3: &aws_sdk_s3::Client,
) -> Result<(MaintenanceConfig, String), RunTaskError> {
    let invalid = |problems| StartError::Environment { function: FUNCTION.to_owned(), problems };
    let environment = localize(environment, s3).await.map_err(invalid)?;
    if environment.get(SETTING).is_none()
        && let Some(Ok(document)) = environment.get(REPLICATION).map(ReplicationDocument::parse)
        && let Some(replica) = document.replicas().iter().find(|entry| entry.postgres_table().is_some())
    {
        return Err(RunTaskError::NoPostgresUrl { replica: replica.name.to_string() });
    }
    let config = MaintenanceConfig::parse(&environment).map_err(invalid)?;
    Ok((config, environment.get("FAILURE_BUCKET").unwrap_or_default().to_owned()))
}
