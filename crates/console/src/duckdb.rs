//! A DuckDB on this machine, which queries copies of archive objects: [`DuckDbProgram`].
//!
//! A query reads a table that is made from the copies. Before it runs, the program's access to files and to the network is
//! turned off, and it has limits of memory, time and output.

use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The maximum number of rows of a result.
pub(crate) const ROWS: usize = 200;
/// The maximum length of a result, in bytes.
const OUTPUT_BYTES: usize = 1024 * 1024;
/// The time limit of a query, with the reading of the copies.
const QUERY_TIMEOUT: Duration = Duration::from_secs(15);
/// The time limit of a start without a query.
const FIND_TIMEOUT: Duration = Duration::from_secs(5);
/// The programs that are looked for: DuckDB's shell, and a Python that may have its module.
const PROGRAMS: [&str; 2] = ["duckdb", "python3"];

/// Runs the statements of the first argument and prints the rows of the query in the second as JSON, like the shell's
/// mode `json`. Names that occur twice are printed twice.
const PYTHON: &str = "import sys, json, duckdb
connection = duckdb.connect()
connection.execute(sys.argv[1])
rows = connection.execute(sys.argv[2])
names = [json.dumps(column[0]) for column in rows.description]
line = lambda row: '{' + ','.join(name + ':' + json.dumps(value, default=str) for name, value in zip(names, row)) + '}'
print('[' + ',\\n'.join(line(row) for row in rows.fetchall()) + ']')";

/// An installed DuckDB. It runs one query at a time, so that the memory of queries is bounded.
#[derive(Debug, Clone)]
pub(crate) struct DuckDbProgram {
    path: PathBuf,
    idle: Arc<Semaphore>,
}

/// The rows of a query.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct QueryResult {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
    /// Whether the query has more rows than [`ROWS`].
    pub(crate) is_cut: bool,
}

impl DuckDbProgram {
    /// Returns the first installed program that runs a query.
    pub(crate) async fn find() -> Option<Self> {
        for name in PROGRAMS {
            let program = Self::at(name.into());
            let ran = tokio::time::timeout(FIND_TIMEOUT, program.output("SELECT 1", "SELECT 1 AS one")).await;
            if ran.is_ok_and(|output| output.is_ok()) {
                return Some(program);
            }
        }
        None
    }

    /// Uses this program without checking it.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path, idle: Arc::new(Semaphore::new(1)) }
    }

    /// Reserves the program for one query, with the preparation of its data.
    ///
    /// # Errors
    /// Fails if another query is running.
    pub(crate) fn reserve(&self) -> Result<OwnedSemaphorePermit, String> {
        let reserved = Arc::clone(&self.idle).try_acquire_owned();
        reserved.map_err(|_| "another query is running: wait until it has ended, at most 15 s".to_owned())
    }

    /// Runs a query over a table that the statements of `preparation` make. The query has no access to files.
    ///
    /// # Errors
    /// The message of DuckDB, or the limit that was exceeded.
    pub(crate) async fn query(&self, preparation: &str, sql: &str) -> Result<QueryResult, String> {
        let sql = sql.trim().trim_end_matches(';').trim_end();
        if sql.is_empty() {
            return Err("the query is empty: enter a SELECT".to_owned());
        }
        if sql.lines().any(|line| line.trim_start().starts_with('.')) {
            return Err("a line begins with a dot, which is a command of DuckDB's shell: enter SQL".to_owned());
        }
        // As a subquery it is one statement that only reads. The line break ends a comment in its last line.
        let query = format!("SELECT * FROM (\n{sql}\n) LIMIT {}", ROWS + 1);
        let preparation = format!(
            "SET memory_limit = '512MB'; SET threads = 1; {preparation}; SET enable_external_access = false; SET \
             lock_configuration = true"
        );
        let output = tokio::time::timeout(QUERY_TIMEOUT, self.output(&preparation, &query)).await;
        let output = output.map_err(|_| {
            format!("the query has not ended within {} s: choose fewer days, or select less", QUERY_TIMEOUT.as_secs())
        })??;
        parse(&output)
    }

    /// Returns what the program prints. The program ends when the future is dropped.
    async fn output(&self, preparation: &str, query: &str) -> Result<String, String> {
        let is_python = self.path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python"));
        let mut command = Command::new(&self.path);
        if is_python {
            command.args(["-c", PYTHON, preparation, query]);
        } else {
            // Ignores the user's own configuration file.
            command.args(["-init", "/dev/null", "-json", "-c", &format!("{preparation}; {query}")]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let failed = |error: &dyn fmt::Display| format!("{}: {error}", self.path.display());
        let mut child = command.spawn().map_err(|error| failed(&error))?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed(&"no output"));
        };
        // Each pipe is closed after its limit, so that a program that prints more ends.
        let (output, errors) = tokio::try_join!(limited(stdout), limited(stderr)).map_err(|error| failed(&error))?;
        if output.len() > OUTPUT_BYTES {
            return Err("the result has more than 1 MB: select fewer columns or rows".to_owned());
        }
        let status = child.wait().await.map_err(|error| failed(&error))?;
        if status.success() {
            return Ok(String::from_utf8_lossy(&output).into_owned());
        }
        Err(message(&String::from_utf8_lossy(&errors)))
    }
}

/// Reads a pipe up to one byte more than the limit of an output.
async fn limited(pipe: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    pipe.take(OUTPUT_BYTES as u64 + 1).read_to_end(&mut content).await?;
    Ok(content)
}

/// Returns the part of an error that concerns the query: Python prints where in the script it occurred.
fn message(errors: &str) -> String {
    let lines: Vec<&str> = errors.lines().filter(|line| !line.trim().is_empty()).collect();
    let start = lines.iter().rposition(|line| line.contains("Error: ")).unwrap_or_default();
    let text = lines[start..].iter().take(10).copied().collect::<Vec<_>>().join("\n");
    if text.is_empty() { "DuckDB failed without a message".to_owned() } else { text }
}

fn parse(output: &str) -> Result<QueryResult, String> {
    let text = output.trim();
    // The shell prints nothing for a result without rows.
    let text = if text.is_empty() { "[]" } else { text };
    let rows: Vec<JsonRow> = serde_json::from_str(text).map_err(|error| format!("DuckDB's output: {error}"))?;
    let columns = rows.first().map(|row| row.0.iter().map(|(name, _)| name.clone()).collect()).unwrap_or_default();
    let is_cut = rows.len() > ROWS;
    let values = |row: JsonRow| row.0.into_iter().map(|(_, value)| value).collect();
    Ok(QueryResult { columns, rows: rows.into_iter().take(ROWS).map(values).collect(), is_cut })
}

/// A row with its columns in their order, and its values as text.
struct JsonRow(Vec<(String, String)>);

impl<'de> Deserialize<'de> for JsonRow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RowVisitor;
        impl<'de> Visitor<'de> for RowVisitor {
            type Value = JsonRow;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a row")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<JsonRow, A::Error> {
                let mut row = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    let text = serde_json::from_str::<String>(value.get());
                    row.push((name, text.unwrap_or_else(|_| value.get().to_owned())));
                }
                Ok(JsonRow(row))
            }
        }
        deserializer.deserialize_map(RowVisitor)
    }
}

/// Quotes a text as a SQL string.
pub(crate) fn sql_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Returns the SQL that reads the rows of these objects, each row once.
pub(crate) fn rows_sql(paths: &[String], key_names: &[String]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| sql_text(path)).collect();
    let key = |name: &String| {
        // The name of an attribute may be any text: in a JSON path it is quoted.
        let path = format!("$.\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
        format!("Item -> {}", sql_text(&path))
    };
    let mut partition: Vec<String> = key_names.iter().map(key).collect();
    partition.push("Metadata ->> '$.Revision'".to_owned());
    format!(
        "SELECT Item, Metadata\nFROM read_json(\n  [{}],\n  format = 'newline_delimited', columns = {{Item: 'JSON', \
         Metadata: 'JSON'}}\n)\nQUALIFY row_number() OVER (PARTITION BY {}) = 1",
        paths.join(", "),
        partition.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Returns a program that prints a text, or does something else.
    fn program(folder: &tempfile::TempDir, script: &str) -> DuckDbProgram {
        let path = folder.path().join("duckdb");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        DuckDbProgram::at(path)
    }

    #[tokio::test]
    async fn rows_have_their_columns_in_order_and_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let duckdb = program(&folder, r#"echo '[{"b":"<x>","a":1.50,"b":null}]'"#);
        let result = duckdb.query("SELECT 1", "SELECT 1;").await.unwrap();
        assert_eq!(result.columns, ["b", "a", "b"]);
        assert_eq!(result.rows, [["<x>", "1.50", "null"]]);
        let many = vec![r#"{"a":1}"#; ROWS + 1].join(",");
        let result = program(&folder, &format!("echo '[{many}]'")).query("", "SELECT 1").await.unwrap();
        assert_eq!((result.rows.len(), result.is_cut), (ROWS, true));
        assert_eq!(program(&folder, "true").query("", "SELECT 1").await, Ok(QueryResult::default()));
    }

    #[tokio::test]
    async fn query_is_a_subquery_without_access_to_files() {
        let folder = tempfile::tempdir().unwrap();
        let duckdb = program(&folder, r#"printf '[{"sql":"%s"}]' "$(printf '%s' "$5" | tr '\n' ' ')""#);
        let result = duckdb.query("CREATE TABLE t AS SELECT 1", "SELECT 1 -- all;").await.unwrap();
        let sql = &result.rows[0][0];
        assert!(
            sql.contains("enable_external_access = false; SET lock_configuration = true; SELECT * FROM ("),
            "{sql}"
        );
        assert!(sql.ends_with("( SELECT 1 -- all ) LIMIT 201"), "{sql}");
    }

    #[tokio::test]
    async fn invalid_query_and_excessive_result_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let failed = "echo 'Traceback' >&2; echo 'duckdb.ParserException: Parser Error: at \"x\"' >&2; exit 1";
        for (script, sql, expected) in [
            ("true", " ; ", "the query is empty"),
            ("true", "SELECT 1\n .shell ls", "a command of DuckDB's shell"),
            (failed, "x", "Parser Error: at \"x\""),
            ("exit 1", "x", "DuckDB failed without a message"),
            ("echo no", "x", "DuckDB's output: "),
            ("head -c 2000000 /dev/zero", "x", "the result has more than 1 MB"),
        ] {
            let error = program(&folder, script).query("", sql).await.unwrap_err();
            assert!(error.contains(expected) && !error.contains("Traceback"), "{error}");
        }
        let gone = DuckDbProgram::at("/nowhere/duckdb".into()).query("", "x").await.unwrap_err();
        assert!(gone.starts_with("/nowhere/duckdb: "), "{gone}");
    }

    #[test]
    fn one_query_runs_at_a_time() {
        let duckdb = DuckDbProgram::at("duckdb".into());
        let running = duckdb.reserve().unwrap();
        assert!(duckdb.clone().reserve().is_err_and(|reason| reason.starts_with("another query is running: wait")));
        drop(running);
        assert!(duckdb.reserve().is_ok());
    }

    #[test]
    fn names_of_key_attributes_are_quoted() {
        let sql = rows_sql(&["a'b".to_owned()], &["it's \"id\"".to_owned()]);
        assert!(sql.contains("['a''b']") && sql.contains(r#"Item -> '$."it''s \"id\""'"#), "{sql}");
    }
}
