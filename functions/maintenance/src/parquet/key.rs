//! Key of a Parquet file.
//!
//! ```text
//! parquet/<table>/dt=YYYY-MM-DD/<run>-<part>.parquet
//! ```
//!
//! A run is the set of files that the compacted objects of one day are converted to. Its name is a digest of the keys
//! of these objects, the target size and the schema: the same objects yield the same files, and no other files are ever
//! overwritten.

use std::fmt;

use millrace_archive::ArchiveDay;
use millrace_shared::hash::{Sha256Hasher, to_hex};

/// Prefix of the Parquet files.
pub const PARQUET: &str = "parquet/";
const RUN_DIGITS: usize = 32;
const PART_DIGITS: usize = 5;

/// The parsed key of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParquetKey {
    /// The table that the rows were removed from.
    pub table: String,
    /// The day on which they were removed.
    pub day: ArchiveDay,
    /// The run's name: a digest of its inputs.
    pub run: String,
    /// The index of the file in the run, starting at 0.
    pub part: u32,
}

impl ParquetKey {
    /// Returns the name of the run that is made of these objects, with files of `target_bytes` and the schema that
    /// [`ParquetSchema::describe`](super::ParquetSchema::describe) describes.
    pub fn run_of<'k>(inputs: impl IntoIterator<Item = &'k str>, target_bytes: u64, schema: &str) -> String {
        let mut digest = Sha256Hasher::new();
        digest.update(format!("{schema} {target_bytes}"));
        for key in inputs {
            digest.update([b'\n']);
            digest.update(key);
        }
        let mut run = to_hex(&digest.finish());
        run.truncate(RUN_DIGITS);
        run
    }

    /// Returns the prefix of a day's files.
    #[must_use]
    pub fn prefix(table: &str, day: ArchiveDay) -> String {
        format!("{PARQUET}{table}/dt={day}/")
    }

    /// Parses a key below [`ParquetKey::prefix`]; returns `None` if the key does not have the format of the keys
    /// written here.
    #[must_use]
    pub fn parse(table: &str, day: ArchiveDay, text: &str) -> Option<Self> {
        let name = text.strip_prefix(&Self::prefix(table, day))?.strip_suffix(".parquet")?;
        let (run, part) = name.split_once('-')?;
        let is_digest = run.len() == RUN_DIGITS && run.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_part = part.len() == PART_DIGITS && part.bytes().all(|byte| byte.is_ascii_digit());
        let key = Self { table: table.to_owned(), day, run: run.to_owned(), part: part.parse().ok()? };
        (is_digest && is_part).then_some(key)
    }
}

impl fmt::Display for ParquetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, day, run, part } = self;
        write!(f, "{}{run}-{part:0PART_DIGITS$}.parquet", Self::prefix(table, *day))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_apart_as_it_was_put_together_and_a_foreign_one_is_refused() {
        let day = ArchiveDay::parse("2026-11-22").unwrap();
        let run = ParquetKey::run_of(["a", "b"], 1, "2");
        let key = ParquetKey { table: "Users".to_owned(), day, run, part: 7 };
        let text = key.to_string();
        assert!(text.starts_with("parquet/Users/dt=2026-11-22/") && text.ends_with("-00007.parquet"), "{text}");
        assert_eq!(ParquetKey::parse("Users", day, &text), Some(key));
        for (from, to) in [("-00007", "-7"), ("-00007", "-+0007"), (".parquet", ".orc"), ("Users", "Others")] {
            assert_eq!(ParquetKey::parse("Users", day, &text.replace(from, to)), None, "{from} → {to}");
        }
    }

    #[test]
    fn a_run_is_named_by_what_it_is_made_of_and_how_it_is_cut() {
        let run = ParquetKey::run_of(["a", "b"], 1, "2");
        assert_eq!(run, ParquetKey::run_of(["a", "b"], 1, "2"));
        assert_ne!(run, ParquetKey::run_of(["a", "b"], 2, "2"));
        assert_ne!(run, ParquetKey::run_of(["a"], 1, "2"));
        assert_ne!(run, ParquetKey::run_of(["a", "b"], 1, "2 \"name\" \"name\" text"), "another schema");
    }
}
