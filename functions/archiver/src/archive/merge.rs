//! Several objects read as one: sorted by (key, revision), each row once.
//!
//! Lambda may slice a batch differently when it delivers it again, so a row may stand in more than one object. Objects
//! are sorted inside: one row of each is all that has to be held.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::ArchivedRow;

/// The rows of several objects, in order, without repetitions. It ends at the first damage.
///
/// Each of `I` gives sorted rows: a [`Reader`](super::RowReader), or several one after the other.
pub struct MergeIterator<I> {
    readers: Vec<I>,
    heads: BinaryHeap<HeapEntry>,
    duplicates_dropped: u64,
    started: bool,
    ended: bool,
}

/// The row that a reader has come to.
struct HeapEntry {
    row: ArchivedRow,
    reader: usize,
}

impl<E, I: Iterator<Item = Result<ArchivedRow, E>>> MergeIterator<I> {
    /// Reads these together; nothing is read before the first row is asked for.
    #[must_use]
    pub fn new(readers: Vec<I>) -> Self {
        Self { readers, heads: BinaryHeap::new(), duplicates_dropped: 0, started: false, ended: false }
    }

    /// How many rows were dropped so far because they had been given before.
    #[must_use]
    pub fn duplicates_dropped(&self) -> u64 {
        self.duplicates_dropped
    }

    fn next_row(&mut self) -> Result<Option<ArchivedRow>, E> {
        if !self.started {
            self.started = true;
            for reader in 0..self.readers.len() {
                self.advance(reader)?;
            }
        }
        let Some(HeapEntry { row, reader }) = self.heads.pop() else { return Ok(None) };
        self.advance(reader)?;
        while let Some(head) = self.heads.peek()
            && head.row.order(&row).is_eq()
        {
            let reader = head.reader;
            self.heads.pop();
            self.duplicates_dropped += 1;
            self.advance(reader)?;
        }
        Ok(Some(row))
    }

    fn advance(&mut self, reader: usize) -> Result<(), E> {
        if let Some(row) = self.readers[reader].next() {
            self.heads.push(HeapEntry { row: row?, reader });
        }
        Ok(())
    }
}

impl<E, I: Iterator<Item = Result<ArchivedRow, E>>> Iterator for MergeIterator<I> {
    type Item = Result<ArchivedRow, E>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = self.next_row().transpose();
        self.ended = !matches!(row, Some(Ok(_)));
        row
    }
}

// A heap gives its greatest: the lowest row is made that, and of equal rows that of the first object.
impl Ord for HeapEntry {
    fn cmp(&self, other: &Self) -> Ordering {
        other.row.order(&self.row).then_with(|| other.reader.cmp(&self.reader))
    }
}

impl PartialOrd for HeapEntry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for HeapEntry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for HeapEntry {}
