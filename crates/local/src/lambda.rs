//! Lambda API: ARNs of functions and IDs of invocations, the list of event source mappings (`ListEventSourceMappings`),
//! and the configuration of a function (`GetFunctionConfiguration`).
//!
//! Only these two operations are implemented, since the maintenance function calls them before it writes:
//! <https://docs.aws.amazon.com/lambda/latest/api/API_ListEventSourceMappings.html>,
//! <https://docs.aws.amazon.com/lambda/latest/api/API_GetFunctionConfiguration.html>.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use uuid::Uuid;

use crate::clients;

/// The beginning of the paths of Lambda's API.
pub(crate) const PATH_PREFIX: &str = "/2015-03-31/";
/// The paths of `ListEventSourceMappings`: its documentation ends the path in a slash, the SDKs do not.
const PATHS: [&str; 2] = ["/2015-03-31/event-source-mappings", "/2015-03-31/event-source-mappings/"];

/// The path of `GetFunctionConfiguration`.
const CONFIGURATION: &str = "/2015-03-31/functions/{function}/configuration";
/// The header that contains the type of an error of Lambda's API.
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// Environment variables of each function, by the function's name.
pub type FunctionEnvironments = BTreeMap<String, BTreeMap<String, String>>;

/// An event source mapping as `ListEventSourceMappings` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedMapping {
    /// The name of the mapping on this machine.
    pub name: String,
    /// The function that the mapping invokes.
    pub function: String,
    /// The stream that the mapping reads.
    pub stream_arn: String,
    /// `TRIM_HORIZON` or `LATEST`.
    pub starting_position: String,
}

/// Returns the ARN of a function on this machine.
#[must_use]
pub fn function_arn(function: &str) -> String {
    format!("arn:aws:lambda:{}:000000000000:function:{function}", clients::REGION)
}

/// Returns the routes that list these mappings, each of them as enabled, and that return the configurations of these
/// functions.
pub fn router(mappings: Vec<ListedMapping>, functions: FunctionEnvironments) -> Router {
    let route = |router: Router<_>, path| router.route(path, get(list));
    let listing = PATHS.into_iter().fold(Router::new(), route).with_state(Arc::new(mappings));
    let configurations = Router::new().route(CONFIGURATION, get(configuration)).with_state(Arc::new(functions));
    listing.merge(configurations)
}

type ConfiguredFunctions = Result<Json<Value>, (StatusCode, [(HeaderName, &'static str); 1], Json<Value>)>;

async fn configuration(
    State(functions): State<Arc<FunctionEnvironments>>,
    Path(function): Path<String>,
) -> ConfiguredFunctions {
    let name = function.split_once(":function:").map_or(function.as_str(), |(_, name)| name);
    let name = name.split(':').next().unwrap_or(name);
    let Some(variables) = functions.get(name) else {
        let body = json!({"Type": "User", "Message": format!("Function not found: {}", function_arn(name))});
        return Err((StatusCode::NOT_FOUND, [(ERROR_TYPE, "ResourceNotFoundException")], Json(body)));
    };
    let variables: BTreeMap<&str, String> =
        variables.iter().map(|(name, value)| (name.as_str(), without_password(value))).collect();
    Ok(Json(json!({
        "FunctionName": name,
        "FunctionArn": function_arn(name),
        "State": "Active",
        "Environment": {"Variables": variables},
    })))
}

/// Returns a URL with its password, if any, replaced by a placeholder; any other text is returned unchanged.
#[must_use]
pub fn without_password(text: &str) -> String {
    let parts = text.split_once("://").and_then(|(scheme, rest)| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        let (login, _) = authority.rsplit_once('@')?;
        let (user, _) = login.split_once(':')?;
        Some(format!("{scheme}://{user}:PASSWORD{}", &rest[login.len()..]))
    });
    parts.unwrap_or_else(|| text.to_owned())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListMappingsQuery {
    event_source_arn: Option<String>,
}

async fn list(State(mappings): State<Arc<Vec<ListedMapping>>>, Query(query): Query<ListMappingsQuery>) -> Json<Value> {
    let wanted =
        |mapping: &&ListedMapping| query.event_source_arn.as_ref().is_none_or(|arn| *arn == mapping.stream_arn);
    let listed: Vec<Value> = mappings.iter().filter(wanted).map(to_json).collect();
    Json(json!({"EventSourceMappings": listed}))
}

fn to_json(mapping: &ListedMapping) -> Value {
    json!({
        "UUID": Uuid::from_bytes(identifier(&mapping.name)).to_string(),
        "EventSourceArn": mapping.stream_arn,
        "FunctionArn": function_arn(&mapping.function),
        "StartingPosition": mapping.starting_position,
        "State": "Enabled",
    })
}

/// Returns the first 16 bytes of the name, which are enough to distinguish the mappings of one template.
fn identifier(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (target, byte) in bytes.iter_mut().zip(name.bytes()) {
        *target = byte;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;

    use super::*;

    #[test]
    fn a_password_is_in_no_configuration() {
        for (url, shown) in [
            ("postgres://ada:s3:c@ret@db:5432/users", "postgres://ada:PASSWORD@db:5432/users"),
            ("postgres://ada@db/users?x=a:b@c", "postgres://ada@db/users?x=a:b@c"),
            ("redis://:secret@cache:6379", "redis://:PASSWORD@cache:6379"),
            ("100/1s burst 200", "100/1s burst 200"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[tokio::test]
    async fn a_function_is_described_by_its_name_and_by_its_arn_and_no_other_is() {
        let variables = BTreeMap::from([("POSTGRES_URL".to_owned(), "postgres://a:b@c/d".to_owned())]);
        let router = router(Vec::new(), BTreeMap::from([("replicator".to_owned(), variables)]));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = clients::lambda(&format!("http://{}", listener.local_addr().unwrap()));
        tokio::spawn(async move { axum::serve(listener, router).await });
        for name in
            ["replicator".to_owned(), function_arn("replicator"), format!("{}:live", function_arn("replicator"))]
        {
            let found = client.function_configuration(&name).await.unwrap();
            let variables = found.environment.unwrap().variables.unwrap();
            assert_eq!(variables["POSTGRES_URL"], "postgres://a:PASSWORD@c/d");
        }
        let refusal = client.function_configuration("absent").await.unwrap_err();
        assert_eq!(refusal.code(), Some("ResourceNotFoundException"), "{refusal:?}");
    }
}
