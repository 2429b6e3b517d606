//! Connects the template's functions to the engines, each with its environment from the template.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::routing::any;
use millrace_http::deadline::within;
use millrace_shared::clock::Clock;
use millrace_shared::environment::{Environment, EnvironmentError};
use millrace_shared::http::caller::ScopeMapping;
use millrace_shared::s3::S3Bucket;
use millrace_sinks::Sink;
use millrace_sinks::config::load_document;
use millrace_sinks::document::{REPLICATION, ReplicationDocument};
use millrace_sinks::hash_keys::with_constant_hash_keys;
use tokio::sync::watch;
use tower::ServiceExt;

use super::embedded::{EmbeddedArchiver, EmbeddedReplicator};
use super::{CURSOR_KEYS, HASH_KEY, MAX_BATCH_WINDOW, StackOptions, StackReplica, StartError};
use crate::clients;
use crate::http::proxy;
use crate::lambda::{ListedMapping, function_arn};
use crate::observer::{ChangeObserver, ObservedFunction, ObservedSink};
use crate::template::{self, FunctionResource, SamTemplate};
use crate::token::LocalAuth;
use millrace_event_source_mapping::MappingConfig;
use millrace_event_source_mapping::checkpoints::CheckpointFile;
use millrace_event_source_mapping::filter::RecordFilter;
use millrace_event_source_mapping::invoke::{ServedFunction, StreamFunction};
use millrace_event_source_mapping::settings::MappingSettings;

/// Returns a function's environment on this machine: the template's, but without IAM authentication for requests and
/// tier logins, with the replication document itself if the template names an object of `s3`, and with a constant key
/// for the document's hashes.
///
/// # Errors
/// [`StartError::Environment`] if the object cannot be read.
pub async fn environment(function: &FunctionResource, s3: &aws_sdk_s3::Client) -> Result<Environment, StartError> {
    localize(without_auth(function).collect(), s3).await.map_err(misconfigured(function))
}

/// Returns an environment with the replication document of this machine: the document itself if the environment names an
/// object of `s3`, with tables by name, since all of them are in one engine, and with a constant key for its hashes.
///
/// # Errors
/// [`EnvironmentError`] if the object cannot be read.
pub(crate) async fn localize(
    environment: Environment,
    s3: &aws_sdk_s3::Client,
) -> Result<Environment, EnvironmentError> {
    let environment = load_document(environment, s3).await?;
    // A document that is not valid is reported with the other problems of the environment.
    let environment = match environment.get(REPLICATION).map(ReplicationDocument::parse) {
        Some(Ok(document)) if document.has_table_arns() => {
            environment.with(REPLICATION, document.with_table_names().to_json())
        }
        _ => environment,
    };
    Ok(with_constant_hash_keys(environment, HASH_KEY))
}

/// Returns the same environment as names and values.
pub(super) fn variables(function: &FunctionResource) -> BTreeMap<String, String> {
    without_auth(function).collect()
}

fn without_auth(function: &FunctionResource) -> impl Iterator<Item = (String, String)> {
    let open = |name: &str, value: &str| match name {
        "AUTH" => "none".to_owned(),
        "POSTGRES_AUTH" | "CACHE_AUTH" => "password".to_owned(),
        _ => value.to_owned(),
    };
    function.environment.iter().map(move |(name, value)| (name.clone(), open(name, value)))
}

/// Returns the replicas of the template's replicator that store items.
pub(super) async fn replicas(template: &SamTemplate, s3: &str) -> Result<Vec<StackReplica>, StartError> {
    let Some(replicator) = template.functions.iter().find(|function| function.name == "replicator") else {
        return Ok(Vec::new());
    };
    Ok(StackReplica::from_environment(&environment(replicator, &clients::s3(s3)).await?))
}

/// Returns the API's router with the search function's routes added, each at its path in the template.
pub(super) fn mount_search_routes(api: Router, other: Router, template: &SamTemplate) -> Router {
    let routes = template.routes.iter().filter(|route| route.function == millrace_search::config::FUNCTION);
    // The template has one route per method of a path; the search router selects the method itself.
    let paths: BTreeSet<&str> = routes.map(|route| route.path.as_str()).collect();
    let hand_on = move |mut request: Request| {
        // Otherwise the search router would append its own path to this router's, and its authorization would not
        // recognize the route.
        request.extensions_mut().remove::<MatchedPath>();
        other.clone().oneshot(request)
    };
    let routes = paths.into_iter().fold(Router::new(), |routes, path| routes.route(path, any(hand_on.clone())));
    // Paths are compared in their canonical form here as well.
    Router::new().fallback_service(routes.fallback_service(api).map_request(millrace_http::uri::canonical))
}

/// The options and endpoints that connecting a function requires.
pub(super) struct FunctionWiring<'a> {
    pub(super) options: &'a StackOptions,
    pub(super) dynamodb: &'a str,
    pub(super) writes: watch::Receiver<()>,
    pub(super) s3: &'a str,
    pub(super) observer: Option<&'a Arc<ChangeObserver>>,
}

impl FunctionWiring<'_> {
    pub(super) fn unrunnable(&self, problem: String) -> StartError {
        StartError::UnsupportedTemplate { path: self.options.template.clone(), problem }
    }

    pub(super) fn api(&self, function: &FunctionResource) -> Result<Router, StartError> {
        if let Some(base) = &self.options.functions {
            return Ok(proxy(base, millrace_api::config::FUNCTION));
        }
        let config = millrace_api::config::ApiConfig::parse(&self.http_environment(function))
            .map_err(misconfigured(function))?;
        let api = millrace_api::app(&config, clients::dynamodb(self.dynamodb), config.cache(None), Clock::system());
        Ok(within(api, Duration::from_secs(function.timeout_s.into())))
    }

    /// Returns the mapping of scopes that the API's environment specifies for tokens.
    pub(super) fn scopes(&self, function: &FunctionResource) -> Result<ScopeMapping, StartError> {
        let config = millrace_api::config::ApiConfig::parse(&self.http_environment(function))
            .map_err(misconfigured(function))?;
        Ok(config.scopes)
    }

    pub(super) fn search(&self, function: &FunctionResource) -> Result<Router, StartError> {
        if let Some(base) = &self.options.functions {
            return Ok(proxy(base, millrace_search::config::FUNCTION));
        }
        let config = millrace_search::config::SearchConfig::parse(&self.http_environment(function))
            .map_err(misconfigured(function))?;
        Ok(within(millrace_search::app(&config, None, Clock::system()), Duration::from_secs(function.timeout_s.into())))
    }

    /// Returns the environment of a function that handles HTTP requests: the authentication mode is an option of the
    /// stack, and the cursor key is the constant one of this machine.
    fn http_environment(&self, function: &FunctionResource) -> Environment {
        let auth = if self.options.auth == LocalAuth::None { "none" } else { "jwt" };
        let own = [("AUTH", auth), ("CURSOR_KEYS", CURSOR_KEYS)];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        without_auth(function).chain(own).collect()
    }

    pub(super) async fn maintenance(
        &self,
        function: &FunctionResource,
    ) -> Result<millrace_maintenance::config::MaintenanceConfig, StartError> {
        if !function.mappings.is_empty() {
            return Err(self.unrunnable(format!("{} must not have stream events", function.logical_id)));
        }
        let environment = environment(function, &clients::s3(self.s3)).await?;
        millrace_maintenance::config::MaintenanceConfig::parse(&environment).map_err(misconfigured(function))
    }

    /// Verifies that the replicas can mirror the source table, before the first change is delivered to them.
    pub(super) async fn check_replicas(
        &self,
        config: &millrace_maintenance::config::MaintenanceConfig,
    ) -> Result<(), StartError> {
        let dynamodb = clients::dynamodb(self.dynamodb);
        let clients = millrace_maintenance::AwsClients {
            source: dynamodb.clone(),
            replicas: dynamodb.into(),
            signer: None,
            s3: clients::s3(self.s3),
            // Not called: Lambda's API is not served before all parts have been checked.
            lambda: clients::lambda(self.s3),
        };
        let checked = millrace_maintenance::connect(config, clients).check_replicas().await;
        let function = millrace_maintenance::config::FUNCTION.to_owned();
        checked.map_err(|error| StartError::Function { function, reason: error.to_string() })
    }

    /// Returns the function that the mappings of `function` invoke.
    async fn invoked(&self, function: &FunctionResource) -> Result<Arc<dyn StreamFunction>, StartError> {
        if let Some(base) = &self.options.functions {
            return Ok(Arc::new(ServedFunction::new(base, &function.name)?));
        }
        let environment = environment(function, &clients::s3(self.s3)).await?;
        match function.name.as_str() {
            "replicator" => {
                let config = millrace_replicator::config::ReplicatorConfig::parse(&environment)
                    .map_err(misconfigured(function))?;
                let replica = clients::dynamodb(self.dynamodb);
                let (postgres, cache) = (config.sinks.postgres(None), config.sinks.cache(None));
                let decorate = |sink: Box<dyn Sink>| match self.observer {
                    Some(observer) => Box::new(ObservedSink::new(sink, Arc::clone(observer))) as Box<dyn Sink>,
                    None => sink,
                };
                let s3 = clients::s3(self.s3);
                let replicator =
                    millrace_replicator::connect_decorated(&config, replica, postgres, cache, s3, decorate);
                let refused = |fault: millrace_replicator::ReplicatorError| StartError::Function {
                    function: function.name.clone(),
                    reason: fault.to_string(),
                };
                replicator.check().await.map_err(refused)?;
                let replicator = Arc::new(EmbeddedReplicator(replicator));
                Ok(match self.observer {
                    Some(observer) => ObservedFunction::replicator(replicator, &function.name, Arc::clone(observer)),
                    None => replicator,
                })
            }
            "archiver" => {
                let config =
                    millrace_archiver::config::ArchiverConfig::parse(&environment).map_err(misconfigured(function))?;
                let archiver = Arc::new(EmbeddedArchiver(millrace_archiver::connect(&config, clients::s3(self.s3))));
                Ok(match self.observer {
                    Some(observer) => ObservedFunction::archiver(archiver, &function.name, Arc::clone(observer)),
                    None => archiver,
                })
            }
            name => Err(self.unrunnable(format!(
                "{} is built from the unknown binary {name}: connect it in crates/local/src/stack/wiring.rs",
                function.logical_id
            ))),
        }
    }

    pub(super) async fn mappings(&self, function: &FunctionResource) -> Result<Vec<MappingConfig>, StartError> {
        let invoke = self.invoked(function).await?;
        let mut mappings = Vec::new();
        for mapping in &function.mappings {
            mappings.push(self.mapping(function, mapping, Arc::clone(&invoke)).await?);
        }
        Ok(mappings)
    }

    async fn mapping(
        &self,
        function: &FunctionResource,
        mapping: &template::MappingResource,
        invoke: Arc<dyn StreamFunction>,
    ) -> Result<MappingConfig, StartError> {
        let name = format!("{}-{}", function.name, mapping.name);
        let described = clients::dynamodb(self.dynamodb).describe_table().table_name(&mapping.table).send().await;
        let stream_arn = described.ok().and_then(|response| response.table?.latest_stream_arn);
        let stream_arn = stream_arn.ok_or_else(|| {
            self.unrunnable(format!("mapping {} reads table {}, which has no stream", mapping.name, mapping.table))
        })?;
        let destination = |bucket: &String| S3Bucket::new(clients::s3(self.s3), bucket.clone());
        let folder = self.options.data.as_ref().map(|data| data.join("checkpoints"));
        let checkpoints = folder.map(|folder| CheckpointFile::new(&folder, &name));
        let from = checkpoints.as_ref().map(|file| file.load(&stream_arn)).transpose()?;
        Ok(MappingConfig {
            settings: mapping_settings(mapping, (!self.options.full_batch_windows).then_some(MAX_BATCH_WINDOW)),
            filter: RecordFilter::parse(&mapping.name, &mapping.filters)?,
            stream_arn,
            from_latest: mapping.starting_position == "LATEST",
            streams: clients::streams(self.dynamodb),
            function: function.name.clone(),
            function_arn: function_arn(&function.name),
            invoke,
            timeout: Duration::from_secs(function.timeout_s.into()),
            on_failure: mapping.on_failure_bucket.as_ref().map(destination),
            from: from.unwrap_or_default(),
            checkpoints,
            clock: Clock::system(),
            writes: Some(self.writes.clone()),
            name,
        })
    }
}

pub(super) fn listed(mapping: &MappingConfig) -> ListedMapping {
    ListedMapping {
        name: mapping.name.clone(),
        function: mapping.function.clone(),
        stream_arn: mapping.stream_arn.clone(),
        starting_position: if mapping.from_latest { "LATEST" } else { "TRIM_HORIZON" }.to_owned(),
    }
}

/// Returns the settings of a mapping in the template, with the batch window capped at `longest_window` if that is set.
fn mapping_settings(mapping: &template::MappingResource, longest_window: Option<Duration>) -> MappingSettings {
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX).max(1);
    let window = Duration::from_secs(mapping.window_s.into());
    MappingSettings {
        batch_size: count(mapping.batch_size),
        window: longest_window.map_or(window, |longest| window.min(longest)),
        lanes: count(mapping.parallelization_factor),
        // -1 means no limit.
        max_retries: u32::try_from(mapping.maximum_retry_attempts).ok(),
        max_age: u64::try_from(mapping.maximum_record_age_s).ok().map(Duration::from_secs),
        bisect: mapping.bisect,
        partial_responses: mapping.report_batch_item_failures,
        ..MappingSettings::default()
    }
}

pub(super) fn misconfigured(function: &FunctionResource) -> impl FnOnce(EnvironmentError) -> StartError {
    let function = function.name.clone();
    |problems| StartError::Environment { function, problems }
}
