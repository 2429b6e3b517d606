//! Demo of replicas that store a part of the items and attributes: the orders without drafts and personal data, in
//! DynamoDB, and in PostgreSQL if the relational tier is on.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use millrace_local::stack::{LocalStack, StackOptions};
use millrace_local::tier::TierServer;
use millrace_maintenance::progress::TaskProgress;
use millrace_shared::postgres::{PostgresDatabase, PostgresSettings};
use millrace_sinks::postgres::SETTING;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::foreign_table::{VERIFY, key, stack_options};
use super::item::{DemoItem, describe, has};
use super::report::DemoReport;
use super::stores::{InspectError, StoreInspector};
use super::task_runner::TaskRunner;
use super::{DemoError, wait_until_drained};

/// The table in PostgreSQL. It may be in a database of the user, so its name says what it is.
const TABLE: &str = "millrace_demo_orders";
/// The time limit of a query of the demo.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
const NAME: &str = "Ada Lovelace";
const EMAIL: &str = "ada@example.com";
const STREET: &str = "12 St James's Square";
/// The order that is a draft, which the filter leaves out.
const DRAFT: u32 = 2;

/// Runs the chapter on a stack of its own.
pub(super) async fn show(report: &mut DemoReport, users: &StackOptions) -> Result<(), DemoError> {
    let has_postgres = users.postgres != TierServer::Off;
    let mut options = StackOptions { postgres: users.postgres.clone(), ..stack_options(users)? };
    options.parameters.insert("Replication".to_owned(), document(has_postgres).to_string());
    let stack = LocalStack::start(options).await?;
    let shown = show_stack(report, &stack).await;
    stack.stop().await;
    shown
}

/// Returns the replication document of the chapter.
fn document(has_postgres: bool) -> Value {
    let filter = json!([{"status": {"S": [{"anything-but": ["draft"]}]}}]);
    let rules = json!({
        "include": ["pk", "sk", "status", "total", "email", "address.city"],
        "hash": {"email": "pii"},
    });
    let mut replicas = vec![
        json!({"name": "masked", "sink": "dynamodb", "table": "OrdersMasked", "where": filter, "attributes": rules}),
    ];
    if has_postgres {
        let columns = json!({
            "amount": {"path": "total", "type": "numeric"},
            "city": {"path": "address.city", "type": "text"},
            "email": {"path": "email", "type": "text"},
        });
        replicas.push(json!({
            "name": "sql", "sink": "postgres", "table": TABLE, "columns": columns,
            "where": filter, "attributes": rules,
        }));
    }
    let secret = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:pii";
    json!({"version": 1, "replicas": replicas, "hash_keys": {"pii": secret}})
}

fn order(number: u32, status: &str) -> DemoItem {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let address = [("city", text("London")), ("street", text(STREET))].map(|(name, value)| (name.to_owned(), value));
    let attributes = [
        ("status", text(status)),
        ("total", AttributeValue::N(format!("{number}9.9"))),
        ("name", text(NAME)),
        ("email", text(EMAIL)),
        ("address", AttributeValue::M(address.into())),
    ];
    let mut order = key(number);
    order.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
    order
}

/// The row of an order in PostgreSQL.
#[derive(Debug, Default)]
struct OrderRow {
    amount: Option<String>,
    city: Option<String>,
    email: Option<String>,
    is_tombstone: bool,
}

/// The stores of the chapter.
struct MaskedStores {
    inspector: StoreInspector,
    postgres: Option<PostgresDatabase>,
}

impl MaskedStores {
    fn new(stack: &LocalStack) -> Result<Self, DemoError> {
        let settings = PostgresSettings::parse(SETTING, |name| stack.postgres_url().filter(|_| name == SETTING));
        let settings = settings.map_err(|problems| InspectError::new("PostgreSQL", problems.join("; ")))?;
        let postgres = settings.map(|settings| settings.database(None, ""));
        Ok(Self { inspector: StoreInspector::new(stack)?, postgres })
    }

    /// Returns the row of an order, if there is one.
    async fn row(&self, number: u32) -> Result<Option<OrderRow>, InspectError> {
        let Some(database) = &self.postgres else { return Ok(None) };
        let key = &json!({"pk": {"S": "customer-1"}, "sk": {"N": number.to_string()}}).to_string();
        let sql: &str =
            &format!("select amount::text, city, email, deleted_at is not null from {TABLE} where key = $1");
        let until = Instant::now() + QUERY_TIMEOUT;
        let query = database.run(until, |session| async move { session.client().query_opt(sql, &[key]).await }).await;
        let row = query.map_err(|error| InspectError::new(TABLE, error.to_string()))?;
        Ok(row.map(|row| {
            let text = |index: usize| row.try_get::<_, Option<String>>(index).unwrap_or_default();
            let is_tombstone = row.try_get(3).unwrap_or_default();
            OrderRow { amount: text(0), city: text(1), email: text(2), is_tombstone }
        }))
    }

    /// Shows an order in all stores, and returns the masked item and the row.
    async fn shown(
        &self,
        report: &mut DemoReport,
        number: u32,
    ) -> Result<(Option<DemoItem>, Option<OrderRow>), DemoError> {
        let StoreInspector { source, replica, .. } = &self.inspector;
        let [original, masked] =
            [self.inspector.item_of(source, key(number)).await?, self.inspector.item_of(replica, key(number)).await?];
        for (table, item) in [(source, &original), (replica, &masked)] {
            report.show(table, &item.as_ref().map_or_else(|| "no item".to_owned(), describe));
        }
        let row = self.row(number).await?;
        let values = match &row {
            _ if self.postgres.is_none() => "off: cargo run -- demo --postgres auto shows the row here".to_owned(),
            None => "no row".to_owned(),
            Some(OrderRow { is_tombstone: true, .. }) => "a tombstone, which the view leaves out".to_owned(),
            Some(OrderRow { amount, city, email, .. }) => {
                let [amount, city, email] = [amount, city, email].map(|value| value.as_deref().unwrap_or("null"));
                format!("amount {amount}, city {city:?}, email {email:?}")
            }
        };
        report.show(&format!("PostgreSQL {TABLE}"), &values);
        Ok((masked, row))
    }
}

async fn show_stack(report: &mut DemoReport, stack: &LocalStack) -> Result<(), DemoError> {
    let stores = MaskedStores::new(stack)?;
    let task_runner = TaskRunner::new(stack)?;
    report.heading("A masked copy of the orders: no drafts, no names and streets, and hashed emails");
    for (number, status) in [(1, "paid"), (DRAFT, "draft"), (3, "paid")] {
        stores.inspector.put(order(number, status)).await?;
    }
    wait_until_drained(stack).await?;
    let (first, row) = stores.shown(report, 1).await?;
    let (draft, draft_row) = stores.shown(report, DRAFT).await?;
    let (third, _) = stores.shown(report, 3).await?;
    report.check("the copy has the hash of the email, and neither the draft, nor a name, nor a street", {
        let email = first.as_ref().and_then(email);
        let is_hash = email.is_some_and(|email| email.len() == 64);
        let copied = first.as_ref().map(describe).unwrap_or_default();
        let is_masked = [NAME, EMAIL, STREET].iter().all(|value| !copied.contains(value));
        is_hash && is_masked && copied.contains("London") && draft.is_none() && draft_row.is_none()
    });
    report.check("equal emails have equal hashes, so that the copy can still be joined", {
        first.as_ref().and_then(email) == third.as_ref().and_then(email)
    });
    if stores.postgres.is_some() {
        report.check("the row in PostgreSQL has the same values in typed columns", {
            row.is_some_and(|row| {
                let values = [row.amount.as_deref(), row.city.as_deref(), row.email.as_deref()];
                values == [Some("19.9"), Some("London"), first.as_ref().and_then(email)]
            })
        });
    }

    report.heading("A paid order becomes a draft again, and leaves the copy");
    stores.inspector.put(order(1, "draft")).await?;
    wait_until_drained(stack).await?;
    let (masked, row) = stores.shown(report, 1).await?;
    report.check("the copy stores a tombstone", {
        let is_gone = stores.postgres.is_none() || row.is_some_and(|row| row.is_tombstone);
        has(masked.as_ref(), "_tombstone_expires_at") && masked.as_ref().and_then(email).is_none() && is_gone
    });
    let found = task_runner.run_task(report, VERIFY).await?;
    report.check("verify masks the orders in the same way, and finds no difference", {
        is_equal(&found, "masked") && (stores.postgres.is_none() || is_equal(&found, "sql"))
    });
    Ok(())
}

fn email(item: &DemoItem) -> Option<&str> {
    item.get("email")?.as_s().ok().map(String::as_str)
}

/// Returns whether `verify` found the one order that is no draft equal in this replica, and no difference anywhere.
fn is_equal(found: &TaskProgress, replica: &str) -> bool {
    let differences = [".missing", ".different", ".resurrected", ".extra", ".quarantined", ".in_flux"];
    found.get(&format!("{replica}.equal")) == 1 && differences.iter().all(|kind| found.sum(kind) == 0)
}
