//! The SQL of the page Archive: statements for Athena and DuckDB to copy, with the names and paths of this stack, and a
//! query of a day with an installed DuckDB.

use std::path::Path;

use axum::extract::{Form, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use maud::{Markup, html};
use millrace_archive::{ARCHIVE, ArchiveDay, COMPACTED};
use millrace_local::clients::{ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY};
use serde::Deserialize;

use crate::archive_page::{self, PATH, TITLE};
use crate::archive_reader::ArchiveReader;
use crate::duckdb::{DuckDbProgram, QueryResult, ROWS, rows_sql, sql_text};
use crate::stack_stores::StackOrigin;
use crate::{ConsoleContext, frame};

pub(crate) const QUERY_PATH: &str = "/archive/query";
/// The maximum number and size of the objects that a query reads.
const OBJECTS: usize = 200;
const BYTES: u64 = 32 * 1024 * 1024;
/// The maximum length of a value on the page, in bytes.
const SHOWN_BYTES: usize = 2_000;
/// The table of a query: its name in docs/archive.md.
const TABLE: &str = "expired_items_raw";

/// The form of a query.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct QueryForm {
    token: Option<String>,
    day: String,
    sql: String,
}

/// Renders the SQL to copy, and the box for a query if a DuckDB is installed.
pub(crate) async fn section(context: &ConsoleContext, reader: &ArchiveReader, day: Option<ArchiveDay>) -> Markup {
    let day = day.unwrap_or_else(|| ArchiveDay::from_datetime(context.clock.now()));
    let layouts = layouts(reader).await;
    let (access, location) = match &context.origin {
        StackOrigin::Local(local) => (S3Access::from_endpoint(local.stack.s3_url()), "the S3 server of this machine"),
        // The archive has just been opened with this connection.
        StackOrigin::Deployed(stack) => {
            let connection = stack.connect().await.ok();
            let region = connection.map(|connection| connection.account.region.clone()).unwrap_or_default();
            (S3Access::from_region(&region), "S3 with the credentials of the AWS CLI")
        }
    };
    html! {
        h2 { "Query" }
        @match context.duckdb().await {
            Some(_) => { (query_form(context, &day.to_string(), &example(reader))) }
            None => {
                p.box {
                    "DuckDB is not installed here. With it (for example " code { "pip install duckdb" }
                    "), this page runs queries after the next start of the console."
                }
            }
        }
        details.box open {
            summary { "SQL for DuckDB" }
            p.note { "Reads the objects from " (location) "; needs DuckDB's extension " code { (access.extensions) } "." }
            pre tabindex="0" data-copy="DuckDB" { (duckdb_sql(reader, &access, &layouts)) }
        }
        details.box open {
            summary { "SQL for Athena" }
            p.note {
                "On AWS, in the database that the stack's output " code { "ArchiveDatabaseName" }
                " names. Without a condition on " code { "dt" }
                ", every day is scanned."
            }
            pre tabindex="0" data-copy="Athena" { (athena_sql(reader, day)) }
        }
    }
}

/// Returns the layouts that have objects: a pattern that matches nothing is an error in DuckDB.
async fn layouts(reader: &ArchiveReader) -> Vec<&'static str> {
    let mut found = Vec::new();
    for root in [ARCHIVE, COMPACTED] {
        let listed = reader.store.list_page(&format!("{root}{}/", reader.table), None, 1).await;
        // An unreadable bucket is reported by the listing of the days.
        if listed.is_ok_and(|objects| !objects.is_empty()) {
            found.push(root);
        }
    }
    if found.is_empty() { vec![ARCHIVE] } else { found }
}

/// How DuckDB reads the bucket.
struct S3Access {
    extensions: &'static str,
    /// The members of the secret.
    secret: String,
}

impl S3Access {
    fn from_endpoint(url: &str) -> Self {
        let [key_id, key, region, endpoint] =
            [ACCESS_KEY_ID, SECRET_ACCESS_KEY, REGION, url.trim_start_matches("http://")].map(sql_text);
        let secret = format!(
            "TYPE s3, KEY_ID {key_id}, SECRET {key}, REGION {region},\n  ENDPOINT {endpoint}, URL_STYLE 'path', \
             USE_SSL false"
        );
        Self { extensions: "httpfs", secret }
    }

    /// No credential is written to the page.
    fn from_region(region: &str) -> Self {
        let secret = format!("TYPE s3, PROVIDER credential_chain, REGION {}", sql_text(region));
        Self { extensions: "aws", secret }
    }
}

fn duckdb_sql(reader: &ArchiveReader, access: &S3Access, layouts: &[&str]) -> String {
    let path = |root: &&str| format!("s3://{}/{root}{}/**/*.ndjson.*", reader.store.bucket(), reader.table);
    let paths: Vec<String> = layouts.iter().map(path).collect();
    format!(
        "INSTALL {0};\nLOAD {0};\nCREATE SECRET (\n  {1}\n);\nCREATE VIEW {TABLE} AS\n{2};\n\n{3};",
        access.extensions,
        access.secret,
        rows_sql(&paths, &reader.key_names),
        example(reader)
    )
}

fn athena_sql(reader: &ArchiveReader, day: ArchiveDay) -> String {
    let keys: Vec<String> = reader
        .key_names
        .iter()
        .map(|name| {
            format!("json_extract(line, {}) AS \"{}\"", sql_text(&json_path("$.Item", name)), name.replace('"', "\"\""))
        })
        .collect();
    format!(
        "-- Rows of one day, compacted or not.\nSELECT DISTINCT {}, json_extract_scalar(line, '$.Metadata.Revision') AS \
         revision,\n  json_extract(line, '$.Item') AS item\nFROM {TABLE}\nWHERE dt = '{day}'\nLIMIT 100;\n\n-- Rows in \
         the Parquet files of the task export-parquet.\nSELECT DISTINCT key, revision, removed_at, item\nFROM \
         expired_items\nWHERE dt = '{day}'\nLIMIT 100;",
        keys.join(", ")
    )
}

/// Returns a JSON path of an attribute, whose name may be any text.
fn json_path(parent: &str, name: &str) -> String {
    format!("{parent}[\"{}\"]", name.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Returns a first query: rows per key.
fn example(reader: &ArchiveReader) -> String {
    let name = reader.key_names.first().map_or("", String::as_str);
    let path = format!("$.\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""));
    format!(
        "SELECT Item -> {} AS \"{}\", Metadata ->> '$.RemovedAt' AS removed_at, Item\nFROM {TABLE}\nORDER BY removed_at \
         DESC",
        sql_text(&path),
        name.replace('"', "\"\"")
    )
}

fn query_form(context: &ConsoleContext, day: &str, sql: &str) -> Markup {
    html! {
        form.box method="post" action=(QUERY_PATH) aria-label="Query" {
            (frame::token_field(context))
            div {
                label for="query-day" { "Day" }
                input #query-day type="text" name="day" value=(day) maxlength="10" required;
            }
            label for="query-sql" { "Query in DuckDB's SQL" }
            textarea #query-sql name="sql" rows="6" spellcheck="false" aria-describedby="query-help" required { (sql) }
            p #query-help .note {
                "The table " code { (TABLE) }
                " has the columns " code { "Item" }
                " and " code { "Metadata" }
                ", both JSON. A query sees at most " (OBJECTS)
                " objects of the day, has no access to files, ends after 15 s, and shows at most " (ROWS) " rows."
            }
            button type="submit" { "Run the query" }
        }
    }
}

/// Runs a query over the objects of a day.
pub(crate) async fn run(State(context): State<ConsoleContext>, Form(form): Form<QueryForm>) -> Response {
    if let Err(rejected) = context.guard.check_token(form.token.as_deref()) {
        return rejected.into_response();
    }
    let reader = match archive_page::open(&context).await {
        Ok(reader) => reader,
        Err(failed) => return *failed,
    };
    let Some(duckdb) = context.duckdb().await else {
        return frame::failed(
            StatusCode::CONFLICT,
            PATH,
            TITLE,
            "DuckDB is not installed: install it, and start millrace again.",
        );
    };
    let outcome = match ArchiveDay::parse(&form.day) {
        Some(day) => query(&reader, &duckdb, day, &form.sql).await,
        None => Err(format!("day: {:?} is not a date: expected one such as 2026-11-22", form.day)),
    };
    let status = if outcome.is_ok() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let body = html! {
        nav.pages aria-label="Archive" { a href=(PATH) { "All days" } }
        (query_form(&context, &form.day, &form.sql))
        h2 { "Result" }
        @match &outcome {
            Err(reason) => { div.box.bad role="alert" { pre { (reason) } } }
            Ok((result, note)) => { (rendered(result, note.as_deref())) }
        }
    };
    (status, frame::page(PATH, "Archive query", &body)).into_response()
}

fn rendered(result: &QueryResult, note: Option<&str>) -> Markup {
    html! {
        @if let Some(note) = note { p.box.warn role="status" { (note) } }
        @if result.rows.is_empty() { p.box role="status" { "The query has no rows." } }
        @else {
            p.note role="status" {
                @if result.is_cut {
                    "The first " (ROWS) " rows; there are more."
                } @else {
                    (frame::count(result.rows.len(), "row")) "."
                }
            }
            div.scroll tabindex="0" role="region" aria-label="Rows of the query" { table {
                thead { tr { @for column in &result.columns { th scope="col" { (column) } } } }
                tbody {
                    @for row in &result.rows {
                        tr { @for value in row { td.mono { (frame::cut(value, SHOWN_BYTES)) } } }
                    }
                }
            } }
        }
    }
}

/// Copies the objects of a day to a folder, and runs the query there. The note says what was left out.
async fn query(
    reader: &ArchiveReader,
    duckdb: &DuckDbProgram,
    day: ArchiveDay,
    sql: &str,
) -> Result<(QueryResult, Option<String>), String> {
    let _reserved = duckdb.reserve()?;
    let (objects, has_more) = reader.first_objects(day, OBJECTS).await?;
    let folder = tempfile::Builder::new().prefix("millrace-archive-").tempdir().map_err(|error| error.to_string())?;
    let (mut paths, mut bytes, mut is_cut) = (Vec::new(), 0, has_more);
    for (index, object) in objects.iter().enumerate() {
        if bytes + object.size_bytes > BYTES {
            is_cut = true;
            break;
        }
        bytes += object.size_bytes;
        // Merged in the meantime: its rows are in another object.
        let Some(content) = reader.store.text(&object.key).await.map_err(|error| error.to_string())? else { continue };
        let name = object.key.rsplit('/').next().unwrap_or_default();
        let path = folder.path().join(format!("{index}-{name}"));
        tokio::fs::write(&path, content).await.map_err(|error| format!("{}: {error}", path.display()))?;
        paths.push(display(&path));
    }
    if paths.is_empty() {
        return Err(format!("the archive has no object of {day} that fits into a query: choose another day"));
    }
    let preparation = format!("CREATE TABLE {TABLE} AS {}", rows_sql(&paths, &reader.key_names));
    let result = duckdb.query(&preparation, sql).await?;
    let note = is_cut.then(|| {
        format!(
            "Only the first {} of the day's objects were read ({} KB): the query does not see the others.",
            paths.len(),
            bytes / 1024
        )
    });
    Ok((result, note))
}

fn display(path: &Path) -> String {
    path.display().to_string()
}
