//! The sinks that the deployed replicator writes, read from its configuration: a task must not take those that it knows for
//! all. [`DeployedReplicator`]

use aws_sdk_lambda::Client;
use aws_sdk_lambda::error::ProvideErrorMetadata as _;
use replicator::sink::SinkSetting;
use shared::table_reader::error_chain;

/// The sinks of the deployment are not known.
#[derive(Debug, thiserror::Error)]
pub enum SinksUnknownError {
    /// The role may not read the configuration.
    #[error(
        "it is not known which sinks the replicator {function} writes: allow lambda:GetFunctionConfiguration on it ({reason})"
    )]
    Denied {
        /// The replicator.
        function: String,
        /// What Lambda says.
        reason: String,
    },
    /// There is no such function.
    #[error(
        "it is not known which sinks the replicator writes: REPLICATOR_FUNCTION names {function}, which does not exist"
    )]
    Absent {
        /// What the setting names.
        function: String,
    },
    /// The variables are encrypted under a key that the role may not use.
    #[error(
        "it is not known which sinks the replicator {function} writes: its environment cannot be decrypted ({reason})"
    )]
    Encrypted {
        /// The replicator.
        function: String,
        /// What Lambda says.
        reason: String,
    },
    /// Lambda does not answer, and may answer later.
    #[error("it is not known which sinks the replicator {function} writes: {reason}")]
    Unavailable {
        /// The replicator.
        function: String,
        /// Why.
        reason: String,
    },
}

impl SinksUnknownError {
    /// Whether another try may succeed without a change to the deployment.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// A sink that the deployment writes and this function does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the replicator of this deployment writes sink {sink}, which this task does not know: set {variable} \
     (`local task`: {option})"
)]
pub struct UnknownSink {
    /// The sink.
    pub sink: &'static str,
    /// The variable that makes it known.
    pub variable: &'static str,
    option: String,
}

impl UnknownSink {
    fn of(setting: &SinkSetting) -> Self {
        Self { sink: setting.sink, variable: setting.variable, option: option(setting) }
    }
}

/// What `local task` takes in the variable's place.
fn option(setting: &SinkSetting) -> String {
    format!("--{} URL", setting.sink)
}

/// The deployed replicator.
#[derive(Debug, Clone)]
pub struct DeployedReplicator {
    client: Client,
    function: String,
    settings: Vec<SinkSetting>,
}

impl DeployedReplicator {
    /// The replicator of this name, which these settings turn sinks on for.
    #[must_use]
    pub fn new(client: Client, function: String, settings: Vec<SinkSetting>) -> Self {
        Self { client, function, settings }
    }

    /// The sinks that store items, are written by the deployment and are not among `known`.
    ///
    /// # Errors
    /// [`SinksUnknownError`] if the deployment does not tell.
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
            let reason = error.message().or(error.error_code()).unwrap_or("no reason").to_owned();
            return Err(SinksUnknownError::Encrypted { function: function(), reason });
        }
        let variables = environment.and_then(|environment| environment.variables());
        let is_set = |name: &str| variables.is_some_and(|all| all.get(name).is_some_and(|value| !value.is_empty()));
        Ok(unserved(&self.settings, is_set, known))
    }

    /// Why records that failed in `sink` alone are not this function's to redrive; nothing if they are.
    #[must_use]
    pub fn refusal(&self, sink: &str, known: &[&str]) -> Option<String> {
        if known.contains(&sink) {
            return None;
        }
        match self.settings.iter().find(|setting| setting.sink == sink) {
            Some(setting) if !setting.stores_items => None,
            Some(setting) => Some(format!(
                "it failed in sink {sink}, which this task does not know: set {} (`local task`: {}), or remove the object \
                 if the sink is gone for good",
                setting.variable,
                option(setting)
            )),
            None => Some(format!("it failed in sink {sink:?}, which no setting of this version turns on")),
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
    use replicator::sink::SINK_SETTINGS;

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
