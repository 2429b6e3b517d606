//! Client of the two calls of Lambda's API that maintenance makes: [`LambdaClient`].
//!
//! The SDK's crate for Lambda has more than 80 operations and takes a tenth of the compile time of the workspace:
//! [`AwsService`] calls these two without it.

use std::collections::HashMap;

use aws_config::{Region, SdkConfig};
use millrace_shared::aws_service::{AwsCallError, AwsRequest, AwsService};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The characters that need no encoding in a path segment and in a query.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const MAPPINGS_PATH: &str = "/2015-03-31/event-source-mappings";

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
    pub async fn next(&mut self) -> Option<Result<Vec<EventSourceMapping>, AwsCallError>> {
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
    /// [`AwsCallError`], whose code says whether the function exists and may be read.
    pub async fn function_configuration(&self, function: &str) -> Result<FunctionConfiguration, AwsCallError> {
        let function = utf8_percent_encode(function, ENCODED);
        self.get("GetFunctionConfiguration", format!("/2015-03-31/functions/{function}/configuration")).await
    }

    /// Sends a `GET` of this path and parses the response.
    async fn get<T>(&self, name: &'static str, path: String) -> Result<T, AwsCallError>
    where
        T: DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
    {
        AwsService::LAMBDA.call(&self.sdk, name, AwsRequest::Get(path)).await
    }
}

#[cfg(test)]
mod tests;
