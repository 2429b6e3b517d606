//! Rules on a replicator and its replica.

use super::RuleOutcome;
use crate::deployment::{
    FunctionPurpose, FunctionSettings, OutdatedReplica, StreamDeployment, StreamMapping, TableSettings, TtlSample,
};

/// Returns the replicator's function and its source, or `None` if the mapping is not a replicator's.
fn replication<'d>(
    deployment: &'d StreamDeployment,
    mapping: &StreamMapping,
) -> Result<Option<(&'d FunctionSettings, &'d TableSettings)>, String> {
    let Ok(function) = deployment.function_of(mapping) else { return Ok(None) };
    if function.purpose()? != Some(FunctionPurpose::Replicator) {
        return Ok(None);
    }
    if function.replicas.is_empty() {
        return function.unknown_environment.clone().map_or(Ok(None), Err);
    }
    Ok(Some((function, deployment.table_of(mapping)?)))
}

/// Evaluates the source of a mapping and each of its replicas. A replica that is not read makes the rule not checked,
/// unless another one has a fault.
fn evaluate_replicas(
    deployment: &StreamDeployment,
    mapping: &StreamMapping,
    evaluate: impl Fn(&TableSettings, &TableSettings) -> RuleOutcome,
) -> RuleOutcome {
    let Some((function, source)) = replication(deployment, mapping)? else { return Ok(None) };
    let mut problems = Vec::new();
    let mut unread = None;
    for replica in &function.replicas {
        let name = replica.get().map(|name| name.map(String::as_str).unwrap_or_default());
        let result = name.and_then(|name| {
            let replica = deployment.table(name);
            evaluate(source, replica.ok_or_else(|| format!("the replica {name} is not part of this deployment"))?)
        });
        match result {
            Ok(problem) => problems.extend(problem),
            Err(reason) => unread = unread.or(Some(reason)),
        }
    }
    match (problems.is_empty(), unread) {
        (false, _) => Ok(Some(problems.join("; "))),
        (true, Some(reason)) => Err(reason),
        (true, None) => Ok(None),
    }
}

/// Returns whether a function replicates to a table.
fn writes_to(deployment: &StreamDeployment, function: &FunctionSettings, table: &TableSettings) -> bool {
    let mut names = function.replicas.iter().filter_map(|replica| replica.known());
    names.any(|name| deployment.table(name).is_some_and(|replica| replica.name == table.name))
}

/// A replica that expires items by itself.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn replica_expires_items(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    evaluate_replicas(deployment, mapping, |source, replica| {
        let (Some(own), Some(of_source)) = (replica.ttl_attribute.get()?, source.ttl_attribute.get()?) else {
            return Ok(None);
        };
        Ok((own == of_source).then(|| format!("TTL of the replica {} uses the source's attribute {own}", replica.name)))
    })
}

/// A replica that cannot hold the source's items, or feeds them back.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn replica_does_not_fit(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    evaluate_replicas(deployment, mapping, |source, replica| {
        if source.name == replica.name {
            return Ok(Some(format!("the replica is the source table {}", source.name)));
        }
        let mut readers = deployment.mappings.iter().chain(&deployment.other_mappings);
        let feeds = readers.any(|other| {
            deployment.table_of(other).is_ok_and(|table| table.name == replica.name)
                && deployment.function_of(other).is_ok_and(|function| writes_to(deployment, function, source))
        });
        if feeds {
            return Ok(Some(format!("changes of the replica {} are replicated back to {}", replica.name, source.name)));
        }
        let (Some(of_source), Some(of_replica)) = (source.key_schema.get()?, replica.key_schema.get()?) else {
            return Ok(None);
        };
        Ok((of_source != of_replica).then(|| {
            format!("the key of the replica {} is {of_replica}, that of the source {of_source}", replica.name)
        }))
    })
}

/// A replica with items that were written with other rules than those in use.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn replica_is_outdated(_: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let Some(replicas) = mapping.observed.outdated_replicas.get()? else { return Ok(None) };
    let problem = |replica: &OutdatedReplica| {
        let repair = replica.repair_from.as_ref().map_or_else(
            || "and the failure bucket does not show which ones are in use".to_owned(),
            |time| format!("and no repair over all segments that began at {time} or later has passed"),
        );
        format!("the replica {} may contain items of other rules, {repair}", replica.name)
    };
    Ok(Some(replicas.iter().map(problem).collect::<Vec<_>>().join("; ")))
}

/// A replica whose protection is not read: never a finding, but not checked.
///
/// # Errors
/// The reason why the replica is not read.
pub fn replica_is_unread(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    evaluate_replicas(deployment, mapping, |_, _| Ok(None))
}

/// TTL values that never take effect.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn ttl_values_are_invalid(_: &StreamDeployment, table: &TableSettings) -> RuleOutcome {
    let Some(sample) = table.ttl_sample.get()?.copied() else { return Ok(None) };
    let TtlSample { values, not_numbers, milliseconds } = sample;
    let attribute = table.ttl_attribute.known().map(String::as_str).unwrap_or_default();
    let parts = [(not_numbers, "are not numbers"), (milliseconds, "are in milliseconds")];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, fault)| format!("{count} {fault}")).collect();
    Ok((!parts.is_empty()).then(|| format!("of {values} sampled values of {attribute}, {}", parts.join(" and "))))
}

/// Protection of a table whose changes are read, and of a replica.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn table_is_unprotected(deployment: &StreamDeployment, table: &TableSettings) -> RuleOutcome {
    let is_source = deployment
        .mappings
        .iter()
        .any(|mapping| deployment.table_of(mapping).is_ok_and(|source| source.name == table.name));
    let is_replica = deployment.functions.iter().any(|function| writes_to(deployment, function, table));
    if !is_source && !is_replica {
        return Ok(None);
    }
    let mut missing = Vec::new();
    if !table.recovery.or_default(false)? {
        missing.push("point-in-time recovery is off");
    }
    if !table.deletion_protection.or_default(false)? {
        missing.push("deletion protection is off");
    }
    // A setting that is certainly missing is reported even if the rest is not known.
    match table.retained.or_default(false) {
        Ok(false) => missing.push("DeletionPolicy does not retain the table"),
        Err(reason) if missing.is_empty() => return Err(reason),
        Ok(true) | Err(_) => {}
    }
    Ok((!missing.is_empty()).then(|| missing.join(", ")))
}
