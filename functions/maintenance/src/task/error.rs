//! The error of a task, and its kind: [`TaskError`].

use std::fmt;

use crate::archive_scan::ArchiveScanError;
use crate::deployment::{SinksUnknownError, UnknownSinkError};
use crate::failure_bucket::BucketError;
use crate::mapping::MappingNotReadyError;
use crate::repair::ReconcileError;
use crate::replication_loop::ReplicationLoopError;
use crate::source::{OtherKeyError, SourceTableError};

/// The kind of an error. Its text is the error name that the state machine matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskErrorKind {
    /// The same request would fail again.
    Invalid,
    /// The deployment has to be changed first.
    PreconditionFailed,
    /// Any other error; a retry may succeed.
    Failed,
}

impl TaskErrorKind {
    /// Returns the error name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "TaskInvalid",
            Self::PreconditionFailed => "TaskPreconditionFailed",
            Self::Failed => "TaskFailed",
        }
    }
}

impl fmt::Display for TaskErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error that knows its kind, and therefore converts to a [`TaskError`].
pub trait ClassifiedError: std::error::Error + Send + Sync + 'static {
    /// Returns the kind of the error.
    fn kind(&self) -> TaskErrorKind;

    /// Returns whether the error occurs before any work is done.
    fn is_rejection(&self) -> bool {
        self.kind() != TaskErrorKind::Failed
    }
}

/// Error of an invocation. All work that was confirmed before the error remains.
#[derive(Debug)]
pub struct TaskError(Box<dyn ClassifiedError>);

impl TaskError {
    /// Returns the kind of the error. Only an error of the kind [`TaskErrorKind::Failed`] may be transient.
    #[must_use]
    pub fn kind(&self) -> TaskErrorKind {
        self.0.kind()
    }

    /// Returns whether the request was rejected before any work was done.
    #[must_use]
    pub fn is_rejection(&self) -> bool {
        self.0.is_rejection()
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for TaskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl<E: ClassifiedError> From<E> for TaskError {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl ClassifiedError for ArchiveScanError {
    fn kind(&self) -> TaskErrorKind {
        if self.is_permanent() { TaskErrorKind::Invalid } else { TaskErrorKind::Failed }
    }

    /// A part of the archive may have been read.
    fn is_rejection(&self) -> bool {
        false
    }
}

/// A task works on the archive, and the deployment has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the archive is off, since ARCHIVE_BUCKET is not set: deploy with Archive=separate or Archive=in-replicator")]
pub struct ArchiveOffError;

impl ClassifiedError for ArchiveOffError {
    fn kind(&self) -> TaskErrorKind {
        TaskErrorKind::PreconditionFailed
    }
}

impl ClassifiedError for BucketError {
    fn kind(&self) -> TaskErrorKind {
        TaskErrorKind::Failed
    }
}

impl ClassifiedError for SourceTableError {
    fn kind(&self) -> TaskErrorKind {
        match self {
            Self::Table(_) => TaskErrorKind::Failed,
            Self::NoStream(_) | Self::StreamDisabled(_) | Self::StreamWithoutImages { .. } => {
                TaskErrorKind::PreconditionFailed
            }
        }
    }
}

impl ClassifiedError for MappingNotReadyError {
    fn kind(&self) -> TaskErrorKind {
        if self.retryable() { TaskErrorKind::Failed } else { TaskErrorKind::PreconditionFailed }
    }
}

impl ClassifiedError for ReplicationLoopError {
    fn kind(&self) -> TaskErrorKind {
        TaskErrorKind::PreconditionFailed
    }
}

impl ClassifiedError for OtherKeyError {
    fn kind(&self) -> TaskErrorKind {
        TaskErrorKind::Invalid
    }
}

impl ClassifiedError for ReconcileError {
    fn kind(&self) -> TaskErrorKind {
        match self {
            Self::Source(error) => error.kind(),
            Self::Replica(_) => TaskErrorKind::Failed,
        }
    }
}

impl ClassifiedError for SinksUnknownError {
    fn kind(&self) -> TaskErrorKind {
        if self.retryable() { TaskErrorKind::Failed } else { TaskErrorKind::PreconditionFailed }
    }
}

impl ClassifiedError for UnknownSinkError {
    fn kind(&self) -> TaskErrorKind {
        TaskErrorKind::PreconditionFailed
    }
}
