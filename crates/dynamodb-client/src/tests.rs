//! The client and the faults of the service, of the network and of the configuration, over HTTP on loopback.

mod server;
pub(crate) mod tls_server;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Builder, Credentials, Region};
use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata as _, SdkError};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::get_item::GetItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::scan::ScanError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use self::server::{FaultyServer, PlannedReaction};
use crate::TableClient;

const BODY: &str = r#"{"TableName":"Orders","Item":{"order_id":{"S":"4\u00e92"},"n":{"N":"1.0"}}}"#;

fn credentials() -> Credentials {
    Credentials::new("AKIDFIRST", "secret", Some("token".to_owned()), None, "test")
}

/// A configuration with retries that hardly pause.
pub(crate) fn config(url: &str) -> Builder {
    aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("eu-west-1"))
        .credentials_provider(credentials())
        .retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(2)))
        .timeout_config(TimeoutConfig::disabled())
        .endpoint_url(url)
}

fn table(config: Builder) -> TableClient {
    TableClient::new(Client::from_conf(config.build()), "Orders", 8)
}

async fn put(table: &TableClient) -> Result<(), SdkError<PutItemError>> {
    table.put_item(BODY.into()).await
}

fn code(error: &SdkError<PutItemError>) -> Option<&str> {
    error.as_service_error().and_then(|error| error.code())
}

#[tokio::test]
async fn request_is_that_of_the_sdk_with_the_body_of_the_caller() {
    let server = FaultyServer::start(|_, _| PlannedReaction::success()).await;
    let sdk = Client::from_conf(config(&server.url).build());
    sdk.put_item().table_name("Orders").send().await.unwrap();
    put(&TableClient::new(sdk, "Orders", 8)).await.unwrap();
    let [theirs, ours] = &server.requests()[..] else { panic!("two requests") };
    assert_eq!(ours.body, BODY);
    assert_eq!(ours.head.lines().next(), theirs.head.lines().next());
    for header in ["host", "content-type", "x-amz-target", "x-amz-security-token"] {
        assert_eq!(ours.header(header), theirs.header(header), "{header}");
        assert!(ours.header(header).is_some(), "{header}");
    }
    assert_eq!(ours.access_key(), theirs.access_key());
}

/// A page of a scan.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PageOutput {
    items: Vec<HashMap<String, HashMap<String, String>>>,
}

#[tokio::test]
async fn scan_is_that_of_the_sdk_and_only_a_page_is_a_success() {
    const PAGE: &str = r#"{"Count":1,"Items":[{"n":{"N":"1"}}],"ScannedCount":1}"#;
    let with = |body: &str| PlannedReaction::Response(200, Vec::new(), body.to_owned());
    let server = FaultyServer::start(move |_, _| with(PAGE)).await;
    let sdk = Client::from_conf(config(&server.url).build());
    Box::pin(sdk.scan().table_name("Orders").send()).await.unwrap();
    let page: PageOutput = TableClient::new(sdk, "Orders", 8).scan(BODY.into()).await.unwrap();
    assert_eq!(page.items[0]["n"]["N"], "1");
    let [theirs, ours] = &server.requests()[..] else { panic!("two requests") };
    assert_eq!((ours.body.as_str(), ours.header("x-amz-target")), (BODY, theirs.header("x-amz-target")));
    // The page of a load balancer, and a response to another operation, are not the end of the table.
    for body in ["<html>Welcome</html>", "{}", r#"{"Item":{"n":{"N":"1"}}}"#, r#"{"Items":[{"n":{"N":"1"}}"#, ""] {
        let server = FaultyServer::start(move |number, _| if number == 0 { with(body) } else { with(PAGE) }).await;
        let page: PageOutput = table(config(&server.url)).scan(BODY.into()).await.unwrap();
        assert_eq!((page.items.len(), server.requests().len()), (1, 2), "{body}");
    }
    let server = FaultyServer::start(|_, _| PlannedReaction::error(400, "ResourceNotFoundException")).await;
    let error = table(config(&server.url)).scan::<PageOutput>(BODY.into()).await.unwrap_err();
    assert!(matches!(error.as_service_error(), Some(ScanError::ResourceNotFoundException(_))), "{error:?}");
    assert_eq!(server.requests().len(), 1);
}

/// The members of a response that a caller may be interested in.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ItemOutput {
    item: HashMap<String, HashMap<String, String>>,
    attributes: HashMap<String, HashMap<String, String>>,
}

#[tokio::test]
async fn operations_are_those_of_the_sdk_and_their_responses_are_parsed() {
    let response =
        r#"{"Item":{"n":{"S":"\u00e9"}},"Attributes":{"n":{"N":"1"}},"ConsumedCapacity":{"CapacityUnits":0.5}}"#;
    let server = FaultyServer::start(|_, _| PlannedReaction::Response(200, Vec::new(), response.to_owned())).await;
    let sdk = Client::from_conf(config(&server.url).build());
    let table = TableClient::new(sdk.clone(), "Orders", 8);
    let value =
        |kind: &str, text: &str| HashMap::from([("n".to_owned(), HashMap::from([(kind.to_owned(), text.to_owned())]))]);
    let expected = ItemOutput { item: value("S", "é"), attributes: value("N", "1") };
    Box::pin(sdk.get_item().table_name("Orders").send()).await.unwrap();
    assert_eq!(table.get_item::<ItemOutput>(BODY.into()).await.unwrap(), expected);
    Box::pin(sdk.put_item().table_name("Orders").send()).await.unwrap();
    assert_eq!(table.put_item_returning::<ItemOutput>(BODY.into()).await.unwrap(), expected);
    Box::pin(sdk.update_item().table_name("Orders").send()).await.unwrap();
    assert_eq!(table.update_item::<ItemOutput>(BODY.into()).await.unwrap(), expected);
    Box::pin(sdk.delete_item().table_name("Orders").send()).await.unwrap();
    assert_eq!(table.delete_item::<ItemOutput>(BODY.into()).await.unwrap(), expected);
    let requests = server.requests();
    assert_eq!(requests.len(), 8);
    for pair in requests.chunks(2) {
        let [theirs, ours] = pair else { panic!("two requests") };
        assert_eq!(ours.body, BODY);
        assert_eq!(ours.header("x-amz-target"), theirs.header("x-amz-target"));
    }
    let targets: BTreeSet<_> = requests.iter().map(|request| request.header("x-amz-target")).collect();
    assert_eq!(targets.len(), 4);
}

#[tokio::test]
async fn error_of_each_operation_has_its_type() {
    let body = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
        "message":"The conditional request failed","Item":{"n":{"N":"7"}}}"#;
    let server = FaultyServer::start(|_, _| PlannedReaction::Response(400, Vec::new(), body.to_owned())).await;
    let table = table(config(&server.url));
    let error = table.update_item::<ItemOutput>(BODY.into()).await.unwrap_err();
    let Some(UpdateItemError::ConditionalCheckFailedException(rejected)) = error.as_service_error() else {
        panic!("{error:?}")
    };
    assert_eq!(rejected.item().unwrap()["n"].as_n().unwrap(), "7");
    let error = table.delete_item::<ItemOutput>(BODY.into()).await.unwrap_err();
    let Some(DeleteItemError::ConditionalCheckFailedException(rejected)) = error.as_service_error() else {
        panic!("{error:?}")
    };
    assert_eq!(rejected.item().unwrap()["n"].as_n().unwrap(), "7");
    let server = FaultyServer::start(|_, _| PlannedReaction::error(400, "ResourceNotFoundException")).await;
    let error = self::table(config(&server.url)).get_item::<ItemOutput>(BODY.into()).await.unwrap_err();
    assert!(matches!(error.as_service_error(), Some(GetItemError::ResourceNotFoundException(_))), "{error:?}");
}

#[tokio::test]
async fn response_that_is_not_of_the_caller_s_type_is_retried_and_then_an_error() {
    for body in ["<html>Welcome</html>", "OK", r#"{"Item":{"order_id":"#, r#"{"Item":7}"#, "7", ""] {
        let other = PlannedReaction::Response(200, Vec::new(), body.to_owned());
        let first = other.clone();
        let plan = move |number, _: &_| if number == 0 { first.clone() } else { PlannedReaction::success() };
        let server = FaultyServer::start(plan).await;
        let output = table(config(&server.url)).get_item::<ItemOutput>(BODY.into()).await.unwrap();
        assert_eq!((output, server.requests().len()), (ItemOutput::default(), 2), "{body}");
        let server = FaultyServer::start(move |_, _| other.clone()).await;
        let error = table(config(&server.url)).update_item::<ItemOutput>(BODY.into()).await.unwrap_err();
        assert!(matches!(error, SdkError::ResponseError(_)), "{body}: {error:?}");
        let source = error.into_source().unwrap().to_string();
        assert_eq!((source.as_str(), server.requests().len()), ("the response is not that of the operation", 3));
    }
}

#[tokio::test]
async fn transient_failure_is_retried() {
    let short = TimeoutConfig::builder().operation_attempt_timeout(Duration::from_millis(150)).build();
    for first in [
        PlannedReaction::error(400, "ProvisionedThroughputExceededException"),
        PlannedReaction::error(400, "ThrottlingException"),
        PlannedReaction::error(400, "RequestLimitExceeded"),
        PlannedReaction::error(400, "ReplicatedWriteConflictException"),
        PlannedReaction::error(500, "InternalServerError"),
        PlannedReaction::error(503, "ServiceUnavailable"),
        PlannedReaction::Response(502, Vec::new(), "<html>Bad Gateway</html>".to_owned()),
        PlannedReaction::Response(429, Vec::new(), "<html>Too Many Requests</html>".to_owned()),
        PlannedReaction::Response(403, Vec::new(), String::new()),
        PlannedReaction::Closed,
        PlannedReaction::Truncated,
        PlannedReaction::Silence,
    ] {
        let faulty = first.clone();
        let plan = move |number, _: &_| if number == 0 { faulty.clone() } else { PlannedReaction::success() };
        let server = FaultyServer::start(plan).await;
        let result = put(&table(config(&server.url).timeout_config(short.clone()))).await;
        assert!(result.is_ok(), "{first:?}: {result:?}");
        assert_eq!(server.requests().len(), 2, "{first:?}");
        let [lost, retried] = &server.requests()[..] else { panic!("two requests") };
        assert_eq!(lost.body, retried.body, "{first:?}");
    }
}

#[tokio::test]
async fn error_of_the_request_is_not_retried() {
    for (code_, status) in [
        ("ValidationException", 400),
        ("ConditionalCheckFailedException", 400),
        ("TransactionConflictException", 400),
        ("AccessDeniedException", 400),
        ("ResourceNotFoundException", 400),
        ("SomethingNew", 400),
    ] {
        let server = FaultyServer::start(move |_, _| PlannedReaction::error(status, code_)).await;
        let error = put(&table(config(&server.url))).await.unwrap_err();
        assert_eq!((code(&error), server.requests().len()), (Some(code_), 1));
        let message = error.as_service_error().and_then(|error| error.message());
        assert_eq!(message, Some("as planned"), "{code_}");
    }
}

#[tokio::test]
async fn rejected_condition_has_the_stored_item() {
    let body = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
        "message":"The conditional request failed","Item":{"_rev":{"B":"AQI="}}}"#;
    let server = FaultyServer::start(|_, _| PlannedReaction::Response(400, Vec::new(), body.to_owned())).await;
    let error = put(&table(config(&server.url))).await.unwrap_err();
    let Some(PutItemError::ConditionalCheckFailedException(rejected)) = error.as_service_error() else {
        panic!("{error:?}")
    };
    assert_eq!(rejected.item().unwrap()["_rev"].as_b().unwrap().as_ref(), [1, 2]);
}

#[tokio::test]
async fn attempts_are_limited_and_the_last_error_is_returned() {
    for attempts in 1..=3 {
        let server = FaultyServer::start(|_, _| PlannedReaction::error(400, "ThrottlingException")).await;
        let retries =
            RetryConfig::standard().with_max_attempts(attempts).with_initial_backoff(Duration::from_millis(1));
        let error = put(&table(config(&server.url).retry_config(retries))).await.unwrap_err();
        assert_eq!(code(&error), Some("ThrottlingException"));
        assert_eq!(server.requests().len(), usize::try_from(attempts).unwrap());
    }
}

#[tokio::test]
async fn retries_end_with_the_quota_during_an_outage() {
    let server = FaultyServer::start(|_, _| PlannedReaction::error(500, "InternalServerError")).await;
    let table = table(config(&server.url));
    for _ in 0..100 {
        assert!(put(&table).await.is_err());
    }
    // 500 tokens are 50 retries of transient failures.
    assert_eq!(server.requests().len(), 150);
}

#[tokio::test]
async fn requested_pause_is_kept() {
    let pause = vec![("x-amz-retry-after", "120".to_owned())];
    let throttled = PlannedReaction::error_with(400, "ThrottlingException", pause);
    let server =
        FaultyServer::start(move |number, _| if number == 0 { throttled.clone() } else { PlannedReaction::success() })
            .await;
    let started = Instant::now();
    put(&table(config(&server.url))).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(120), "{:?}", started.elapsed());
}

#[tokio::test]
async fn timeouts_are_those_of_the_sdk() {
    let server = FaultyServer::start(|_, _| PlannedReaction::Silence).await;
    let once = || config(&server.url).retry_config(RetryConfig::disabled());
    let limit = Duration::from_millis(80);
    let timeouts = TimeoutConfig::builder();
    for (timeouts, name) in [
        (timeouts.clone().operation_attempt_timeout(limit), "attempt timeout"),
        (timeouts.clone().operation_timeout(limit), "operation timeout"),
        (timeouts.clone().read_timeout(limit), "read timeout"),
    ] {
        let error = put(&table(once().timeout_config(timeouts.build()))).await.unwrap_err();
        assert!(format!("{error:?}").contains(name), "{name}: {error:?}");
        assert!(matches!(error, SdkError::TimeoutError(_) | SdkError::DispatchFailure(_)), "{error:?}");
    }
    // A server that accepts the connection and does not take part in the TLS handshake.
    let https = server.url.replace("http://", "https://");
    let timeouts = timeouts.connect_timeout(limit).build();
    let error = put(&table(once().endpoint_url(https).timeout_config(timeouts))).await.unwrap_err();
    let SdkError::DispatchFailure(failure) = &error else { panic!("{error:?}") };
    assert!(failure.is_timeout(), "{error:?}");
}

/// Credentials that are provided once. After that, the provider does not respond.
#[derive(Debug, Default)]
struct SilentAfterFirst(AtomicUsize);

impl ProvideCredentials for SilentAfterFirst {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => future::ProvideCredentials::ready(provider::Result::Ok(credentials())),
            _ => future::ProvideCredentials::new(std::future::pending()),
        }
    }
}

/// Never returns a response.
#[derive(Debug)]
struct SilentConnector;

impl HttpConnector for SilentConnector {
    fn call(&self, _: aws_smithy_runtime_api::client::orchestrator::HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(std::future::pending())
    }
}

#[tokio::test]
async fn attempt_timeout_limits_every_part_of_an_exchange() {
    let limit = Duration::from_millis(80);
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(limit);
    let once = |url: &str| config(url).retry_config(RetryConfig::disabled()).timeout_config(timeouts.clone().build());
    let server = FaultyServer::start(|_, _| PlannedReaction::error(400, "ExpiredTokenException")).await;
    let connector = SharedHttpConnector::new(SilentConnector);
    for config in [
        // The server's rejection is received, and new credentials are not.
        once(&server.url).credentials_provider(SilentAfterFirst::default()),
        // An HTTP client that was set explicitly.
        once("http://127.0.0.1:1").http_client(http_client_fn(move |_, _| connector.clone())),
    ] {
        let started = Instant::now();
        let error = timeout(Duration::from_secs(10), put(&table(config))).await.expect("an error").unwrap_err();
        assert!(matches!(error, SdkError::TimeoutError(_)), "{error:?}");
        assert!(format!("{error:?}").contains("attempt timeout of 80ms"), "{error:?}");
        assert!(started.elapsed() >= limit);
    }
}

#[tokio::test]
async fn shorter_one_of_read_and_attempt_timeout_ends_an_exchange() {
    let server = FaultyServer::start(|_, _| PlannedReaction::Silence).await;
    let (short, long) = (Duration::from_millis(80), Duration::from_mins(1));
    for (read, attempt, name) in [(short, long, "read timeout"), (long, short, "attempt timeout")] {
        let timeouts = TimeoutConfig::builder().read_timeout(read).operation_attempt_timeout(attempt).build();
        let once = config(&server.url).retry_config(RetryConfig::disabled()).timeout_config(timeouts);
        let error = timeout(long / 2, put(&table(once))).await.expect("an error").unwrap_err();
        assert!(format!("{error:?}").contains(name), "{name}: {error:?}");
    }
}

#[tokio::test]
async fn refused_connection_is_an_error_of_the_network() {
    let refused = || config("http://127.0.0.1:1").retry_config(RetryConfig::disabled());
    let table = TableClient::new(Client::from_conf(refused().build()), "Orders", 8);
    let mut puts = JoinSet::new();
    for _ in 0..32 {
        let table = table.clone();
        puts.spawn(async move { put(&table).await.unwrap_err() });
    }
    for error in puts.join_all().await {
        let SdkError::DispatchFailure(failure) = &error else { panic!("{error:?}") };
        let described = DisplayErrorContext(&error).to_string();
        assert!(failure.is_io() && described.contains("cannot connect to 127.0.0.1:1"), "{described}");
    }
}

#[expect(clippy::disallowed_methods, reason = "credentials expire, and servers set dates, by the real clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Credentials whose access key is different each time.
#[derive(Debug, Clone, Default)]
struct ChangingCredentials {
    provided: Arc<AtomicUsize>,
    lifetime: Option<Duration>,
}

impl ProvideCredentials for ChangingCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let number = self.provided.fetch_add(1, Ordering::Relaxed);
        let expiry = self.lifetime.map(|lifetime| now() + lifetime);
        let credentials = Credentials::new(format!("AKID{number}"), "secret", None, expiry, "changing");
        future::ProvideCredentials::ready(provider::Result::Ok(credentials))
    }
}

#[tokio::test]
async fn expired_token_is_replaced_and_the_request_is_retried() {
    let server = FaultyServer::start(|_, request| match request.access_key() {
        Some("AKID0") => PlannedReaction::error(400, "ExpiredTokenException"),
        _ => PlannedReaction::success(),
    })
    .await;
    let provider = ChangingCredentials::default();
    let table = table(config(&server.url).credentials_provider(provider.clone()));
    put(&table).await.unwrap();
    put(&table).await.unwrap();
    // The SDK's cache still contains the expired credentials.
    sleep(Duration::from_millis(1_100)).await;
    put(&table).await.unwrap();
    let keys: Vec<_> = server.requests().iter().map(|request| request.access_key().unwrap().to_owned()).collect();
    assert_eq!(keys, ["AKID0", "AKID1", "AKID1", "AKID1"]);
    assert_eq!(provider.provided.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn none_of_several_expired_tokens_is_used_again() {
    let server = FaultyServer::start(|number, request| match request.access_key() {
        Some("AKID0") => PlannedReaction::error(400, "ExpiredTokenException"),
        Some("AKID1") if number > 1 => PlannedReaction::error(400, "ExpiredTokenException"),
        _ => PlannedReaction::success(),
    })
    .await;
    let table = table(config(&server.url).credentials_provider(ChangingCredentials::default()));
    put(&table).await.unwrap();
    put(&table).await.unwrap();
    // The SDK's cache still contains the first credentials.
    sleep(Duration::from_millis(1_100)).await;
    put(&table).await.unwrap();
    let keys: Vec<_> = server.requests().iter().map(|request| request.access_key().unwrap().to_owned()).collect();
    assert_eq!(keys, ["AKID0", "AKID1", "AKID1", "AKID2", "AKID2"]);
}

#[tokio::test]
async fn expired_token_of_credentials_that_do_not_change_is_reported() {
    let server = FaultyServer::start(|_, _| PlannedReaction::error(400, "ExpiredTokenException")).await;
    let error = put(&table(config(&server.url))).await.unwrap_err();
    assert_eq!((code(&error), server.requests().len()), (Some("ExpiredTokenException"), 3));
}

#[tokio::test]
async fn credentials_are_refreshed_before_they_expire() {
    let server = FaultyServer::start(|_, _| PlannedReaction::success()).await;
    // The SDK's cache refreshes credentials 10 s before they expire.
    let provider = ChangingCredentials { lifetime: Some(Duration::from_secs(5)), ..Default::default() };
    let table = table(config(&server.url).credentials_provider(provider));
    for _ in 0..3 {
        put(&table).await.unwrap();
    }
    sleep(Duration::from_millis(1_100)).await;
    put(&table).await.unwrap();
    let keys: Vec<_> = server.requests().iter().map(|request| request.access_key().unwrap().to_owned()).collect();
    assert_eq!(keys[..3], ["AKID0", "AKID0", "AKID0"]);
    assert_ne!(keys[3], "AKID0");
}

#[tokio::test]
async fn credentials_are_requested_once_by_concurrent_requests() {
    let server = FaultyServer::start(|_, _| PlannedReaction::Late(Duration::from_millis(5))).await;
    let provider = ChangingCredentials::default();
    let table = table(config(&server.url).credentials_provider(provider.clone()));
    put_all(&table, 64).await;
    assert_eq!(provider.provided.load(Ordering::Relaxed), 1);
    assert!(server.connections() <= 8, "{}", server.connections());
}

#[tokio::test]
async fn missing_credentials_are_an_error_of_the_configuration() {
    let config = aws_sdk_dynamodb::Config::builder().behavior_version(BehaviorVersion::latest());
    let config = config.region(Region::from_static("eu-west-1")).endpoint_url("http://127.0.0.1:1");
    let error = put(&TableClient::new(Client::from_conf(config.build()), "Orders", 1)).await.unwrap_err();
    let SdkError::ConstructionFailure(_) = &error else { panic!("{error:?}") };
    assert!(format!("{error:?}").contains("credentials"), "{error:?}");
}

#[tokio::test]
async fn clock_that_differs_from_the_service_s_is_corrected() {
    for hours in [-1_i64, 1] {
        let date = move || {
            let now = DateTime::from(now());
            DateTime::from_secs(now.secs() + hours * 3_600)
        };
        let server = FaultyServer::start(move |_, request| {
            let sent = request.header("x-amz-date").unwrap();
            let header = vec![("date", date().fmt(Format::HttpDate).unwrap())];
            let sent = time::PrimitiveDateTime::parse(
                sent,
                time::macros::format_description!("[year][month][day]T[hour][minute][second]Z"),
            );
            let difference = sent.unwrap().assume_utc().unix_timestamp() - date().secs();
            if difference.abs() > 300 {
                return PlannedReaction::error_with(400, "InvalidSignatureException", header);
            }
            PlannedReaction::Response(200, header, "{}".to_owned())
        })
        .await;
        let table = table(config(&server.url));
        put(&table).await.unwrap();
        assert_eq!(server.requests().len(), 2);
        put(&table).await.unwrap();
        assert_eq!(server.requests().len(), 3, "the correction lasts");
    }
}

#[tokio::test]
async fn rejected_signature_without_a_skewed_clock_is_not_retried() {
    let server = FaultyServer::start(|_, _| {
        let date = DateTime::from(now()).fmt(Format::HttpDate).unwrap();
        PlannedReaction::error_with(400, "InvalidSignatureException", vec![("date", date)])
    })
    .await;
    let error = put(&table(config(&server.url))).await.unwrap_err();
    assert_eq!((code(&error), server.requests().len()), (Some("InvalidSignatureException"), 1));
}

#[tokio::test]
async fn body_that_differs_from_its_checksum_is_retried_and_then_an_error() {
    let with =
        |checksum: &str| PlannedReaction::Response(200, vec![("x-amz-crc32", checksum.to_owned())], "{}".to_owned());
    // The CRC-32 of `{}`.
    let (wrong, right) = (with("7"), with("2745614147"));
    let changed = wrong.clone();
    let server = FaultyServer::start(move |number, _| if number == 0 { changed.clone() } else { right.clone() }).await;
    put(&table(config(&server.url))).await.unwrap();
    assert_eq!(server.requests().len(), 2);
    let server = FaultyServer::start(move |_, _| wrong.clone()).await;
    let error = put(&table(config(&server.url))).await.unwrap_err();
    let SdkError::ResponseError(_) = &error else { panic!("{error:?}") };
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn connection_that_the_server_has_closed_while_idle_is_not_an_error() {
    // The end of a connection is detected at once, or only at its next use, as after the environment was frozen.
    for pause in [0, 50, 700] {
        let server = FaultyServer::start(|_, _| PlannedReaction::Last).await;
        let table = table(config(&server.url).retry_config(RetryConfig::disabled()));
        for _ in 0..4 {
            put(&table).await.unwrap();
            std::thread::sleep(Duration::from_millis(pause));
            while server.open() > 0 {
                tokio::task::yield_now().await;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!((server.requests().len(), server.connections()), (4, 4), "{pause}");
    }
}

/// Sends requests concurrently; returns their results.
pub(crate) async fn put_all_with(table: &TableClient, number: usize) -> Vec<Result<(), SdkError<PutItemError>>> {
    let mut puts = JoinSet::new();
    for _ in 0..number {
        let table = table.clone();
        puts.spawn(async move { put(&table).await });
    }
    puts.join_all().await
}

async fn put_all(table: &TableClient, number: usize) {
    for result in put_all_with(table, number).await {
        result.unwrap();
    }
}

#[tokio::test]
async fn requests_finish_although_the_server_closes_each_connection() {
    let server = FaultyServer::start(|_, _| PlannedReaction::Last).await;
    let table = TableClient::new(Client::from_conf(config(&server.url).build()), "Orders", 1);
    timeout(Duration::from_secs(30), put_all(&table, 64)).await.expect("no request waits forever");
    assert!(server.requests().len() >= 64);
}

#[tokio::test]
async fn request_that_was_not_sent_costs_no_attempt() {
    let pause = Duration::from_millis(40);
    let plan = move |number, _: &_| match number {
        0 => PlannedReaction::LateAndLast(pause),
        _ => PlannedReaction::success(),
    };
    let server = FaultyServer::start(plan).await;
    let once = config(&server.url).retry_config(RetryConfig::disabled());
    let table = TableClient::new(Client::from_conf(once.build()), "Orders", 1);
    let first = tokio::spawn({
        let table = table.clone();
        async move { put(&table).await }
    });
    while server.requests().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    // The second request receives the connection, and continues only after the server has closed it.
    let mut second = Box::pin(put(&table));
    assert!(timeout(Duration::from_millis(1), &mut second).await.is_err());
    first.await.unwrap().unwrap();
    while server.open() > 0 {
        sleep(Duration::from_millis(1)).await;
    }
    sleep(Duration::from_millis(10)).await;
    second.await.unwrap();
    assert_eq!((server.requests().len(), server.connections()), (2, 2));
}

#[tokio::test]
async fn wait_for_a_connection_does_not_count_toward_the_attempt_timeout() {
    let server = FaultyServer::start(|_, _| PlannedReaction::Late(Duration::from_millis(60))).await;
    let short = TimeoutConfig::builder().operation_attempt_timeout(Duration::from_millis(200)).build();
    let once = config(&server.url).retry_config(RetryConfig::disabled()).timeout_config(short);
    let table = TableClient::new(Client::from_conf(once.build()), "Orders", 1);
    put_all(&table, 8).await;
    assert_eq!((server.requests().len(), server.connections()), (8, 1));
}

#[tokio::test]
async fn success_status_with_a_body_of_another_format_is_retried_and_then_an_error() {
    let with = |body: &str| PlannedReaction::Response(200, Vec::new(), body.to_owned());
    for body in [
        "<html>Welcome</html>",
        "OK",
        r#"{"Attributes":{"order_id":"#,
        r#"{"Attributes":7}"#,
        "[]",
        "",
        r#"{"status":"ok"}"#,
    ] {
        let other = with(body);
        let plan = move |number, _: &_| if number == 0 { other.clone() } else { PlannedReaction::success() };
        let server = FaultyServer::start(plan).await;
        put(&table(config(&server.url))).await.unwrap();
        assert_eq!(server.requests().len(), 2, "{body}");
        let other = with(body);
        let server = FaultyServer::start(move |_, _| other.clone()).await;
        let error = put(&table(config(&server.url))).await.unwrap_err();
        let SdkError::ResponseError(_) = &error else { panic!("{body}: {error:?}") };
        let reason = error.into_source().unwrap().to_string();
        assert!(body.is_empty() || !reason.contains(body), "{body}: {reason}");
        assert_eq!(server.requests().len(), 3, "{body}");
    }
    for body in [
        "{}",
        "{ }",
        r#"{"New":1,"Attributes":{}}"#,
        r#"{"Attributes":{"order_id":{"S":"42"}}}"#,
        r#"{"ConsumedCapacity":{"CapacityUnits":1.0}}"#,
    ] {
        let success = with(body);
        let server = FaultyServer::start(move |_, _| success.clone()).await;
        put(&table(config(&server.url))).await.unwrap();
        assert_eq!(server.requests().len(), 1, "{body}");
    }
}

#[tokio::test]
async fn connection_is_used_again() {
    let server = FaultyServer::start(|_, _| PlannedReaction::success()).await;
    let table = table(config(&server.url));
    for _ in 0..20 {
        put(&table).await.unwrap();
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn first_connection_can_be_opened_before_the_first_request() {
    let server = FaultyServer::start(|_, _| PlannedReaction::success()).await;
    let table = table(config(&server.url));
    table.warm().await;
    sleep(Duration::from_millis(20)).await;
    assert_eq!((server.connections(), server.requests().len()), (1, 0));
    put(&table).await.unwrap();
    assert_eq!(server.connections(), 1);
    self::table(config("http://127.0.0.1:1")).warm().await;
}

#[tokio::test]
async fn connections_grow_while_requests_wait_and_not_beyond_the_limit() {
    let server = FaultyServer::start(|_, _| PlannedReaction::Late(Duration::from_millis(30))).await;
    let sdk = || Client::from_conf(config(&server.url).build());
    let one = TableClient::new(sdk(), "Orders", 1);
    put_all(&one, 4).await;
    assert_eq!(server.connections(), 1);
    let four = TableClient::new(sdk(), "Orders", 4);
    while server.connections() < 1 + 4 {
        put_all(&four, 20).await;
    }
    put_all(&four, 40).await;
    assert_eq!(server.connections(), 1 + 4, "they are used again");
}

#[tokio::test]
async fn first_batch_does_not_open_a_connection_for_each_request() {
    let server = FaultyServer::start(|_, _| PlannedReaction::success()).await;
    let table = TableClient::new(Client::from_conf(config(&server.url).build()), "Orders", 128);
    put_all(&table, 128).await;
    assert!(server.connections() <= 32, "{}", server.connections());
}

#[tokio::test]
async fn silent_connection_does_not_keep_the_others_waiting() {
    let server = FaultyServer::start(
        |number, _| if number == 0 { PlannedReaction::Silence } else { PlannedReaction::success() },
    )
    .await;
    let table = table(config(&server.url));
    let silent = tokio::spawn({
        let table = table.clone();
        async move { put(&table).await }
    });
    while server.requests().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    put_all(&table, 16).await;
    assert!(server.connections() >= 2 && !silent.is_finished());
    // A request that is dropped closes its connection: a late response would be read as that of the next request.
    let before = server.open();
    silent.abort();
    drop(silent.await);
    put(&table).await.unwrap();
    assert!(server.open() <= before);
}

/// Keeps the URIs of the requests, and sends none.
#[derive(Debug, Clone, Default)]
struct UriRecorder(Arc<Mutex<Vec<String>>>);

impl HttpConnector for UriRecorder {
    fn call(&self, request: aws_smithy_runtime_api::client::orchestrator::HttpRequest) -> HttpConnectorFuture {
        self.0.lock().unwrap().push(request.uri().to_owned());
        HttpConnectorFuture::ready(Err(ConnectorError::user("nothing is sent".into())))
    }
}

#[tokio::test]
async fn endpoint_is_that_of_the_sdk() {
    type Change = fn(Builder) -> Builder;
    let account = |config: Builder| {
        let credentials = Credentials::builder().access_key_id("AKID").secret_access_key("secret");
        config.credentials_provider(credentials.account_id("123456789012").provider_name("test").build())
    };
    let changes: [(Change, &str); 7] = [
        (|config| config, "https://dynamodb.eu-west-1.amazonaws.com/"),
        (|config| config.region(Region::from_static("cn-north-1")), "https://dynamodb.cn-north-1.amazonaws.com.cn/"),
        (|config| config.use_fips(true).region(Region::from_static("us-east-1")), "https://dynamodb-fips.us-east-1."),
        (|config| config.use_dual_stack(true), "https://dynamodb.eu-west-1.api.aws/"),
        (account, "https://123456789012.ddb.eu-west-1.amazonaws.com/"),
        (|config| config.endpoint_url("http://[::1]:8000"), "http://[::1]:8000/"),
        (|config| config.endpoint_url("https://host/under/path"), "https://host/under/path"),
    ];
    for (change, expected) in changes {
        let recorder = UriRecorder::default();
        let connector = SharedHttpConnector::new(recorder.clone());
        let config = config("").endpoint_url("unset").http_client(http_client_fn(move |_, _| connector.clone()));
        let mut config = config;
        config.set_endpoint_url(None);
        let sdk = Client::from_conf(change(config).build());
        assert!(Box::pin(sdk.put_item().table_name("Orders").send()).await.is_err());
        let error = put(&TableClient::new(sdk, "Orders", 8)).await.unwrap_err();
        let uris = recorder.0.lock().unwrap().clone();
        let [theirs, ours] = &uris[..] else { panic!("{uris:?}: {error:?}") };
        assert!(ours == theirs && ours.starts_with(expected), "{uris:?}");
    }
}
