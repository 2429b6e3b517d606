//! The stream functions in this process, as an event source mapping invokes them.

use futures::future::LocalBoxFuture;
use millrace_archiver::ArchiverHandler;
use millrace_event_source_mapping::invoke::{InvokeError, StreamFunction, encode_response};
use millrace_replicator::ReplicatorHandler;
use millrace_shared::invocation::Invocation;
use serde_json::value::RawValue;

/// The replicator in this process.
pub(super) struct EmbeddedReplicator(pub(super) ReplicatorHandler);

/// The archiver in this process.
pub(super) struct EmbeddedArchiver(pub(super) ArchiverHandler);

impl StreamFunction for EmbeddedReplicator {
    fn invoke<'a>(
        &'a self,
        event: &'a RawValue,
        invocation: Invocation,
    ) -> LocalBoxFuture<'a, Result<String, InvokeError>> {
        Box::pin(async move { encode_response(self.0.handle(event, &invocation).await) })
    }
}

impl StreamFunction for EmbeddedArchiver {
    fn invoke<'a>(
        &'a self,
        event: &'a RawValue,
        invocation: Invocation,
    ) -> LocalBoxFuture<'a, Result<String, InvokeError>> {
        Box::pin(async move { encode_response(self.0.handle(event, &invocation).await) })
    }
}
