//! A stack that is deployed in an account: [`DeployedStack`].
//!
//! The account is read only. Its resources are found by their logical IDs in the stack of `CloudFormation` and its
//! nested stacks; the configuration of the maintenance function names the stores, so the pages read the same tables and
//! buckets as the tasks. Credentials and names are read again after a minute, so that a page that failed works after a
//! login or an update of the stack.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use millrace_doctor::account_call::{AccountCall, AccountOperation, CallResponse, GET_FUNCTION, LIST_STACK_RESOURCES};
use millrace_maintenance::MaintenanceHandler;
use millrace_shared::environment::Environment;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::account_doctor::AccountDoctor;
use crate::stack_calls::refused;

/// The time after which credentials and resources are read again.
const RENEWED_AFTER: Duration = Duration::from_mins(1);
/// The time limit for finding the resources.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(40);
/// The maximum number of stacks: the stack and those that it nests.
const MAX_STACKS: usize = 20;
/// The functions by their logical IDs, in the order of the pages.
const FUNCTIONS: [(&str, &str); 5] = [
    ("ReplicatorFunction", "replicator"),
    ("ArchiverFunction", "archiver"),
    ("MaintenanceFunction", "maintenance"),
    ("ApiFunction", "api"),
    ("SearchFunction", "search"),
];
/// The logical ID of the state machine that runs the tasks.
const STATE_MACHINE: &str = "MaintenanceMachine";

/// Makes a call to the account.
pub type AccountCaller = Box<dyn Fn(AccountCall) -> BoxFuture<'static, CallResponse> + Send + Sync>;
/// Connects the maintenance function of this environment to the account, or returns why it cannot be connected.
pub type StoresConnector =
    Box<dyn Fn(Environment) -> BoxFuture<'static, Result<MaintenanceHandler, String>> + Send + Sync>;
/// Opens the account with the credentials that are valid now, or returns why there are none.
pub type AccountOpener = Box<dyn Fn() -> BoxFuture<'static, Result<StackAccount, String>> + Send + Sync>;

/// An account, opened for the time that its credentials are valid.
pub struct StackAccount {
    /// The Region of the stack.
    pub region: String,
    /// Makes calls.
    pub caller: AccountCaller,
    /// Connects the stores.
    pub connector: StoresConnector,
}

impl StackAccount {
    /// Makes a call.
    ///
    /// # Errors
    /// The call and, if it was denied, the permission.
    pub(crate) async fn call(
        &self,
        operation: &'static AccountOperation,
        parameters: &[(&'static str, &str)],
    ) -> Result<Value, CallError> {
        let call = AccountCall::new(operation, parameters);
        match (self.caller)(call.clone()).await {
            CallResponse::Response(response) => Ok(response),
            CallResponse::Refused(refusal) => {
                let is_absent = refusal.code.as_deref().is_some_and(|code| operation.absent.contains(&code));
                Err(CallError { is_absent, reason: refused(&call, &refusal) })
            }
        }
    }
}

/// A call without a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallError {
    /// Whether the service says that the object of the call does not exist.
    pub(crate) is_absent: bool,
    pub(crate) reason: String,
}

/// A stack of `CloudFormation` that is read.
pub struct DeployedStack {
    name: String,
    allow_tasks: bool,
    open: AccountOpener,
    connection: Mutex<Option<(Instant, Arc<StackConnection>)>>,
    pub(crate) doctor: AccountDoctor,
}

/// The resources of a stack, and its stores.
pub(crate) struct StackConnection {
    pub(crate) account: StackAccount,
    pub(crate) resources: StackResources,
    /// The stores; or why they cannot be read.
    pub(crate) maintenance: Result<Arc<MaintenanceHandler>, String>,
    /// The value of the dimension `stack` of its metrics.
    pub(crate) metric_stack: String,
}

/// The physical IDs of the resources that the pages read.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct StackResources {
    /// The functions by their names in Millrace.
    functions: BTreeMap<&'static str, String>,
    state_machine: Option<String>,
}

impl StackResources {
    /// Returns the functions that the stack has, each with its name in Millrace and in the account.
    pub(crate) fn functions(&self) -> impl Iterator<Item = (&'static str, &str)> {
        FUNCTIONS.iter().filter_map(|(_, name)| Some((*name, self.functions.get(name)?.as_str())))
    }

    /// Returns the ARN of the state machine.
    ///
    /// # Errors
    /// The missing resource.
    pub(crate) fn state_machine(&self) -> Result<&str, String> {
        self.state_machine
            .as_deref()
            .ok_or_else(|| format!("the stack has no resource {STATE_MACHINE}, which runs tasks"))
    }

    /// Adds the resources of a stack, and returns the stacks that it nests.
    fn add(&mut self, listed: &Value) -> Vec<String> {
        let mut nested = Vec::new();
        for resource in listed["StackResourceSummaries"].as_array().into_iter().flatten() {
            let text = |member: &str| resource[member].as_str().unwrap_or_default();
            let (logical, physical) = (text("LogicalResourceId"), text("PhysicalResourceId").to_owned());
            if physical.is_empty() || text("ResourceStatus").starts_with("DELETE_COMPLETE") {
                continue;
            }
            match text("ResourceType") {
                "AWS::CloudFormation::Stack" => nested.push(physical),
                "AWS::StepFunctions::StateMachine" if logical == STATE_MACHINE => self.state_machine = Some(physical),
                "AWS::Lambda::Function" => {
                    if let Some((_, name)) = FUNCTIONS.iter().find(|(own, _)| *own == logical) {
                        self.functions.insert(name, physical);
                    }
                }
                _ => {}
            }
        }
        nested
    }

    async fn read(account: &StackAccount, name: &str) -> Result<Self, String> {
        let mut found = Self::default();
        let (mut stacks, mut count) = (VecDeque::from([name.to_owned()]), 0);
        while let Some(stack) = stacks.pop_front() {
            count += 1;
            if count > MAX_STACKS {
                return Err(format!("the stack {name} nests more than {MAX_STACKS} stacks"));
            }
            let listed = account.call(&LIST_STACK_RESOURCES, &[("StackName", &stack)]).await;
            let listed = listed.map_err(|error| {
                let region = &account.region;
                let fix = if error.reason.contains("does not exist") {
                    format!(" in {region}: set --stack, --profile or --region")
                } else {
                    String::new()
                };
                format!("stack/{stack}: {}{fix}", error.reason)
            })?;
            stacks.extend(found.add(&listed));
        }
        Ok(found)
    }
}

impl DeployedStack {
    /// Returns a stack by its name or ARN; nothing is called before a page is opened. Tasks can be started only if
    /// `allow_tasks` is set.
    #[must_use]
    pub fn new(name: String, allow_tasks: bool, open: AccountOpener) -> Self {
        Self { name, allow_tasks, open, connection: Mutex::default(), doctor: AccountDoctor::default() }
    }

    /// Returns the name or ARN.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether tasks can be started.
    pub(crate) fn allows_tasks(&self) -> bool {
        self.allow_tasks
    }

    /// Opens the account, with the credentials that are valid now.
    ///
    /// # Errors
    /// Why there are no credentials.
    pub(crate) async fn open(&self) -> Result<StackAccount, String> {
        (self.open)().await
    }

    /// Returns the connection to the stack, which is opened if there is none or it is too old.
    ///
    /// # Errors
    /// The call that failed and what to do, or the resource that is missing.
    pub(crate) async fn connect(&self) -> Result<Arc<StackConnection>, String> {
        let within = CONNECT_TIMEOUT.as_secs();
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, async {
            let mut slot = self.connection.lock().await;
            if let Some((opened, connection)) = &*slot
                && opened.elapsed() < RENEWED_AFTER
            {
                return Ok(Arc::clone(connection));
            }
            *slot = None;
            let connection = Arc::new(self.connected().await?);
            // Stores that could not be read are tried again by the next page.
            if connection.maintenance.is_ok() {
                *slot = Some((Instant::now(), Arc::clone(&connection)));
            }
            Ok(connection)
        });
        connected.await.unwrap_or_else(|_| Err(format!("the account has not responded within {within} s: try again")))
    }

    async fn connected(&self) -> Result<StackConnection, String> {
        let account = self.open().await?;
        let resources = StackResources::read(&account, &self.name).await?;
        let Some(function) = resources.functions.get("maintenance") else {
            return Err(format!(
                "stack/{} has no resource MaintenanceFunction: choose a stack of template.yaml or \
                 infra/replication.yaml, which have it",
                self.name
            ));
        };
        let environment = environment(&account, function).await;
        let metric_stack = environment.as_ref().ok().and_then(|environment| environment.get("STACK_NAME").cloned());
        // The name in the ARN of a stack: arn:aws:cloudformation:REGION:ACCOUNT:stack/NAME/ID.
        let own_name = || self.name.split('/').nth(1).unwrap_or(&self.name).to_owned();
        let metric_stack = metric_stack.unwrap_or_else(own_name);
        let maintenance = match environment {
            Ok(environment) => (account.connector)(environment.into_iter().collect()).await.map(Arc::new),
            Err(reason) => Err(reason),
        };
        Ok(StackConnection { account, resources, maintenance, metric_stack })
    }
}

/// Reads the environment variables of a function.
async fn environment(account: &StackAccount, function: &str) -> Result<BTreeMap<String, String>, String> {
    let configuration = account.call(&GET_FUNCTION, &[("FunctionName", function)]).await;
    let configuration = configuration.map_err(|error| format!("function/{function}: {}", error.reason))?;
    if let Some(reason) = configuration.pointer("/Environment/Error/Message").and_then(Value::as_str) {
        return Err(format!("function/{function}: its environment cannot be read: {reason}"));
    }
    let variables = configuration.pointer("/Environment/Variables").and_then(Value::as_object);
    let variables = variables.into_iter().flatten();
    Ok(variables.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect())
}
