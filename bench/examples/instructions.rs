//! Work of fixed size whose instructions `scripts/instructions` counts: `instructions FUNCTION`.
//!
//! The functions handle events as on Lambda, in this process and on one thread. Their HTTP client responds at once and
//! without a connection, so the count contains everything that a function does except TLS, HTTP and the Runtime API.
//! Only [`count_instructions`] is counted: the events are prepared, and the function is warmed up, outside of it.

#[path = "../src/events.rs"]
#[expect(dead_code, reason = "shared with the benchmarks, which have further events")]
mod events;

use std::hint::black_box;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use millrace_api::config::ApiConfig;
use millrace_archiver::ArchiverHandler;
use millrace_archiver::config::ArchiverConfig;
use millrace_replicator::ReplicatorHandler;
use millrace_replicator::config::ReplicatorConfig;
use millrace_shared::clock::Clock;
use millrace_shared::environment::Environment;
use millrace_shared::invocation::Invocation;
use millrace_shared::runtime::InvocationContext;
use millrace_shared::telemetry::{self, Telemetry};
use serde_json::json;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// The same allocator as in the functions.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type ExampleError = Box<dyn std::error::Error>;

const USAGE: &str = "usage: instructions replicator|archiver|api-get|api-put";
/// The number of records of a batch: `scripts/instructions` divides the instructions of a batch by it.
const RECORDS: usize = 200;
/// The number of requests to the API.
const REQUESTS: usize = 50;
/// The requests or batches before those that are counted: caches and buffers have their final size then.
const WARM_UP: usize = 2;
/// The time of the invocations, 2026-11-22 08:00:10 UTC.
const NOW: i64 = 1_795_334_410;

fn main() -> Result<(), ExampleError> {
    let function = std::env::args().nth(1).ok_or(USAGE)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let now = OffsetDateTime::from_unix_timestamp(NOW)?;
    match function.as_str() {
        "replicator" => replicate(&runtime, now),
        "archiver" => archive(&runtime, now),
        "api-get" => request(&runtime, now, &events::request("GET", "/users/ada/1795334400", None)),
        "api-put" => {
            let attributes = json!({"plan": "team", "seats": 12, "tags": ["a", "b"], "active": true});
            let body = json!({
                "name": "Ada Lovelace", "email": "ada@example.com", "status": "active", "attributes": attributes,
            });
            request(&runtime, now, &events::request("PUT", "/users/ada/1795334400", Some(&body)))
        }
        _ => Err(USAGE.into()),
    }
}

/// Runs the work that is counted: the script finds this function by its name.
#[inline(never)]
fn count_instructions(work: impl FnOnce() -> Result<(), ExampleError>) -> Result<(), ExampleError> {
    black_box(work())
}

fn replicate(runtime: &Runtime, now: OffsetDateTime) -> Result<(), ExampleError> {
    let environment = environment(&[("REPLICA_TABLE", "UsersReplica"), ("FAILURE_BUCKET", "failures")]);
    let telemetry = telemetry::init("replicator", &environment)?;
    let config = ReplicatorConfig::parse(&environment).map_err(|problems| problems.to_string())?;
    let handler = millrace_replicator::connect(&config, dynamodb(), [], None, s3());
    let batch = RawValue::from_string(events::changes(RECORDS))?;
    let handle = || runtime.block_on(replicate_batch(&handler, telemetry, &batch, now));
    (0..WARM_UP).try_for_each(|_| handle())?;
    count_instructions(handle)
}

async fn replicate_batch(
    handler: &ReplicatorHandler,
    telemetry: Telemetry,
    batch: &RawValue,
    now: OffsetDateTime,
) -> Result<(), ExampleError> {
    let batch = RawValue::from_string(batch.get().to_owned())?;
    let response = Box::pin(handler.handle(&batch, &invocation(now))).await?;
    acknowledged(&serde_json::to_string(&response)?, telemetry)
}

fn archive(runtime: &Runtime, now: OffsetDateTime) -> Result<(), ExampleError> {
    let environment = environment(&[("ARCHIVE_BUCKET", "archive"), ("FAILURE_BUCKET", "failures")]);
    let telemetry = telemetry::init("archiver", &environment)?;
    let config = ArchiverConfig::parse(&environment).map_err(|problems| problems.to_string())?;
    let handler = millrace_archiver::connect(&config, s3());
    let batch = RawValue::from_string(events::expiries(RECORDS))?;
    let handle = || runtime.block_on(archive_batch(&handler, telemetry, &batch, now));
    (0..WARM_UP).try_for_each(|_| handle())?;
    count_instructions(handle)
}

async fn archive_batch(
    handler: &ArchiverHandler,
    telemetry: Telemetry,
    batch: &RawValue,
    now: OffsetDateTime,
) -> Result<(), ExampleError> {
    let batch = RawValue::from_string(batch.get().to_owned())?;
    let response = Box::pin(handler.handle(&batch, &invocation(now))).await?;
    acknowledged(&serde_json::to_string(&response)?, telemetry)
}

fn acknowledged(response: &str, telemetry: Telemetry) -> Result<(), ExampleError> {
    telemetry.flush("request");
    if response.contains(r#""batchItemFailures":[]"#) { Ok(()) } else { Err(response.into()) }
}

fn request(runtime: &Runtime, now: OffsetDateTime, event: &str) -> Result<(), ExampleError> {
    let environment = environment(&[
        ("USERS_TABLE", "Users"),
        ("EMAIL_INDEX", "EmailIndex"),
        ("AUTH", "none"),
        ("CURSOR_KEYS", "one:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
    ]);
    let telemetry = telemetry::init("api", &environment)?;
    let config = ApiConfig::parse(&environment).map_err(|problems| problems.to_string())?;
    let app = millrace_api::app(&config, dynamodb(), None, Clock::fixed(now));
    let handle = || {
        runtime.block_on(async {
            let deadline = now + Duration::from_secs(10);
            let context = InvocationContext { request_id: "request".to_owned(), trace: None, deadline };
            let event = serde_json::from_str(event)?;
            let answered = millrace_http::lambda::respond(app.clone(), now, event, context).await;
            let response = serde_json::to_vec(&answered?)?;
            telemetry.flush("request");
            let is_success = response.starts_with(br#"{"statusCode":20"#);
            if is_success { Ok(()) } else { Err(String::from_utf8(response)?.into()) }
        })
    };
    (0..WARM_UP).try_for_each(|_| handle())?;
    count_instructions(|| (0..REQUESTS).try_for_each(|_| handle()))
}

fn invocation(now: OffsetDateTime) -> Invocation {
    Invocation::new(now, Instant::now(), Duration::from_mins(1), "request".to_owned())
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn dynamodb() -> aws_sdk_dynamodb::Client {
    use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("eu-west-1"))
        .credentials_provider(Credentials::new("AKIDEXAMPLE", "secret", Some("token".to_owned()), None, "example"))
        .http_client(http_client())
        .build();
    aws_sdk_dynamodb::Client::from_conf(config)
}

fn s3() -> aws_sdk_s3::Client {
    use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("eu-west-1"))
        .credentials_provider(Credentials::new("AKIDEXAMPLE", "secret", Some("token".to_owned()), None, "example"))
        .http_client(http_client())
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

fn http_client() -> SharedHttpClient {
    let connector = SharedHttpConnector::new(AcceptingConnector);
    http_client_fn(move |_, _| connector.clone())
}

/// Accepts every request at once.
#[derive(Debug)]
struct AcceptingConnector;

impl HttpConnector for AcceptingConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let body = match target.rsplit('.').next().unwrap_or_default() {
            "DescribeTable" => {
                r#"{"Table":{"TableName":"UsersReplica","TableStatus":"ACTIVE","TableArn":"arn:aws:dynamodb:eu-west-1:123456789012:table/UsersReplica","KeySchema":[{"AttributeName":"user_id","KeyType":"HASH"},{"AttributeName":"timestamp","KeyType":"RANGE"}],"AttributeDefinitions":[{"AttributeName":"user_id","AttributeType":"S"},{"AttributeName":"timestamp","AttributeType":"N"}]}}"#
            }
            "GetItem" => {
                r#"{"ConsumedCapacity":{"CapacityUnits":0.5,"TableName":"Users"},"Item":{"user_id":{"S":"ada"},"timestamp":{"N":"1795334400"},"name":{"S":"Ada Lovelace"},"email":{"S":"ada@example.com"},"status":{"S":"active"},"attributes":{"M":{"plan":{"S":"team"},"seats":{"N":"12"},"tags":{"L":[{"S":"a"},{"S":"b"}]},"active":{"BOOL":true}}},"version":{"N":"1795334400000000"},"created_at":{"S":"2026-11-22T08:00:00.000Z"},"updated_at":{"S":"2026-11-22T08:00:00.000Z"}}}"#
            }
            "UpdateItem" => r#"{"ConsumedCapacity":{"CapacityUnits":1.0,"TableName":"Users"}}"#,
            _ => "{}",
        };
        let status = StatusCode::try_from(200).map_err(|error| ConnectorError::user(error.into()));
        HttpConnectorFuture::ready(status.map(|status| HttpResponse::new(status, SdkBody::from(body))))
    }
}
