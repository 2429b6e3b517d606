//! DuckDB on this machine, asked about the archive's columns: its own shell, or a Python that has the module.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Which DuckDB the tour asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DuckDb {
    /// The shell `duckdb` or the module of `python3`, if either is there.
    #[default]
    Auto,
    /// This shell, or this Python.
    At(PathBuf),
    /// None.
    Off,
}

/// How to get one.
pub(super) const TO_HAVE_IT: &str = "not on this machine: pip install duckdb, and the tour asks it, too";
/// All files of columns that there are.
const COLUMNS: &str = "read_parquet('parquet/*/*/*.parquet', hive_partitioning = true)";
/// Rows as lines, their values parted by tabs, as the shell prints them in its mode `list`.
const PYTHON: &str = "import sys, duckdb
for row in duckdb.sql(sys.argv[1]).fetchall(): print(*row, sep='\\t')";

impl From<&str> for DuckDb {
    /// Reads `auto`, `off` or a program; whether it is one is seen when it is asked.
    fn from(text: &str) -> Self {
        match text {
            "auto" => Self::Auto,
            "off" => Self::Off,
            // It runs in the folder of what it reads.
            path if path.contains('/') => Self::At(std::path::absolute(path).unwrap_or_else(|_| path.into())),
            name => Self::At(name.into()),
        }
    }
}

impl DuckDb {
    /// Looks for it: [`DuckDb::Auto`] becomes the one that is there, or stays.
    ///
    /// # Errors
    /// The program that was named is none, in one line.
    pub fn found(self) -> Result<Self, String> {
        let answers = |program: &Path| ask(program, ".", "select 1").map(drop);
        match self {
            Self::Off => Ok(Self::Off),
            Self::At(program) => answers(&program).map(|()| Self::At(program)),
            Self::Auto => {
                let mut usual = ["duckdb", "python3"].into_iter().map(PathBuf::from);
                Ok(usual.find(|program| answers(program).is_ok()).map_or(Self::Auto, Self::At))
            }
        }
    }
}

/// The archive's columns, in a folder as they lie in the bucket.
pub(super) struct ParquetCopy(TempDir);

impl ParquetCopy {
    /// Writes them.
    ///
    /// # Errors
    /// The operating system's.
    pub(super) fn of(objects: &[(String, Vec<u8>)]) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("millrace-columns-").tempdir()?;
        for (key, bytes) in objects {
            let path = folder.path().join(key);
            fs::create_dir_all(path.parent().unwrap_or(folder.path()))?;
            fs::write(path, bytes)?;
        }
        Ok(Self(folder))
    }

    /// The rows that `select` finds in them: lines, with a tab between the values. What is wrong instead is one line.
    ///
    /// # Errors
    /// The program cannot be run, or did not do it.
    pub(super) fn select(&self, program: &Path, what: &str, rest: &str) -> Result<String, String> {
        ask(program, self.0.path(), &format!("select {what} from {COLUMNS} {rest}"))
    }
}

fn ask(program: &Path, folder: impl AsRef<Path>, sql: &str) -> Result<String, String> {
    let is_python = program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python"));
    let mut command = Command::new(program);
    if is_python {
        command.args(["-c", PYTHON, sql]);
    } else {
        // Whatever its owner has set up for it.
        command.args(["-init", "/dev/null", "-noheader", "-list", "-separator", "\t", "-c", sql]);
    }
    let done = command.current_dir(folder).stdin(Stdio::null()).output();
    let done = done.map_err(|error| format!("{}: {error}", program.display()))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).trim_end().to_owned());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(format!("{}: {}", program.display(), said.trim().lines().last().unwrap_or("it failed and said nothing")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_none_says_so_by_its_name() {
        assert_eq!(DuckDb::from("off").found(), Ok(DuckDb::Off));
        let said = DuckDb::from("/nowhere/duckdb").found().unwrap_err();
        assert!(said.starts_with("/nowhere/duckdb: "), "{said}");
        let columns = ParquetCopy::of(&[("parquet/Users/dt=2026-11-22/one.parquet".to_owned(), Vec::new())]).unwrap();
        // A program that runs and is no DuckDB.
        assert!(columns.select(Path::new("false"), "1", "").unwrap_err().starts_with("false: "));
    }
}
