use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::error::metadata::ProvideErrorMetadata as _;

use super::*;

const STREAM: &str = "arn:aws:dynamodb:eu-west-1:111122223333:table/Users/stream/2026-11-22T10:00:00.000";

/// Status, header `x-amzn-errortype` and body.
type ScriptedResponse = (u16, Option<&'static str>, String);

/// Returns the responses in their order, and records the requests.
#[derive(Debug, Clone, Default)]
struct ScriptedConnector {
    responses: Arc<Mutex<Vec<ScriptedResponse>>>,
    requests: Arc<Mutex<Vec<HttpRequest>>>,
}

impl HttpConnector for ScriptedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.requests.lock().unwrap().push(request);
        let (status, error_type, body) = self.responses.lock().unwrap().remove(0);
        let mut response = HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::from(body));
        if let Some(error_type) = error_type {
            response.headers_mut().insert("x-amzn-errortype", error_type);
        }
        HttpConnectorFuture::ready(Ok(response))
    }
}

impl ScriptedConnector {
    fn new(responses: &[(u16, Option<&'static str>, &str)]) -> Self {
        let responses = responses.iter().map(|(status, header, body)| (*status, *header, (*body).to_owned())).collect();
        Self { responses: Arc::new(Mutex::new(responses)), requests: Arc::default() }
    }

    fn client(&self) -> LambdaClient {
        let connector = SharedHttpConnector::new(self.clone());
        let sdk = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("eu-west-1"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new("key", "secret", None, None, "test")))
            .retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(1)))
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .build();
        LambdaClient::new(&sdk)
    }

    fn urls(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|request| request.uri().to_owned()).collect()
    }
}

#[tokio::test]
async fn every_page_of_mappings_is_requested_with_a_signature() {
    let first = r#"{"NextMarker":"a/b","EventSourceMappings":[{"UUID":"u-1","State":"Enabled","BatchSize":1000,
        "StartingPosition":"TRIM_HORIZON","FunctionArn":"arn:aws:lambda:eu-west-1:111122223333:function:f"}]}"#;
    let second = format!(r#"{{"EventSourceMappings":[{{"UUID":"u-2","EventSourceArn":"{STREAM}"}}]}}"#);
    let connector = ScriptedConnector::new(&[(200, None, first), (200, None, &second)]);
    let client = connector.client();
    let mut pages = client.mappings_of_stream(STREAM);
    let [one] = &pages.next().await.unwrap().unwrap()[..] else { panic!("one mapping") };
    assert_eq!((one.uuid.as_deref(), one.starting_position.as_deref()), (Some("u-1"), Some("TRIM_HORIZON")));
    let [two] = &pages.next().await.unwrap().unwrap()[..] else { panic!("one mapping") };
    assert_eq!((two.uuid.as_deref(), two.event_source_arn.as_deref()), (Some("u-2"), Some(STREAM)));
    assert!(pages.next().await.is_none());
    let url = "https://lambda.eu-west-1.amazonaws.com/2015-03-31/event-source-mappings?EventSourceArn=\
               arn%3Aaws%3Adynamodb%3Aeu-west-1%3A111122223333%3Atable%2FUsers%2Fstream%2F2026-11-22T10%3A00%3A00.000";
    assert_eq!(connector.urls(), [url.to_owned(), format!("{url}&Marker=a%2Fb")]);
    let requests = connector.requests.lock().unwrap();
    let authorization = requests[0].headers().get("authorization").unwrap();
    assert!(authorization.contains("/eu-west-1/lambda/aws4_request"), "{authorization}");
}

#[tokio::test]
async fn temporary_errors_are_retried_and_others_keep_their_code() {
    let found = r#"{"FunctionArn":"arn","Environment":{"Variables":{"A":"b"}}}"#;
    let throttled = (429, Some("TooManyRequestsException:http://internal.amazon.com/"), r#"{"Message":"slow"}"#);
    let connector = ScriptedConnector::new(&[(500, None, "{}"), throttled, (200, None, found)]);
    let configuration = connector.client().function_configuration("name:live").await.unwrap();
    let variables = configuration.environment.unwrap().variables.unwrap();
    assert_eq!(variables, HashMap::from([("A".to_owned(), "b".to_owned())]));
    let url = "https://lambda.eu-west-1.amazonaws.com/2015-03-31/functions/name%3Alive/configuration";
    assert_eq!(connector.urls(), [url; 3]);

    let denied = (403, Some("AccessDeniedException"), r#"{"Message":"not authorized"}"#);
    let connector = ScriptedConnector::new(&[denied]);
    let error = connector.client().function_configuration("f").await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Some("AccessDeniedException"), Some("not authorized")));
    assert_eq!(connector.urls().len(), 1, "not retried");
}

#[tokio::test]
async fn response_that_is_not_of_lambda_is_a_service_error_without_a_code() {
    for status in [200, 404] {
        let connector = ScriptedConnector::new(&[(status, None, "<html>")]);
        let error = connector.client().function_configuration("f").await.unwrap_err();
        assert!(matches!(&error, SdkError::ServiceError(_)) && error.code().is_none(), "{error:?}");
    }
}

#[test]
fn values_of_variables_are_not_printed() {
    let variables = HashMap::from([("POSTGRES_URL".to_owned(), "secret".to_owned())]);
    let printed = format!("{:?}", FunctionVariables { variables: Some(variables), error: None });
    assert!(printed.contains("POSTGRES_URL") && !printed.contains("secret"), "{printed}");
}
