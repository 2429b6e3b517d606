//! The page "Break it": switches that break a part of the stack, next to the verify light.
//!
//! Each switch says in a sentence what it simulates, and which guarantee holds nevertheless (docs/GUARANTEES.md).

use std::convert::Infallible;

use axum::extract::{Form, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Redirect, Response};
use futures::stream::{Stream, unfold};
use http::StatusCode;
use maud::{Markup, html};
use millrace_local::fault_switches::{SLOW, SinkFault};
use millrace_local::observer::{ChangeObserver, ChangeVerdict, RING_CAPACITY, SinkTotals};
use millrace_local::template::TableResource;
use millrace_shared::replica_item::ReservedNames;
use serde::Deserialize;
use serde_json::json;
use time::Duration;
use tokio::time::sleep;

use crate::sample_item::SampleItem;
use crate::verify_light::{self, LightState, VerifyRound};
use crate::{LocalContext, frame, live};

const PATH: &str = "/break";
const TITLE: &str = "Break it";
/// The number of records that "deliver again" delivers.
const REDELIVERED: usize = 10;
/// The number of items that "write" writes.
const WRITTEN: i64 = 10;
/// The guarantee that holds while a replica or S3 is broken.
const WAITS: &str = "Guarantee 17: records wait in the stream during an outage.";

/// A form of the page.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct BreakForm {
    token: Option<String>,
    action: String,
    sink: String,
    fault: String,
}

/// The message about the last action, in the page's address.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct BreakMessage {
    done: String,
    /// The number of the last change before the action, as text.
    since: String,
}

impl BreakMessage {
    /// Returns the number of the last change before the action; 0 if there was no action.
    fn position(&self) -> u64 {
        self.since.parse().unwrap_or_default()
    }
}

/// An action of the page, with what it simulates and what holds nevertheless.
struct BreakAction {
    name: &'static str,
    label: &'static str,
    meaning: &'static str,
    /// The guarantee that holds, as docs/GUARANTEES.md numbers it.
    guarantee: &'static str,
    /// The message after the action.
    done: &'static str,
    /// The page to look at then, with its name and what it shows.
    see: (&'static str, &'static str, &'static str),
}

const ACTIONS: [BreakAction; 8] = [
    BreakAction {
        name: "write",
        label: "Write 10 items, twice",
        meaning: "Writes 10 items and changes each of them, so that there is something to break. Every change reaches every replica.",
        guarantee: "Guarantee 1: a replica converges to the state of the source.",
        done: "10 items were written and changed.",
        see: ("/", "Live", "shows each change"),
    },
    BreakAction {
        name: "deliver-again",
        label: "Deliver the last 10 records again",
        meaning: "Lambda may deliver a record more than once, at any time. An old delivery changes nothing: the verdicts are duplicate, stale or superseded.",
        guarantee: "Guarantee 2: a stale delivery changes nothing.",
        done: "The last records were delivered again. Replicas whose column applied is 0 below were not written; a cache only invalidates its entries again.",
        see: ("/", "Live", "shows the verdicts"),
    },
    BreakAction {
        name: "out-of-order",
        label: "Deliver an outdated record",
        meaning: "A delivery is late and arrives after a newer one of the same item. The replica keeps the newer state: the verdict is stale.",
        guarantee: "Guarantee 2: a stale delivery changes nothing.",
        done: "A record older than the state of its item was delivered. Replicas whose column applied is 0 below were not written; a cache only invalidates its entries again.",
        see: ("/", "Live", "shows the verdict"),
    },
    BreakAction {
        name: "poison",
        label: "Write a poison record",
        meaning: "Writes an item that no replica can store, because it has a reserved attribute. The record is quarantined and never lost; its neighbours are replicated.",
        guarantee: "Guarantee 6: a poison record blocks no other record and is not lost.",
        done: "A poison record was written. The light is red until the item is deleted (below) or corrected.",
        see: ("/quarantine", "Quarantine", "shows the record"),
    },
    BreakAction {
        name: "remove-poison",
        label: "Delete the poison item",
        meaning: "Deletes the item of the poison record, as its owner would. The quarantined record stays until it is redriven, which then finds nothing to do.",
        guarantee: "Guarantee 12: a redrive resolves a failure.",
        done: "The item of the poison record was deleted.",
        see: ("/quarantine", "Quarantine", "redrives the record"),
    },
    BreakAction {
        name: "kill",
        label: "Kill the replicator in its next batch",
        meaning: "The process ends in the middle of a batch: half of it is written, nothing is acknowledged. Lambda delivers the whole batch again, and the half that was written becomes duplicates.",
        guarantee: "Guarantee 5: a change is acknowledged only when it is safe.",
        done: "The replicator was killed in the middle of a batch of new items.",
        see: ("/", "Live", "shows the failed delivery and the repeated one"),
    },
    BreakAction {
        name: "expire",
        label: "Expire an item now",
        meaning: "Writes an item whose time to live has passed, and removes it as DynamoDB's TTL does. The replica gets a tombstone, and the archive a row with the item.",
        guarantee: "Guarantee 7: every item that TTL removes is archived, exactly once after deduplication.",
        done: "An item was written and removed by TTL.",
        see: ("/archive", "Archive", "has its row"),
    },
    BreakAction {
        name: "drop-replica",
        label: "Drop the replica",
        meaning: "Deletes the replica's table and creates it empty, as if it were lost. The light becomes red, and the task repair on the page Tasks, with apply, fills it again.",
        guarantee: "Guarantee 16: the task repair removes every persistent difference.",
        done: "The replica is empty.",
        see: ("/tasks", "Tasks", "has the task repair, which fills it with apply"),
    },
];

/// Shows the page.
pub(crate) async fn show(
    State(context): State<LocalContext>,
    axum::extract::Query(message): axum::extract::Query<BreakMessage>,
) -> Response {
    let (Some(observer), Some(maintenance)) = (context.stack.observer(), &context.maintenance) else {
        return frame::failed(
            StatusCode::CONFLICT,
            PATH,
            TITLE,
            "The stack has no maintenance function, or is not observed.",
        );
    };
    let round = verify_light::compare(maintenance).await;
    let light = LightState::decide(None, round.as_ref());
    let done = ACTIONS.iter().find(|action| action.name == message.done);
    let body = html! {
        p.note { "Break a part of the stack and watch the light: it compares every replica with the source continuously." }
        div #light role="status" { (light.render()) }
        noscript { p.note { "Without JavaScript the light does not update itself: reload the page." } }
        @if let Some(BreakAction { done, see: (path, name, what), .. }) = done {
            p.box role="status" { (done) " The page " a href=(path) { (name) } " " (what) "." }
        }
        h2 { "Deliveries" }
        div.scroll #deliveries tabindex="0" role="region" aria-label="Deliveries" {
            (deliveries(observer, message.position()))
        }
        h2 { "What can happen at any time" }
        div.cards { @for action in offered(&context) { (card(&context, action)) } }
        h2 { "Replicas" }
        div.cards { @for totals in observer.totals().iter().filter(|totals| &*totals.sink != live::ARCHIVER) {
            (sink(&context, observer, &totals.sink))
        } }
        h2 { "Everything else" }
        div.cards {
            section.box aria-label="S3" {
                h3 { "S3" }
                p { "While S3 is down, nothing can be archived or quarantined. Lambda delivers the records again until it is back: none is lost." }
                p.note { (WAITS) }
                @let down = observer.switches().is_s3_down();
                p { "State: " @if down { span.verdict.bad { "down" } } @else { span.verdict.good { "works" } } }
                form method="post" action=(PATH) {
                    (frame::token_field(&context))
                    input type="hidden" name="action" value=(if down { "s3-up" } else { "s3-down" });
                    button type="submit" { @if down { "Repair S3" } @else { "Take S3 down" } }
                }
            }
            section.box aria-label="Reset" {
                h3 { "Repair everything" }
                p { "Turns every switch off. Retried batches are then applied within seconds." }
                form method="post" action=(PATH) {
                    (frame::token_field(&context))
                    input type="hidden" name="action" value="reset";
                    button type="submit" { "Turn every switch off" }
                }
            }
        }
    };
    frame::page(PATH, TITLE, &body).into_response()
}

/// Renders the number of verdicts of each sink after a change of this number; all since the start for 0.
fn deliveries(observer: &ChangeObserver, position: u64) -> Markup {
    let sinks = observer.totals();
    let page = observer.after(position, RING_CAPACITY);
    let verdict_count = |sink: &SinkTotals, verdict: ChangeVerdict| {
        if position == 0 {
            return sink.count_of(verdict);
        }
        let all = page.changes.iter().flat_map(|change| &change.verdicts);
        all.filter(|own| own.sink == sink.sink && own.verdict == verdict).count() as u64
    };
    let verdicts = live::shown_verdicts(|verdict| sinks.iter().any(|sink| verdict_count(sink, verdict) > 0));
    html! {
        table {
            caption {
                @if position == 0 { "Verdicts since the start." } @else { "Verdicts since your last action." }
                " Only “applied” and “tombstone” have written."
            }
            thead { tr {
                th scope="col" { "Replica" }
                @for verdict in &verdicts { th.number scope="col" title=(verdict.meaning()) { (verdict.as_str()) } }
            } }
            tbody { @for sink in &sinks { tr {
                th scope="row" { (sink.sink) }
                @for verdict in &verdicts { td.number { (verdict_count(sink, *verdict)) } }
            } } }
        }
    }
}

/// Returns the actions that this stack can perform.
fn offered(context: &LocalContext) -> impl Iterator<Item = &'static BreakAction> {
    let has_ttl = context.stack.source_table().is_some_and(|table| table.ttl_attribute.is_some());
    let has_replica = replica_table(context).is_some();
    ACTIONS.iter().filter(move |action| match action.name {
        "expire" => has_ttl,
        "drop-replica" => has_replica,
        _ => true,
    })
}

fn card(context: &LocalContext, action: &BreakAction) -> Markup {
    html! {
        section.box aria-label=(action.label) {
            h3 { (action.label) }
            p { (action.meaning) }
            p.note { (action.guarantee) }
            form method="post" action=(PATH) {
                (frame::token_field(context))
                input type="hidden" name="action" value=(action.name);
                button type="submit" { (action.label) }
            }
        }
    }
}

/// Returns the state of a replica with this fault, as words after its name.
pub(crate) fn label(fault: SinkFault) -> &'static str {
    match fault {
        SinkFault::Off => "works",
        SinkFault::Refuse => "refuses every write",
        SinkFault::Slow => "is slow",
        SinkFault::CutOff => "is cut off",
        SinkFault::ResponseLost => "loses its responses",
    }
}

fn meaning(fault: SinkFault) -> String {
    match fault {
        SinkFault::Off => "The replica works.".to_owned(),
        SinkFault::Refuse => "The replica refuses every write, such as for missing permissions or throttling.".to_owned(),
        SinkFault::Slow => format!("Each batch takes {} s longer.", SLOW.as_secs()),
        SinkFault::CutOff => "The replica cannot be reached and does not respond.".to_owned(),
        SinkFault::ResponseLost => {
            "The replica writes every change, but its response is lost: the changes are delivered again and become duplicates."
                .to_owned()
        }
    }
}

fn sink(context: &LocalContext, observer: &ChangeObserver, name: &str) -> Markup {
    let current = observer.switches().sink_fault(name);
    let id = format!("fault-{name}");
    html! {
        section.box aria-label=(format!("replica {name}")) {
            h3 { (name) }
            p { (meaning(current)) " While a replica fails, the others go on, and no change is lost: Lambda delivers it again until the replica confirms it." }
            p.note { (WAITS) }
            form.row method="post" action=(PATH) {
                (frame::token_field(context))
                input type="hidden" name="action" value="sink";
                input type="hidden" name="sink" value=(name);
                div {
                    label for=(id) { "State" }
                    select id=(id) name="fault" {
                        @for fault in SinkFault::ALL {
                            option value=(fault.as_str()) selected[fault == current] { (label(fault)) }
                        }
                    }
                }
                button type="submit" { "Set" }
            }
        }
    }
}

/// Performs an action.
pub(crate) async fn act(State(context): State<LocalContext>, Form(form): Form<BreakForm>) -> Response {
    if let Err(rejected) = context.guard.check_token(form.token.as_deref()) {
        return rejected.into_response();
    }
    let since = context.stack.observer().map(|observer| observer.last_number()).unwrap_or_default();
    match perform(&context, &form).await {
        Ok(()) => Redirect::to(&format!("{PATH}?done={}&since={since}", urlencoded(&form.action))).into_response(),
        Err(reason) => frame::failed(StatusCode::CONFLICT, PATH, TITLE, &reason),
    }
}

fn urlencoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string().replace("%2D", "-")
}

async fn perform(context: &LocalContext, form: &BreakForm) -> Result<(), String> {
    let observer = context.stack.observer().ok_or("the stack is not observed")?;
    match form.action.as_str() {
        "write" => write_items(context).await,
        "deliver-again" => observer.redeliver_last(REDELIVERED).await.map(drop).map_err(|error| error.to_string()),
        "out-of-order" => observer.deliver_outdated().await.map(drop).map_err(|error| error.to_string()),
        "poison" => {
            let table = source_table(context)?;
            put(context, table, SampleItem::new(table, "poison", -1, context.clock.now()).poisoned(&reserved(context)?))
                .await
        }
        "remove-poison" => {
            let table = source_table(context)?;
            let item = SampleItem::new(table, "poison", -1, context.clock.now());
            delete(context, table, item).await
        }
        "kill" => {
            observer.switches().kill_next_batch();
            write_items(context).await
        }
        "expire" => expire(context).await,
        "drop-replica" => {
            let table = replica_table(context).ok_or("the stack has no DynamoDB replica")?;
            context.stack.empty_table(table).await.map_err(|error| error.to_string())
        }
        "s3-down" => {
            observer.switches().set_s3_down(true);
            Ok(())
        }
        "s3-up" => {
            observer.switches().set_s3_down(false);
            Ok(())
        }
        "reset" => {
            observer.switches().reset();
            Ok(())
        }
        "sink" => {
            let fault = SinkFault::parse(&form.fault);
            let names = SinkFault::ALL.map(SinkFault::as_str).join(", ");
            let fault = fault.ok_or_else(|| format!("unknown fault {:?}: expected one of {names}", form.fault))?;
            let known = observer.switches().set_sink(&form.sink, fault);
            if known { Ok(()) } else { Err(format!("unknown replica {:?}: reload the page", form.sink)) }
        }
        other => Err(format!("unknown action {other:?}: reload the page")),
    }
}

fn source_table(context: &LocalContext) -> Result<&TableResource, String> {
    context.stack.source_table().ok_or_else(|| "the template does not say which table is the source table".to_owned())
}

/// Returns the variable of the replicator, which all functions share that write replicas.
fn replicator_variable<'c>(context: &'c LocalContext, name: &str) -> Option<&'c String> {
    let mut functions = context.stack.template().functions.iter();
    functions.find(|function| function.name == "replicator")?.environment.get(name)
}

/// Returns the table of the replica that `REPLICA_TABLE` names, if it is a table of the stack.
pub(crate) fn replica_table(context: &LocalContext) -> Option<&TableResource> {
    let name = replicator_variable(context, "REPLICA_TABLE")?;
    context.stack.template().tables.iter().find(|table| table.name == *name)
}

fn reserved(context: &LocalContext) -> Result<ReservedNames, String> {
    let prefix = replicator_variable(context, "RESERVED_PREFIX");
    prefix.map_or_else(|| Ok(ReservedNames::default()), |prefix| ReservedNames::parse(prefix))
}

async fn put(context: &LocalContext, table: &TableResource, item: SampleItem) -> Result<(), String> {
    let put = context.stack.dynamodb().put_item().table_name(&table.name).set_item(Some(item.0)).send();
    put.await.map(drop).map_err(|error| millrace_shared::error_chain::error_chain(&error))
}

async fn delete(context: &LocalContext, table: &TableResource, item: SampleItem) -> Result<(), String> {
    let key = item.0.into_iter().filter(|(name, _)| table.keys.iter().any(|own| own.name == *name)).collect();
    let delete = context.stack.dynamodb().delete_item().table_name(&table.name).set_key(Some(key)).send();
    delete.await.map(drop).map_err(|error| millrace_shared::error_chain::error_chain(&error))
}

async fn write_items(context: &LocalContext) -> Result<(), String> {
    let (table, now) = (source_table(context)?, context.clock.now());
    for version in 1..=2 {
        for number in 1..=WRITTEN {
            let mut item = SampleItem::new(table, &number.to_string(), number, now);
            let changed =
                aws_sdk_dynamodb::types::AttributeValue::S(format!("Sample {number}, version {version} of {now}"));
            item.0.insert("name".to_owned(), changed);
            put(context, table, item).await?;
        }
    }
    Ok(())
}

async fn expire(context: &LocalContext) -> Result<(), String> {
    let (table, now) = (source_table(context)?, context.clock.now());
    let attribute =
        table.ttl_attribute.as_deref().ok_or("the source table has no TTL attribute: set it with --ttl-attribute")?;
    let item = SampleItem::new(table, "expired", 0, now).expiring(attribute, now - Duration::MINUTE);
    put(context, table, item).await?;
    context.stack.run_ttl_sweep().await.map(drop).map_err(|error| error.to_string())
}

/// Sends the state of the light and the verdicts, until the page is closed or the console stops.
pub(crate) async fn light(
    State(context): State<LocalContext>,
    axum::extract::Query(message): axum::extract::Query<BreakMessage>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let position = message.position();
    let stream = unfold((context, None::<VerifyRound>), move |(context, before)| async move {
        sleep(verify_light::EVERY).await;
        let maintenance = context.maintenance.as_ref().filter(|_| !*context.stopped.borrow())?;
        let round = verify_light::compare(maintenance).await;
        let state = LightState::decide(before.as_ref(), round.as_ref());
        let deliveries = context.stack.observer().map(|observer| deliveries(observer, position).0);
        let update = json!({"light": state.render().0, "deliveries": deliveries});
        let event = Event::default().event("light").data(update.to_string());
        Some((Ok(event), (context, round.ok())))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}
