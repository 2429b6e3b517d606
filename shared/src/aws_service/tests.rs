use std::sync::{Arc, Mutex};

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::http::StatusCode;
use aws_types::service_config::LoadServiceConfig;

use super::*;
use crate::secrets::SecretsClient;

fn sdk(region: &'static str) -> aws_types::sdk_config::Builder {
    SdkConfig::builder().region(Region::from_static(region))
}

#[test]
fn endpoint_is_that_of_the_partition_unless_one_is_configured() {
    let of = |sdk: SdkConfig| AwsService::LAMBDA.endpoint(&sdk, sdk.region().unwrap());
    assert_eq!(of(sdk("eu-west-1").build()), "https://lambda.eu-west-1.amazonaws.com");
    assert_eq!(of(sdk("us-gov-west-1").build()), "https://lambda.us-gov-west-1.amazonaws.com");
    assert_eq!(of(sdk("cn-north-1").build()), "https://lambda.cn-north-1.amazonaws.com.cn");
    assert_eq!(of(sdk("us-isob-east-1").build()), "https://lambda.us-isob-east-1.sc2s.sgov.gov");
    assert_eq!(of(sdk("us-west-2").use_fips(true).build()), "https://lambda-fips.us-west-2.amazonaws.com");
    assert_eq!(of(sdk("us-west-2").use_dual_stack(true).build()), "https://lambda.us-west-2.api.aws");
    assert_eq!(of(sdk("us-west-2").endpoint_url("http://127.0.0.1:1/x").build()), "http://127.0.0.1:1/x");
    let secrets = |sdk: SdkConfig| AwsService::SECRETS_MANAGER.endpoint(&sdk, sdk.region().unwrap());
    assert_eq!(secrets(sdk("cn-north-1").build()), "https://secretsmanager.cn-north-1.amazonaws.com.cn");
    let fips = sdk("us-west-2").use_fips(true).use_dual_stack(true).build();
    assert_eq!(secrets(fips), "https://secretsmanager-fips.us-west-2.api.aws");
}

/// The settings of one service in the shared configuration files.
#[derive(Debug)]
struct EndpointOfService(&'static str);

impl LoadServiceConfig for EndpointOfService {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        assert_eq!((key.env(), key.profile()), ("AWS_ENDPOINT_URL", "endpoint_url"));
        (key.service_id() == self.0).then(|| "http://127.0.0.1:2".to_owned())
    }
}

#[test]
fn endpoint_of_a_service_can_be_configured_alone() {
    let sdk = sdk("eu-west-1").service_config(EndpointOfService("Secrets Manager")).build();
    let region = sdk.region().unwrap();
    assert_eq!(AwsService::SECRETS_MANAGER.endpoint(&sdk, region), "http://127.0.0.1:2");
    assert_eq!(AwsService::LAMBDA.endpoint(&sdk, region), "https://lambda.eu-west-1.amazonaws.com");
}

#[test]
fn code_of_an_error_has_neither_namespace_nor_url() {
    for (header, body) in [
        (Some("ResourceNotFoundException:http://x/"), r#"{"Message":"absent"}"#),
        (None, r#"{"__type":"com.amazonaws.lambda#ResourceNotFoundException","message":"absent"}"#),
        (None, r#"{"code":"ResourceNotFoundException","message":"absent"}"#),
    ] {
        assert_eq!(service_error(header, body.as_bytes()).to_string(), "ResourceNotFoundException: absent");
    }
}

/// Returns one response, and records the request.
#[derive(Debug, Clone, Default)]
struct OneResponse {
    status: u16,
    body: &'static str,
    request: Arc<Mutex<Option<HttpRequest>>>,
}

impl HttpConnector for OneResponse {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        *self.request.lock().unwrap() = Some(request);
        let status = StatusCode::try_from(self.status).unwrap();
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(self.body))))
    }
}

impl OneResponse {
    async fn secret(&self) -> Result<Option<String>, AwsCallError> {
        let connector = SharedHttpConnector::new(self.clone());
        let sdk = sdk("eu-west-1")
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new("key", "secret", None, None, "test")))
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .build();
        SecretsClient::new(&sdk).text("pii\"").await
    }
}

#[tokio::test]
async fn secret_is_requested_with_a_signature_and_its_name_in_json() {
    let response = OneResponse { status: 200, body: r#"{"Name":"pii","SecretString":"k"}"#, ..OneResponse::default() };
    assert_eq!(response.secret().await.unwrap().as_deref(), Some("k"));
    let request = response.request.lock().unwrap().take().unwrap();
    assert_eq!((request.method(), request.uri()), ("POST", "https://secretsmanager.eu-west-1.amazonaws.com/"));
    assert_eq!(request.headers().get("x-amz-target"), Some("secretsmanager.GetSecretValue"));
    assert_eq!(request.headers().get("content-type"), Some("application/x-amz-json-1.1"));
    assert_eq!(request.body().bytes(), Some(&br#"{"SecretId":"pii\""}"#[..]));
    let authorization = request.headers().get("authorization").unwrap();
    assert!(authorization.contains("/eu-west-1/secretsmanager/aws4_request"), "{authorization}");
    let signed = "content-type;host;";
    assert!(authorization.contains(signed) && authorization.contains("x-amz-target"), "{authorization}");
}

#[tokio::test]
async fn secret_without_text_differs_from_one_that_may_not_be_read() {
    let binary = OneResponse { status: 200, body: r#"{"SecretBinary":"AAAA"}"#, ..OneResponse::default() };
    assert_eq!(binary.secret().await.unwrap(), None);
    let body = r#"{"__type":"AccessDeniedException","Message":"no identity-based policy allows it"}"#;
    let denied = OneResponse { status: 400, body, ..OneResponse::default() };
    let error = denied.secret().await.unwrap_err();
    assert_eq!(error.code(), Some("AccessDeniedException"));
}
