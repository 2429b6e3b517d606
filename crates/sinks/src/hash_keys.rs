//! The keys of hashes: read from Secrets Manager at the start, before the configuration is parsed.
//!
//! A key is read once for each execution environment. After a rotation, the functions use the new key from their next
//! start on; a repair then rewrites the values that were hashed with the former one.

use std::collections::BTreeMap;

use aws_smithy_types::error::metadata::ProvideErrorMetadata as _;
use millrace_shared::environment::{Environment, EnvironmentError};
use millrace_shared::error_chain::error_chain;
use millrace_shared::secrets::SecretsClient;
use millrace_transform::HashKey;

use crate::document::{REPLICATION, ReplicationDocument, SecretArn};

/// The permission that reading a key requires.
const PERMISSION: &str = "secretsmanager:GetSecretValue";

/// The fix if no response arrives.
const REACHABLE: &str = "in a network, Secrets Manager needs an interface endpoint that admits the function's security \
                         group (HashKeySecretArns of infra/network.yaml)";

/// Returns the secrets that the document of an environment names, by the name of the key.
fn secrets(environment: &Environment) -> BTreeMap<String, SecretArn> {
    // A malformed document is reported when the configuration is parsed, with all other problems.
    let document = environment.get(REPLICATION).and_then(|text| ReplicationDocument::parse(text).ok());
    document.map(|document| document.hash_keys().clone()).unwrap_or_default()
}

/// Returns whether the document of an environment names secrets.
pub(crate) fn needs_hash_keys(environment: &Environment) -> bool {
    !secrets(environment).is_empty()
}

/// Adds the keys that the document names to the environment, each under the ARN of its secret.
///
/// # Errors
/// [`EnvironmentError`]: every secret that cannot be read, with the permission.
pub async fn load_hash_keys(environment: Environment, client: &SecretsClient) -> Result<Environment, EnvironmentError> {
    let (mut loaded, mut problems) = (environment.clone(), Vec::new());
    for (name, arn) in secrets(&environment) {
        let pointer = format!("{REPLICATION} /hash_keys/{name} is {arn}");
        // The future of a request is large, and every caller would contain it.
        match Box::pin(client.text(arn.as_str())).await {
            Ok(Some(text)) => loaded = loaded.with(arn.as_str(), text.trim().to_owned()),
            Ok(None) => problems.push(format!("{pointer}, which contains no text: set the secret to a text")),
            Err(error) => {
                let fix = match error.code() {
                    Some(code) => format!("{code}): allow {PERMISSION} on it"),
                    // In a network without a way out, nothing responds.
                    None => format!("{}): {REACHABLE}", error_chain(&error)),
                };
                problems.push(format!("{pointer}, which cannot be read ({fix}"));
            }
        }
    }
    if problems.is_empty() {
        return Ok(loaded);
    }
    let mut read = environment.read();
    for problem in problems {
        read.add_error(problem);
    }
    Err(read.problems())
}

/// Adds a key of this text for each secret that the document names, for a stack without Secrets Manager.
#[must_use]
pub fn with_constant_hash_keys(environment: Environment, key: &str) -> Environment {
    let arns = secrets(&environment).into_values();
    arns.fold(environment, |environment, arn| environment.with(arn.as_str(), key.to_owned()))
}

/// Returns the keys of a document, which the environment contains under the ARN of each secret, or the problem.
pub(crate) fn hash_keys(
    document: &ReplicationDocument,
    environment: &Environment,
) -> Result<BTreeMap<String, HashKey>, Vec<String>> {
    let (mut keys, mut problems) = (BTreeMap::new(), Vec::new());
    for (name, arn) in document.hash_keys() {
        let pointer = format!("{REPLICATION} /hash_keys/{name} is {arn}");
        match environment.get(arn.as_str()).map(|text| HashKey::new(text.as_bytes())) {
            Some(Ok(key)) => drop(keys.insert(name.clone(), key)),
            Some(Err(error)) => problems.push(format!("{pointer}, whose text {error}")),
            None => problems.push(format!("{pointer}, which was not read at the start or is empty")),
        }
    }
    if problems.is_empty() { Ok(keys) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use aws_config::retry::RetryConfig;
    use aws_config::{BehaviorVersion, Region, SdkConfig};
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::SharedCredentialsProvider;

    use super::*;

    #[tokio::test]
    async fn secret_that_does_not_answer_names_the_endpoint_of_a_network() {
        let document = r#"{"version":1,"hash_keys":{"pii":"arn:aws:secretsmanager:eu-west-1:111122223333:secret:pii"},
            "replicas":[{"name":"copy","sink":"dynamodb","table":"Copy","attributes":{"hash":{"email":"pii"}}}]}"#;
        let sdk = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("eu-west-1"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new("key", "secret", None, None, "test")))
            .endpoint_url("http://127.0.0.1:1")
            .retry_config(RetryConfig::disabled())
            .build();
        let environment: Environment = [(REPLICATION.to_owned(), document.to_owned())].into_iter().collect();
        let error = load_hash_keys(environment, &SecretsClient::new(&sdk)).await.unwrap_err().to_string();
        for part in [
            "the environment has 1 problem:",
            "REPLICATION /hash_keys/pii is arn:aws:secretsmanager:eu-west-1:111122223333:secret:pii",
            "which cannot be read (",
            "Secrets Manager needs an interface endpoint",
            "HashKeySecretArns of infra/network.yaml",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }
}
