//! Selection of the replicas that a task processes.

use millrace_sinks::{Replica, SinkMisconfiguredError, SinkName};

use super::error::{ClassifiedError, TaskErrorKind};
use super::request::InvalidRequest;

/// The configuration has no replica that a task could process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "REPLICATION declares no replica to compare with the source: add one whose sink is dynamodb or postgres, because \
     the archive and the cache cannot be read back"
)]
pub struct NoReplicaError;

impl ClassifiedError for NoReplicaError {
    fn kind(&self) -> TaskErrorKind {
        TaskErrorKind::PreconditionFailed
    }
}

impl ClassifiedError for SinkMisconfiguredError {
    fn kind(&self) -> TaskErrorKind {
        TaskErrorKind::PreconditionFailed
    }
}

/// Returns the names of the replicas.
#[must_use]
pub fn names<'r>(replicas: &[&'r dyn Replica]) -> Vec<&'r str> {
    replicas.iter().map(|replica| replica.name()).collect()
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Returns the replica of this name, or all replicas.
///
/// # Errors
/// [`InvalidRequest::UnknownReplica`], which lists the names, if there is none.
pub fn select<'r>(
    configured: Vec<&'r dyn Replica>,
    requested: Option<&SinkName>,
) -> Result<Vec<&'r dyn Replica>, InvalidRequest> {
    let Some(name) = requested else { return Ok(configured) };
    let found = configured.iter().copied().find(|replica| replica.name() == name.as_str());
    let unknown = || InvalidRequest::UnknownReplica { name: name.to_string(), known: owned(&names(&configured)) };
    found.map(|replica| vec![replica]).ok_or_else(unknown)
}

/// Returns the selected replicas in the order of the run that is resumed. Cursors contain indexes into this order.
///
/// A run does not continue over other replicas than it began with: a replica that was added would be processed from the
/// middle of the table on, and one that was removed would count as processed.
///
/// # Errors
/// [`InvalidRequest::CursorReplicas`] if the selected replicas are not those of the run.
pub fn resume<'r>(selected: &[&'r dyn Replica], run: &[String]) -> Result<Vec<&'r dyn Replica>, InvalidRequest> {
    let of_run: Option<Vec<&dyn Replica>> =
        run.iter().map(|name| selected.iter().copied().find(|replica| replica.name() == name)).collect();
    match of_run {
        Some(of_run) if of_run.len() == selected.len() => Ok(of_run),
        _ => Err(InvalidRequest::CursorReplicas { then: run.to_vec(), now: owned(&names(selected)) }),
    }
}
