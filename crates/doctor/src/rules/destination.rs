//! Rules on the on-failure destination.

use super::RuleJudgement;
use crate::deployment::{StreamDeployment, StreamMapping};
use crate::iam_policy::{GrantResult, RolePermissions};
use crate::setting::SettingValue;

/// The prefix under which Lambda writes discarded batches.
const FAILURE_PREFIX: &str = "aws/lambda/";

/// A destination that receives positions only.
///
/// # Errors
/// The reason why the rule cannot be judged.
pub fn receives_metadata_only(_: &StreamDeployment, mapping: &StreamMapping) -> RuleJudgement {
    let Some(arn) = mapping.on_failure.get()? else { return Ok(None) };
    let service =
        [(":sqs:", "an SQS queue"), (":sns:", "an SNS topic")].into_iter().find(|(part, _)| arn.contains(part));
    Ok(service
        .map(|(_, service)| format!("OnFailure is {service}, which receives positions in the stream and no records")))
}

/// A role that may not write to the destination.
///
/// # Errors
/// The reason why the rule cannot be judged.
pub fn is_not_granted(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleJudgement {
    let Some(arn) = mapping.on_failure.get()? else { return Ok(None) };
    let needed: Vec<(&str, String)> = if arn.starts_with("arn:aws:s3:::") {
        let mut needed =
            vec![("s3:PutObject", format!("{arn}/{FAILURE_PREFIX}mapping/shard/date")), ("s3:ListBucket", arn.clone())];
        let key = deployment.bucket(arn).map(|bucket| &bucket.key);
        if let Some(SettingValue::Known(key)) = key.filter(|key| key.known().is_some_and(|key| key.starts_with("arn:")))
        {
            needed.push(("kms:GenerateDataKey", key.clone()));
        }
        needed
    } else if arn.contains(":sqs:") {
        vec![("sqs:SendMessage", arn.clone())]
    } else if arn.contains(":sns:") {
        vec![("sns:Publish", arn.clone())]
    } else {
        return Ok(None);
    };
    let role = deployment.role_of(deployment.function_of(mapping)?)?;
    let mut missing = Vec::new();
    let mut unknown = None;
    for (action, resource) in &needed {
        match role.grants(action, resource) {
            GrantResult::Granted => {}
            GrantResult::Missing if is_granted_by_resource(deployment, arn, role) => {
                unknown = Some(format!("the policy of {arn} is not evaluated"));
            }
            GrantResult::Missing => missing.push(*action),
            GrantResult::Unknown(reason) => unknown = Some(reason),
        }
    }
    match (missing.is_empty(), unknown) {
        (false, _) => Ok(Some(format!("the function's role does not allow {} on {arn}", missing.join(" and ")))),
        (true, Some(reason)) => Err(reason),
        (true, None) => Ok(None),
    }
}

/// Returns whether the destination has a policy of its own that may allow the role.
fn is_granted_by_resource(deployment: &StreamDeployment, arn: &str, _: &RolePermissions) -> bool {
    deployment.resource_policies.iter().any(|resource| match resource.known() {
        Some(name) => arn == name || arn.ends_with(&format!(":{name}")),
        None => true,
    })
}

/// A bucket that does not retain failure objects.
///
/// # Errors
/// The reason why the rule cannot be judged.
pub fn objects_expire(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleJudgement {
    let Some(arn) = mapping.on_failure.get()?.filter(|arn| arn.starts_with("arn:aws:s3:::")) else { return Ok(None) };
    let bucket = deployment.bucket(arn).ok_or_else(|| format!("the bucket {arn} is not part of this deployment"))?;
    let mut problems = Vec::new();
    for rule in bucket.lifecycle.get()?.map_or(&[][..], Vec::as_slice) {
        let prefix = rule.prefix.get()?.map(String::as_str).unwrap_or_default();
        let is_concerned = FAILURE_PREFIX.starts_with(prefix) || prefix.starts_with(FAILURE_PREFIX);
        if is_concerned && !rule.is_narrowed && rule.expires_objects.or_default(false)? {
            problems.push(format!("a lifecycle rule expires objects with the prefix {prefix:?}"));
        }
    }
    if !bucket.versioned.or_default(false)? {
        problems.push("the bucket is not versioned".to_owned());
    }
    Ok((!problems.is_empty()).then(|| format!("{arn}: {}", problems.join(", and "))))
}
