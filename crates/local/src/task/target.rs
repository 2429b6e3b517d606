//! Target of a task: a running `millrace`, or the data folder of a stopped one.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use millrace_maintenance::config::MaintenanceConfig;
use millrace_maintenance::{AwsClients, MaintenanceHandler};
use tokio::net::TcpStream;

use super::RunTaskError;
use crate::clients;
use crate::stack::{self, LocalStack, StackOptions, StartError};
use crate::template::{ParameterOverrides, SamTemplate};

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
    /// The stack that listens on these ports, with the names of this template, read with these overrides.
    Running(StackPorts, PathBuf, ParameterOverrides),
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
            Self::Running(ports, path, choices) => {
                let template = SamTemplate::load_with(&path, &choices).map_err(StartError::from)?;
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
                let (config, failure_bucket) = config(&template, &clients.s3).await?;
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
                let stack = LocalStack::start(*options).await?;
                let (_, failure_bucket) = config(stack.template(), &stack.s3()).await?;
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

/// Returns the function's configuration in the stack's environment, and the name of the bucket that reports are written
/// to.
async fn config(template: &SamTemplate, s3: &aws_sdk_s3::Client) -> Result<(MaintenanceConfig, String), RunTaskError> {
    let function = template.functions.iter().find(|function| function.name == millrace_maintenance::config::FUNCTION);
    let function = function.ok_or(RunTaskError::NoFunction)?;
    let environment = stack::environment(function, s3).await?;
    let config = MaintenanceConfig::parse(&environment)
        .map_err(|problems| StartError::Environment { function: function.name.clone(), problems })?;
    Ok((config, environment.get("FAILURE_BUCKET").unwrap_or_default().to_owned()))
}
