//! Connects the template's functions to the engines: each with the environment that the template gives it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::routing::any;
use front::deadline::within;
use shared::clock::Clock;
use shared::environment::{Environment, Problems};
use shared::http::caller::ScopeMapping;
use tower::ServiceExt;

use super::{CURSOR_KEYS, LONGEST_WINDOW, Options, Refusal};
use crate::clients;
use crate::http::proxy;
use crate::lambda::MappingListed;
use crate::stream_pump;
use crate::stream_pump::checkpoints::CheckpointFile;
use crate::stream_pump::discard::Destination;
use crate::stream_pump::filter::Filter;
use crate::stream_pump::invoke::{Invoke, ServedFunction};
use crate::stream_pump::settings::Settings;
use crate::template::{self, Function, Template};
use crate::token::Auth;

/// A function's environment on this machine: the template's, except that nobody signs requests or logins here.
#[must_use]
pub fn environment(function: &Function) -> Environment {
    opened(function).collect()
}

/// The same, as names and values.
pub(super) fn variables(function: &Function) -> BTreeMap<String, String> {
    opened(function).collect()
}

fn opened(function: &Function) -> impl Iterator<Item = (String, String)> {
    let open = |name: &str, value: &str| match name {
        "AUTH" => "none".to_owned(),
        "POSTGRES_AUTH" | "CACHE_AUTH" => "password".to_owned(),
        _ => value.to_owned(),
    };
    function.environment.iter().map(move |(name, value)| (name.clone(), open(name, value)))
}

/// The API with another function's routes beside its own, each at the path that the template gives it.
pub(super) fn beside(api: Router, other: Router, template: &Template) -> Router {
    let routes = template.routes.iter().filter(|route| route.function == search::config::FUNCTION);
    // A path has a route for each of its methods; the other router tells them apart itself.
    let paths: BTreeSet<&str> = routes.map(|route| route.path.as_str()).collect();
    let hand_on = move |mut request: Request| {
        // Else the other's router would add its own path to this one's, and its door would know no such route.
        request.extensions_mut().remove::<MatchedPath>();
        other.clone().oneshot(request)
    };
    let routes = paths.into_iter().fold(Router::new(), |routes, path| routes.route(path, any(hand_on.clone())));
    // Here, too, a path is compared in its one form.
    Router::new().fallback_service(routes.fallback_service(api).map_request(front::uri::canonical))
}

/// What it takes to connect a function.
pub(super) struct Wiring<'a> {
    pub(super) options: &'a Options,
    pub(super) dynamodb: &'a str,
    pub(super) s3: &'a str,
}

impl Wiring<'_> {
    pub(super) fn unrunnable(&self, problem: String) -> Refusal {
        Refusal::Unrunnable { path: self.options.template.clone(), problem }
    }

    pub(super) fn api(&self, function: &Function) -> Result<Router, Refusal> {
        if let Some(base) = &self.options.functions {
            return Ok(proxy(base, api::config::FUNCTION));
        }
        let config = api::config::Config::parse(&self.behind_a_door(function)).map_err(misconfigured(function))?;
        let api = api::app(&config, clients::dynamodb(self.dynamodb), config.cache(None), Clock::system());
        Ok(within(api, Duration::from_secs(function.timeout_s.into())))
    }

    /// How the API's tokens spell scopes.
    pub(super) fn scopes(&self, function: &Function) -> Result<ScopeMapping, Refusal> {
        let config = api::config::Config::parse(&self.behind_a_door(function)).map_err(misconfigured(function))?;
        Ok(config.scopes)
    }

    pub(super) fn search(&self, function: &Function) -> Result<Router, Refusal> {
        if let Some(base) = &self.options.functions {
            return Ok(proxy(base, search::config::FUNCTION));
        }
        let config = search::config::Config::parse(&self.behind_a_door(function)).map_err(misconfigured(function))?;
        Ok(within(search::app(&config, None, Clock::system()), Duration::from_secs(function.timeout_s.into())))
    }

    /// The environment of a function that answers requests: who lets them in is an option here, and what seals cursors no
    /// secret.
    fn behind_a_door(&self, function: &Function) -> Environment {
        let auth = if self.options.auth == Auth::None { "none" } else { "jwt" };
        let own = [("AUTH", auth), ("CURSOR_KEYS", CURSOR_KEYS)];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        opened(function).chain(own).collect()
    }

    pub(super) fn maintenance(&self, function: &Function) -> Result<maintenance::config::Config, Refusal> {
        if !function.mappings.is_empty() {
            return Err(self.unrunnable(format!("{} is invoked by nobody but its operators", function.logical_id)));
        }
        maintenance::config::Config::parse(&environment(function)).map_err(misconfigured(function))
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
                let (postgres, cache) = (config.postgres(None), config.cache(None));
                let replicator = replicator::connect(&config, replica, postgres, cache, clients::s3(self.s3));
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

    pub(super) async fn mappings(&self, function: &Function) -> Result<Vec<stream_pump::Mapping>, Refusal> {
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

pub(super) fn listed(mapping: &stream_pump::Mapping) -> MappingListed {
    MappingListed {
        name: mapping.name.clone(),
        function: mapping.function.clone(),
        stream_arn: mapping.stream_arn.clone(),
        starting_position: if mapping.from_latest { "LATEST" } else { "TRIM_HORIZON" }.to_owned(),
    }
}

fn misconfigured(function: &Function) -> impl FnOnce(Problems) -> Refusal {
    let function = function.name.clone();
    |problems| Refusal::Environment { function, problems }
}
