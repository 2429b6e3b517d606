//! A merge of several objects into one sequence: sorted by (key, revision), each row once.
//!
//! Lambda may slice a batch differently when it redelivers it, so a row may occur in more than one object. Each object
//! is sorted, so the merge keeps only one row per object in memory.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::ArchivedRow;

/// The rows of several objects in order, without repetitions. Iteration ends at the first error.
///
/// Each `I` yields sorted rows: a [`RowReader`](super::RowReader), or several readers chained.
pub struct MergeIterator<I> {
    readers: Vec<I>,
    heads: BinaryHeap<HeapEntry>,
    duplicates_dropped: u64,
    started: bool,
    ended: bool,
}

/// The current row of a reader.
struct HeapEntry {
    row: ArchivedRow,
    reader: usize,
}

impl<E, I: Iterator<Item = Result<ArchivedRow, E>>> MergeIterator<I> {
    /// Merges these readers. Nothing is read before the first call of `next`.
    #[must_use]
    pub fn new(readers: Vec<I>) -> Self {
        Self { readers, heads: BinaryHeap::new(), duplicates_dropped: 0, started: false, ended: false }
    }

    /// Returns the number of rows dropped so far because an equal row had already been returned.
    #[must_use]
    pub fn duplicates_dropped(&self) -> u64 {
        self.duplicates_dropped
    }

    fn next_row(&mut self) -> Result<Option<ArchivedRow>, E> {
        if !self.started {
            self.started = true;
            for reader in 0..self.readers.len() {
                if let Some(row) = self.readers[reader].next() {
                    self.heads.push(HeapEntry { row: row?, reader });
                }
            }
        }
        let Some(head) = self.heads.peek_mut() else { return Ok(None) };
        let row = advance(&mut self.readers, head)?;
        while let Some(head) = self.heads.peek_mut() {
            if head.row.cmp_identity(&row).is_ne() {
                // The heap is not sifted, because nothing was changed.
                break;
            }
            advance(&mut self.readers, head)?;
            self.duplicates_dropped += 1;
        }
        Ok(Some(row))
    }
}

/// Replaces the lowest row by the next one of its reader and returns it, so that the heap is sifted once.
fn advance<E, I: Iterator<Item = Result<ArchivedRow, E>>>(
    readers: &mut [I],
    mut head: PeekMut<'_, HeapEntry>,
) -> Result<ArchivedRow, E> {
    match readers[head.reader].next() {
        Some(row) => Ok(std::mem::replace(&mut head.row, row?)),
        None => Ok(PeekMut::pop(head).row),
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

// `BinaryHeap` pops its greatest entry: the ordering is reversed, so that this is the lowest row and, of equal rows,
// the one of the first reader.
impl Ord for HeapEntry {
    fn cmp(&self, other: &Self) -> Ordering {
        other.row.cmp_identity(&self.row).then_with(|| other.reader.cmp(&self.reader))
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
