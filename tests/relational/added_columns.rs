//! Columns and constraints that an operator adds to a table: one that no record fits is a misconfiguration, one that a
//! single record does not fit is that record's error.

use millrace_sinks::postgres::PostgresSink;
use millrace_sinks::{FailureKind, Sink as _, SinkOutcome};
use serde_json::json;
use tokio_postgres::Client;

use super::any_table::{TableStore, table_sink};
use super::startup_checks::users_with_plan;
use super::store::{RelationalStore, apply, sink, soon};
use crate::replication::events::{EventBuilder, user};

/// A migrated table without rows, and what creates a sink for it.
struct AddedTo {
    name: &'static str,
    client: Client,
    new_sink: Box<dyn Fn() -> PostgresSink>,
}

/// The table of the users service, and one of another source.
async fn tables() -> [AddedTo; 2] {
    let users = RelationalStore::start().await;
    let orders = TableStore::start(&json!({"name": {"path": "name", "type": "text"}})).await;
    let new_users = move || sink(&users.url);
    let new_orders = move || table_sink(&orders.url, &orders.table);
    [
        AddedTo { name: "users", client: users.client, new_sink: Box::new(new_users) },
        AddedTo { name: "orders", client: orders.client, new_sink: Box::new(new_orders) },
    ]
}

impl AddedTo {
    /// Executes SQL in which `{}` is the table.
    async fn execute(&self, sql: &str) {
        let sql = sql.replace("{}", self.name);
        self.client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

fn named(names: &[&str], first: u64) -> Vec<EventBuilder> {
    (first..).zip(names).map(|(number, name)| EventBuilder::named(&format!("u{number}"), number, name)).collect()
}

/// The reasons of transient failures; a permanent one would be quarantined.
fn held(outcome: &SinkOutcome) -> Vec<&str> {
    let reasons = outcome.failures.iter().map(|failure| match &failure.kind {
        FailureKind::Transient(reason) => reason.as_str(),
        FailureKind::Permanent(reason) => panic!("quarantined: {reason}"),
    });
    reasons.collect()
}

const NOT_NULL: &str = "alter table {} add column team text not null default 'a'; \
    alter table {} alter column team drop default";
const CHECK: &str = "alter table {} add column team text; \
    alter table {} add constraint has_team check (team is not null or item is null) not valid";

#[tokio::test(flavor = "multi_thread")]
async fn added_column_that_fits_no_record_is_named_with_the_fix_and_nothing_is_quarantined() {
    let cases = [
        (NOT_NULL, "column \"team\" must not be null", "alter column \"team\" drop not null"),
        (CHECK, "constraint \"has_team\" on the columns \"item\", \"team\"", "drop constraint \"has_team\""),
        (
            "create table {}_teams (id text primary key); alter table {} add column \"the team\" text default 'none'; \
             alter table {} add constraint known foreign key (\"the team\") references {}_teams not valid",
            "constraint \"known\" on the column \"the team\"",
            "drop constraint \"known\"",
        ),
        (
            "alter table {} add constraint upper_names check (deleted_at is not null or name = upper(name)) not valid",
            "constraint \"upper_names\" on the columns",
            "drop constraint \"upper_names\"",
        ),
    ];
    for (added, column, fix) in cases {
        for is_filled in [false, true] {
            for table in tables().await {
                let sink = (table.new_sink)();
                if is_filled {
                    assert_eq!(apply(&sink, &named(&["Ada", "Bob"], 1)).await.applied, 2);
                }
                table.execute(added).await;
                for sink in [sink, (table.new_sink)()] {
                    let outcome = apply(&sink, &named(&["Cid", "Dan", "Eve"], 11)).await;
                    let reasons = held(&outcome);
                    assert_eq!((outcome.applied, reasons.len()), (0, 3), "{added}: {outcome:?}");
                    for reason in reasons {
                        let is_named = reason.contains(&format!("the table {} rejects every", table.name));
                        assert!(is_named && reason.contains(column) && reason.contains(fix), "{added}: {reason}");
                    }
                }
                // The fix is the statement that the message contains.
                let outcome = apply(&(table.new_sink)(), &named(&["Cid"], 11)).await;
                let (_, statement) = held(&outcome)[0].split_once("run: ").unwrap();
                table.execute(statement).await;
                let sink = (table.new_sink)();
                sink.check().await.unwrap();
                assert_eq!(apply(&sink, &named(&["Cid", "Dan", "Eve"], 11)).await.applied, 3, "{statement}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn added_column_that_rejects_every_row_is_reported_at_the_start() {
    for (added, column) in [
        (NOT_NULL, "column \"team\""),
        (CHECK, "constraint \"has_team\" on the columns \"item\", \"team\""),
        ("alter table {} add check (deleted_at is null)", "on the column \"deleted_at\""),
    ] {
        for table in tables().await {
            table.execute(added).await;
            let error = (table.new_sink)().check().await.unwrap_err().to_string();
            let is_named = error.contains(&format!("the table {} rejects every", table.name));
            assert!(is_named && error.contains(column) && error.contains("run: alter table"), "{error}");
        }
    }
    // A constraint that the items meet is not an error, though an item without attributes would not meet it.
    for table in tables().await {
        assert_eq!(apply(&(table.new_sink)(), &named(&["Ada"], 1)).await.applied, 1);
        table.execute("alter table {} add check (deleted_at is not null or name is not null)").await;
        (table.new_sink)().check().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn constraint_that_only_an_item_without_attributes_violates_does_not_prevent_the_start() {
    for added in [
        "alter table {} add check (deleted_at is not null or name is not null)",
        "alter table {} add check (item is null or item ? 'name')",
        "alter table {} add column plan text generated always as (item->'name'->>'S') stored; \
         alter table {} add check (deleted_at is not null or plan is not null)",
        "create function {}_require() returns trigger language plpgsql as \
         'begin if new.item is not null and new.name is null then raise exception ''no name''; end if; return new; end'; \
         create trigger require before insert on {} for each row execute function {}_require()",
    ] {
        for table in tables().await {
            table.execute(added).await;
            let sink = (table.new_sink)();
            sink.check().await.unwrap_or_else(|error| panic!("{added}: {error}"));
            assert_eq!(apply(&sink, &named(&["Ada"], 1)).await.applied, 1, "{added}");
            (table.new_sink)().check().await.unwrap();
        }
    }
    // The table has no item, but the default of a column that no item gives is rejected.
    for table in tables().await {
        table.execute(CHECK).await;
        assert!((table.new_sink)().check().await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_column_that_no_item_fits_is_named() {
    for table in tables().await {
        let number = "alter table {} add column points int generated always as ((item->'name'->>'S')::int) stored";
        table.execute(number).await;
        let outcome = apply(&(table.new_sink)(), &named(&["Ada", "Bob"], 1)).await;
        for reason in held(&outcome) {
            let is_named = reason.contains(&format!("the table {} rejects every item", table.name));
            assert!(is_named && reason.contains("generated column \"points\""), "{reason}");
            assert!(!reason.contains("Ada") && !reason.contains("Bob"), "{reason}");
        }
        assert_eq!((outcome.applied, outcome.failures.len()), (0, 2));
        // Neighbours that fit show that the record is at fault.
        let outcome = apply(&(table.new_sink)(), &named(&["Ada", "17"], 11)).await;
        assert_eq!((outcome.applied, outcome.failures.len()), (1, 1), "{outcome:?}");
        assert!(matches!(outcome.failures[0].kind, FailureKind::Permanent(_)), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn record_that_does_not_fit_an_added_constraint_is_quarantined_alone_if_others_fit() {
    for table in tables().await {
        table
            .execute("alter table {} add constraint no_bob check (name <> 'Bob'); create unique index on {} (name)")
            .await;
        assert_eq!(apply(&(table.new_sink)(), &named(&["Ada"], 1)).await.applied, 1);
        // Alone in its batch, in a function that has just started.
        for name in ["Bob", "Ada"] {
            let outcome = apply(&(table.new_sink)(), &named(&[name], 11)).await;
            assert!(matches!(outcome.failures[0].kind, FailureKind::Permanent(_)), "{name}: {outcome:?}");
        }
        // Deletes of a table whose items are rejected are applied.
        table.execute("alter table {} add constraint none check (item is null) not valid").await;
        let batch =
            [named(&["Cid"], 21), vec![EventBuilder::deleted("u1", 22), EventBuilder::deleted("u9", 23)]].concat();
        let outcome = apply(&(table.new_sink)(), &batch).await;
        assert_eq!((outcome.tombstones, held(&outcome).len()), (2, 1), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn declared_column_of_the_users_table_that_no_record_fits_is_a_misconfiguration() {
    let store = RelationalStore::start().await;
    let with_plan = |id: &str, number, plan: &str| {
        let mut image = user(id, "1", "Ada");
        image["attributes"] = json!({"M": {"plan": {"S": plan}}});
        EventBuilder::image(id, number, &image.to_string())
    };
    // The items that the table has do not fit the new column either.
    assert_eq!(apply(&store.sink, &[with_plan("a", 1, "pro"), with_plan("b", 2, "free")]).await.applied, 2);
    let new_sink = || sink(&store.url).with_users_table(users_with_plan("bigint"));
    let schema =
        millrace_sinks::postgres::PostgresSchema { users: Some(users_with_plan("bigint")), tables: Vec::new() };
    schema.migrate(store.sink.database(), soon()).await.unwrap();
    let wider = new_sink();
    let outcome = apply(&wider, &[with_plan("c", 3, "pro"), with_plan("d", 4, "free")]).await;
    assert_eq!(held(&outcome).len(), 2);
    for reason in held(&outcome) {
        assert!(reason.contains("no item fits the columns of the table users"), "{reason}");
        assert!(reason.contains("column \"plan\" (bigint)") && reason.contains("remove it from the"), "{reason}");
    }
    // A column that search needs fits every user's record: one that does not is at fault, even alone.
    let mut image = user("e", "1", "Ada");
    image["email"] = json!({"N": "7"});
    let outcome = apply(&wider, &[EventBuilder::image("e", 5, &image.to_string())]).await;
    assert!(matches!(outcome.failures[0].kind, FailureKind::Permanent(_)), "{outcome:?}");
    // Once an item fits, the others are at fault.
    assert_eq!(apply(&wider, &[EventBuilder::named("f", 6, "Fay")]).await.applied, 1);
    for sink in [wider, new_sink()] {
        let outcome = apply(&sink, &[with_plan("g", 7, "pro")]).await;
        assert!(matches!(outcome.failures[0].kind, FailureKind::Permanent(_)), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn record_that_is_too_long_for_an_index_is_at_fault_in_a_table_without_items() {
    let users = RelationalStore::start().await;
    // No compression makes it fit into the page of an index.
    let mut state = 1_u32;
    let mut random = |length: usize| {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'a' + u8::try_from((state >> 16) % 26).unwrap())
        };
        (0..length).map(|_| next()).collect::<String>()
    };
    let user_id = random(2_000);
    let mut item = user(&user_id, "1", "Ada");
    item["status"] = json!({"S": random(1_000)});
    let long = EventBuilder::image(&user_id, 1, &item.to_string());
    let outcome = apply(&users.sink, &[long]).await;
    let [failure] = &outcome.failures[..] else { panic!("{outcome:?}") };
    assert!(matches!(&failure.kind, FailureKind::Permanent(_)), "{:?}", failure.kind);
    assert_eq!(apply(&users.sink, &named(&["Bob"], 2)).await.applied, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn record_that_a_trigger_rejects_fails_alone_and_without_its_values() {
    for table in tables().await {
        let sink = (table.new_sink)();
        table
            .execute(
                "create function {}_refuse() returns trigger language plpgsql as \
                 'begin if new.name = ''Bob'' then raise exception ''bad name %'', new.name; end if; return new; end'; \
                 create trigger refuse before insert or update on {} for each row execute function {}_refuse()",
            )
            .await;
        sink.check().await.unwrap();
        let outcome = apply(&sink, &named(&["Ada", "Bob", "Cleo"], 1)).await;
        assert_eq!(outcome.applied, 2, "{}", table.name);
        let [failure] = &outcome.failures[..] else { panic!("{outcome:?}") };
        let FailureKind::Permanent(reason) = &failure.kind else { panic!("{}: {failure:?}", table.name) };
        assert!(reason.contains("P0001") && !reason.contains("Bob"), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_record_is_located_despite_a_deferrable_unique_constraint_and_triggers() {
    for table in tables().await {
        let sink = (table.new_sink)();
        assert_eq!(apply(&sink, &named(&["Ada"], 1)).await.applied, 1);
        table
            .execute(
                "alter table {} add constraint one_name unique (name) deferrable initially deferred; \
                 create function {}_refuse() returns trigger language plpgsql as \
                 'begin if new.item = jsonb_build_object() then raise exception ''empty''; end if; return new; end'; \
                 create trigger refuse before insert on {} for each row execute function {}_refuse(); \
                 alter table {} add check (name <> 'Bob')",
            )
            .await;
        sink.check().await.unwrap();
        let outcome = apply(&sink, &named(&["Bob"], 2)).await;
        let [failure] = &outcome.failures[..] else { panic!("{outcome:?}") };
        assert!(matches!(&failure.kind, FailureKind::Permanent(_)), "{}: {:?}", table.name, failure.kind);
    }
}
