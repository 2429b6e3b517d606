//! DuckDB on this machine, which queries the archive's Parquet files: its own shell, or a Python with its module.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use millrace_local::child_program::run_program;
use tempfile::TempDir;

/// The DuckDB program that the demo uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DuckDb {
    /// The shell `duckdb`, or `python3` if it has the module, if either is installed.
    #[default]
    Auto,
    /// The shell or the Python at this path.
    At(PathBuf),
    /// No DuckDB: the queries are skipped.
    Off,
}

/// Advice for a machine without DuckDB.
pub(super) const TO_HAVE_IT: &str = "not installed: pip install duckdb, and the demo queries the archive with it";
/// All Parquet files of the archive.
const COLUMNS: &str = "read_parquet('parquet/*/*/*.parquet', hive_partitioning = true)";
/// Prints rows as lines with values separated by tabs, the format of the shell's `list` mode.
const PYTHON: &str = "import sys, duckdb
for row in duckdb.sql(sys.argv[1]).fetchall(): print(*row, sep='\\t')";

impl From<&str> for DuckDb {
    /// Parses `auto`, `off` or a program, without checking that the program is a DuckDB.
    fn from(text: &str) -> Self {
        match text {
            "auto" => Self::Auto,
            "off" => Self::Off,
            // An absolute path, since the program runs in the folder of the Parquet files.
            path if path.contains('/') => Self::At(std::path::absolute(path).unwrap_or_else(|_| path.into())),
            name => Self::At(name.into()),
        }
    }
}

impl DuckDb {
    /// Looks for an installed DuckDB: [`DuckDb::Auto`] becomes the program that is found, or stays unchanged.
    ///
    /// # Errors
    /// Fails if the program that the user named cannot run a query.
    pub fn found(self) -> Result<Self, String> {
        let runs_query = |program: &Path| run_sql(program, ".", "select 1").map(drop);
        match self {
            Self::Off => Ok(Self::Off),
            Self::At(program) => runs_query(&program).map(|()| Self::At(program)),
            Self::Auto => {
                let mut usual = ["duckdb", "python3"].into_iter().map(PathBuf::from);
                Ok(usual.find(|program| runs_query(program).is_ok()).map_or(Self::Auto, Self::At))
            }
        }
    }
}

/// A copy of the archive's Parquet files in a folder, with the paths that they have in the bucket.
pub(super) struct ParquetCopy(TempDir);

impl ParquetCopy {
    /// Writes the files.
    ///
    /// # Errors
    /// Fails with the error of the operating system.
    pub(super) fn write(objects: &[(String, Vec<u8>)]) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("millrace-columns-").tempdir()?;
        for (key, bytes) in objects {
            let path = folder.path().join(key);
            fs::create_dir_all(path.parent().unwrap_or(folder.path()))?;
            fs::write(path, bytes)?;
        }
        Ok(Self(folder))
    }

    /// Returns the rows that `select` finds in the files, as lines with values separated by tabs.
    ///
    /// # Errors
    /// Fails if the program cannot be run, or exits with an error.
    pub(super) fn select(&self, program: &Path, what: &str, rest: &str) -> Result<String, String> {
        run_sql(program, self.0.path(), &format!("select {what} from {COLUMNS} {rest}"))
    }
}

fn run_sql(program: &Path, folder: impl AsRef<Path>, sql: &str) -> Result<String, String> {
    let is_python = program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python"));
    let mut command = Command::new(program);
    if is_python {
        command.args(["-c", PYTHON, sql]);
    } else {
        // Ignore the user's own configuration file.
        command.args(["-init", "/dev/null", "-noheader", "-list", "-separator", "\t", "-c", sql]);
    }
    let done = run_program(&program.display().to_string(), command.current_dir(folder));
    done.map(|done| String::from_utf8_lossy(&done.stdout).trim_end().to_owned()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_duckdb_program_error_names_it() {
        assert_eq!(DuckDb::from("off").found(), Ok(DuckDb::Off));
        let message = DuckDb::from("/nowhere/duckdb").found().unwrap_err();
        assert!(message.starts_with("cannot run /nowhere/duckdb: "), "{message}");
        let columns =
            ParquetCopy::write(&[("parquet/Users/dt=2026-11-22/one.parquet".to_owned(), Vec::new())]).unwrap();
        // A program that runs but is not DuckDB.
        let message = columns.select(Path::new("false"), "1", "").unwrap_err();
        assert!(message.starts_with("false failed (exit status: 1)"), "{message}");
    }
}
