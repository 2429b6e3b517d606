//! Rules on retries, batches and responses of a mapping.

use super::{RuleOutcome, STREAM_RETENTION_S};
use crate::deployment::{StreamDeployment, StreamMapping};

/// The age of a record from which others of its outage have probably been trimmed, in seconds.
const OUTAGE_S: i64 = STREAM_RETENTION_S - 3_600;
/// The age of the records that are delivered now from which a mapping is behind, in seconds.
const LAG_S: i64 = 3_600;

/// Returns whether Lambda discards a record at some time, or `None` if that is not known.
fn is_bounded(mapping: &StreamMapping) -> Result<bool, String> {
    match (mapping.max_retries.or_default(-1), mapping.max_age_s.or_default(-1)) {
        (Ok(retries), _) if retries >= 0 => Ok(true),
        (_, Ok(age)) if age >= 0 => Ok(true),
        (Ok(_), Ok(_)) => Ok(false),
        (Err(reason), _) | (_, Err(reason)) => Err(reason),
    }
}

fn limits(mapping: &StreamMapping) -> String {
    let limit =
        |name: &str, value: Option<&i64>| value.filter(|value| **value >= 0).map(|value| format!("{name} is {value}"));
    let retries = limit("MaximumRetryAttempts", mapping.max_retries.known());
    let age = limit("MaximumRecordAgeInSeconds", mapping.max_age_s.known());
    [retries, age].into_iter().flatten().collect::<Vec<_>>().join(" and ")
}

/// Bounded retries or a bounded age without a destination.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn discards_without_destination(_: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    if mapping.on_failure.known().is_some() || is_bounded(mapping) == Ok(false) {
        return Ok(None);
    }
    let has_destination = mapping.on_failure.get()?.is_some();
    let is_discarding = is_bounded(mapping)? && !has_destination;
    Ok(is_discarding.then(|| format!("{}, and there is no OnFailure destination", limits(mapping))))
}

/// Lambda's defaults: one record blocks its shard until the stream trims it.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn poison_record_blocks_shard(_: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let settings = [
        mapping.max_retries.or_default(-1).map(|retries| retries < 0),
        mapping.max_age_s.or_default(-1).map(|age| age < 0),
        mapping.bisect.or_default(false).map(|bisect| !bisect),
        mapping.partial_response.or_default(false).map(|partial| !partial),
    ];
    all(settings).map(|is_default| {
        is_default.then(|| {
            "MaximumRetryAttempts and MaximumRecordAgeInSeconds are unlimited, batches are not bisected, and there are \
             no partial responses"
                .to_owned()
        })
    })
}

/// Returns whether all conditions hold; unknown ones do not matter if one is known not to.
fn all<const N: usize>(conditions: [Result<bool, String>; N]) -> Result<bool, String> {
    if conditions.contains(&Ok(false)) {
        return Ok(false);
    }
    conditions.into_iter().collect::<Result<Vec<bool>, String>>().map(|_| true)
}

/// A response that names failed records and is ignored.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn response_is_ignored(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    if mapping.partial_response.or_default(false)? {
        return Ok(None);
    }
    let function = deployment.function_of(mapping)?;
    let reports = function.reports_failures.or_default(false)?;
    Ok(reports
        .then(|| "the function returns batchItemFailures, and FunctionResponseTypes does not enable it".to_owned()))
}

/// Bounded retries without bisection.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn batch_is_discarded_whole(_: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    if mapping.batch_size.known() == Some(&1) {
        return Ok(None);
    }
    let bounded = mapping.max_retries.or_default(-1).map(|retries| retries >= 0);
    let is_whole = all([bounded, mapping.bisect.or_default(false).map(|bisect| !bisect)])?;
    if !is_whole {
        return Ok(None);
    }
    let size = mapping
        .batch_size
        .or_default(100)
        .map_or_else(|_| "the whole batch".to_owned(), |size| format!("a batch of up to {size} records"));
    let partial = match mapping.partial_response.or_default(false) {
        Ok(true) => ", unless the function reports the failed record and has applied those behind it",
        _ => "",
    };
    Ok(Some(format!(
        "{}, and BisectBatchOnFunctionError is false: {size} is discarded together{partial}",
        limits(mapping)
    )))
}

/// An age that the stream's own retention ends first.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn age_exceeds_retention(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    // Bounded retries discard a record earlier; the defaults are another rule's.
    if mapping.max_retries.or_default(-1)? >= 0 || poison_record_blocks_shard(deployment, mapping)?.is_some() {
        return Ok(None);
    }
    let age = mapping.max_age_s.or_default(-1)?;
    Ok(match age {
        -1 => Some("MaximumRecordAgeInSeconds is unlimited, as are the retries".to_owned()),
        age if age >= STREAM_RETENTION_S => Some(format!("MaximumRecordAgeInSeconds is {age}")),
        _ => None,
    })
}

/// `LATEST`.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn starts_at_latest(_: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let position = mapping.starting_position.get()?;
    let modified = match mapping.observed.modified.known() {
        Some(time) => format!("; the mapping was last created or updated at {time}"),
        None => String::new(),
    };
    Ok(position.filter(|position| *position == "LATEST").map(|_| format!("StartingPosition is LATEST{modified}")))
}

/// A mapping that is switched off, or that does not work.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn is_disabled(_: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    if let Some(problem) = mapping.observed.problem.known() {
        return Ok(Some(problem.clone()));
    }
    Ok((!mapping.enabled.or_default(true)?).then(|| "Enabled is false".to_owned()))
}

/// A record that was almost as old as the stream's retention when it was delivered.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn records_were_trimmed(_: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let Some(age) = mapping.observed.oldest_record_s.get()?.copied() else { return Ok(None) };
    Ok((age >= OUTAGE_S).then(|| {
        format!(
            "in the last 14 days a record was {} hours old when it was delivered (IteratorAge), and the stream trims \
             records after 24",
            age / 3_600
        )
    }))
}

/// A mapping that is behind its stream now.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn is_behind(_: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let Some(lag) = mapping.observed.lag_s.get()?.copied() else { return Ok(None) };
    Ok((lag >= LAG_S).then(|| {
        format!(
            "the records that the function received last, from any of its mappings, were {} minutes old (IteratorAge)",
            lag / 60
        )
    }))
}

/// Alarms on the metrics that show a loss.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn is_not_watched(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let function = mapping.function.get()?.cloned().unwrap_or_default();
    let function = deployment.function(&function).map_or(function, |function| function.name.clone());
    if let Some(reason) = &deployment.unknown_alarms {
        return Err(reason.clone());
    }
    let mapping_token = format!("${{{}}}", mapping.id);
    let is_watched = |name: &str| {
        deployment.alarms.iter().filter(|metric| metric.name == name).any(|metric| {
            metric.dimensions.is_empty()
                || metric.dimensions.iter().any(|value| match value.known() {
                    Some(value) => *value == function || *value == mapping_token || *value == mapping.id,
                    None => true,
                })
        })
    };
    let mut missing: Vec<&str> =
        ["IteratorAge", "DroppedEventCount"].into_iter().filter(|name| !is_watched(name)).collect();
    if !mapping.on_failure.is_absent() {
        let of_destination = ["OnFailureDestinationDeliveredEventCount", "DestinationDeliveryFailures"];
        missing.extend(of_destination.into_iter().filter(|name| !is_watched(name)));
    }
    let has_counts = mapping.event_count.or_default(false)?;
    let metrics = if has_counts { "" } else { "MetricsConfig does not enable EventCount" };
    let alarms = if missing.is_empty() { String::new() } else { format!("no alarm on {}", missing.join(", ")) };
    let parts: Vec<&str> = [metrics, &alarms].into_iter().filter(|part| !part.is_empty()).collect();
    Ok((!parts.is_empty()).then(|| parts.join("; ")))
}
