//! The `DynamoDB` replica for maintenance: read back, scanned, and written independently of the stream.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::PoisonError;

use aws_sdk_dynamodb::operation::put_item::PutItemError;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_shared::change::CanonicalKey;
use millrace_shared::concurrency::for_each_until;
use millrace_shared::invocation::Invocation;
use millrace_shared::raw_item::{MAX_ITEM_BYTES, RawItem};
use millrace_shared::replica_item::ReplicaItem;
use millrace_shared::table_reader::{ScanSegment, SourceDescription, TableReadError, create_table_command};
use time::OffsetDateTime;

use super::schema::format_key;
use super::write_outcome::{self, WriteOutcome};
use super::{DynamoDbSink, UNFINISHED};
use crate::document::with_parameter;
use crate::{
    Replica, ReplicaPage, ReplicaReadError, ReplicaReadOutput, ReplicaWrite, SinkMisconfiguredError, WriteResult,
    WriteTarget,
};

impl Replica for DynamoDbSink {
    fn read<'s>(&'s self, keys: &'s [CanonicalKey]) -> BoxFuture<'s, Result<ReplicaReadOutput, ReplicaReadError>> {
        async {
            let found = self.table.read(keys).await.map_err(|fault| self.unread(&fault))?;
            Ok(ReplicaReadOutput {
                items: found.items.into_iter().map(|item| item.map(|item| self.decode(item))).collect(),
                units: found.units,
            })
        }
        .boxed()
    }

    fn scan<'s>(
        &'s self,
        segment: ScanSegment,
        after: Option<&'s CanonicalKey>,
    ) -> BoxFuture<'s, Result<ReplicaPage, ReplicaReadError>> {
        async move {
            let schema = self.schema().await.map_err(|fault| self.unread(&fault))?;
            let names: Vec<String> = schema.key.iter().map(|(name, _)| name.clone()).collect();
            let page = self.table.scan(segment, after, &names, None).await;
            let page = page.map_err(|fault| self.unread(&fault))?;
            let held = page.items.into_iter().map(|(key, item)| (key, self.decode(item))).collect();
            Ok(ReplicaPage { items: held, next: page.next, units: page.units })
        }
        .boxed()
    }

    fn revision_name(&self) -> &str {
        &self.requests.names().revision
    }

    fn check_source<'s>(&'s self, source: &'s SourceDescription) -> BoxFuture<'s, Result<(), SinkMisconfiguredError>> {
        async move {
            // The task reports a table that cannot be described when it comes to this replica.
            let Ok(schema) = self.schema().await else { return Ok(()) };
            if schema.arn == source.arn {
                return Err(self.misconfigured(self.self_replication(&schema)));
            }
            if schema.key != source.key {
                let (own, its) = (format_key(&schema.key), format_key(&source.key));
                let create = create_table_command(None, "NAME", &source.key);
                return Err(self.misconfigured(format!(
                    "the replica's key is {own}, but the source's key is {its}: set {} to a table with the key schema \
                     of the source, which this command creates: {create}",
                    with_parameter(&self.setting)
                )));
            }
            Ok(())
        }
        .boxed()
    }

    fn stream_arn(&self) -> Option<String> {
        let schema = self.schema.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        schema.stream.as_ref().map(|stream| stream.arn.clone())
    }

    fn refusal(&self, write: &ReplicaWrite<'_>, now: OffsetDateTime) -> Option<String> {
        if let Err(refused) = self.requests.write(write, now) {
            return Some(refused.to_string());
        }
        let parsed = match write.target {
            WriteTarget::Item(item) => Ok(Cow::Borrowed(item)),
            WriteTarget::Image(image) => RawItem::parse(image.get()).map(Cow::Owned),
            WriteTarget::Tombstone { .. } => return None,
        };
        let item = match parsed {
            Ok(item) => item,
            Err(error) => return Some(format!("the item is {error}")),
        };
        let name = self.revision_name();
        let size = item.size_bytes() + name.len() + write.revision.encode().as_ref().len();
        (size > MAX_ITEM_BYTES)
            .then(|| format!("the item has {size} bytes with {name}: at most {MAX_ITEM_BYTES} are allowed"))
    }

    fn put<'s>(
        &'s self,
        writes: &'s [ReplicaWrite<'s>],
        invocation: &'s Invocation,
    ) -> BoxFuture<'s, Vec<WriteResult>> {
        async move {
            let mut puts = vec![WriteResult::Transient(UNFINISHED.to_owned()); writes.len()];
            let put_one = |write| self.put_one(write, invocation);
            for_each_until(invocation.deadline, self.in_flight, writes, put_one, |position, put| {
                puts[position] = put;
                ControlFlow::Continue(())
            })
            .await;
            puts
        }
        .boxed()
    }
}

impl DynamoDbSink {
    fn decode(&self, item: RawItem) -> ReplicaItem {
        ReplicaItem::decode(item, self.requests.names())
    }

    fn unread(&self, fault: &TableReadError) -> ReplicaReadError {
        ReplicaReadError { sink: self.name.to_string(), reason: self.describe_error(fault) }
    }

    async fn put_one(&self, write: &ReplicaWrite<'_>, invocation: &Invocation) -> WriteResult {
        let body = match self.requests.write(write, invocation.now) {
            Ok(body) => body,
            Err(refused) => return WriteResult::Permanent(refused.to_string()),
        };
        let Err(error) = self.writer.put_item(body).await else { return WriteResult::Written };
        if let Some(PutItemError::ConditionalCheckFailedException(_)) = error.as_service_error() {
            return WriteResult::ConditionFailed;
        }
        match write_outcome::from_error(&error, write.revision, self.revision_name()) {
            WriteOutcome::Permanent(reason) => WriteResult::Permanent(reason),
            WriteOutcome::Transient(reason) | WriteOutcome::Fault(reason) | WriteOutcome::KeyRefused(reason) => {
                WriteResult::Transient(reason)
            }
            // These outcomes come only from the revision guard, which this write does not use.
            WriteOutcome::Applied => WriteResult::Written,
            WriteOutcome::Duplicate | WriteOutcome::Stale => WriteResult::ConditionFailed,
        }
    }
}
