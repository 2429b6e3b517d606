//! Rules on the KMS keys of the tables and buckets that a function uses.

use super::RuleOutcome;
use super::destination::may;
use crate::access_policy::PolicyDecision;
use crate::deployment::{FunctionSettings, KeySettings, StreamDeployment, StreamMapping, bucket_name};
use crate::iam_policy::GrantResult;
use crate::setting::SettingValue;

/// A key of the customer that a function needs.
#[derive(Debug)]
pub(crate) struct KeyUse {
    /// The table or the bucket that it encrypts, as a phrase.
    pub(crate) of: String,
    /// The ARN of the key.
    pub(crate) key: String,
    /// The action that the function's role needs.
    pub(crate) action: &'static str,
    /// The service that uses the key for the role.
    pub(crate) service: &'static str,
}

/// A key that cannot be used.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn key_is_disabled(key: &KeySettings) -> RuleOutcome {
    let state = key.state.known().map_or("disabled", String::as_str);
    Ok((!key.enabled.or_default(true)?).then(|| format!("the key is {state}")))
}

/// A key that the role may not use.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn key_is_not_granted(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let mut problems = Vec::new();
    let mut unknown = None;
    for used in key_uses(deployment, mapping) {
        match used.and_then(|used| problem_of(deployment, mapping, &used)) {
            Ok(problem) => problems.extend(problem),
            Err(reason) => unknown = unknown.or(Some(reason)),
        }
    }
    match (problems.is_empty(), unknown) {
        (false, _) => Ok(Some(problems.join("; "))),
        (true, Some(reason)) => Err(reason),
        (true, None) => Ok(None),
    }
}

fn problem_of(deployment: &StreamDeployment, mapping: &StreamMapping, used: &KeyUse) -> RuleOutcome {
    let KeyUse { of, key, action, service } = used;
    let role = deployment.role_of(deployment.function_of(mapping)?)?;
    let of_key = match deployment.key(key) {
        Some(settings) => settings.policy.decide(&role.arn, action, key),
        None => PolicyDecision::Unknown(format!("the key {key} of {of} is not part of this deployment")),
    };
    match may(role.grants_key(action, key, service), of_key, true) {
        GrantResult::Granted => Ok(None),
        GrantResult::Unknown(reason) => Err(reason),
        GrantResult::Missing => Ok(Some(format!(
            "the function's role and the key's policy do not both allow {action} on the key {key} of {of}"
        ))),
        GrantResult::Denied => {
            Ok(Some(format!("a statement denies {action} on the key {key} of {of} to the function's role")))
        }
    }
}

/// Returns the keys that the function of a mapping needs: those of the source, of its replicas and, for a function of
/// Millrace, of the buckets of its archive and its quarantine. A bucket that is the on-failure destination is evaluated
/// with the destination. An error is the reason why one is not known.
pub(crate) fn key_uses(deployment: &StreamDeployment, mapping: &StreamMapping) -> Vec<Result<KeyUse, String>> {
    let mut uses =
        vec![table_key_use(deployment, "the source table", deployment.table_of(mapping).map(|it| it.name.as_str()))];
    if let Ok(function) = deployment.function_of(mapping) {
        uses.extend(function.replicas.iter().map(|replica| {
            let name = replica.get().map(|name| name.map(String::as_str).unwrap_or_default());
            table_key_use(deployment, "the replica", name)
        }));
        uses.extend(bucket_key_uses(deployment, mapping, function));
        uses.extend(function.unknown_environment.clone().map(Err));
    }
    uses.into_iter().filter_map(Result::transpose).collect()
}

fn table_key_use(
    deployment: &StreamDeployment,
    role: &str,
    name: Result<&str, String>,
) -> Result<Option<KeyUse>, String> {
    let name = name?;
    let table = deployment.table(name).ok_or_else(|| format!("{role} {name} is not part of this deployment"))?;
    let of = format!("{role} {}", table.name);
    // Reading and writing an item decrypt the data key of the table.
    let key = customer_key(deployment, &table.key, &of)?;
    Ok(key.map(|key| KeyUse { of, key, action: "kms:Decrypt", service: "dynamodb" }))
}

fn bucket_key_uses(
    deployment: &StreamDeployment,
    mapping: &StreamMapping,
    function: &FunctionSettings,
) -> Vec<Result<Option<KeyUse>, String>> {
    let of_bucket = |(variable, role): (&str, &str)| {
        let name = function.environment.get(variable).map_or(Ok(None), SettingValue::get)?;
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
        let arn = format!("arn:aws:s3:::{name}");
        if mapping.on_failure.known().and_then(|arn| bucket_name(arn)) == Some(name.as_str()) {
            return Ok(None);
        }
        let of = format!("{role} {name}");
        let bucket = deployment.bucket(&arn).ok_or_else(|| format!("{of} is not part of this deployment"))?;
        let key = customer_key(deployment, &bucket.key, &of)?;
        Ok(key.map(|key| KeyUse { of, key, action: "kms:GenerateDataKey", service: "s3" }))
    };
    let buckets = [("ARCHIVE_BUCKET", "the archive's bucket"), ("FAILURE_BUCKET", "the quarantine's bucket")];
    if function.is_own { buckets.into_iter().map(of_bucket).collect() } else { Vec::new() }
}

/// Returns the ARN of the customer's key that a setting names; `None` without one, or for a key of AWS.
pub(crate) fn customer_key(
    deployment: &StreamDeployment,
    key: &SettingValue<String>,
    of: &str,
) -> Result<Option<String>, String> {
    let Some(key) = key.get()?.filter(|key| !is_of_aws(key)) else { return Ok(None) };
    match deployment.key(key) {
        Some(settings) => Ok(Some(settings.arn.clone())),
        None if key.starts_with("arn:") && !key.contains(":alias/") => Ok(Some(key.clone())),
        None => Err(format!("the key {key} of {of} is not part of this deployment")),
    }
}

/// Returns whether a key is one that AWS manages, whose policy allows everybody in the account to use the service.
fn is_of_aws(key: &str) -> bool {
    key.starts_with("alias/aws/") || key.contains(":alias/aws/")
}
