//! Lambda itself: what its functions and invocations are called, and which event source mappings there are
//! (`ListEventSourceMappings`).
//!
//! A backfill asks before it writes. It is the one call of Lambda's API that anything here makes, so it is the one that is
//! answered: <https://docs.aws.amazon.com/lambda/latest/api/API_ListEventSourceMappings.html>.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::{NoContext, Timestamp, Uuid};

use crate::clients;

/// Where Lambda answers it; its documentation ends the path in a slash, its SDKs do not.
const PATHS: [&str; 2] = ["/2015-03-31/event-source-mappings", "/2015-03-31/event-source-mappings/"];

/// A mapping as Lambda tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingListed {
    /// The mapping's name on this machine.
    pub name: String,
    /// The function that it invokes.
    pub function: String,
    /// The stream that it reads.
    pub stream_arn: String,
    /// `TRIM_HORIZON` or `LATEST`.
    pub starting_position: String,
}

/// A function's ARN on this machine.
#[must_use]
pub fn function_arn(function: &str) -> String {
    format!("arn:aws:lambda:{}:000000000000:function:{function}", clients::REGION)
}

/// The name of an invocation that is begun now; later ones sort after it.
#[must_use]
pub fn request_id(now: OffsetDateTime) -> Uuid {
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.nanosecond()))
}

/// The route that lists these mappings, each of which delivers.
pub fn router(mappings: Vec<MappingListed>) -> Router {
    let route = |router: Router<_>, path| router.route(path, get(list));
    PATHS.into_iter().fold(Router::new(), route).with_state(Arc::new(mappings))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Asked {
    event_source_arn: Option<String>,
}

async fn list(State(mappings): State<Arc<Vec<MappingListed>>>, Query(asked): Query<Asked>) -> Json<Value> {
    let wanted =
        |mapping: &&MappingListed| asked.event_source_arn.as_ref().is_none_or(|arn| *arn == mapping.stream_arn);
    let listed: Vec<Value> = mappings.iter().filter(wanted).map(told).collect();
    Json(json!({"EventSourceMappings": listed}))
}

fn told(mapping: &MappingListed) -> Value {
    json!({
        "UUID": Uuid::from_bytes(identifier(&mapping.name)).to_string(),
        "EventSourceArn": mapping.stream_arn,
        "FunctionArn": function_arn(&mapping.function),
        "StartingPosition": mapping.starting_position,
        "State": "Enabled",
    })
}

/// The name's first bytes: enough to tell the mappings of one template apart.
fn identifier(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (place, byte) in bytes.iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    bytes
}
