//! Rules on the function of a mapping.

use super::RuleJudgement;
use crate::deployment::{DeploymentForm, StreamDeployment, StreamMapping};
use crate::iam_policy::GrantResult;
use crate::rules::destination::may;

/// The timeout of a function by default, in seconds.
const DEFAULT_TIMEOUT_S: i64 = 3;
/// The least time for a record, in milliseconds: a write to DynamoDB takes longer than this.
const LEAST_RECORD_MS: i64 = 5;

/// Reserved concurrency of 0, or below that of one shard.
///
/// # Errors
/// The reason why the rule cannot be judged.
pub fn concurrency_is_too_low(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleJudgement {
    let function = deployment.function_of(mapping)?;
    let Some(reserved) = function.reserved_concurrency.get()?.copied() else { return Ok(None) };
    if reserved == 0 {
        return Ok(Some("ReservedConcurrentExecutions is 0: the function is never invoked".to_owned()));
    }
    let factor = mapping.parallelization_factor.or_default(1)?;
    if reserved < factor {
        return Ok(Some(format!(
            "ReservedConcurrentExecutions is {reserved}, and one shard alone uses {factor} (ParallelizationFactor)"
        )));
    }
    let shards = match deployment.table_of(mapping) {
        Ok(table) => table.open_shards.get()?.copied().unwrap_or(1),
        Err(_) => 1,
    };
    let needed = shards.saturating_mul(factor);
    Ok((reserved < needed).then(|| {
        format!(
            "ReservedConcurrentExecutions is {reserved}, and {shards} open shards with {factor} batches each use \
             {needed}"
        )
    }))
}

/// A mapping of an alias that SAM publishes.
///
/// # Errors
/// The reason why the rule cannot be judged.
pub fn alias_misses_parameters(_: &StreamDeployment, mapping: &StreamMapping) -> RuleJudgement {
    if let Some(difference) = mapping.observed.outdated_version.get()? {
        return Ok(Some(difference.clone()));
    }
    Ok(mapping
        .invokes_published_alias
        .then(|| "the function has AutoPublishAlias, so the mapping invokes the alias".to_owned()))
}

/// A timeout that is too short for a full batch.
///
/// # Errors
/// The reason why the rule cannot be judged.
pub fn timeout_is_too_short(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleJudgement {
    let function = deployment.function_of(mapping)?;
    let timeout = function.timeout_s.or_default(DEFAULT_TIMEOUT_S)?;
    let size = mapping.batch_size.or_default(100)?.max(1);
    let is_short = timeout.saturating_mul(1_000) / size < LEAST_RECORD_MS;
    Ok(is_short.then(|| format!("Timeout is {timeout} s for a batch of up to {size} records")))
}

/// A log filter that drops metrics.
///
/// # Errors
/// The reason why the rule cannot be judged.
pub fn log_filter_drops_metrics(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleJudgement {
    let function = deployment.function_of(mapping)?;
    if function.log_format.get()?.is_none_or(|format| format != "JSON") {
        return Ok(None);
    }
    let Some(level) = function.log_level.get()? else { return Ok(None) };
    let drops = matches!(level.as_str(), "WARN" | "ERROR" | "FATAL");
    Ok(drops.then(|| format!("ApplicationLogLevel is {level}, which drops metrics in embedded metric format")))
}

/// A function in a VPC without a route to AWS's services.
///
/// # Errors
/// The reason why the rule cannot be judged.
pub fn network_has_no_route(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleJudgement {
    let function = deployment.function_of(mapping)?;
    let Some(subnets) = function.subnets.get()? else { return Ok(None) };
    let network = &deployment.network;
    if deployment.form == DeploymentForm::Account {
        let mut unrouted = Vec::new();
        for subnet in subnets {
            match network.routed_subnets.get(subnet) {
                Some(is_routed) if is_routed.or_default(false)? => {}
                Some(_) => unrouted.push(subnet.as_str()),
                None => return Err(format!("the routes of the subnet {subnet} are not read")),
            }
        }
        return Ok((!unrouted.is_empty())
            .then(|| format!("{} has neither a VPC endpoint nor a route out of the VPC", unrouted.join(" and "))));
    }
    let known = |subnet: &String| network.subnets.contains(subnet);
    if !subnets.iter().all(known) {
        return Err("the function's subnets are not part of this deployment".to_owned());
    }
    let has_route = network.has_nat || !network.endpoint_services.is_empty();
    Ok((!has_route).then(|| "the function is in a VPC that has neither a VPC endpoint nor a NAT gateway".to_owned()))
}

/// A key that the role may not use.
///
/// # Errors
/// The reason why the rule cannot be judged.
pub fn table_key_is_not_granted(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleJudgement {
    let Ok(table) = deployment.table_of(mapping) else { return Ok(None) };
    let Some(key) = table.key.get()? else { return Ok(None) };
    let Some(settings) =
        deployment.keys.iter().find(|settings| settings.arn == *key || settings.arn.ends_with(&format!("/{key}")))
    else {
        return Err(format!("the key {key} of the table is not part of this deployment"));
    };
    let role = deployment.role_of(deployment.function_of(mapping)?)?;
    let decrypt = "kms:Decrypt";
    let of_key = settings.policy.decide(&role.arn, decrypt, &settings.arn);
    match may(role.grants(decrypt, &settings.arn), of_key, true) {
        GrantResult::Granted => Ok(None),
        GrantResult::Unknown(reason) => Err(reason),
        GrantResult::Missing => Ok(Some(format!(
            "the function's role and the key's policy do not both allow kms:Decrypt on the table's key {key}"
        ))),
        GrantResult::Denied => {
            Ok(Some(format!("a statement denies kms:Decrypt on the table's key {key} to the function's role")))
        }
    }
}
