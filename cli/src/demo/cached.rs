//! Demo of the cache, if there is one: reads that it serves, and how soon a write invalidates an entry.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::api_client::{ApiClient, ApiResponse};
use super::report::DemoReport;
use super::stores::StoreInspector;
use super::{DemoError, DemoState};
use millrace_local::stack::LocalStack;

/// Time limit within which a write by any program must be visible to reads.
const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(1);
/// Time limit after which the demo continues without the write; the check then fails.
const GIVES_UP_AFTER: Duration = Duration::from_secs(5);

pub(super) async fn show(
    report: &mut DemoReport,
    stack: &LocalStack,
    stores: &StoreInspector,
    browser: &ApiClient,
    state: &DemoState,
) -> Result<(), DemoError> {
    if stack.cache_url().is_none() {
        return Ok(());
    }
    report.heading("Ada is read from the cache, and from the table after every write");
    let timestamp = state.ada.first().map_or(0, ApiResponse::timestamp);
    let path = format!("/users/ada/{timestamp}");
    let read = async |report: &mut DemoReport| {
        let response = browser.send("GET", &path, "", "").await?;
        report.show(
            &response.request,
            &format!("{} {}, from the {}", response.status, name(&response), source(&response)),
        );
        Ok::<_, DemoError>(response)
    };
    let (first, second) = (read(report).await?, read(report).await?);
    report.check("the first read queries the table, the second is served from the cache", {
        [source(&first), source(&second)] == ["database", "cache"] && name(&first) == name(&second)
    });

    let renamed = r#"{"name":"Ada King"}"#;
    let patched = browser.send("PATCH", &path, "application/merge-patch+json", renamed).await?;
    report.show(&patched.request, &patched.describe());
    let read_after = read(report).await?;
    report.check("a write through the API is visible to the next read", name(&read_after) == "Ada King");
    read(report).await?;

    stores.rename("ada", timestamp, "Ada Lovelace").await?;
    let started = Instant::now();
    let visible = loop {
        let response = browser.send("GET", &path, "", "").await?;
        if name(&response) == "Ada Lovelace" || started.elapsed() > GIVES_UP_AFTER {
            break started.elapsed();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    report.show("write by another program", &format!("visible through the API after {} ms", visible.as_millis()));
    report.check("a write by another program is visible within 1 s", visible <= VISIBILITY_TIMEOUT);
    Ok(())
}

fn json(response: &ApiResponse) -> Value {
    serde_json::from_str(&response.body).unwrap_or_default()
}

fn name(response: &ApiResponse) -> String {
    json(response)["user"]["name"].as_str().unwrap_or_default().to_owned()
}

fn source(response: &ApiResponse) -> String {
    json(response)["source"].as_str().unwrap_or_default().to_owned()
}
