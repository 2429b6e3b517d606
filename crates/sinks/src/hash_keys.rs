//! The keys of hashes: read from Secrets Manager at the start, before the configuration is parsed.
//!
//! A key is read once for each execution environment. After a rotation, the functions use the new key from their next
//! start on; a repair then rewrites the values that were hashed with the former one.

use std::collections::BTreeMap;

use aws_sdk_secretsmanager::error::ProvideErrorMetadata as _;
use millrace_shared::environment::{Environment, EnvironmentError};
use millrace_transform::HashKey;

use crate::document::{REPLICATION, ReplicationDocument, SecretArn};

/// The permission that reading a key requires.
const PERMISSION: &str = "secretsmanager:GetSecretValue";

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
pub async fn load_hash_keys(
    environment: Environment,
    client: &aws_sdk_secretsmanager::Client,
) -> Result<Environment, EnvironmentError> {
    let (mut loaded, mut problems) = (environment.clone(), Vec::new());
    for (name, arn) in secrets(&environment) {
        let pointer = format!("{REPLICATION} /hash_keys/{name} is {arn}");
        // The future of a request of the SDK is large, and every caller would contain it.
        match Box::pin(client.get_secret_value().secret_id(arn.as_str()).send()).await {
            Ok(secret) => match secret.secret_string() {
                Some(text) => loaded = loaded.with(arn.as_str(), text.trim().to_owned()),
                None => problems.push(format!("{pointer}, which contains no text: set the secret to a text")),
            },
            Err(error) => {
                let reason = error.code().unwrap_or("Secrets Manager is unreachable");
                problems.push(format!("{pointer}, which cannot be read ({reason}): allow {PERMISSION} on it"));
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
