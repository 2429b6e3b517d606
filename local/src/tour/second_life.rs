//! Alan's second life: merged with the rest of the archive, found in it, brought back, replicated, and expired again.

use std::time::Duration;

use serde_json::json;
use serde_json::value::RawValue;
use shared::clock::Clock;
use shared::invocation::Invocation;
use tokio::time::Instant;

use super::browser::{Answer, Browser};
use super::chapters::rows_of;
use super::item::{has, in_words, without_revision};
use super::page::Page;
use super::stores::Stores;
use super::{DRAINED_WITHIN, Told, TourError};
use crate::stack::Stack;

/// Until long after the tour: what was removed today is merged, too.
const TO: &str = "2999-01-01T00:00:00Z";

pub(super) async fn show(
    page: &mut Page,
    stack: &Stack,
    stores: &Stores,
    browser: &Browser,
    told: &Told,
) -> Result<(), TourError> {
    page.heading("Alan is brought back from the archive, and expires again");
    let Some(maintenance) = stack.maintenance() else {
        page.check("the template has the maintenance function", false);
        return Ok(());
    };
    let mut counted = Vec::new();
    for order in [
        json!({"task": "compact", "to": TO}),
        json!({"task": "audit"}),
        json!({"task": "restore", "user": "alan", "extend_seconds": 3_600, "dry_run": false}),
        json!({"task": "columns", "to": TO}),
    ] {
        let order = order.to_string();
        let Ok(payload) = RawValue::from_string(order.clone()) else { continue };
        let (now, minute) = (Clock::system().now(), Duration::from_mins(1));
        let invocation = Invocation::new(now, Instant::now(), minute, "tour".to_owned());
        let answer = Box::pin(maintenance.handle(&payload, &invocation)).await?;
        page.exhibit(&format!("task {order}"), &answer.progress.to_string());
        counted.push(answer.progress);
    }
    drained(stack).await?;
    let timestamp = told.alan.first().map_or(0, Answer::timestamp);
    let source = stores.item(&stores.source, "alan", timestamp).await?;
    let replica = stores.item(&stores.replica, "alan", timestamp).await?;
    for (table, item) in [(&stores.source, &source), (&stores.replica, &replica)] {
        page.exhibit(table, &item.as_ref().map_or_else(|| "nothing".to_owned(), in_words));
    }
    let count = |place: usize, name: &str| counted.get(place).map_or(0, |progress| progress.get(name));
    page.check("the archive is merged, and has a row of all that the replica remembers", {
        count(0, "compact.kept") == 0 && count(1, "audit.found") > 0 && count(1, "audit.missing") == 0
    });
    page.check("what is merged stands in columns, too, for whoever asks in SQL", {
        count(3, "columns.rows") > 0 && count(3, "columns.rows") == count(0, "compact.rows")
    });
    page.check("he is back, and his replica lives above its tombstone", {
        count(2, "restore.restored") == 1 && source.is_some() && replica.as_ref().map(without_revision) == source
    });

    let ended = json!({"expires_at": Clock::system().now().unix_timestamp() - 1}).to_string();
    let path = told.alan.first().map(|answer| answer.path("alan")).unwrap_or_default();
    browser.send("PATCH", &path, "application/merge-patch+json", &ended).await?;
    stack.expire_now().await?;
    drained(stack).await?;
    let rows = rows_of(stores, "alan").await?;
    for (key, _) in &rows {
        page.exhibit("archive", key);
    }
    let replica = stores.item(&stores.replica, "alan", timestamp).await?;
    page.check("his second end is a second fact of the archive", {
        rows.len() == 2 && has(replica.as_ref(), "_expired")
    });
    Ok(())
}

async fn drained(stack: &Stack) -> Result<(), TourError> {
    tokio::time::timeout(DRAINED_WITHIN, stack.drained()).await.map_err(|_| TourError::NotDrained)
}
