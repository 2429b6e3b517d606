//! The environment of the functions with the tiers enabled, with the endpoints that AWS assigns.

use std::collections::BTreeMap;
use std::path::Path;

use millrace_local::template::{FunctionResource, ParameterOverrides, SamTemplate};
use millrace_shared::cache::RequestQuota;
use millrace_shared::clock::Clock;
use millrace_shared::http::caller::{AuthMode, Scope};

use super::{are_the_routers, deployed, every_variable_is_read, routes, workspace};

/// The URLs of a database's writer and reader, and the URL and the mode of a cache.
pub(super) type Endpoints = ([&'static str; 2], [&'static str; 2]);

const AURORA_AND_SERVERLESS: (&str, &str, Endpoints) = (
    "aurora-serverless",
    "valkey-serverless",
    (
        [
            "postgres://millrace@users.cluster-c1example.eu-west-1.rds.amazonaws.com:5432/millrace",
            "postgres://millrace@users.cluster-ro-c1example.eu-west-1.rds.amazonaws.com:5432/millrace",
        ],
        ["rediss://millrace-1a2b3c4d@millrace-1a2b3c4d-c1exam.serverless.euw1.cache.amazonaws.com:6379", "cluster"],
    ),
);

pub(super) const INSTANCE_AND_GROUP: (&str, &str, Endpoints) = (
    "rds-postgres",
    "valkey-replication-group",
    (
        [
            "postgres://millrace@users.c1example.eu-west-1.rds.amazonaws.com:5432/millrace",
            "postgres://millrace@replica.c1example.eu-west-1.rds.amazonaws.com:5432/millrace",
        ],
        ["rediss://millrace-1a2b3c4d@master.users.c1exam.euw1.cache.amazonaws.com:6379", "single"],
    ),
);

/// The template as deployed with both tiers.
fn with(choice: (&str, &str, Endpoints)) -> SamTemplate {
    with_parameters(choice, &[("RateLimit", "100/1s"), ("RateLimitBurst", "200")])
}

/// The template as deployed with both tiers and these parameters.
pub(super) fn with_parameters(choice: (&str, &str, Endpoints), chosen: &[(&str, &str)]) -> SamTemplate {
    let (relational, cache, ([writer, reader], [url, mode])) = choice;
    let texts = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let outputs = [
        ("RelationalStack.Outputs.WriterUrl", writer),
        ("RelationalStack.Outputs.ReaderUrl", reader),
        ("RelationalStack.Outputs.MasterSecretArn", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:rds!db-1"),
        ("CacheStack.Outputs.Url", url),
        ("CacheStack.Outputs.Mode", mode),
    ];
    let parameters = [&[("RelationalTier", relational), ("CacheTier", cache)], chosen].concat();
    let choices = ParameterOverrides {
        parameters: texts(&parameters),
        outputs: texts(&outputs),
        ..ParameterOverrides::default()
    };
    SamTemplate::load_with(Path::new(&workspace().join("template.yaml")), &choices).unwrap()
}

/// All choices of the API's authentication and origins, with every tier enabled.
pub(crate) fn apis() -> [Vec<(&'static str, &'static str)>; 4] {
    let tokens = [("JwtIssuer", "https://issuer.example"), ("JwtAudience", "users,admins")];
    let cors = [("CorsOrigins", "https://app.example,http://localhost:5173")];
    [
        vec![],
        tokens.to_vec(),
        cors.to_vec(),
        [&tokens[..], &cors, &[("ApiBasePath", "v1"), ("ScopePrefix", "millrace/")]].concat(),
    ]
}

/// The template with both tiers enabled and these parameters.
pub(crate) fn chosen(parameters: &[(&str, &str)]) -> SamTemplate {
    with_parameters(INSTANCE_AND_GROUP, parameters)
}

fn function(template: &SamTemplate, name: &str) -> FunctionResource {
    template.functions.iter().find(|function| function.name == name).unwrap().clone()
}

#[test]
fn every_function_parses_its_tier_configuration() {
    for choice in [AURORA_AND_SERVERLESS, INSTANCE_AND_GROUP] {
        let template = with(choice);
        let environment = |name: &str| deployed(function(&template, name));
        let api = millrace_api::config::ApiConfig::parse(&environment("api")).unwrap();
        let quota = RequestQuota { requests: 100, seconds: 1, burst: 200 };
        assert_eq!((api.cache.is_some(), api.rate_limit), (true, Some(quota)), "{}", choice.1);
        let replicator = millrace_replicator::config::ReplicatorConfig::parse(&environment("replicator")).unwrap();
        assert!(!replicator.sinks.postgres(None).is_empty() && replicator.sinks.cache(None).is_some(), "{}", choice.0);
        let maintenance = millrace_maintenance::config::MaintenanceConfig::parse(&environment("maintenance")).unwrap();
        assert!(!maintenance.sinks().postgres(None).is_empty(), "{}", choice.0);
        let search = millrace_search::config::SearchConfig::parse(&environment("search")).unwrap();
        assert!(search.reader.is_some(), "{}", choice.0);
        let names: Vec<&str> = template.functions.iter().map(|function| function.name.as_str()).collect();
        assert_eq!(names, ["api", "search", "replicator", "archiver", "maintenance"], "a new one needs its line above");
    }
}

#[test]
fn rate_limit_burst_is_set_only_by_its_parameter() {
    let quota = |parameters: &[(&str, &str)]| {
        let template = with_parameters(INSTANCE_AND_GROUP, parameters);
        millrace_api::config::ApiConfig::parse(&deployed(function(&template, "api"))).unwrap().rate_limit
    };
    assert_eq!(quota(&[]), None);
    assert_eq!(quota(&[("RateLimitBurst", "200")]), None);
    assert_eq!(quota(&[("RateLimit", "600/60s")]), Some(RequestQuota { requests: 600, seconds: 60, burst: 600 }));
}

#[test]
fn another_database_takes_the_place_of_the_stack_s_own() {
    let url = "postgres://millrace@restored.c1example.eu-west-1.rds.amazonaws.com:5432/millrace";
    let template = with_parameters(INSTANCE_AND_GROUP, &[("DatabaseUrl", url)]);
    for (name, variables) in [
        ("search", &["POSTGRES_URL", "POSTGRES_READER_URL"][..]),
        ("replicator", &["POSTGRES_URL"]),
        ("maintenance", &["POSTGRES_URL"]),
    ] {
        for variable in variables {
            assert_eq!(function(&template, name).environment[*variable], url, "{name} {variable}");
        }
    }
}

#[test]
fn every_variable_of_a_tier_is_read_by_its_function() {
    every_variable_is_read(with(AURORA_AND_SERVERLESS));
}

#[tokio::test]
async fn with_the_relational_tier_the_templates_routes_are_the_routers_of_search_too() {
    let template = with(INSTANCE_AND_GROUP);
    let config = millrace_search::config::SearchConfig::parse(&deployed(function(&template, "search"))).unwrap();
    let app = millrace_search::app(
        &millrace_search::config::SearchConfig { auth: AuthMode::None, ..config },
        None,
        Clock::system(),
    );
    are_the_routers("search", &routes(&template, "search"), &app).await;
}

#[test]
fn functions_start_with_each_choice_of_who_may_call() {
    for parameters in apis() {
        let template = chosen(&parameters);
        let api = millrace_api::config::ApiConfig::parse(&deployed(function(&template, "api"))).unwrap();
        let search = millrace_search::config::SearchConfig::parse(&deployed(function(&template, "search"))).unwrap();
        assert_eq!((api.auth, &api.scopes, &api.base_path), (search.auth, &search.scopes, &search.base_path));
        assert!(api.has_relational);
        let has_all = parameters.iter().any(|(name, _)| *name == "ApiBasePath");
        let base_path = function(&template, "api").environment.get("API_BASE_PATH").cloned();
        assert_eq!(base_path.as_deref(), has_all.then_some("/v1"));
        assert_eq!(api.scopes.scope_name(Scope::Read), if has_all { "millrace/users:read" } else { "users:read" });
    }
}

/// A preflight request has no token: if origins are configured, no route accepts OPTIONS, so that API Gateway responds
/// to it.
#[test]
fn every_other_method_is_the_api_s_and_preflight_is_api_gateway_s() {
    for parameters in apis() {
        let template = chosen(&parameters);
        let methods = |path: &str| -> Vec<&str> {
            template.routes.iter().filter(|route| route.path == path).map(|route| route.method.as_str()).collect()
        };
        let takes_options = template.routes.iter().any(|route| ["OPTIONS", "ANY"].contains(&route.method.as_str()));
        let has_cors = parameters.iter().any(|(name, _)| *name == "CorsOrigins");
        assert_eq!(takes_options, !has_cors, "{parameters:?}");
        if has_cors {
            assert_eq!(methods("/{proxy+}"), ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]);
        } else {
            assert_eq!((methods("$default"), methods("/{proxy+}")), (vec!["ANY"], vec![]));
        }
    }
}

#[test]
fn users_service_has_the_archive_that_its_parameter_chooses() {
    let names = |parameters: &[(&'static str, &'static str)]| {
        let template = chosen(parameters);
        let functions: Vec<String> = template.functions.iter().map(|function| function.name.clone()).collect();
        let replicator = template.functions.iter().find(|function| function.name == "replicator").unwrap();
        let archives = replicator.environment.contains_key("ARCHIVE_BUCKET");
        let has_bucket = template.buckets.iter().any(|bucket| bucket.name == "users-archive");
        every_variable_is_read(template);
        (functions.contains(&"archiver".to_owned()), archives, has_bucket)
    };
    for (archive, expected) in
        [("separate", (true, false, true)), ("in-replicator", (false, true, true)), ("off", (false, false, false))]
    {
        assert_eq!(names(&[("Archive", archive)]), expected, "{archive}");
    }
    assert_eq!(names(&[]), names(&[("Archive", "separate")]));
}
