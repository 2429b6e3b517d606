//! Secrets of AWS Secrets Manager: [`SecretsClient`].

use std::sync::Arc;

use aws_config::SdkConfig;
use serde::Deserialize;

use crate::aws_service::{AwsCallError, AwsRequest, AwsService};

/// Reads secrets.
#[derive(Debug, Clone)]
pub struct SecretsClient {
    sdk: Arc<SdkConfig>,
}

impl SecretsClient {
    /// Creates a client from the process's AWS configuration.
    #[must_use]
    pub fn new(sdk: &SdkConfig) -> Self {
        Self { sdk: Arc::new(sdk.clone()) }
    }

    /// Returns the current text of a secret, by ARN or name; `None` if the secret is binary.
    ///
    /// # Errors
    /// [`AwsCallError`], whose code says whether the secret exists and may be read
    /// ([GetSecretValue](https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html)).
    pub async fn text(&self, secret: &str) -> Result<Option<String>, AwsCallError> {
        let body = serde_json::json!({ "SecretId": secret }).to_string();
        let request = AwsRequest::Json { target: "secretsmanager.GetSecretValue", body };
        let value: SecretValue = AwsService::SECRETS_MANAGER.call(&self.sdk, "GetSecretValue", request).await?;
        Ok(value.text)
    }
}

/// A response. Its text has no `Debug`, so that no log contains it.
#[derive(Deserialize)]
struct SecretValue {
    #[serde(rename = "SecretString")]
    text: Option<String>,
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretValue").finish_non_exhaustive()
    }
}
