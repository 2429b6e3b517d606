//! Rules on the on-failure destination.

use super::RuleOutcome;
use super::encryption::customer_key;
use crate::access_policy::PolicyDecision;
use crate::deployment::{FailureObjects, StreamDeployment, StreamMapping, bucket_name};
use crate::iam_policy::GrantResult;

/// The prefix under which Lambda writes discarded batches.
pub(crate) const FAILURE_PREFIX: &str = "aws/lambda/";
/// The age from which a failure object should have been redriven, in hours.
const OLD_FAILURE_H: i64 = 24;
/// The maximum number of objects of one listing.
pub(crate) const MAX_LISTED: usize = 1_000;

/// A destination that receives positions only.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn receives_metadata_only(_: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let Some(arn) = mapping.on_failure.get()? else { return Ok(None) };
    let service =
        [(":sqs:", "an SQS queue"), (":sns:", "an SNS topic")].into_iter().find(|(part, _)| arn.contains(part));
    Ok(service
        .map(|(_, service)| format!("OnFailure is {service}, which receives positions in the stream and no records")))
}

/// Returns the ARN of the customer's key of a bucket, queue or topic, if it has one.
fn destination_key(deployment: &StreamDeployment, arn: &str) -> Result<Option<String>, String> {
    let of_bucket = deployment.bucket(arn).map(|bucket| &bucket.key);
    let of_destination = || {
        deployment
            .message_destinations
            .iter()
            .find(|destination| destination.arn == arn)
            .map(|destination| &destination.key)
    };
    of_bucket.or_else(of_destination).map_or(Ok(None), |key| customer_key(deployment, key, arn))
}

/// Returns the actions on resources that a write to a destination requires.
pub(crate) fn needed_grants(deployment: &StreamDeployment, arn: &str) -> Vec<(&'static str, String)> {
    let key = destination_key(deployment, arn).ok().flatten();
    if bucket_name(arn).is_some() {
        let mut needed = vec![
            ("s3:PutObject", format!("{arn}/{FAILURE_PREFIX}mapping/shard/date")),
            ("s3:ListBucket", arn.to_owned()),
        ];
        needed.extend(key.map(|key| ("kms:GenerateDataKey", key)));
        return needed;
    }
    let action = match arn.split(':').nth(2) {
        Some("sqs") => "sqs:SendMessage",
        Some("sns") => "sns:Publish",
        _ => return Vec::new(),
    };
    let mut needed = vec![(action, arn.to_owned())];
    if let Some(key) = key {
        needed.extend([("kms:GenerateDataKey", key.clone()), ("kms:Decrypt", key)]);
    }
    needed
}

/// Batches that Lambda could not write to the destination.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn was_not_delivered(_: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let Some(count) = mapping.observed.undelivered.get()?.copied() else { return Ok(None) };
    Ok((count > 0).then(|| {
        format!(
            "{count} batches of the last 14 days could not be written to the destination (DestinationDeliveryFailures)"
        )
    }))
}

/// Failure objects that have not been redriven.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn failures_are_old(_: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let Some(objects) = mapping.observed.failure_objects.get()?.copied() else { return Ok(None) };
    let FailureObjects { count, quarantined: _, oldest_h } = objects;
    let many = if count >= MAX_LISTED { "at least " } else { "" };
    Ok((count > 0 && oldest_h >= OLD_FAILURE_H)
        .then(|| format!("{many}{count} failure objects of this mapping, the oldest {oldest_h} hours old")))
}

/// Records that a function of Millrace has quarantined, and that have not been redriven, of whatever age.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn records_are_quarantined(_: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let Some(count) = mapping.observed.quarantined.get()?.copied() else { return Ok(None) };
    let left = mapping.observed.failure_objects.get()?.map_or(0, |objects| objects.quarantined);
    Ok((count > 0 && left > 0)
        .then(|| format!("{count} objects were quarantined in the last 14 days (Quarantined), and {left} are left")))
}

/// A role that may not write to the destination.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn is_not_granted(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let Some(arn) = mapping.on_failure.get()? else { return Ok(None) };
    let needed = needed_grants(deployment, arn);
    if needed.is_empty() {
        return Ok(None);
    }
    let role = deployment.role_of(deployment.function_of(mapping)?)?;
    let mut missing = Vec::new();
    let mut denied = Vec::new();
    let mut unknown = destination_key(deployment, arn).err();
    for (action, resource) in &needed {
        let of_destination = if action.starts_with("kms:") {
            match deployment.keys.iter().find(|key| key.arn == *resource) {
                Some(key) => key.policy.decide(&role.arn, action, resource),
                None => PolicyDecision::Unknown(format!("the key {resource} is not part of this deployment")),
            }
        } else {
            policies_of(deployment, arn, &role.arn, action, resource)
        };
        let of_role = match arn.split(':').nth(2) {
            Some(service) if action.starts_with("kms:") => role.grants_key(action, resource, service),
            _ => role.grants(action, resource),
        };
        match may(of_role, of_destination, action.starts_with("kms:")) {
            GrantResult::Granted => {}
            GrantResult::Missing => missing.push(*action),
            GrantResult::Denied => denied.push(*action),
            GrantResult::Unknown(reason) => unknown = Some(reason),
        }
    }
    let mut problems = Vec::new();
    if !missing.is_empty() {
        problems.push(format!("the function's role does not allow {} on {arn}", missing.join(" and ")));
    }
    if !denied.is_empty() {
        problems.push(format!("a statement denies {} on {arn} to the function's role", denied.join(" and ")));
    }
    match (problems.is_empty(), unknown) {
        (false, _) => Ok(Some(problems.join(", and "))),
        (true, Some(reason)) => Err(reason),
        (true, None) => Ok(None),
    }
}

/// Combines what the role's policies and that of the resource say. Only the policy of a key must itself allow the
/// account or the role.
pub(crate) fn may(of_role: GrantResult, of_resource: PolicyDecision, is_key: bool) -> GrantResult {
    match (of_role, of_resource) {
        (GrantResult::Denied, _) | (_, PolicyDecision::Denied) => GrantResult::Denied,
        (GrantResult::Missing, PolicyDecision::Silent) => GrantResult::Missing,
        (_, PolicyDecision::Silent) if is_key => GrantResult::Missing,
        // An uncertain statement that allows more does not restrict a role that has the permission.
        (GrantResult::Granted, PolicyDecision::MayAllow(_)) if !is_key => GrantResult::Granted,
        (GrantResult::Unknown(reason), _) | (_, PolicyDecision::Unknown(reason) | PolicyDecision::MayAllow(reason)) => {
            GrantResult::Unknown(reason)
        }
        (_, PolicyDecision::Allowed) => GrantResult::Granted,
        (of_role, PolicyDecision::Delegated | PolicyDecision::Silent) => of_role,
    }
}

/// Returns the decision of the policies of a destination.
fn policies_of(deployment: &StreamDeployment, arn: &str, role: &str, action: &str, resource: &str) -> PolicyDecision {
    let mut result = PolicyDecision::Silent;
    for (of, policy) in &deployment.resource_policies {
        let decision = match of.known() {
            Some(name) if arn == name || arn.ends_with(&format!(":{name}")) => policy.decide(role, action, resource),
            Some(_) => continue,
            None => PolicyDecision::Unknown("the resource of a policy is not resolved".to_owned()),
        };
        match (&result, &decision) {
            (_, PolicyDecision::Silent)
            | (PolicyDecision::Allowed | PolicyDecision::Delegated, PolicyDecision::MayAllow(_)) => {}
            (PolicyDecision::Denied, _) => return result,
            (PolicyDecision::Unknown(_), decision) if *decision != PolicyDecision::Denied => {}
            _ => result = decision,
        }
    }
    result
}

/// A bucket that does not retain failure objects.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn objects_expire(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let Some(arn) = mapping.on_failure.get()?.filter(|arn| bucket_name(arn).is_some()) else { return Ok(None) };
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
