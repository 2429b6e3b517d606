//! The sinks that the deployed replicator writes, read from its Lambda configuration: [`DeployedReplicator`]. A task
//! must not take the sinks that it is configured for as all sinks of the deployment.

use aws_sdk_lambda::Client;
use aws_sdk_lambda::error::ProvideErrorMetadata as _;
use millrace_shared::error_chain::error_chain;
use millrace_sinks::SinkSetting;

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
#[error(
    "the replicator writes to sink {sink}, but this task is not configured for it: set {variable} \
     (`millrace task`: {option})"
)]
pub struct UnknownSink {
    /// The sink's name.
    pub sink: &'static str,
    /// The environment variable that configures it.
    pub variable: &'static str,
    option: String,
}

impl UnknownSink {
    fn of(setting: &SinkSetting) -> Self {
        Self { sink: setting.sink, variable: setting.variable, option: option(setting) }
    }
}

/// Returns the option of `millrace task` that corresponds to the variable.
fn option(setting: &SinkSetting) -> String {
    format!("--{} URL", setting.sink)
}

/// The deployed replicator function.
#[derive(Debug, Clone)]
pub struct DeployedReplicator {
    client: Client,
    function: String,
    settings: Vec<SinkSetting>,
}

impl DeployedReplicator {
    /// Creates a client for the replicator of this name. `settings` are the variables that enable sinks.
    #[must_use]
    pub fn new(client: Client, function: String, settings: Vec<SinkSetting>) -> Self {
        Self { client, function, settings }
    }

    /// Returns the sinks that store items, are enabled in the deployment and are not among `known`.
    ///
    /// # Errors
    /// [`SinksUnknownError`] if the deployment's configuration cannot be read.
    pub async fn unserved(&self, known: &[&str]) -> Result<Vec<UnknownSink>, SinksUnknownError> {
        let function = || self.function.clone();
        let asked = self.client.get_function_configuration().function_name(&self.function).send().await;
        let configuration = asked.map_err(|error| {
            let reason = error_chain(&error);
            match error.code() {
                Some("AccessDeniedException") => SinksUnknownError::Denied { function: function(), reason },
                Some("ResourceNotFoundException") => SinksUnknownError::Absent { function: function() },
                _ => SinksUnknownError::Unavailable { function: function(), reason },
            }
        })?;
        let environment = configuration.environment();
        if let Some(error) = environment.and_then(|environment| environment.error()) {
            let reason = error.message().or(error.error_code()).unwrap_or("unknown error").to_owned();
            return Err(SinksUnknownError::Encrypted { function: function(), reason });
        }
        let variables = environment.and_then(|environment| environment.variables());
        let is_set = |name: &str| variables.is_some_and(|all| all.get(name).is_some_and(|value| !value.is_empty()));
        Ok(unserved(&self.settings, is_set, known))
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
            None => Some(format!("the records failed in unknown sink {sink:?}: no setting of this version enables it")),
        }
    }
}

fn unserved(settings: &[SinkSetting], is_set: impl Fn(&str) -> bool, known: &[&str]) -> Vec<UnknownSink> {
    let lacking =
        |setting: &&SinkSetting| setting.stores_items && is_set(setting.variable) && !known.contains(&setting.sink);
    settings.iter().filter(lacking).map(UnknownSink::of).collect()
}

#[cfg(test)]
mod tests {
    use millrace_sinks::SINK_SETTINGS;

    use super::*;

    #[test]
    fn a_sink_is_unserved_if_it_is_on_stores_items_and_is_not_known() {
        let all = |_: &str| true;
        let names = |is_set: &dyn Fn(&str) -> bool, known: &[&str]| -> Vec<&str> {
            unserved(&SINK_SETTINGS, is_set, known).iter().map(|one| one.sink).collect()
        };
        assert_eq!(names(&all, &["dynamodb"]), ["postgres"], "what a cache lacks expires");
        assert_eq!(names(&all, &["dynamodb", "postgres"]), [""; 0]);
        assert_eq!(names(&|name| name == "REPLICA_TABLE", &["dynamodb"]), [""; 0]);
        let [postgres] = &unserved(&SINK_SETTINGS, all, &["dynamodb"])[..] else { panic!("one") };
        let said = postgres.to_string();
        assert!(said.contains("POSTGRES_URL") && said.contains("--postgres URL"), "{said}");
    }
}
