//! How a write meets the cache: whatever came of it, what the cache may no longer tell is taken away before it is answered.
//!
//! A write that is refused, or fails, may have landed all the same: the SDK retries a call whose answer was lost, and the
//! second attempt meets the result of the first.

use std::future::Future;

use front::problem::Problem;
use shared::table::{TableError, WriteError};
use shared::user::UserKey;
use shared::user::precondition::{EntityTags, Precondition};
use shared::version_fence::MinVersion;
use tokio::time::timeout_at;

use super::AppState;

/// What a write was to do, by which its own earlier attempt is known again.
#[derive(Clone, Debug, Default)]
pub(super) struct WriteIntent {
    /// The version of a new record.
    pub(super) created: Option<u64>,
    /// What it demanded of the record that it was over.
    pub(super) precondition: Precondition,
}

impl AppState {
    /// Carries out a write of the record under this key, which answers the floor that it leaves.
    pub(super) async fn write<T>(
        &self,
        key: &UserKey,
        intent: &WriteIntent,
        write: impl Future<Output = Result<(T, Option<MinVersion>), WriteError>>,
    ) -> Result<T, Problem> {
        // If the request is given up here, nobody knows what came of the write.
        let unsettled = self.cache.as_ref().map(|cache| cache.unsettled(key));
        let late = |_| WriteError::Fault(TableError::Unavailable("the request's time is up".into()));
        let written = match self.budget {
            // What is left of the time is the mark's and the answer's.
            Some(budget) => timeout_at(budget.work_until(), write).await.map_err(late).flatten(),
            None => write.await,
        };
        let floor = match &written {
            Ok((_, floor)) => *floor,
            Err(error) => unconfirmed(error, intent),
        };
        if let Some(unsettled) = unsettled {
            unsettled.settle(floor).await;
        }
        Ok(written?.0)
    }
}

/// The floor of a write that was not confirmed; nothing if it cannot have landed.
fn unconfirmed(error: &WriteError, intent: &WriteIntent) -> Option<MinVersion> {
    let created = || intent.created.map_or(MinVersion::HIGHEST, |version| MinVersion::after_write(0, version));
    match error {
        // Decided before anything is written.
        WriteError::EmailTaken => None,
        // If it is this write's own record, it has this version.
        WriteError::Exists => Some(created()),
        WriteError::PreconditionFailed => Some(match &intent.precondition {
            Precondition { if_match: Some(EntityTags::Versions(versions)), .. } => {
                // An earlier attempt was over one of these, and left the one above it.
                versions.iter().max().map_or(MinVersion::HIGHEST, |version| MinVersion::after_delete(*version))
            }
            Precondition { if_match: None, if_none_match: Some(EntityTags::Any) } => created(),
            _ => MinVersion::HIGHEST,
        }),
        // A delete that landed, a record that a write let end, a fault, or a state that was overtaken.
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
        for (error, intent, floor) in [
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
            assert_eq!(left, floor, "{error}");
        }
    }
}
