//! Rules on the function of a mapping.

use super::RuleOutcome;
use crate::deployment::{StreamDeployment, StreamMapping};

/// The timeout of a function by default, in seconds.
const DEFAULT_TIMEOUT_S: i64 = 3;
/// The least time for a record, in milliseconds: a write to DynamoDB takes longer than this.
const MIN_RECORD_MS: i64 = 5;
/// The part of the timeout from which an invocation is slow, in percent: a batch that is a little larger times out.
const SLOW_PERCENT: i64 = 80;

/// Reserved concurrency of 0, or below that of one shard.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn concurrency_is_too_low(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
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
/// The reason why the rule cannot be evaluated.
pub fn alias_misses_parameters(_: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
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
/// The reason why the rule cannot be evaluated.
pub fn timeout_is_too_short(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let function = deployment.function_of(mapping)?;
    let timeout = function.timeout_s.or_default(DEFAULT_TIMEOUT_S)?;
    let size = mapping.batch_size.or_default(100)?.max(1);
    let is_short = timeout.saturating_mul(1_000) / size < MIN_RECORD_MS;
    Ok(is_short.then(|| format!("Timeout is {timeout} s for a batch of up to {size} records")))
}

/// Invocations that take almost as long as the timeout.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn invocations_are_slow(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
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
/// The reason why the rule cannot be evaluated.
pub fn log_filter_drops_metrics(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let function = deployment.function_of(mapping)?;
    if function.log_format.get()?.is_none_or(|format| format != "JSON") {
        return Ok(None);
    }
    let Some(level) = function.log_level.get()? else { return Ok(None) };
    let drops = matches!(level.as_str(), "WARN" | "ERROR" | "FATAL");
    Ok(drops.then(|| format!("ApplicationLogLevel is {level}, which drops metrics in embedded metric format")))
}
