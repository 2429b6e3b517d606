//! Rules on the stream that a mapping reads.

use super::RuleOutcome;
use crate::deployment::{DeploymentForm, StreamDeployment, StreamMapping, StreamPipe};

/// The number of readers of a shard.
const MAX_READERS: usize = 2;
/// The number of readers of a shard of a global table, in addition to that of the service.
const MAX_GLOBAL_READERS: usize = 1;

/// A stream ARN that is spelled out.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn arn_is_literal(_: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let stream = mapping.stream.get()?.map(String::as_str).unwrap_or_default();
    Ok(mapping.has_literal_stream.then(|| format!("the stream's ARN is spelled out: {stream}")))
}

/// A mapping that reads another stream than the table's latest.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn is_not_latest(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    if deployment.form != DeploymentForm::Account {
        return Ok(None);
    }
    let stream = mapping.stream.get()?.map(String::as_str).unwrap_or_default();
    let table = deployment.table_of(mapping)?;
    let latest = table.latest_stream.get()?.map(String::as_str);
    let label = |arn: &str| arn.rsplit('/').next().unwrap_or_default().to_owned();
    if table.stream_view.get()?.is_none() {
        return Ok(Some(format!("the mapping reads the stream {}, and the table's stream is off", label(stream))));
    }
    Ok(latest.filter(|latest| *latest != stream).map(|latest| {
        format!("the mapping reads the stream {}, and the table's latest is {}", label(stream), label(latest))
    }))
}

/// More readers than a shard serves.
///
/// # Errors
/// The reason why the rule cannot be evaluated.
pub fn has_too_many_readers(deployment: &StreamDeployment, mapping: &StreamMapping) -> RuleOutcome {
    let Some(stream) = mapping.stream.get()? else { return Ok(None) };
    if !mapping.enabled.or_default(true)? {
        return Ok(None);
    }
    let is_global = deployment.table_of(mapping).is_ok_and(|table| table.is_global);
    let most = if is_global { MAX_GLOBAL_READERS } else { MAX_READERS };
    let mappings = deployment
        .other_mappings
        .iter()
        .chain(&deployment.mappings)
        .filter(|other| other.stream.known() == Some(stream) && other.enabled.or_default(true).unwrap_or(true));
    let is_running = |pipe: &&StreamPipe| pipe.stream == *stream && pipe.running.or_default(true).unwrap_or(true);
    let pipes = deployment.pipes.iter().filter(is_running).count();
    let before = pipes + mappings.clone().take_while(|other| other.location != mapping.location).count();
    if before < most {
        return deployment.unknown_pipes.clone().map_or(Ok(None), Err);
    }
    let count = |number: usize, name: &str| match number {
        1 => format!("1 {name}"),
        number => format!("{number} {name}s"),
    };
    let mappings = mappings.count();
    let verb = if mappings + pipes == 1 { "reads" } else { "read" };
    let readers = match pipes {
        0 => count(mappings, "mapping"),
        pipes => format!("{} and {}", count(mappings, "mapping"), count(pipes, "pipe")),
    };
    let of = if is_global { "a global table's stream serves" } else { "a stream serves" };
    Ok(Some(format!("{readers} {verb} this stream, and {of} {most}; readers of another kind are not counted")))
}
