//! Search benchmark over a million rows: the time of each indexed filter through the function's own router and an idle
//! connection, and the server's query plan for it.
//!
//! The server is the installed PostgreSQL, in a separate process. It generates the rows itself; the indexes are those
//! of the migrations.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use fake::locales::{Data, EN};
use millrace_local::postgres::PlannedServer;
use millrace_search::config::SearchConfig;
use millrace_shared::clock::Clock;
use millrace_shared::environment::Environment;
use millrace_shared::postgres::PostgresSettings;
use millrace_sinks::postgres::{PostgresSink, SETTING, migrate};
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;
use tower::ServiceExt;

use super::BenchError;
use crate::report::median;

const ROWS: u32 = 1_000_000;
const QUERIES: u32 = 200;
/// The distance between the name pairs of consecutive rows: a prime, so that no pair is skipped.
const STRIDE: u32 = 245_501;

/// The queries, each with its label. A number in braces is replaced by a smaller number that varies between requests,
/// `given` and `family` by a name of that kind, and `slip` by a family name without its second letter.
const QUERY_STRINGS: [(&str, &str); 21] = [
    ("newest first", "limit=20"),
    ("by status, newest first", "status=s{7}&limit=20"),
    ("by domain, newest first", "email_domain=d{1000}.example.com&limit=20"),
    ("by the beginning of a name", "name_prefix={given}&limit=20"),
    ("by a whole name", "name_prefix={given}%20{family}&limit=20"),
    ("by the beginning of a name, newest first", "name_prefix={given}&sort=updated_at&limit=20"),
    ("by an attribute", "attributes.plan=p{50000}&limit=20"),
    ("by a number in attributes", "attributes.n={1000000}&limit=20"),
    ("by status and attribute", "status=s{7}&attributes.plan=p{50000}&limit=20"),
    ("by the time of the last write", "updated_to=2025-06-1{9}T00:00:00Z&limit=20"),
    ("by the time of creation", "created_from=2025-06-1{9}T00:00:00Z&sort=created_at&limit=20"),
    ("by timestamp", "from={1000000}&sort=timestamp&order=asc&limit=20"),
    ("by expiry", "expires_to=410000{9}000&limit=20"),
    ("by user, from A", "sort=user_id&limit=20"),
    ("by name, from A", "sort=name&limit=20"),
    ("by similarity to a name", "name_like={given}%20{family}&limit=20"),
    ("by similarity to a misspelt name", "name_like={given}%20{slip}&limit=20"),
    ("by similarity to a misspelt name, newest first", "name_like={given}%20{slip}&sort=updated_at&limit=20"),
    ("by similarity to a given name", "name_like={given}&limit=20"),
    ("by similarity to a misspelt family name", "name_like={slip}&limit=20"),
    ("by similarity to a name without matches", "name_like=xylophonist&sort=updated_at&limit=20"),
];

/// Runs the benchmark, and prints the results.
pub(super) async fn measure() -> Result<(), BenchError> {
    let server = PlannedServer::new()?.start().await?;
    let url = server.url();
    let settings = PostgresSettings::parse(SETTING, |name| (name == SETTING).then_some(url.as_str()));
    let settings = settings.map_err(|problems| problems.join(" "))?.ok_or("the server has no URL")?;
    let sink = PostgresSink::new(&settings, None, time::Duration::days(8));
    migrate(sink.database(), Instant::now() + Duration::from_mins(1)).await?;
    let (client, line) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
    tokio::spawn(line);
    let started = Instant::now();
    fill(&client).await?;
    println!("\nsearch: {ROWS} rows, made in {:.0} s", started.elapsed().as_secs_f64());

    let environment = [
        ("AUTH", "none"),
        ("CURSOR_KEYS", "bench:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
        ("POSTGRES_URL", url.as_str()),
    ];
    let environment: Environment =
        environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let app = millrace_search::app(&SearchConfig::parse(&environment)?, None, Clock::system());
    for (what, question) in QUERY_STRINGS {
        let mut times = Vec::new();
        for time in 0..QUERIES {
            times.extend(timed_request(&app, &format!("/search/users?{}", filled(question, time)?)).await?);
            if times.is_empty() {
                break;
            }
        }
        times.sort_by(f64::total_cmp);
        let (answered, p95) = (times.len(), times.get(times.len() * 95 / 100).copied().unwrap_or_default());
        println!("\n  {what}: p50 {:.2} ms, p95 {p95:.2} ms, {answered} answered   ?{question}", median(times));
        for line in explained(&client, &filled(question, 1)?).await? {
            println!("      {line}");
        }
    }
    for path in ["/users/u0000001/summary", "/stats/users"] {
        let mut times = Vec::new();
        for _ in 0..5 {
            times.extend(timed_request(&app, path).await?);
        }
        println!("\n  GET {path}: {} answered, {:.1} ms", times.len(), median(times));
    }
    Ok(())
}

/// Inserts rows as the sink writes them, each with its complete item, not sorted by name. The rows go through all pairs
/// of a given and a family name.
async fn fill(client: &Client) -> Result<(), BenchError> {
    let taken = format!(
        "insert into users (key, user_id, \"timestamp\", revision, name, email, status, attributes, version, created_at, \
        updated_at, changed_at, name_folded, email_folded, item) select jsonb_build_object('timestamp', \
        jsonb_build_object('N', \"timestamp\"::text), 'user_id', jsonb_build_object('S', user_id))::text, user_id, \
        \"timestamp\", '\\x01', name, email, status, attributes, 1, at, at, at, lower(name), email, \
        jsonb_strip_nulls(jsonb_build_object('expires_at', case when expires_at is not null then \
        jsonb_build_object('N', expires_at::text) end)) || jsonb_build_object('user_id', jsonb_build_object('S', user_id), 'timestamp', \
        jsonb_build_object('N', \"timestamp\"::text), 'name', jsonb_build_object('S', name), 'email', \
        jsonb_build_object('S', email), 'status', jsonb_build_object('S', status), 'version', \
        jsonb_build_object('N', '1')) from (select 'u' || lpad(n::text, 7, '0') as user_id, n::numeric as \"timestamp\", \
        ($1::text[])[1 + pair / cardinality($2::text[])] || ' ' || ($2::text[])[1 + pair % cardinality($2::text[])] as name, \
        'p' || n || '@d' || n % 1000 || '.example.com' as email, 's' || n % 7 as status, \
        jsonb_build_object('plan', 'p' || n % 50000, 'n', n) as attributes, \
        case when n % 10 = 0 then 4100000000 + n * 10 end as expires_at, to_timestamp(1700000000 + n * 60) as at \
        from (select n, (n::bigint * {STRIDE} % (cardinality($1::text[]) * cardinality($2::text[])))::int as pair \
        from generate_series(1, {ROWS}) as n) as pairs) as made"
    );
    client.execute(&taken, &[&EN::NAME_FIRST_NAME, &EN::NAME_LAST_NAME]).await?;
    client.batch_execute("vacuum analyze users").await?;
    Ok(())
}

/// Returns the query with the placeholders in braces replaced.
fn filled(question: &str, time: u32) -> Result<String, BenchError> {
    // Numbers that are spread out and the same in every run.
    let number = time.wrapping_mul(2_654_435_761) >> 4;
    let one = |names: &[&'static str]| names.get(number as usize % names.len()).copied().unwrap_or_default();
    let mut text = String::new();
    for (index, part) in question.split(['{', '}']).enumerate() {
        match part {
            part if index % 2 == 0 => text.push_str(part),
            "given" => text.push_str(one(EN::NAME_FIRST_NAME)),
            "family" => text.push_str(one(EN::NAME_LAST_NAME)),
            "slip" => text.extend(one(EN::NAME_LAST_NAME).char_indices().filter(|(at, _)| *at != 1).map(|(_, it)| it)),
            below => text.push_str(&(number % below.parse::<u32>()?).to_string()),
        }
    }
    Ok(text)
}

/// Returns the milliseconds until the complete response is received; `None` if the query timed out.
async fn timed_request(app: &Router, path: &str) -> Result<Option<f64>, BenchError> {
    let request = Request::builder().uri(path).body(Body::empty())?;
    let started = Instant::now();
    let response = app.clone().oneshot(request).await?;
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await?;
    let took = started.elapsed().as_secs_f64() * 1_000.0;
    match status {
        StatusCode::GATEWAY_TIMEOUT => Ok(None),
        status if status.is_success() => Ok(Some(took)),
        _ => Err(format!("{path}: {}", String::from_utf8_lossy(&body)).into()),
    }
}

async fn explained(client: &Client, question: &str) -> Result<Vec<String>, BenchError> {
    let now = Clock::system().now().unix_timestamp();
    let (sql, parameters) = millrace_search::statement(question, None, now)?;
    let parameters: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|text| text as _).collect();
    let rows = client.query(&format!("explain (costs off) {sql}"), &parameters).await?;
    Ok(rows.iter().filter_map(|row| row.try_get(0).ok()).collect())
}
