//! Cache invalidation on writes: whatever the outcome of a write, cached values that it may have made stale are
//! invalidated before the response is sent.
//!
//! A write that is rejected or fails may still have landed: the SDK retries a call whose response was lost, and the
//! second attempt then encounters the result of the first.

use std::future::Future;

use millrace_http::problem::Problem;
use millrace_shared::table::{TableError, WriteError};
use millrace_shared::user::UserKey;
use millrace_shared::user::precondition::{EntityTags, Precondition};
use millrace_shared::version_fence::MinVersion;
use tokio::time::timeout_at;

use super::{AppState, RequestScope};

/// The intent of a write, by which the result of an earlier attempt of the same write is recognized.
#[derive(Clone, Debug, Default)]
pub(super) struct WriteIntent {
    /// The version of the record, if the write creates it.
    pub(super) created: Option<u64>,
    /// The precondition on the existing record.
    pub(super) precondition: Precondition,
}

impl AppState {
    /// Executes a write of the record under this key. The write returns the minimum version that cached values must
    /// have afterwards.
    pub(super) async fn write<T>(
        &self,
        scope: &RequestScope,
        key: &UserKey,
        intent: &WriteIntent,
        write: impl Future<Output = Result<(T, Option<MinVersion>), WriteError>>,
    ) -> Result<T, Problem> {
        // If the request is cancelled here, the outcome of the write is unknown.
        let pending = self.cache.as_ref().map(|cache| cache.begin_write(key));
        let late = |_| WriteError::Fault(TableError::Unavailable("the request's deadline has passed".into()));
        // The time that remains after this deadline is reserved for the invalidation and the response.
        let written = timeout_at(scope.budget.work_until(), write).await.map_err(late).flatten();
        let min_version = match &written {
            Ok((_, min_version)) => *min_version,
            Err(error) => unconfirmed(error, intent),
        };
        if let Some(pending) = pending {
            pending.complete(min_version).await;
        }
        Ok(written?.0)
    }
}

/// Returns the minimum version after a write that was not confirmed, or `None` if the write cannot have landed.
fn unconfirmed(error: &WriteError, intent: &WriteIntent) -> Option<MinVersion> {
    let created = || intent.created.map_or(MinVersion::HIGHEST, |version| MinVersion::after_write(0, version));
    match error {
        // This is decided before anything is written.
        WriteError::EmailTaken => None,
        // If the existing record was written by an earlier attempt of this write, it has this version.
        WriteError::Exists => Some(created()),
        WriteError::PreconditionFailed => Some(match &intent.precondition {
            Precondition { if_match: Some(EntityTags::Versions(versions)), .. } => {
                // An earlier attempt replaced one of these versions and left the next higher one.
                versions.iter().max().map_or(MinVersion::HIGHEST, |version| MinVersion::after_delete(*version))
            }
            Precondition { if_match: None, if_none_match: Some(EntityTags::Any) } => created(),
            _ => MinVersion::HIGHEST,
        }),
        // A delete that landed, a write that made the record expire, an error, or a state that was overwritten since.
        _ => Some(MinVersion::HIGHEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_may_have_landed_leaves_the_floor_that_it_would_have_left() {
        let demanding = |if_match, if_none_match| WriteIntent {
            created: Some(900),
            precondition: Precondition { if_match, if_none_match },
        };
        let versions = |versions: &[u64]| Some(EntityTags::Versions(versions.to_vec()));
        let free = demanding(None, None);
        for (error, intent, min_version) in [
            (WriteError::Exists, &free, Some(900)),
            (WriteError::PreconditionFailed, &demanding(versions(&[7]), None), Some(8)),
            (WriteError::PreconditionFailed, &demanding(versions(&[9, 7]), None), Some(10)),
            (WriteError::PreconditionFailed, &demanding(versions(&[]), None), Some(u64::MAX)),
            (WriteError::PreconditionFailed, &demanding(None, Some(EntityTags::Any)), Some(900)),
            (WriteError::PreconditionFailed, &demanding(None, versions(&[7])), Some(u64::MAX)),
            (WriteError::PreconditionFailed, &demanding(Some(EntityTags::Any), None), Some(u64::MAX)),
            (WriteError::NotFound, &free, Some(u64::MAX)),
            (WriteError::Contended, &free, Some(u64::MAX)),
            (WriteError::Fault(TableError::Unavailable("x".into())), &free, Some(u64::MAX)),
            (WriteError::Fault(TableError::Throttled("x".into())), &free, Some(u64::MAX)),
            (WriteError::EmailTaken, &free, None),
        ] {
            let left = unconfirmed(&error, intent).map(MinVersion::version);
            assert_eq!(left, min_version, "{error}");
        }
    }
}
