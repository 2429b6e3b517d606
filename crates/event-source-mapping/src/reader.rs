//! Stream reader: reads the shards of one stream with the SDK, and the records of each shard after a sequence number.
//!
//! A missing `NextShardIterator` means that a shard has ended. An `EndingSequenceNumber` does not: the embedded engine
//! also returns one for an open shard.

use std::collections::HashMap;

use aws_sdk_dynamodbstreams::types::{Record, ShardIteratorType};
use millrace_shared::error_chain::error_chain;
use millrace_shared::revision::SequenceNumber;

use super::state::ShardId;

/// The maximum number of records per request, which is the limit of the service.
const PAGE: i32 = 1000;

/// A reader of the shards of one stream.
pub struct ShardReader {
    client: aws_sdk_dynamodbstreams::Client,
    stream_arn: String,
    from_latest: bool,
    iterators: HashMap<ShardId, String>,
}

/// The result of one request.
pub struct ShardPage {
    /// The records, in the order of the shard.
    pub records: Vec<Record>,
    /// Whether the shard has ended, so that there will be no more records.
    pub ended: bool,
}

impl ShardReader {
    /// Creates a reader of this stream. Without a position, a shard is read from its oldest record, or from its end if
    /// `from_latest` is set.
    #[must_use]
    pub fn new(client: aws_sdk_dynamodbstreams::Client, stream_arn: String, from_latest: bool) -> Self {
        Self { client, stream_arn, from_latest, iterators: HashMap::new() }
    }

    /// Returns the stream's shards, each with its parent.
    ///
    /// # Errors
    /// The error of `DescribeStream`, as text.
    pub async fn shards(&self) -> Result<Vec<(ShardId, Option<ShardId>)>, String> {
        let (mut shards, mut after) = (Vec::new(), None);
        loop {
            let request = self.client.describe_stream().stream_arn(&self.stream_arn);
            let response =
                request.set_exclusive_start_shard_id(after).send().await.map_err(|error| error_chain(&error))?;
            let Some(stream) = response.stream_description else { return Ok(shards) };
            for shard in stream.shards() {
                if let Some(id) = shard.shard_id() {
                    shards.push((id.into(), shard.parent_shard_id().map(Into::into)));
                }
            }
            after = stream.last_evaluated_shard_id;
            if after.is_none() {
                return Ok(shards);
            }
        }
    }

    /// Returns the next records of a shard, or those after `after` if the shard is read for the first time.
    ///
    /// # Errors
    /// The error of `GetShardIterator` or `GetRecords`, as text.
    pub async fn page(&mut self, shard: &ShardId, after: Option<SequenceNumber>) -> Result<ShardPage, String> {
        let iterator = match self.iterators.remove(shard) {
            Some(iterator) => iterator,
            None => self.iterator(shard, after).await?,
        };
        let request = self.client.get_records().shard_iterator(iterator).limit(PAGE);
        // After an error the iterator is not stored again: an expired one must be replaced, and any other can be.
        let response = request.send().await.map_err(|error| error_chain(&error))?;
        let ended = response.next_shard_iterator.is_none();
        if let Some(next) = response.next_shard_iterator {
            self.iterators.insert(ShardId::clone(shard), next);
        }
        Ok(ShardPage { records: response.records.unwrap_or_default(), ended })
    }

    async fn iterator(&self, shard: &ShardId, after: Option<SequenceNumber>) -> Result<String, String> {
        let request = self.client.get_shard_iterator().stream_arn(&self.stream_arn).shard_id(shard.as_ref());
        let response = match after {
            None => {
                let latest = if self.from_latest { ShardIteratorType::Latest } else { ShardIteratorType::TrimHorizon };
                request.shard_iterator_type(latest).send().await
            }
            Some(after) => {
                let kind = ShardIteratorType::AfterSequenceNumber;
                let response =
                    request.clone().shard_iterator_type(kind).sequence_number(after.to_string()).send().await;
                match response {
                    Err(error) if error.as_service_error().is_some_and(is_trimmed) => {
                        tracing::warn!(stream.shard = %shard, stream.position = %after, "unread records were trimmed");
                        request.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await
                    }
                    response => response,
                }
            }
        };
        let response = response.map_err(|error| error_chain(&error))?;
        response.shard_iterator.ok_or_else(|| "the stream returned no shard iterator".to_owned())
    }
}

fn is_trimmed(error: &aws_sdk_dynamodbstreams::operation::get_shard_iterator::GetShardIteratorError) -> bool {
    error.is_trimmed_data_access_exception()
}
