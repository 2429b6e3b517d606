//! Several objects read as one: sorted by (key, revision), each row once.
//!
//! Lambda may slice a batch differently when it delivers it again, so a row may stand in more than one object. Objects
//! are sorted inside: one row of each is all that has to be held.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::io::Read;

use super::{ArchivedRow, Damage, Reader};

/// The rows of several objects, in order, without repetitions. It ends at the first damage.
pub struct Merge<R: Read> {
    readers: Vec<Reader<R>>,
    heads: BinaryHeap<Head>,
    started: bool,
    ended: bool,
}

/// The row that a reader has come to.
struct Head {
    row: ArchivedRow,
    reader: usize,
}

impl<R: Read> Merge<R> {
    /// Reads these together; nothing is read before the first row is asked for.
    #[must_use]
    pub fn new(readers: Vec<Reader<R>>) -> Self {
        Self { readers, heads: BinaryHeap::new(), started: false, ended: false }
    }

    fn next_row(&mut self) -> Result<Option<ArchivedRow>, Damage> {
        if !self.started {
            self.started = true;
            for reader in 0..self.readers.len() {
                self.advance(reader)?;
            }
        }
        let Some(Head { row, reader }) = self.heads.pop() else { return Ok(None) };
        self.advance(reader)?;
        while let Some(head) = self.heads.peek()
            && head.row.order(&row).is_eq()
        {
            let reader = head.reader;
            self.heads.pop();
            self.advance(reader)?;
        }
        Ok(Some(row))
    }

    fn advance(&mut self, reader: usize) -> Result<(), Damage> {
        if let Some(row) = self.readers[reader].next() {
            self.heads.push(Head { row: row?, reader });
        }
        Ok(())
    }
}

impl<R: Read> Iterator for Merge<R> {
    type Item = Result<ArchivedRow, Damage>;

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
impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        other.row.order(&self.row).then_with(|| other.reader.cmp(&self.reader))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}
