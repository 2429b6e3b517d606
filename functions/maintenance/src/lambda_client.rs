//! Client of the two calls of Lambda's API that maintenance makes: [`LambdaClient`].
//!
//! The SDK's crate for Lambda has more than 80 operations and takes a tenth of the compile time of the workspace. These
//! two run in the SDK's own runtime: its signatures, credentials, retries, timeouts and HTTP client.

use std::collections::HashMap;

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
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The characters that need no encoding in a path segment and in a query.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const MAPPINGS_PATH: &str = "/2015-03-31/event-source-mappings";

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
pub type LambdaCallError = SdkError<LambdaServiceError, HttpResponse>;

/// An error that Lambda returned.
#[derive(Debug)]
pub struct LambdaServiceError {
    metadata: ErrorMetadata,
    /// The error of the parser, if the response is not one of Lambda.
    source: Option<serde_json::Error>,
}

impl std::fmt::Display for LambdaServiceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.metadata.code(), self.metadata.message()) {
            (Some(code), Some(message)) => write!(f, "{code}: {message}"),
            (Some(code), None) => f.write_str(code),
            (None, Some(message)) => f.write_str(message),
            (None, None) => f.write_str("a response without an error code of AWS"),
        }
    }
}

impl std::error::Error for LambdaServiceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

impl ProvideErrorMetadata for LambdaServiceError {
    fn meta(&self) -> &ErrorMetadata {
        &self.metadata
    }
}

/// An event source mapping, as `ListEventSourceMappings` returns it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EventSourceMapping {
    /// The identifier.
    #[serde(rename = "UUID")]
    pub uuid: Option<String>,
    /// The ARN of the stream.
    pub event_source_arn: Option<String>,
    /// The ARN of the function, with the qualifier if it has one.
    pub function_arn: Option<String>,
    /// `Enabled`, or another state.
    pub state: Option<String>,
    /// The position that the mapping started from, such as `TRIM_HORIZON`.
    pub starting_position: Option<String>,
}

/// The configuration of a function, as `GetFunctionConfiguration` returns it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct FunctionConfiguration {
    /// The ARN of the function.
    pub function_arn: Option<String>,
    /// The environment variables.
    pub environment: Option<FunctionVariables>,
}

/// The environment variables of a function.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct FunctionVariables {
    /// The variables; `None` if they cannot be decrypted.
    pub variables: Option<HashMap<String, String>>,
    /// The reason why they cannot be decrypted.
    pub error: Option<VariablesError>,
}

/// Without the values, which may be secrets.
impl std::fmt::Debug for FunctionVariables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.variables.as_ref().map(|variables| variables.keys());
        f.debug_struct("FunctionVariables").field("names", &names).field("error", &self.error).finish()
    }
}

/// The reason why Lambda cannot decrypt the environment variables of a function.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VariablesError {
    /// The code of the error.
    pub error_code: Option<String>,
    /// The message.
    pub message: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct MappingPage {
    event_source_mappings: Vec<EventSourceMapping>,
    next_marker: Option<String>,
}

/// The pages of a list of event source mappings.
#[derive(Debug)]
pub struct MappingPages<'a> {
    client: &'a LambdaClient,
    /// The parameter that selects the mappings, encoded.
    filter: String,
    /// The marker of the next page; `None` after the last one.
    marker: Option<String>,
}

impl MappingPages<'_> {
    /// Returns the mappings of the next page; `None` after the last page and after an error.
    pub async fn next(&mut self) -> Option<Result<Vec<EventSourceMapping>, LambdaCallError>> {
        let marker = self.marker.take()?;
        let mut path = format!("{MAPPINGS_PATH}?{}", self.filter);
        if !marker.is_empty() {
            path.push_str("&Marker=");
            path.extend(utf8_percent_encode(&marker, ENCODED));
        }
        match self.client.get::<MappingPage>("ListEventSourceMappings", path).await {
            Ok(page) => {
                self.marker = page.next_marker.filter(|next| !next.is_empty() && *next != marker);
                Some(Ok(page.event_source_mappings))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

/// Calls Lambda's API.
#[derive(Debug, Clone)]
pub struct LambdaClient {
    sdk: SdkConfig,
}

impl LambdaClient {
    /// Creates a client from the process's AWS configuration.
    #[must_use]
    pub fn new(sdk: &SdkConfig) -> Self {
        Self { sdk: sdk.clone() }
    }

    /// Returns a client for another Region.
    #[must_use]
    pub fn in_region(&self, region: String) -> Self {
        Self { sdk: self.sdk.to_builder().region(Region::new(region)).build() }
    }

    /// Lists the event source mappings that read this stream, of all functions.
    #[must_use]
    pub fn mappings_of_stream(&self, stream_arn: &str) -> MappingPages<'_> {
        self.mappings("EventSourceArn", stream_arn)
    }

    /// Lists the event source mappings of the function with this name.
    #[must_use]
    pub fn mappings_of_function(&self, function: &str) -> MappingPages<'_> {
        self.mappings("FunctionName", function)
    }

    fn mappings(&self, parameter: &str, value: &str) -> MappingPages<'_> {
        let filter = format!("{parameter}={}", utf8_percent_encode(value, ENCODED));
        MappingPages { client: self, filter, marker: Some(String::new()) }
    }

    /// Returns the configuration of a function, by name or ARN.
    ///
    /// # Errors
    /// [`LambdaCallError`], whose code says whether the function exists and may be read.
    pub async fn function_configuration(&self, function: &str) -> Result<FunctionConfiguration, LambdaCallError> {
        let function = utf8_percent_encode(function, ENCODED);
        self.get("GetFunctionConfiguration", format!("/2015-03-31/functions/{function}/configuration")).await
    }

    /// Sends a `GET` of this path and parses the response.
    async fn get<T>(&self, name: &'static str, path: String) -> Result<T, LambdaCallError>
    where
        T: DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
    {
        let sdk = &self.sdk;
        let Some(region) = sdk.region() else {
            return Err(SdkError::construction_failure("no Region is configured: set AWS_REGION"));
        };
        let mut components = RuntimeComponentsBuilder::new("Lambda");
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
        let mut layer = Layer::new("Lambda");
        layer.store_put(AuthSchemeOptionResolverParams::new(()));
        // The environment variables may be secrets: no log contains a response.
        layer.store_put(SensitiveOutput);
        layer.store_put(SigV4OperationSigningConfig {
            region: Some(SigningRegion::from(region.clone())),
            name: Some(SigningName::from_static("lambda")),
            ..SigV4OperationSigningConfig::default()
        });
        let signing = StaticRuntimePlugin::new().with_config(layer.freeze()).with_runtime_components(components);
        let mut operation = Operation::builder()
            .service_name("Lambda")
            .operation_name(name)
            .behavior_version(sdk.behavior_version().unwrap_or_else(BehaviorVersion::latest))
            .endpoint_url(&endpoint(sdk, region))
            .standard_retry(&sdk.retry_config().cloned().unwrap_or_else(RetryConfig::standard))
            .with_connection_poisoning()
            .interceptor(ServiceClockSkewInterceptor::new())
            .interceptor(RequestInfoInterceptor::new())
            .interceptor(InvocationIdInterceptor::new())
            .interceptor(RecursionDetectionInterceptor::new())
            .retry_classifier(HttpStatusCodeClassifier::default())
            .retry_classifier(TransientErrorClassifier::<LambdaServiceError>::new())
            .retry_classifier(AwsErrorCodeClassifier::<LambdaServiceError>::new())
            .retry_classifier(ServiceClockSkewClassifier::<LambdaServiceError>::new())
            .runtime_plugin(signing);
        if let Some(client) = sdk.http_client() {
            operation = operation.http_client(client);
        }
        if let Some(timeouts) = sdk.timeout_config() {
            operation = operation.timeout_config(timeouts.clone());
        }
        if let Some(sleep) = sdk.sleep_impl() {
            operation = operation.sleep_impl(sleep);
        }
        if let Some(time) = sdk.time_source() {
            operation = operation.time_source(time);
        }
        if let Some(protection) = sdk.stalled_stream_protection() {
            operation = operation.stalled_stream_protection(protection);
        }
        let operation = operation.serializer(request).deserializer(response::<T>).build();
        operation.invoke(path).await
    }
}

/// Returns the URL of Lambda in a Region, or the configured one.
fn endpoint(sdk: &SdkConfig, region: &Region) -> String {
    let key = ServiceConfigKey::builder().service_id("Lambda").env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
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
    format!("https://lambda{fips}.{region}.{suffix}")
}

fn request(path: String) -> Result<HttpRequest, Box<dyn std::error::Error + Send + Sync>> {
    let mut request = HttpRequest::new(SdkBody::from(""));
    request.set_uri(path)?;
    Ok(request)
}

fn response<T: DeserializeOwned>(response: &HttpResponse) -> Result<T, OrchestratorError<LambdaServiceError>> {
    let body = response.body().bytes().unwrap_or_default();
    let error = if response.status().is_success() {
        match serde_json::from_slice(body) {
            Ok(value) => return Ok(value),
            Err(error) => LambdaServiceError { metadata: ErrorMetadata::default(), source: Some(error) },
        }
    } else {
        service_error(response.headers().get("x-amzn-errortype"), body)
    };
    Err(OrchestratorError::operation(error))
}

/// Returns the error of a response with this header and this body.
fn service_error(header: Option<&str>, body: &[u8]) -> LambdaServiceError {
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
    LambdaServiceError { metadata: metadata.build(), source }
}

#[cfg(test)]
mod tests;
