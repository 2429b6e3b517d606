//! Rules on the function of a mapping.

use super::RuleJudgement;
use crate::deployment::{DeploymentForm, FunctionSettings, StreamDeployment, StreamMapping};
use crate::iam_policy::GrantResult;
use crate::rules::destination::may;
use crate::setting::SettingValue;

/// The timeout of a function by default, in seconds.
const DEFAULT_TIMEOUT_S: i64 = 3;
/// The least time for a record, in milliseconds: a write to DynamoDB takes longer than this.
const LEAST_RECORD_MS: i64 = 5;
/// The part of the timeout from which an invocation is slow, in percent: a batch that is a little larger times out.
const SLOW_PERCENT: i64 = 80;

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

/// Invocations that take almost as long as the timeout.
///
/// # Errors
/// The reason why the rule cannot be judged.
pub fn invocations_are_slow(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleJudgement {
    let Some(duration) = mapping.observed.p99_duration_ms.get()?.copied() else { return Ok(None) };
    let timeout = deployment.function_of(mapping)?.timeout_s.or_default(DEFAULT_TIMEOUT_S)?;
    let limit = timeout.saturating_mul(1_000) / 100 * SLOW_PERCENT;
    Ok((duration >= limit).then(|| {
        format!(
            "on a day of the last 14, 1 % of the invocations took {duration} ms or longer (Duration, p99), and \
             Timeout is {timeout} s"
        )
    }))
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
    let called = called_services(function);
    if deployment.form == DeploymentForm::Account {
        let mut problems = Vec::new();
        for subnet in subnets {
            let Some(routes) = network.routed_subnets.get(subnet) else {
                return Err(format!("the routes of the subnet {subnet} are not read"));
            };
            let Some(routes) = routes.get()? else { continue };
            if routes.is_open {
                continue;
            }
            if routes.services.is_empty() {
                problems.push(format!("{subnet} has neither a VPC endpoint nor a route out of the VPC"));
            }
            let missing = without_endpoint(&called, &routes.services);
            if !routes.services.is_empty() && !missing.is_empty() {
                problems.push(format!("{subnet} has no VPC endpoint for {}", missing.join(" and ")));
            }
        }
        return Ok((!problems.is_empty()).then(|| problems.join(", ")));
    }
    let known = |subnet: &String| network.subnets.contains(subnet);
    if !subnets.iter().all(known) {
        return Err("the function's subnets are not part of this deployment".to_owned());
    }
    if network.has_nat {
        return Ok(None);
    }
    if network.endpoint_services.is_empty() {
        return Ok(Some("the function is in a VPC that has neither a VPC endpoint nor a NAT gateway".to_owned()));
    }
    let services: Vec<String> =
        network.endpoint_services.iter().filter_map(|service| service.known().cloned()).collect();
    let missing = without_endpoint(&called, &services);
    if let Some(SettingValue::Unresolved(reason)) =
        network.endpoint_services.iter().find(|service| service.known().is_none()).filter(|_| !missing.is_empty())
    {
        return Err(reason.clone());
    }
    Ok((!missing.is_empty()).then(|| format!("the function's VPC has no endpoint for {}", missing.join(" and "))))
}

/// Returns the services that a function certainly calls: those of its replicas, and of its quarantine.
fn called_services(function: &FunctionSettings) -> Vec<&'static str> {
    let has_replica = function.replicas.iter().any(|replica| replica.known().is_some());
    let has_bucket = function.is_own && function.environment.contains_key("FAILURE_BUCKET");
    [("dynamodb", has_replica), ("s3", has_bucket)]
        .into_iter()
        .filter(|(_, calls)| *calls)
        .map(|(name, _)| name)
        .collect()
}

/// Returns the services that none of the endpoints serves.
fn without_endpoint(called: &[&'static str], endpoints: &[String]) -> Vec<&'static str> {
    let is_served = |service: &str| endpoints.iter().any(|endpoint| endpoint.rsplit('.').next() == Some(service));
    called.iter().copied().filter(|service| !is_served(service)).collect()
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
