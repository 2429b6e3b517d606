//! The template agrees with the code: the deployed environment, event source mappings and routes are those that the
//! functions expect.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use axum::Router;
use axum::body::Body;
use http::{Request, StatusCode};
use millrace_local::clients;
use millrace_local::template::{FunctionResource, MappingResource, SamTemplate};
use millrace_shared::clock::Clock;
use millrace_shared::environment::Environment;
use millrace_shared::http::caller::AuthMode;
use saphyr::{LoadableYamlNode, Yaml};
use tower::ServiceExt;

pub(crate) mod alarms;
mod alone;
mod cache_user;
mod choices;
mod dashboards;
mod glue;
mod retention;
mod rotation;
mod state_machine;
mod tiers;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The users service as deployed with the default parameters. The process parses it once.
pub(crate) fn template() -> SamTemplate {
    static TEMPLATE: LazyLock<SamTemplate> =
        LazyLock::new(|| SamTemplate::load(&workspace().join("template.yaml")).unwrap());
    TEMPLATE.clone()
}

fn function(name: &str) -> FunctionResource {
    template().functions.into_iter().find(|function| function.name == name).unwrap()
}

/// The environment of a deployment, in which references to secrets are replaced by generated text.
fn deployed(function: FunctionResource) -> Environment {
    deployed_with(function, "Ab3")
}

/// The environment of a deployment in which the current version of every secret has this id.
fn deployed_with(function: FunctionResource, current: &str) -> Environment {
    function.environment.into_iter().map(|(name, value)| (name, resolved(&value, current))).collect()
}

/// Replaces the references to Secrets Manager in a text, as `CloudFormation` does.
fn resolved(text: &str, current: &str) -> String {
    let Some((before, rest)) = text.split_once("{{") else { return text.to_owned() };
    let (reference, after) = rest.split_once("}}").unwrap_or_else(|| panic!("{text}: a reference without its end"));
    let parts: Vec<&str> = reference.split(':').collect();
    // A reference names a version by its stage or its id; without either, it means the current version.
    let version = match parts[..] {
        ["resolve", "secretsmanager", "CursorSecret", "SecretString", "key"] => current,
        ["resolve", "secretsmanager", "CursorSecret", "SecretString", "key", "", version] if version.len() >= 32 => {
            version
        }
        _ => panic!("{reference} is no reference to a version of a secret"),
    };
    let key: String = version.chars().filter(char::is_ascii_alphanumeric).cycle().take(43).collect();
    format!("{before}{key}{}", resolved(after, current))
}

fn environment(name: &str) -> Environment {
    deployed(function(name))
}

fn mapping(name: &str) -> MappingResource {
    let mut mappings = function(name).mappings;
    assert_eq!(mappings.len(), 1, "{name} reads one stream");
    mappings.remove(0)
}

/// The templates that deploy functions: the users service, and the replication of one table, which the former contains.
const TEMPLATES: [&str; 2] = ["template.yaml", "infra/replication.yaml"];

fn source(path: &str) -> String {
    std::fs::read_to_string(workspace().join(path)).unwrap()
}

#[test]
fn every_function_starts_with_the_environment_that_the_template_gives_it() {
    millrace_api::config::ApiConfig::parse(&environment("api")).unwrap();
    millrace_replicator::config::ReplicatorConfig::parse(&environment("replicator")).unwrap();
    millrace_archiver::config::ArchiverConfig::parse(&environment("archiver")).unwrap();
    millrace_maintenance::config::MaintenanceConfig::parse(&environment("maintenance")).unwrap();
    for stream_function in ["replicator", "archiver"] {
        assert!(
            function(stream_function).environment["SOURCE_TABLE_ARN"].ends_with(":table/Users"),
            "{stream_function}"
        );
    }
    assert_eq!(template().functions.len(), 4, "a new function needs its line above");
}

#[test]
fn every_variable_that_the_template_sets_is_read_by_its_function() {
    every_variable_is_read(template());
}

/// The modules of the tiers. A function that imports a module reads the variables that the listed files name.
const TIERS: [(&str, [&str; 3]); 2] = [
    (
        "millrace_shared::cache",
        ["shared/src/cache.rs", "shared/src/cache/settings.rs", "shared/src/cache/connection.rs"],
    ),
    ("millrace_shared::postgres", ["shared/src/postgres/auth.rs", "shared/src/postgres/settings.rs", REPLICA]),
];
const REPLICA: &str = "crates/sinks/src/postgres.rs";

fn every_variable_is_read(template: SamTemplate) {
    for FunctionResource { name, environment, .. } in template.functions {
        // The settings that functions share are parsed in a library.
        let libraries: &[&str] = match name.as_str() {
            "replicator" | "maintenance" => {
                &["sinks/src/config.rs", "sinks/src/config/configured_replicas.rs", "archive/src/config.rs"]
            }
            "archiver" => &["archive/src/config.rs"],
            _ => &[],
        };
        let mut config = source(&format!("functions/{name}/src/config.rs"));
        config.extend(libraries.iter().map(|of| source(&format!("crates/{of}"))));
        // The module of a tier reads the variables of the tier.
        for (tier, files) in TIERS {
            if config.contains(tier) {
                config.extend(files.map(source));
            }
        }
        for variable in environment.keys() {
            let read = match variable.as_str() {
                "LOG_LEVEL" => config.contains("telemetry::LOG_LEVEL"),
                "STACK_NAME" => config.contains("telemetry::STACK_NAME"),
                own => config.contains(&format!("\"{own}\"")),
            };
            assert!(read, "{name} does not read {variable}");
        }
    }
}

#[test]
fn no_deployment_is_public() {
    // `millrace` does not load a route without an authorization, or with NONE, so every route has one.
    for choices in choices::apis() {
        let template = choices::chosen(&choices);
        let has_tokens = choices.iter().any(|(name, _)| *name == "JwtIssuer");
        let (authorization, auth) = if has_tokens { ("JWT", "jwt") } else { ("AWS_IAM", "iam") };
        for route in &template.routes {
            assert_eq!(route.authorization, authorization, "{} {} {choices:?}", route.method, route.path);
        }
        let functions = template.functions.iter().filter(|function| function.environment.contains_key("AUTH"));
        let functions: Vec<&str> = functions
            .inspect(|function| assert_eq!(function.environment["AUTH"], auth, "{choices:?}"))
            .map(|function| function.name.as_str())
            .collect();
        assert_eq!(functions, ["api", "search"], "whoever answers requests knows who lets them in");
    }
    for path in TEMPLATES {
        assert!(!source(path).contains("FunctionUrlConfig"), "{path}: a door beside API Gateway's");
    }
}

#[test]
fn the_users_table_streams_both_images_and_expires_by_expires_at() {
    let tables: BTreeMap<String, _> = template().tables.into_iter().map(|table| (table.name.clone(), table)).collect();
    let (users, replica) = (&tables["Users"], &tables["UsersReplica"]);
    assert_eq!(users.stream_view.as_deref(), Some("NEW_AND_OLD_IMAGES"));
    assert_eq!(users.ttl_attribute.as_deref(), Some("expires_at"));
    assert_eq!(replica.stream_view, None, "nobody reads the replica's changes");
    assert_eq!(replica.ttl_attribute.as_deref(), Some("_tombstone_expires_at"), "only tombstones expire in a replica");
    assert_eq!(users.keys, replica.keys);
    for (own, ttl) in [("Idempotency", "expiration"), ("Emails", "expires_at")] {
        assert_eq!(tables[own].stream_view, None, "{own}: what the API keeps for itself never reaches a replica");
        assert_eq!(tables[own].ttl_attribute.as_deref(), Some(ttl), "{own}");
    }
    let index = users.indexes.iter().find(|index| index.name == function("api").environment["EMAIL_INDEX"]).unwrap();
    assert_eq!(index.projection, "ALL");
    assert_eq!(index.keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["email", "timestamp"]);
}

#[test]
fn the_replicators_mapping_bounds_the_age_and_not_the_retries() {
    let expected = MappingResource {
        name: "Changes".to_owned(),
        table: "Users".to_owned(),
        batch_size: 1000,
        window_s: 0,
        parallelization_factor: 4,
        maximum_retry_attempts: -1,
        maximum_record_age_s: 6 * 60 * 60,
        bisect: true,
        report_batch_item_failures: true,
        filters: Vec::new(),
        on_failure_bucket: Some("users-failures".to_owned()),
        starting_position: "TRIM_HORIZON".to_owned(),
    };
    assert_eq!(mapping("replicator"), expected);
}

#[test]
fn the_archivers_mapping_takes_removals_by_ttl_alone() {
    let pattern =
        r#"{"eventName":["REMOVE"],"userIdentity":{"type":["Service"],"principalId":["dynamodb.amazonaws.com"]}}"#;
    let expected = MappingResource {
        name: "Expiries".to_owned(),
        table: "Users".to_owned(),
        batch_size: 3000,
        window_s: 60,
        parallelization_factor: 1,
        maximum_retry_attempts: -1,
        maximum_record_age_s: 18 * 60 * 60,
        bisect: true,
        report_batch_item_failures: true,
        filters: vec![pattern.to_owned()],
        on_failure_bucket: Some("users-failures".to_owned()),
        starting_position: "TRIM_HORIZON".to_owned(),
    };
    assert_eq!(mapping("archiver"), expected);
}

#[test]
fn both_mappings_count_their_events() {
    let text: String = TEMPLATES.map(source).concat();
    assert_eq!(text.matches("Metrics: [EventCount]").count(), 2);
    assert_eq!(text.matches("Type: DynamoDB\n").count(), 2, "a stream has at most two readers");
}

#[tokio::test]
async fn the_templates_routes_are_the_routers() {
    // Without authentication, because an unauthorized caller does not learn the methods.
    let config = millrace_api::config::ApiConfig {
        auth: AuthMode::None,
        ..millrace_api::config::ApiConfig::parse(&environment("api")).unwrap()
    };
    let app = millrace_api::app(&config, clients::dynamodb("http://127.0.0.1:9"), None, Clock::system());
    let mut declared = routes(&template(), "api");
    assert_eq!(declared.len(), template().routes.iter().map(|route| &route.path).collect::<BTreeSet<_>>().len());
    let rest = declared.remove("$default");
    assert_eq!(rest, Some(BTreeSet::from(["ANY".to_owned()])), "what is unknown is answered by the api itself");
    are_the_routers("api", &declared, &app).await;
}

#[test]
fn cargo_lambda_watch_leads_each_path_where_the_template_does() {
    let template = choices::chosen(choices::apis().last().unwrap());
    let named = template.routes.iter().filter(|route| !route.path.contains("{proxy+}"));
    let declared: BTreeMap<&str, &str> = named
        .map(|route| (route.path.as_str(), route.function.as_str()))
        .filter(|(path, _)| *path != "$default")
        .collect();
    let manifest = source("Cargo.toml");
    let (_, router) = manifest.split_once("[workspace.metadata.lambda.watch.router]\n").unwrap();
    let router = router.lines().take_while(|line| line.starts_with('"'));
    let router: BTreeMap<&str, &str> = router
        .map(|line| line.split_once(" = ").unwrap())
        .map(|(path, to)| (path.trim_matches('"'), to.trim_matches('"')))
        .collect();
    assert_eq!(router, declared);
}

/// The methods of each path that the template routes to a function.
fn routes(template: &SamTemplate, function: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut declared: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for route in template.routes.iter().filter(|route| route.function == function) {
        declared.entry(route.path.clone()).or_default().insert(route.method.clone());
    }
    declared
}

/// Compares the template's routes with the router's. A router responds to an unknown method with all methods that it
/// supports, so the two lists can be compared without a database.
async fn are_the_routers(function: &str, declared: &BTreeMap<String, BTreeSet<String>>, app: &Router) {
    let file = format!("functions/{function}/src/router.rs");
    for (path, methods) in declared {
        let request = Request::builder().method("TRACE").uri(path.replace(['{', '}'], "")).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{path} is not a route of {file}");
        let allowed = response.headers()["allow"].to_str().unwrap().split(',').map(|method| method.trim().to_owned());
        // GET includes HEAD, and every path supports OPTIONS: in the API, neither has its own route, and `$default`
        // receives them.
        let is_by_default = |method: &String| method == "HEAD" || method == "OPTIONS";
        let allowed: BTreeSet<String> = allowed.filter(|method| function != "api" || !is_by_default(method)).collect();
        assert_eq!(&allowed, methods, "{path}");
    }
    let written = source(&file);
    let routes: BTreeSet<&str> = written.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(routes, declared.keys().map(String::as_str).collect(), "a route that the template lacks");
}

/// Every `Action` of every role and policy, with its logical id. `CloudFormation` tags are ignored; a statement with a
/// condition counts.
fn actions() -> Vec<(String, String)> {
    TEMPLATES.into_iter().flat_map(actions_of).collect()
}

fn actions_of(path: &str) -> Vec<(String, String)> {
    fn strings(node: &Yaml<'_>, found: &mut Vec<String>) {
        match node {
            Yaml::Value(_) => found.extend(node.as_str().map(str::to_owned)),
            Yaml::Sequence(items) => items.iter().for_each(|item| strings(item, found)),
            other => panic!("an Action is a text or a list, not {other:?}"),
        }
    }
    /// The statement, or the one of an `If` whose other choice is none.
    fn statement_of<'y>(node: &'y Yaml<'y>) -> &'y Yaml<'y> {
        match node {
            Yaml::Tagged(_, choice) => &choice.as_sequence().unwrap()[1],
            plain => plain,
        }
    }
    let documents = source(path);
    let documents = Yaml::load_from_str(&documents).unwrap();
    let resources = documents[0]["Resources"].as_mapping().unwrap();
    let mut actions = Vec::new();
    for (id, resource) in resources {
        let properties = &resource["Properties"];
        let documents: Vec<&Yaml<'_>> = match resource["Type"].as_str() {
            Some("AWS::IAM::Role") => {
                properties["Policies"].as_sequence().unwrap().iter().map(|policy| &policy["PolicyDocument"]).collect()
            }
            Some("AWS::IAM::ManagedPolicy") => vec![&properties["PolicyDocument"]],
            _ => continue,
        };
        for document in documents {
            for statement in document["Statement"].as_sequence().unwrap() {
                let mut found = Vec::new();
                strings(&statement_of(statement)["Action"], &mut found);
                assert!(!found.is_empty());
                actions.extend(found.into_iter().map(|action| (id.as_str().unwrap().to_owned(), action)));
            }
        }
    }
    actions
}

#[test]
fn a_role_names_each_action_that_it_allows() {
    let actions = actions();
    let roles: BTreeSet<&str> = actions.iter().map(|(role, _)| role.as_str()).collect();
    let (roles, shared): (Vec<&str>, Vec<&str>) = roles.iter().partition(|id| id.ends_with("Role"));
    let owners = [
        "ApiRole",
        "ArchiverRole",
        "MaintenanceMachineRole",
        "MaintenanceRole",
        "ReplicatorRole",
        "ScheduledVerificationRole",
        "SearchRole",
    ];
    assert_eq!(roles, owners, "one role for each function, the state machine and the schedule");
    assert_eq!(shared, ["CacheLogin", "MasterLogin", "NetworkInterfaces", "RelationalLogin"], "what a tier takes");
    for (role, action) in &actions {
        assert!(!action.contains('*'), "{role} allows {action}");
    }
}

/// The role of each function allows the calls to tables and buckets that its code makes, and no others.
#[test]
fn a_role_allows_what_its_function_calls() {
    let allowed = |role: &str| -> BTreeSet<String> {
        let own = actions().into_iter().filter(|(id, _)| id == role).map(|(_, action)| action);
        own.filter(|action| action.starts_with("dynamodb:") || action.starts_with("s3:")).collect()
    };
    let expected = |actions: &[&str]| -> BTreeSet<String> { actions.iter().map(|&action| action.to_owned()).collect() };
    let stream =
        ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"];
    let api = [
        "dynamodb:BatchGetItem",
        "dynamodb:DeleteItem",
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:Scan",
        "dynamodb:UpdateItem",
    ];
    assert_eq!(allowed("ApiRole"), expected(&api));
    let failures = ["s3:ListBucket", "s3:PutObject"];
    let replica = ["dynamodb:DescribeTable", "dynamodb:PutItem"];
    // The replication document, if it is an object.
    let document = ["s3:GetObject"];
    assert_eq!(allowed("ReplicatorRole"), expected(&[&stream[..], &failures, &replica, &document].concat()));
    assert_eq!(allowed("ArchiverRole"), expected(&[&stream[..], &failures].concat()));
    let tables = [
        "dynamodb:BatchGetItem",
        "dynamodb:DeleteItem",
        "dynamodb:DescribeTable",
        "dynamodb:DescribeTimeToLive",
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:Scan",
    ];
    let buckets = ["s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject"];
    assert_eq!(allowed("MaintenanceRole"), expected(&[&tables[..], &buckets].concat()));
    assert_eq!(allowed("MaintenanceMachineRole"), expected(&[]), "the machine sees no data but what it carries");
    assert_eq!(allowed("ScheduledVerificationRole"), expected(&[]), "it starts the state machine alone");
    assert_eq!(allowed("SearchRole"), expected(&[]), "it reads PostgreSQL alone");
    let of_lambda = actions().into_iter().filter(|(_, action)| action.starts_with("lambda:"));
    let of_lambda: Vec<(String, String)> = of_lambda.collect();
    let pair = |role: &str, action: &str| (role.to_owned(), action.to_owned());
    assert_eq!(
        of_lambda,
        [
            pair("MaintenanceRole", "lambda:ListEventSourceMappings"),
            pair("MaintenanceRole", "lambda:GetFunctionConfiguration"),
            pair("MaintenanceMachineRole", "lambda:InvokeFunction"),
        ]
    );
}
