//! Conversion between Lambda's DynamoDB stream event and the domain types.
//!
//! Each record is parsed separately: a record that cannot be parsed becomes a value with the reason, never an error of
//! its batch, which would block the shard until the records are trimmed. A payload as DynamoDB sends it is scanned once
//! (`scan.rs`); a record with anything unusual is parsed by `serde_json`, which decides whether it is valid and why not.
//! Unlike the typed event of `aws_lambda_events`, both distinguish an absent image from an empty one; the response is
//! that crate's type. The format: <https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html>.

mod scan;

use std::borrow::Cow;

use aws_lambda_events::event::streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse};
use millrace_json_scanner::JsonText;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;

use crate::change::{
    BorrowedText, CanonicalKey, Change, ChangeKind, ImageKeyError, ItemImage, ItemKey, OldImage, OtherTableError,
    StreamSource,
};
use crate::raw_item::RawItem;
use crate::revision::{Revision, SequenceNumber};

/// The principal of a removal by TTL:
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/time-to-live-ttl-streams.html>.
const TTL_PRINCIPAL: &str = "dynamodb.amazonaws.com";

/// The beginning of the reason for which a record is quarantined that contradicts another one of its batch
/// ([`is_same_change`]). It is stored with the record: a redrive recognizes such a record by it.
pub const CONTRADICTION: &str = "another record of this item has the same sequence number but different content";

/// A payload that is not a stream event.
#[derive(Debug, thiserror::Error)]
#[error("the payload is not a DynamoDB stream event ({{\"Records\": […]}}): {0}")]
pub struct EventParseError(#[source] serde_json::Error);

/// A record that cannot be parsed; redelivery does not change that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RecordParseError(String);

/// The records of one invocation, in the order of delivery.
#[derive(Debug)]
pub struct StreamBatch<'a> {
    /// One entry for each delivered record, whether it could be parsed or not.
    pub records: Vec<StreamRecord<'a>>,
}

/// One delivered record.
#[derive(Debug)]
pub struct StreamRecord<'a> {
    /// The record's original text.
    pub raw: JsonText<'a>,
    /// The sequence number as delivered: a response must repeat it exactly.
    pub sequence: Option<Cow<'a, str>>,
    /// The parsed sequence number, if it is valid.
    pub number: Option<SequenceNumber>,
    /// The stream that the record came from, if the record contains a valid ARN.
    pub source: Option<StreamSource<'a>>,
    /// The change in the record, or the error.
    pub read: Result<Change<'a>, RecordParseError>,
}

impl StreamBatch<'_> {
    /// Fails if the batch comes from another table than the one with this ARN; `None` accepts every table.
    ///
    /// # Errors
    /// [`OtherTableError`], which names the stream and the table.
    pub fn check_table(&self, table_arn: Option<&str>) -> Result<(), OtherTableError> {
        // All records of an invocation come from one stream.
        let source = self.records.iter().find_map(|record| record.source.as_ref());
        match (table_arn, source) {
            (Some(table), Some(source)) if source.table_arn() != table => {
                Err(OtherTableError { stream: source.arn().to_owned(), table: table.to_owned() })
            }
            _ => Ok(()),
        }
    }
}

/// The most records of one invocation: <https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-params.html>.
const MAX_RECORDS: usize = 10_000;

/// Parses an invocation's payload.
///
/// # Errors
/// [`EventParseError`] if the payload contains no list of records; a record that cannot be parsed is a value in the
/// batch.
pub fn read(payload: &RawValue) -> Result<StreamBatch<'_>, EventParseError> {
    read_bytes(payload.get().as_bytes())
}

/// Like [`read`], for the bytes of a payload, which need not be valid JSON: it is parsed nowhere before.
///
/// # Errors
/// [`EventParseError`] if the payload is not valid JSON or contains no list of records.
pub fn read_bytes(payload: &[u8]) -> Result<StreamBatch<'_>, EventParseError> {
    let mut batch = BatchBuilder::default();
    // The parser says why bytes are not valid UTF-8.
    let text = str::from_utf8(payload).unwrap_or_default();
    let scanned = scan::scan_records(text, |text, fields, bytes_left| {
        if batch.records.is_empty() {
            // The records of a batch are about equally long.
            batch.records.reserve((bytes_left / text.get().len()).min(MAX_RECORDS) + 1);
        }
        batch.push(text, fields);
    });
    if scanned.is_none() {
        batch = BatchBuilder::default();
        parse_records(payload)?.into_iter().for_each(|raw| batch.push(raw.into(), None));
    }
    Ok(StreamBatch { records: batch.records })
}

fn parse_records(payload: &[u8]) -> Result<Vec<&RawValue>, EventParseError> {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow, rename = "Records")]
        records: Vec<&'a RawValue>,
    }
    let event: Event<'_> = serde_json::from_slice(payload).map_err(EventParseError)?;
    Ok(event.records)
}

/// The records read so far.
#[derive(Default)]
struct BatchBuilder<'a> {
    records: Vec<StreamRecord<'a>>,
    /// The source of the last record that has one. All records of an invocation come from one stream: its ARN is parsed
    /// once, and compared.
    last: Option<StreamSource<'a>>,
}

impl<'a> BatchBuilder<'a> {
    /// Adds a record, whose fields are parsed unless they have been scanned.
    fn push(&mut self, raw: JsonText<'a>, scanned: Option<RawRecord<'a>>) {
        let fields = scanned.map_or_else(|| serde_json::from_str(raw.get()), Ok);
        let record = match fields {
            Ok(fields) => read_record(self.records.len(), raw, fields, self.last.as_ref()),
            Err(error) => parse_position_only(raw, &error),
        };
        if record.source.is_some() {
            self.last.clone_from(&record.source);
        }
        self.records.push(record);
    }
}

#[derive(Default, Deserialize)]
struct RawRecord<'a> {
    #[serde(borrow, rename = "eventID")]
    event_id: Option<BorrowedText<'a>>,
    #[serde(borrow, rename = "eventName")]
    event_name: Option<BorrowedText<'a>>,
    #[serde(borrow, rename = "eventSourceARN")]
    arn: Option<BorrowedText<'a>>,
    #[serde(borrow, rename = "userIdentity")]
    user_identity: Option<RawIdentity<'a>>,
    #[serde(borrow)]
    dynamodb: Option<RawChange<'a>>,
}

#[derive(Deserialize)]
struct RawIdentity<'a> {
    #[serde(borrow, rename = "type", alias = "Type")]
    kind: Option<BorrowedText<'a>>,
    #[serde(borrow, rename = "principalId", alias = "PrincipalId")]
    principal: Option<BorrowedText<'a>>,
}

impl RawIdentity<'_> {
    fn is_ttl(&self) -> bool {
        let is = |text: &Option<BorrowedText<'_>>, wanted| text.as_ref().is_some_and(|text| text.0 == wanted);
        is(&self.kind, "Service") && is(&self.principal, TTL_PRINCIPAL)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawChange<'a> {
    #[serde(borrow)]
    approximate_creation_date_time: Option<JsonText<'a>>,
    #[serde(borrow)]
    keys: Option<RawKey<'a>>,
    #[serde(borrow)]
    new_image: Option<RawImage<'a>>,
    #[serde(borrow)]
    old_image: Option<RawImage<'a>>,
    #[serde(borrow)]
    sequence_number: Option<BorrowedText<'a>>,
    #[serde(borrow)]
    stream_view_type: Option<BorrowedText<'a>>,
}

/// The member `Keys`.
enum RawKey<'a> {
    Text(JsonText<'a>),
    Parsed(ItemKey<'a>),
}

impl<'de: 'a, 'a> Deserialize<'de> for RawKey<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        JsonText::deserialize(deserializer).map(Self::Text)
    }
}

/// The member `NewImage` or `OldImage`.
struct RawImage<'a> {
    text: JsonText<'a>,
    /// Whether the image is an object that has been found to belong to the item of the key.
    has_key: bool,
}

impl<'de: 'a, 'a> Deserialize<'de> for RawImage<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { text: JsonText::deserialize(deserializer)?, has_key: false })
    }
}

fn read_record<'a>(
    index: usize,
    raw: JsonText<'a>,
    mut wire: RawRecord<'a>,
    last: Option<&StreamSource<'a>>,
) -> StreamRecord<'a> {
    let sequence = wire.dynamodb.as_mut().and_then(|change| change.sequence_number.take()).map(|text| text.0);
    let number = sequence.as_deref().map(SequenceNumber::parse);
    let source = wire.arn.take().map(|arn| match last {
        Some(last) if last.arn() == arn.0 => Ok(last.clone()),
        _ => StreamSource::parse(arn.0),
    });
    let source_known = source.as_ref().and_then(|source| source.as_ref().ok()).cloned();
    let number_known = number.as_ref().and_then(|number| number.as_ref().ok()).copied();
    let read = (|| {
        let number = number.ok_or_else(|| missing("dynamodb.SequenceNumber"))?.map_err(unreadable)?;
        let source = source.ok_or_else(|| missing("eventSourceARN"))?.map_err(unreadable)?;
        read_change(index, wire, source, number)
    })();
    StreamRecord { raw, sequence, number: number_known, source: source_known, read }
}

fn read_change<'a>(
    index: usize,
    wire: RawRecord<'a>,
    source: StreamSource<'a>,
    number: SequenceNumber,
) -> Result<Change<'a>, RecordParseError> {
    let change = wire.dynamodb.ok_or_else(|| missing("dynamodb"))?;
    let key = match change.keys.ok_or_else(|| missing("dynamodb.Keys"))? {
        RawKey::Parsed(key) => key,
        RawKey::Text(text) => ItemKey::from_text(text).map_err(unreadable)?,
    };
    let name = wire.event_name.ok_or_else(|| missing("eventName"))?.0;
    let view = change.stream_view_type.map(|text| text.0);
    let shows_new = view.as_deref().is_none_or(|view| ["NEW_IMAGE", "NEW_AND_OLD_IMAGES"].contains(&view));
    let old = old_image(&key, change.old_image.as_ref())?;
    let before = match (&*name, &old) {
        ("INSERT", _) => OldImage::Nothing,
        (_, Ok(Some(image))) => OldImage::Image(*image),
        _ => OldImage::Unknown,
    };
    let effect = match &*name {
        "INSERT" | "MODIFY" => {
            let image = image("dynamodb.NewImage", change.new_image.as_ref())?;
            if image.is_none() && shows_new {
                return Err(missing("dynamodb.NewImage"));
            }
            if let Some(image) = image
                && !change.new_image.is_some_and(|image| image.has_key)
            {
                // Otherwise the item would be written under the image's own key, and acknowledged under another.
                key.check_image(image).map_err(|error| RecordParseError(format!("dynamodb.NewImage {error}")))?;
            }
            ChangeKind::Write { image }
        }
        "REMOVE" => {
            let expired = wire.user_identity.is_some_and(|identity| identity.is_ttl());
            ChangeKind::Remove { expired, image: old? }
        }
        other => {
            return Err(RecordParseError(format!("unknown eventName {other:?}: expected INSERT, MODIFY or REMOVE")));
        }
    };
    Ok(Change {
        index,
        key,
        revision: Revision::new(source.label(), number),
        effect,
        before,
        source,
        approximate_creation_time: change.approximate_creation_date_time.and_then(|json| time_of(json.get())),
        event_id: wire.event_id.map(|text| text.0),
        view,
    })
}

/// Returns the old image if it belongs to the item. An image without the key attributes counts as absent: only the
/// archive needs the old image, and tools that copy a record turn an absent image into an empty one.
///
/// The outer error means that the old image belongs to another item; the inner error, that the field is not an image.
fn old_image<'a>(
    key: &ItemKey<'_>,
    raw: Option<&RawImage<'a>>,
) -> Result<Result<Option<ItemImage<'a>>, RecordParseError>, RecordParseError> {
    const FIELD: &str = "dynamodb.OldImage";
    let old = image(FIELD, raw);
    let Ok(Some(image)) = old else { return Ok(old) };
    if raw.is_some_and(|raw| raw.has_key) {
        return Ok(old);
    }
    match key.check_image(image) {
        Ok(()) => Ok(Ok(Some(image))),
        Err(error @ ImageKeyError::Different(_)) => Err(RecordParseError(format!("{FIELD} {error}"))),
        Err(_) => Ok(Ok(None)),
    }
}

fn image<'a>(field: &str, raw: Option<&RawImage<'a>>) -> Result<Option<ItemImage<'a>>, RecordParseError> {
    let not_an_object = || RecordParseError(format!("{field} is not an object"));
    raw.map(|raw| ItemImage::from_text(raw.text).ok_or_else(not_an_object)).transpose()
}

/// Parses epoch seconds in the form of an integer, a decimal fraction or a float.
fn time_of(json: &str) -> Option<OffsetDateTime> {
    let (seconds, fraction) = json.split_once('.').unwrap_or((json, ""));
    let exact = seconds.parse::<i64>().ok().filter(|_| fraction.bytes().all(|byte| byte.is_ascii_digit()));
    let time = if let Some(seconds) = exact {
        let nanos = format!("{fraction:0<9}")[..9].parse().ok()?;
        OffsetDateTime::from_unix_timestamp(seconds).ok()?.replace_nanosecond(nanos).ok()?
    } else {
        let seconds = json.parse::<f64>().ok()?;
        OffsetDateTime::UNIX_EPOCH.checked_add(time::Duration::checked_seconds_f64(seconds)?)?
    };
    (time >= OffsetDateTime::UNIX_EPOCH).then_some(time)
}

/// Reads the parts of a malformed record that are needed to report it: its sequence number and its source.
fn parse_position_only<'a>(raw: JsonText<'a>, error: &serde_json::Error) -> StreamRecord<'a> {
    #[derive(Deserialize)]
    struct Parts<'a> {
        #[serde(borrow, rename = "eventSourceARN")]
        arn: Option<&'a RawValue>,
        #[serde(borrow)]
        dynamodb: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Inner<'a> {
        #[serde(borrow, rename = "SequenceNumber")]
        sequence: Option<&'a RawValue>,
    }
    fn text(json: &RawValue) -> Option<Cow<'_, str>> {
        serde_json::from_str::<BorrowedText<'_>>(json.get()).ok().map(|text| text.0)
    }
    let parts = serde_json::from_str::<Parts<'a>>(raw.get()).ok();
    let inner = parts.as_ref().and_then(|parts| serde_json::from_str::<Inner<'a>>(parts.dynamodb?.get()).ok());
    let sequence = inner.and_then(|inner| inner.sequence).and_then(text);
    StreamRecord {
        raw,
        number: sequence.as_deref().and_then(|text| SequenceNumber::parse(text).ok()),
        sequence,
        source: parts.and_then(|parts| parts.arn).and_then(text).and_then(|arn| StreamSource::parse(arn).ok()),
        read: Err(RecordParseError(format!("the record is not a DynamoDB stream record: {error}"))),
    }
}

/// Returns whether two records with the same item and sequence number contain the same change: the same effect, and
/// images that are equal by value. If so, the record was delivered twice; otherwise the two changes contradict each
/// other.
#[must_use]
pub fn is_same_change(one: &Change<'_>, other: &Change<'_>) -> bool {
    let is_same_effect = match (one.effect, other.effect) {
        (ChangeKind::Write { image: one }, ChangeKind::Write { image: other }) => is_same_image(one, other),
        (ChangeKind::Remove { expired, image }, ChangeKind::Remove { expired: also_expired, image: other }) => {
            expired == also_expired && is_same_image(image, other)
        }
        _ => false,
    };
    let is_same_before = match (one.before, other.before) {
        (OldImage::Nothing, OldImage::Nothing) | (OldImage::Unknown, OldImage::Unknown) => true,
        (OldImage::Image(one), OldImage::Image(other)) => is_same_image(Some(one), Some(other)),
        _ => false,
    };
    is_same_effect && is_same_before
}

fn is_same_image(one: Option<ItemImage<'_>>, other: Option<ItemImage<'_>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) if one.get() == other.get() => true,
        (Some(one), Some(other)) => match (RawItem::parse(one.get()), RawItem::parse(other.get())) {
            (Ok(one), Ok(other)) => one.eq_by_value(&other),
            _ => false,
        },
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// Returns the key of a record, whatever else is wrong with the record: the key is sufficient to bring an item to its
/// source's state.
///
/// # Errors
/// [`RecordParseError`] if the key cannot be read.
pub fn key_of(record: &RawValue) -> Result<CanonicalKey, RecordParseError> {
    #[derive(Deserialize)]
    struct Outer<'a> {
        #[serde(borrow)]
        dynamodb: Option<Inner<'a>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Inner<'a> {
        #[serde(borrow)]
        keys: Option<&'a RawValue>,
    }
    let outer: Outer<'_> = serde_json::from_str(record.get()).map_err(unreadable)?;
    let keys = outer.dynamodb.and_then(|inner| inner.keys).ok_or_else(|| missing("dynamodb.Keys"))?;
    ItemKey::parse(keys).map(|key| key.canonical().clone()).map_err(unreadable)
}

/// Returns whether a record that cannot be parsed may be a removal by TTL: it names TTL's principal, or its identity
/// cannot be read either.
#[must_use]
pub fn may_be_expiry(record: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Outer<'a> {
        #[serde(borrow, rename = "userIdentity")]
        identity: Option<&'a RawValue>,
    }
    let outer = serde_json::from_str::<Outer<'_>>(record.get());
    outer.map_or(true, |outer| outer.identity.is_some_and(|identity| identity.get().contains(TTL_PRINCIPAL)))
}

fn missing(field: &str) -> RecordParseError {
    RecordParseError(format!("{field} is missing"))
}

#[expect(clippy::needless_pass_by_value, reason = "passed to map_err")]
fn unreadable(reason: impl ToString) -> RecordParseError {
    RecordParseError(reason.to_string())
}

/// A function's response: success, or the position from which Lambda has to redeliver.
///
/// Lambda takes the *lowest* identifier in the response; this type contains at most one. An identifier that is empty or
/// unknown would make Lambda treat the whole batch as failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct BatchResponse(DynamoDbEventResponse);

impl BatchResponse {
    /// Returns the response for a batch of which every record has been processed.
    #[must_use]
    pub fn success() -> Self {
        Self(DynamoDbEventResponse::default())
    }

    /// Returns the response that makes Lambda redeliver the record with this sequence number, and all records after it.
    #[must_use]
    pub fn retry_from(sequence: &str) -> Self {
        let mut failure = DynamoDbBatchItemFailure::default();
        failure.item_identifier = Some(sequence.to_owned());
        let mut response = DynamoDbEventResponse::default();
        response.batch_item_failures.push(failure);
        Self(response)
    }

    /// Returns the sequence number to redeliver from, if any.
    #[must_use]
    pub fn identifier(&self) -> Option<&str> {
        self.0.batch_item_failures.first()?.item_identifier.as_deref()
    }
}

#[cfg(test)]
mod tests;
