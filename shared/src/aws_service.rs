//! Calls of AWS services without their SDK: [`AwsService`].
//!
//! The crate of an SDK has all operations of its service and takes seconds to compile. These calls run in the SDK's own
//! runtime: its signatures, credentials, retries, timeouts and HTTP client.

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_runtime::auth::SigV4OperationSigningConfig;
use aws_runtime::auth::sigv4::{SCHEME_ID, SigV4AuthScheme};
use aws_runtime::invocation_id::InvocationIdInterceptor;
use aws_runtime::recursion_detection::RecursionDetectionInterceptor;
use aws_runtime::request_info::RequestInfoInterceptor;
use aws_runtime::retries::classifiers::AwsErrorCodeClassifier;
use aws_runtime::service_clock_skew::{ServiceClockSkewClassifier, ServiceClockSkewInterceptor};
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime::client::retries::classifiers::{HttpStatusCodeClassifier, TransientErrorClassifier};
use aws_smithy_runtime_api::client::auth::static_resolver::StaticAuthSchemeOptionResolver;
use aws_smithy_runtime_api::client::auth::{
    AuthSchemeOptionResolverParams, SharedAuthScheme, SharedAuthSchemeOptionResolver,
};
use aws_smithy_runtime_api::client::identity::SharedIdentityResolver;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError, SensitiveOutput};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponentsBuilder;
use aws_smithy_runtime_api::client::runtime_plugin::StaticRuntimePlugin;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::Layer;
use aws_smithy_types::error::metadata::{ErrorMetadata, ProvideErrorMetadata};
use aws_smithy_types::retry::RetryConfig;
use aws_types::SigningName;
use aws_types::region::SigningRegion;
use aws_types::service_config::ServiceConfigKey;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The partitions other than those of `amazonaws.com`: the prefix of their Regions, and the domains of their endpoints
/// for IPv4 alone and for IPv4 and IPv6.
const PARTITIONS: [(&str, &str, &str); 6] = [
    ("cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
    ("eusc-", "amazonaws.eu", "api.amazonwebservices.eu"),
    ("us-iso-", "c2s.ic.gov", "api.aws.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov", "api.aws.scloud"),
    ("eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
    ("us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
];

/// The error of a call.
pub type AwsCallError = SdkError<AwsServiceError, HttpResponse>;

/// An error that a service returned.
#[derive(Debug)]
pub struct AwsServiceError {
    metadata: ErrorMetadata,
    /// The error of the parser, if the response is not one of the service.
    source: Option<serde_json::Error>,
}

impl std::fmt::Display for AwsServiceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.metadata.code(), self.metadata.message()) {
            (Some(code), Some(message)) => write!(f, "{code}: {message}"),
            (Some(code), None) => f.write_str(code),
            (None, Some(message)) => f.write_str(message),
            (None, None) => f.write_str("a response without an error code of AWS"),
        }
    }
}

impl std::error::Error for AwsServiceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

impl ProvideErrorMetadata for AwsServiceError {
    fn meta(&self) -> &ErrorMetadata {
        &self.metadata
    }
}

/// A service, by the names that its requests contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AwsService {
    /// The identifier, from which the SDKs derive the name of the variable `AWS_ENDPOINT_URL_<IDENTIFIER>`.
    service_id: &'static str,
    /// The name in signatures and at the beginning of the service's host.
    signing_name: &'static str,
}

/// A request of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AwsRequest {
    /// A `GET` of this path, which contains the query.
    Get(String),
    /// A call of the protocol AWS JSON 1.1.
    Json {
        /// The header `X-Amz-Target`.
        target: &'static str,
        /// The JSON.
        body: String,
    },
}

impl AwsService {
    /// AWS Lambda.
    pub const LAMBDA: Self = Self { service_id: "Lambda", signing_name: "lambda" };
    /// AWS Secrets Manager.
    pub const SECRETS_MANAGER: Self = Self { service_id: "Secrets Manager", signing_name: "secretsmanager" };

    /// Sends a request and parses the response.
    ///
    /// # Errors
    /// [`AwsCallError`]: no response within the timeouts and retries of `sdk`, an error of the service, or a response
    /// of another form.
    pub async fn call<T>(self, sdk: &SdkConfig, operation: &'static str, request: AwsRequest) -> Result<T, AwsCallError>
    where
        T: DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
    {
        let Some(region) = sdk.region() else {
            return Err(SdkError::construction_failure("no Region is configured: set AWS_REGION"));
        };
        let mut components = RuntimeComponentsBuilder::new(self.service_id);
        components.set_auth_scheme_option_resolver(Some(SharedAuthSchemeOptionResolver::new(
            StaticAuthSchemeOptionResolver::new(vec![SCHEME_ID]),
        )));
        components.push_auth_scheme(SharedAuthScheme::new(SigV4AuthScheme::new()));
        if let Some(provider) = sdk.credentials_provider() {
            components.set_identity_resolver(SCHEME_ID, SharedIdentityResolver::new(provider));
        }
        if let Some(cache) = sdk.identity_cache() {
            components.set_identity_cache(Some(cache));
        }
        let mut layer = Layer::new(self.service_id);
        layer.store_put(AuthSchemeOptionResolverParams::new(()));
        // A response may contain secrets: no log contains it.
        layer.store_put(SensitiveOutput);
        layer.store_put(SigV4OperationSigningConfig {
            region: Some(SigningRegion::from(region.clone())),
            name: Some(SigningName::from_static(self.signing_name)),
            ..SigV4OperationSigningConfig::default()
        });
        let signing = StaticRuntimePlugin::new().with_config(layer.freeze()).with_runtime_components(components);
        let mut builder = Operation::builder()
            .service_name(self.service_id)
            .operation_name(operation)
            .behavior_version(sdk.behavior_version().unwrap_or_else(BehaviorVersion::latest))
            .endpoint_url(&self.endpoint(sdk, region))
            .standard_retry(&sdk.retry_config().cloned().unwrap_or_else(RetryConfig::standard))
            .with_connection_poisoning()
            .interceptor(ServiceClockSkewInterceptor::new())
            .interceptor(RequestInfoInterceptor::new())
            .interceptor(InvocationIdInterceptor::new())
            .interceptor(RecursionDetectionInterceptor::new())
            .retry_classifier(HttpStatusCodeClassifier::default())
            .retry_classifier(TransientErrorClassifier::<AwsServiceError>::new())
            .retry_classifier(AwsErrorCodeClassifier::<AwsServiceError>::new())
            .retry_classifier(ServiceClockSkewClassifier::<AwsServiceError>::new())
            .runtime_plugin(signing);
        if let Some(client) = sdk.http_client() {
            builder = builder.http_client(client);
        }
        if let Some(timeouts) = sdk.timeout_config() {
            builder = builder.timeout_config(timeouts.clone());
        }
        if let Some(sleep) = sdk.sleep_impl() {
            builder = builder.sleep_impl(sleep);
        }
        if let Some(time) = sdk.time_source() {
            builder = builder.time_source(time);
        }
        if let Some(protection) = sdk.stalled_stream_protection() {
            builder = builder.stalled_stream_protection(protection);
        }
        builder.serializer(serialized).deserializer(response::<T>).build().invoke(request).await
    }

    /// Returns the URL of the service in a Region, or the configured one.
    fn endpoint(self, sdk: &SdkConfig, region: &Region) -> String {
        let key = ServiceConfigKey::builder()
            .service_id(self.service_id)
            .env("AWS_ENDPOINT_URL")
            .profile("endpoint_url")
            .build();
        let of_service = || sdk.service_config()?.load_config(key.ok()?);
        let is_explicit = sdk.get_origin("endpoint_url").is_client_config();
        let configured = if is_explicit { None } else { of_service() };
        if let Some(url) = configured.or_else(|| sdk.endpoint_url().map(str::to_owned)) {
            return url;
        }
        let found = PARTITIONS.iter().find(|(prefix, ..)| region.as_ref().starts_with(prefix));
        let (_, suffix, dual_stack) = found.copied().unwrap_or(("", "amazonaws.com", "api.aws"));
        let suffix = if sdk.use_dual_stack() == Some(true) { dual_stack } else { suffix };
        let fips = if sdk.use_fips() == Some(true) { "-fips" } else { "" };
        format!("https://{}{fips}.{region}.{suffix}", self.signing_name)
    }
}

fn serialized(request: AwsRequest) -> Result<HttpRequest, Box<dyn std::error::Error + Send + Sync>> {
    match request {
        AwsRequest::Get(path) => {
            let mut request = HttpRequest::new(SdkBody::from(""));
            request.set_uri(path)?;
            Ok(request)
        }
        AwsRequest::Json { target, body } => {
            let mut request = HttpRequest::new(SdkBody::from(body));
            request.set_method("POST")?;
            request.set_uri("/")?;
            request.headers_mut().insert("content-type", "application/x-amz-json-1.1");
            request.headers_mut().insert("x-amz-target", target);
            Ok(request)
        }
    }
}

fn response<T: DeserializeOwned>(response: &HttpResponse) -> Result<T, OrchestratorError<AwsServiceError>> {
    let body = response.body().bytes().unwrap_or_default();
    let error = if response.status().is_success() {
        match serde_json::from_slice(body) {
            Ok(value) => return Ok(value),
            Err(error) => AwsServiceError { metadata: ErrorMetadata::default(), source: Some(error) },
        }
    } else {
        service_error(response.headers().get("x-amzn-errortype"), body)
    };
    Err(OrchestratorError::operation(error))
}

/// Returns the error of a response with this header and this body.
fn service_error(header: Option<&str>, body: &[u8]) -> AwsServiceError {
    #[derive(Deserialize)]
    struct ErrorBody {
        #[serde(alias = "__type")]
        code: Option<String>,
        #[serde(alias = "Message", alias = "errorMessage")]
        message: Option<String>,
    }
    let (parsed, source) = match serde_json::from_slice::<ErrorBody>(body) {
        Ok(parsed) => (Some(parsed), None),
        Err(error) => (None, Some(error)),
    };
    let (code, message) = parsed.map(|parsed| (parsed.code, parsed.message)).unwrap_or_default();
    let mut metadata = ErrorMetadata::builder();
    if let Some(code) = header.or(code.as_deref()) {
        // A URL may follow the code, and a namespace may precede it.
        let code = code.split(':').next().unwrap_or_default();
        metadata = metadata.code(code.split_once('#').map_or(code, |(_, code)| code));
    }
    if let Some(message) = message {
        metadata = metadata.message(message);
    }
    AwsServiceError { metadata: metadata.build(), source }
}

#[cfg(test)]
mod tests;
