//! The state of the source: its items, its streams, and their records.

use std::sync::Arc;

use millrace_shared::revision::SequenceNumber;
use time::OffsetDateTime;

use super::cloud::SOURCE_ARN;
use super::table::SimTable;

/// Items in a scenario.
pub(super) const ITEMS: usize = 4;

/// The value that is written to an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WriteKind {
    /// One of a few values, so that an item can return to an earlier value.
    Plain(u8),
    /// A value with an attribute that replicas reserve.
    Reserved(u8),
    /// A value that one of the sinks cannot store.
    Large(u8),
}

impl WriteKind {
    pub(super) fn value(self) -> u8 {
        match self {
            Self::Plain(value) | Self::Reserved(value) | Self::Large(value) => value,
        }
    }

    /// Returns whether a sink may be unable to store the value.
    pub(super) fn is_unusual(self) -> bool {
        !matches!(self, Self::Plain(_))
    }
}

/// The change that a record describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceWrite {
    Written(WriteKind),
    Deleted,
    /// Deleted by TTL; the stream record contains the value that the item had.
    Expired,
}

/// The reason that a record is poison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PoisonKind {
    /// Its event name is invalid: no function can parse the record.
    Unreadable,
    /// Its timestamp is in a year that the archive does not support.
    Timeless,
}

/// A stream record.
#[derive(Debug, Clone)]
pub(super) struct SimRecord {
    pub(super) stream: usize,
    pub(super) shard: usize,
    pub(super) number: SequenceNumber,
    pub(super) item: usize,
    pub(super) at: OffsetDateTime,
    pub(super) what: SourceWrite,
    /// The value of the item before the change.
    pub(super) before: Option<WriteKind>,
    pub(super) poison: Option<PoisonKind>,
    /// The record as Lambda delivers it.
    pub(super) json: String,
    /// The stream has dropped the record.
    pub(super) trimmed: bool,
}

impl SimRecord {
    /// Returns whether the record passes the filter of the archiver's mapping.
    pub(super) fn is_expiry(&self) -> bool {
        self.what == SourceWrite::Expired
    }
}

/// A shard of a stream.
#[derive(Debug, Clone)]
pub(super) struct SimShard {
    pub(super) parent: Option<usize>,
    pub(super) closed: bool,
}

/// A stream of the table.
#[derive(Debug, Clone)]
pub(super) struct SimStream {
    pub(super) label: String,
    pub(super) shards: Vec<SimShard>,
    /// The shard of each item.
    pub(super) of_item: [usize; ITEMS],
    /// The latest sequence number.
    last: u128,
}

/// The stream labels, in the order of the streams: as text, the second sorts before the first, and the third is one
/// millisecond after the second.
const LABELS: [&str; 6] = [
    "999999999.999",
    "1000000000.000",
    "1000000000.001",
    "2015-05-11T21:21:33.291",
    "2015-05-11T21:21:33.292",
    "2026-11-01T08:00:00.000",
];
/// The number below the first sequence number of each stream: a later stream starts far below an earlier one, and most
/// start just before the numbers gain a digit.
const FIRSTS: [u128; 6] =
    [99_999_999_999_999_999_999_990, 3, 340_282_366_920_938_463_463_374_607_431_768_211_000, 95, 7, 9_999_999];

/// The state of the source.
#[derive(Debug)]
pub(super) struct SimSource {
    pub(super) table: Arc<SimTable>,
    pub(super) items: [Option<WriteKind>; ITEMS],
    /// Set for each item that has ever existed.
    pub(super) known: [bool; ITEMS],
    pub(super) streams: Vec<SimStream>,
    pub(super) records: Vec<SimRecord>,
}

impl SimSource {
    pub(super) fn new(table: Arc<SimTable>) -> Self {
        let (streams, records) = (Vec::new(), Vec::new());
        let mut source = Self { table, items: [None; ITEMS], known: [false; ITEMS], streams, records };
        source.begin_stream();
        source
    }

    /// Returns whether the table can get another stream.
    pub(super) fn can_begin_stream(&self) -> bool {
        self.streams.len() < LABELS.len()
    }

    /// Starts the table's next stream; the previous one receives no more records.
    pub(super) fn begin_stream(&mut self) {
        let at = self.streams.len();
        if let Some(last) = self.streams.last_mut() {
            last.shards.iter_mut().for_each(|shard| shard.closed = true);
        }
        self.streams.push(SimStream {
            label: LABELS[at].to_owned(),
            shards: vec![SimShard { parent: None, closed: false }],
            of_item: [0; ITEMS],
            last: FIRSTS[at],
        });
    }

    pub(super) fn stream(&mut self) -> &mut SimStream {
        self.streams.last_mut().unwrap()
    }

    /// Splits the shard of an item in two: one shard gets the items with an even number, the other those with an odd
    /// number.
    pub(super) fn split(&mut self, item: usize) {
        let stream = self.stream();
        let (parent, first) = (stream.of_item[item], stream.shards.len());
        stream.shards[parent].closed = true;
        stream.shards.extend([
            SimShard { parent: Some(parent), closed: false },
            SimShard { parent: Some(parent), closed: false },
        ]);
        let moved = stream.of_item.iter_mut().enumerate().filter(|(_, shard)| **shard == parent);
        moved.for_each(|(item, shard)| *shard = first + item % 2);
    }

    /// Changes an item and appends the stream record; `gap` decides by how much the sequence number increases.
    pub(super) fn report_progress(
        &mut self,
        item: usize,
        what: SourceWrite,
        poison: Option<PoisonKind>,
        gap: u8,
        at: OffsetDateTime,
    ) {
        let before = self.items[item];
        self.items[item] = match what {
            SourceWrite::Written(kind) => Some(kind),
            SourceWrite::Deleted | SourceWrite::Expired => None,
        };
        self.known[item] = true;
        let stream = self.streams.len() - 1;
        let of = self.stream();
        of.last += 1 + u128::from(gap % 3);
        let (number, shard) = (of.last, of.of_item[item]);
        let label = of.label.clone();
        let json = json(&self.table, &label, number, item, what, before, poison, at);
        let number = SequenceNumber::parse(&number.to_string()).unwrap();
        self.records.push(SimRecord { stream, shard, number, item, at, what, before, poison, json, trimmed: false });
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of a record, which are in no type before it is written")]
fn json(
    table: &SimTable,
    label: &str,
    number: u128,
    item: usize,
    what: SourceWrite,
    before: Option<WriteKind>,
    poison: Option<PoisonKind>,
    at: OffsetDateTime,
) -> String {
    let name = match (what, before, poison) {
        (_, _, Some(PoisonKind::Unreadable)) => "RENAME",
        (SourceWrite::Written(_), None, _) => "INSERT",
        (SourceWrite::Written(_), Some(_), _) => "MODIFY",
        (SourceWrite::Deleted | SourceWrite::Expired, ..) => "REMOVE",
    };
    let image = |role: &str, kind: Option<WriteKind>| {
        kind.map(|kind| format!(r#""{role}":{},"#, table.image(item, kind))).unwrap_or_default()
    };
    let new = match what {
        SourceWrite::Written(kind) => image("NewImage", Some(kind)),
        SourceWrite::Deleted | SourceWrite::Expired => String::new(),
    };
    let identity = if what == SourceWrite::Expired {
        r#""userIdentity":{"type":"Service","principalId":"dynamodb.amazonaws.com"},"#
    } else {
        ""
    };
    let at = at.unix_timestamp() * if poison == Some(PoisonKind::Timeless) { 1_000 } else { 1 };
    let keys = table.key_json(item, number);
    format!(
        r#"{{"eventID":"{number}","eventName":"{name}","eventSource":"aws:dynamodb",{identity}"eventSourceARN":"{SOURCE_ARN}/stream/{label}","dynamodb":{{"ApproximateCreationDateTime":{at},"Keys":{keys},{new}{}"SequenceNumber":"{number}","StreamViewType":"NEW_AND_OLD_IMAGES"}}}}"#,
        image("OldImage", before)
    )
}
