//! The sinks that the deployed replicator writes, read from its Lambda configuration: [`DeployedReplicator`]. A task
//! must not take the sinks that it is configured for as all sinks of the deployment.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_smithy_types::error::metadata::ProvideErrorMetadata as _;
use millrace_shared::error_chain::error_chain;
use millrace_sinks::document::{
    DocumentLocation, REPLICATION, ReplicaEntry, ReplicationDocument, SinkSettings, TableAddress,
};
use millrace_sinks::document_object::read_document;
use millrace_sinks::{SinkName, SinkSetting, postgres};
use tokio::time::timeout;

use crate::lambda_client::LambdaClient;
use crate::replication_loop::{ReplicationLoopError, feeding_functions};

/// The time limit of the search for functions that feed the source.
const LOOP_CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// The sinks of the deployment cannot be determined.
#[derive(Debug, thiserror::Error)]
pub enum SinksUnknownError {
    /// The role is not allowed to read the configuration.
    #[error(
        "cannot determine the sinks of the replicator {function}: allow lambda:GetFunctionConfiguration on it \
         ({reason})"
    )]
    Denied {
        /// The replicator's name.
        function: String,
        /// The error that Lambda returned.
        reason: String,
    },
    /// The function does not exist.
    #[error(
        "cannot determine the sinks of the replicator: the function {function} in REPLICATOR_FUNCTION does not exist"
    )]
    Absent {
        /// The name in `REPLICATOR_FUNCTION`.
        function: String,
    },
    /// The environment variables are encrypted with a key that the role is not allowed to use.
    #[error(
        "cannot determine the sinks of the replicator {function}: its environment variables cannot be decrypted \
         ({reason})"
    )]
    Encrypted {
        /// The replicator's name.
        function: String,
        /// The error that Lambda returned.
        reason: String,
    },
    /// The replicator's replication document is not valid, or does not exist.
    #[error("cannot determine the sinks of the replicator {function}: its {reason}")]
    Document {
        /// The replicator's name.
        function: String,
        /// The problem, which names the variable `REPLICATION`.
        reason: String,
    },
    /// The request to Lambda failed; a retry may succeed.
    #[error("cannot determine the sinks of the replicator {function}: {reason}")]
    Unavailable {
        /// The replicator's name.
        function: String,
        /// The error.
        reason: String,
    },
}

impl SinksUnknownError {
    /// Returns whether a retry may succeed without a change to the deployment.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// A sink that the deployment writes and this function is not configured for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the replicator writes to sink {sink}, but this task is not configured for it: {fix}")]
pub struct UnknownSinkError {
    /// The sink's name.
    pub sink: String,
    /// The environment variable that configures it.
    pub variable: &'static str,
    fix: String,
}

impl UnknownSinkError {
    fn from_setting(setting: &SinkSetting) -> Self {
        let fix = format!("set {} (`millrace task`: {})", setting.variable, option(setting));
        Self { sink: setting.sink.to_owned(), variable: setting.variable, fix }
    }

    fn from_document(name: &SinkName) -> Self {
        let fix = format!("set {REPLICATION} to the value that the replicator has");
        Self { sink: name.to_string(), variable: REPLICATION, fix }
    }
}

/// Returns the option of `millrace task` that corresponds to the variable.
fn option(setting: &SinkSetting) -> String {
    format!("--{} URL", setting.sink)
}

/// The deployed replicator function.
#[derive(Debug, Clone)]
pub struct DeployedReplicator {
    client: LambdaClient,
    function: String,
    settings: Vec<SinkSetting>,
    /// The client that reads a replication document from S3.
    s3: Option<aws_sdk_s3::Client>,
}

impl DeployedReplicator {
    /// Creates a client for the replicator of this name. `settings` are the variables that enable sinks.
    #[must_use]
    pub fn new(client: LambdaClient, function: String, settings: Vec<SinkSetting>) -> Self {
        Self { client, function, settings, s3: None }
    }

    /// Sets the client that reads the replicator's document if its configuration names an object in S3.
    #[must_use]
    pub fn with_documents(self, s3: aws_sdk_s3::Client) -> Self {
        Self { s3: Some(s3), ..self }
    }

    /// Returns the sinks that store items, are enabled in the deployment and are not among `known`.
    ///
    /// # Errors
    /// [`SinksUnknownError`] if the deployment's configuration cannot be read.
    pub async fn unserved(&self, known: &[&str]) -> Result<Vec<UnknownSinkError>, SinksUnknownError> {
        let variables = self.variables().await?;
        let document = match variables.get(REPLICATION) {
            Some(text) => Some(self.document(text).await?),
            None => None,
        };
        // The database of a document's tables has the table of the users service only for the source of that service.
        let is_users = variables.get("SOURCE_SCHEMA").is_some_and(|schema| schema == "users");
        let has_tables = document.as_ref().is_some_and(|document| {
            document.replicas().iter().any(|entry| matches!(entry.sink, SinkSettings::Postgres(_)))
        });
        let is_set =
            |name: &str| variables.contains_key(name) && (name != postgres::SETTING || is_users || !has_tables);
        let mut unserved = unserved(&self.settings, is_set, known);
        if let Some(document) = &document {
            let stores_items =
                |entry: &&ReplicaEntry| matches!(entry.sink, SinkSettings::DynamoDb(_) | SinkSettings::Postgres(_));
            let lacking = document.replicas().iter().filter(stores_items).map(|entry| &entry.name);
            unserved
                .extend(lacking.filter(|name| !known.contains(&name.as_str())).map(UnknownSinkError::from_document));
        }
        Ok(unserved)
    }

    /// Returns whether this sink is enabled in the deployment.
    ///
    /// # Errors
    /// [`SinksUnknownError`] if the deployment's configuration cannot be read.
    pub async fn enables(&self, sink: &str) -> Result<bool, SinksUnknownError> {
        let variables = self.variables().await?;
        Ok(self.settings.iter().any(|setting| setting.sink == sink && variables.contains_key(setting.variable)))
    }

    /// Returns the replicator's environment variables that are set and not empty.
    async fn variables(&self) -> Result<BTreeMap<String, String>, SinksUnknownError> {
        let function = || self.function.clone();
        let configuration = self.client.function_configuration(&self.function).await;
        let configuration = configuration.map_err(|error| {
            let reason = error_chain(&error);
            match error.code() {
                Some("AccessDeniedException") => SinksUnknownError::Denied { function: function(), reason },
                Some("ResourceNotFoundException") => SinksUnknownError::Absent { function: function() },
                _ => SinksUnknownError::Unavailable { function: function(), reason },
            }
        })?;
        let environment = configuration.environment.unwrap_or_default();
        if let Some(error) = environment.error {
            let reason = error.message.or(error.error_code).unwrap_or_else(|| "unknown error".to_owned());
            return Err(SinksUnknownError::Encrypted { function: function(), reason });
        }
        Ok(environment.variables.into_iter().flatten().filter(|(_, value)| !value.is_empty()).collect())
    }

    /// Verifies that no function writes the changes of a replica with this stream back to the source. The response is not
    /// awaited longer than 10 seconds: the Region of a replica may be out of a network's reach.
    ///
    /// # Errors
    /// [`ReplicationLoopError`] if there is such a function. That it cannot be determined is logged.
    pub async fn reject_loop(
        &self,
        sink: &str,
        stream_arn: &str,
        source_arn: &str,
    ) -> Result<(), ReplicationLoopError> {
        let (Some(s3), Ok(source)) = (&self.s3, TableAddress::parse(source_arn)) else { return Ok(()) };
        let region = stream_arn.split(':').nth(3).unwrap_or_default().to_owned();
        let lambda = self.client.in_region(region);
        let search = Box::pin(feeding_functions(&lambda, s3, stream_arn, &source));
        let unknown = match timeout(LOOP_CHECK_TIMEOUT, search).await {
            Ok(Ok(feeding)) => {
                let Some(feeding) = feeding.into_iter().next() else { return Ok(()) };
                return Err(ReplicationLoopError {
                    sink: sink.to_owned(),
                    stream: stream_arn.to_owned(),
                    function: feeding.name,
                    mapping_uuid: feeding.mapping_uuid,
                    source_arn: source_arn.to_owned(),
                });
            }
            Ok(Err(unknown)) => format!("{unknown}: allow {}", unknown.action),
            Err(_) => "Lambda did not respond in time".to_owned(),
        };
        tracing::warn!(sink, error = unknown, "the readers of the replica's stream were not checked");
        Ok(())
    }

    /// Returns the replicator's document, which its variable contains or names.
    async fn document(&self, text: &str) -> Result<ReplicationDocument, SinksUnknownError> {
        let invalid = |reason: String| SinksUnknownError::Document { function: self.function.clone(), reason };
        let location = DocumentLocation::parse(text).map_err(|problem| invalid(problem.to_string()))?;
        let text = match (location, &self.s3) {
            (None, _) => text.to_owned(),
            (Some(location), Some(s3)) => read_document(s3, &location).await.map_err(|error| {
                if error.retryable() {
                    SinksUnknownError::Unavailable { function: self.function.clone(), reason: error.to_string() }
                } else {
                    invalid(error.to_string())
                }
            })?,
            (Some(location), None) => {
                return Err(invalid(format!("{REPLICATION} is {location}, which cannot be read")));
            }
        };
        ReplicationDocument::parse(&text).map_err(|error| invalid(error.to_string()))
    }

    /// Returns the reason why this function cannot redrive records that failed only in `sink`, or `None` if it can.
    #[must_use]
    pub fn refusal(&self, sink: &str, known: &[&str]) -> Option<String> {
        if known.contains(&sink) {
            return None;
        }
        match self.settings.iter().find(|setting| setting.sink == sink) {
            Some(setting) if !setting.stores_items => None,
            Some(setting) => Some(format!(
                "the records failed in sink {sink}, but this task is not configured for it: set {} (`millrace task`: {}), \
                 or delete the object if the sink was removed permanently",
                setting.variable,
                option(setting)
            )),
            None => Some(format!(
                "the records failed in replica {sink:?}, which is not configured: add it to {REPLICATION}, or delete \
                 the object if the replica was removed permanently"
            )),
        }
    }
}

fn unserved(settings: &[SinkSetting], is_set: impl Fn(&str) -> bool, known: &[&str]) -> Vec<UnknownSinkError> {
    let lacking =
        |setting: &&SinkSetting| setting.stores_items && is_set(setting.variable) && !known.contains(&setting.sink);
    settings.iter().filter(lacking).map(UnknownSinkError::from_setting).collect()
}

#[cfg(test)]
mod tests {
    use millrace_sinks::SINK_SETTINGS;

    use super::*;

    #[test]
    fn a_sink_is_unserved_if_it_is_on_stores_items_and_is_not_known() {
        let all = |_: &str| true;
        let names = |is_set: &dyn Fn(&str) -> bool, known: &[&str]| -> Vec<String> {
            unserved(&SINK_SETTINGS, is_set, known).into_iter().map(|one| one.sink).collect()
        };
        assert_eq!(names(&all, &["dynamodb"]), ["postgres"], "what a cache lacks expires");
        assert_eq!(names(&all, &["dynamodb", "postgres"]), [""; 0]);
        assert_eq!(names(&|name| name == "REPLICA_TABLE", &["dynamodb"]), [""; 0]);
        let [postgres] = &unserved(&SINK_SETTINGS, all, &["dynamodb"])[..] else { panic!("one") };
        let error_text = postgres.to_string();
        assert!(error_text.contains("POSTGRES_URL") && error_text.contains("--postgres URL"), "{error_text}");
    }
}
