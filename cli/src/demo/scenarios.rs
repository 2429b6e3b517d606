//! Demo scenarios of updates, deletes, expiry and a poison record: the final state of every user and its checks.

use millrace_shared::metric;
use serde_json::Value;

use super::api_client::{ApiClient, ApiResponse};
use super::item::{DemoItem, describe, has, summarize_row, without_revision};
use super::report::DemoReport;
use super::stores::{InspectError, StoreInspector};
use super::{DemoError, DemoState, EXACT};

/// The final state of a user's item in the source and in the replica.
pub(super) struct FinalState {
    pub(super) source: Option<DemoItem>,
    pub(super) replica: Option<DemoItem>,
}

impl FinalState {
    async fn show(
        report: &mut DemoReport,
        stores: &StoreInspector,
        responses: &[ApiResponse],
        user_id: &str,
    ) -> Result<Self, InspectError> {
        for response in responses {
            report.show(&response.request, &response.describe());
        }
        let timestamp = responses.first().map_or(0, ApiResponse::timestamp);
        Self::read(report, stores, user_id, timestamp).await
    }

    pub(super) async fn read(
        report: &mut DemoReport,
        stores: &StoreInspector,
        user_id: &str,
        timestamp: i64,
    ) -> Result<Self, InspectError> {
        let source = stores.item(&stores.source, user_id, timestamp).await?;
        let replica = stores.item(&stores.replica, user_id, timestamp).await?;
        for (table, item) in [(&stores.source, &source), (&stores.replica, &replica)] {
            report.show(table, &item.as_ref().map_or_else(|| "no item".to_owned(), describe));
        }
        Ok(Self { source, replica })
    }

    /// Returns whether the replica item equals the source item plus a revision.
    pub(super) fn agree(&self) -> bool {
        let replica = self.replica.as_ref();
        has(replica, "_rev") && replica.map(without_revision) == self.source
    }
}

fn statuses(responses: &[ApiResponse]) -> Vec<u16> {
    responses.iter().map(|response| response.status).collect()
}

pub(super) async fn scenario_update(
    report: &mut DemoReport,
    stores: &StoreInspector,
    state: &DemoState,
) -> Result<(), InspectError> {
    report.heading("Ada is created and renamed");
    let ends = FinalState::show(report, stores, &state.ada, "ada").await?;
    report.check("the API created and replaced the user", statuses(&state.ada) == [201, 200]);
    report.check("the replica's item equals the source item and has the new name", {
        let name = ends.replica.as_ref().and_then(|item| item.get("name")?.as_s().ok());
        ends.agree() && name.is_some_and(|name| name == "Ada Lovelace")
    });
    Ok(())
}

pub(super) async fn scenario_patch(
    report: &mut DemoReport,
    stores: &StoreInspector,
    state: &DemoState,
) -> Result<(), InspectError> {
    report.heading("Grace is created and patched");
    let ends = FinalState::show(report, stores, &state.grace, "grace").await?;
    report.check("the API created and patched the user", statuses(&state.grace) == [201, 200]);
    let exact = |item: &DemoItem| describe(item).contains(EXACT);
    report.check(
        "the API returned a number of 38 digits exactly",
        state.grace.last().is_some_and(|last| last.body.contains(EXACT)),
    );
    report.check("the replica stores the number exactly", ends.agree() && ends.replica.as_ref().is_some_and(exact));
    Ok(())
}

pub(super) async fn scenario_delete(
    report: &mut DemoReport,
    stores: &StoreInspector,
    state: &DemoState,
) -> Result<(), InspectError> {
    report.heading("Edsger is created and deleted");
    let ends = FinalState::show(report, stores, &state.edsger, "edsger").await?;
    report.check("the API deleted the user and then returned 404", statuses(&state.edsger) == [201, 204, 404]);
    report.check("the source has no item; the replica has a tombstone that blocks late replays", {
        ends.source.is_none()
            && has(ends.replica.as_ref(), "_tombstone_expires_at")
            && !has(ends.replica.as_ref(), "_deleted_by_ttl")
    });
    report
        .check("an item that was deleted through the API is not archived", rows_of(stores, "edsger").await?.is_empty());
    Ok(())
}

pub(super) async fn scenario_expiry(
    report: &mut DemoReport,
    stores: &StoreInspector,
    state: &DemoState,
) -> Result<(), InspectError> {
    report.heading("Alan expires");
    let ends = FinalState::show(report, stores, &state.alan, "alan").await?;
    let rows = rows_of(stores, "alan").await?;
    for (key, item) in &rows {
        report.show("archive", key);
        report.show("  its row", &summarize_row(item));
    }
    report.check("the API returned 404 as soon as the user had expired", statuses(&state.alan) == [201, 404]);
    report.check("the source has no item; the replica has a tombstone with the reason", {
        ends.source.is_none()
            && has(ends.replica.as_ref(), "_tombstone_expires_at")
            && has(ends.replica.as_ref(), "_deleted_by_ttl")
    });
    report.check("the archive contains one complete row of the user", {
        rows.len() == 1 && rows.iter().all(|(_, item)| item.contains("Alan Turing") && item.contains("expires_at"))
    });
    Ok(())
}

/// Returns the archive rows of a user, each with the key of its object.
pub(super) async fn rows_of(stores: &StoreInspector, user_id: &str) -> Result<Vec<(String, String)>, InspectError> {
    let mut found = Vec::new();
    for (key, rows) in stores.archived().await? {
        let of_the_user = |text: &str| {
            let item: Result<Value, _> = serde_json::from_str(text);
            item.is_ok_and(|item| item["user_id"]["S"] == user_id)
        };
        found.extend(
            rows.iter().filter(|row| of_the_user(row.item.get())).map(|row| (key.clone(), row.item.get().to_owned())),
        );
    }
    Ok(found)
}

pub(super) async fn poison(
    report: &mut DemoReport,
    stores: &StoreInspector,
    state: &DemoState,
) -> Result<(), InspectError> {
    report.heading("Mallory is a poison record, written to the table with an attribute that replication reserves");
    let timestamp = state.ada.first().map_or(0, ApiResponse::timestamp);
    let ends = FinalState::read(report, stores, "mallory", timestamp).await?;
    let quarantined = stores.quarantined().await?;
    for object in &quarantined {
        report.show("quarantine", &object.key);
        report.show("  its reason", object.body["reason"].as_str().unwrap_or_default());
    }
    report.check("the replica does not have the item", ends.source.is_some() && ends.replica.is_none());
    report.check("the quarantine contains the complete record and the reason for each replica, and nothing else", {
        let about_rev = |body: &Value| body["reason"].as_str().is_some_and(|reason| reason.contains("_rev"));
        let of_mallory = |body: &Value| body["record"]["dynamodb"]["Keys"]["user_id"]["S"] == "mallory";
        quarantined.len() == stores.replicas
            && quarantined.iter().all(|object| about_rev(&object.body) && of_mallory(&object.body))
    });
    Ok(())
}

pub(super) async fn scenario_stats(
    report: &mut DemoReport,
    browser: &ApiClient,
    state: &DemoState,
) -> Result<(), DemoError> {
    report.heading("Metrics");
    let metrics = browser.send("GET", "/metrics", "text/plain", "").await?;
    let applied = metric::APPLIED_CHANGES.name();
    for name in [applied, metric::TOMBSTONES.name(), metric::QUARANTINED.name(), metric::ARCHIVED_ROWS.name()] {
        for line in metrics.body.lines().filter(|line| line.starts_with(name)) {
            report.show("GET /metrics", line);
        }
    }
    report.show("first write", &format!("in the replica {} ms after the API's response", state.replicated_ms));
    report.show("total time", &format!("{:.1} s", state.started.elapsed().as_secs_f64()));
    report.check("the metrics count the applied changes", metrics.status == 200 && metrics.body.contains(applied));
    Ok(())
}
