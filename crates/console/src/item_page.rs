//! The page of one item of a table: the item in both notations, and the forms that change, create and delete it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Query, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};
use millrace_local::template::TableResource;
use millrace_shared::raw_item::{MAX_ITEM_BYTES, RawItem};
use serde::Deserialize;

use crate::item_text::{ItemNotation, plain_losses};
use crate::table_items::{self, ItemError, example_key, key_of, parse_key};
use crate::{LocalContext, frame, key, tables};

pub(crate) const PATH: &str = "/tables/item";
const TITLE: &str = "Item";
/// The maximum length of a form, in bytes: that of an item, of which each byte may be escaped in JSON and in the form.
pub(crate) const FORM_BYTES: usize = 8 * 1024 * 1024;

/// The item in the page's address.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ItemQuery {
    table: String,
    key: String,
    view: String,
    /// `saved` after a change.
    done: String,
}

/// A form of the page.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ItemForm {
    token: Option<String>,
    table: String,
    /// The key of the item that is changed; empty for a new one.
    key: String,
    /// The fingerprint of the item that was shown.
    shown: String,
    view: String,
    item: String,
}

/// Returns the link to an item's page; without a key, that to the form for a new item.
pub(crate) fn href(table: &str, key: &str, notation: ItemNotation) -> String {
    let mut fields = vec![("table", table)];
    fields.extend((!key.is_empty()).then_some(("key", key)));
    fields.extend((notation != ItemNotation::default()).then_some(("view", notation.as_str())));
    frame::href(PATH, &fields)
}

/// Returns a text that changes with every attribute of the item. It is only compared within this process.
fn fingerprint(item: &RawItem) -> String {
    let mut hasher = DefaultHasher::new();
    item.encode().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Shows the page.
pub(crate) async fn show(State(context): State<LocalContext>, Query(query): Query<ItemQuery>) -> Response {
    let client = context.stack.dynamodb();
    let table = match table_items::describe(&client, &query.table).await {
        Ok(table) => table,
        Err(error) => return tables::failed(&error),
    };
    let notation = ItemNotation::parse(&query.view);
    let text = query.key.trim();
    if text.is_empty() {
        let body = html! {
            (head(&table, "", notation))
            (create(&context, &table, notation, &example(&table, notation)))
        };
        return frame::page(tables::PATH, "New item", &body).into_response();
    }
    let found = match parse_key(&table, text) {
        Ok(key) => match table_items::read_item(&client, &table, key.clone()).await {
            Ok(found) => Ok((RawItem::new(key), found)),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    let item = match found {
        Ok((_, Some(item))) => item,
        Ok((key, None)) => {
            let body = html! {
                (head(&table, text, notation))
                p.box role="status" {
                    "Table " (table.name) " has no item with the key " code { (text) } ". It can be created here."
                }
                (create(&context, &table, notation, &notation.format(&key)))
            };
            return (StatusCode::NOT_FOUND, frame::page(tables::PATH, TITLE, &body)).into_response();
        }
        Err(ItemError::Invalid(reason)) => {
            let body = html! {
                (head(&table, "", notation))
                (frame::problem(&reason))
                form.row method="get" action=(PATH) role="search" {
                    input type="hidden" name="table" value=(table.name);
                    div.wide {
                        label for="key" { "Key in DynamoDB JSON" }
                        input #key type="text" name="key" value=(text) required;
                    }
                    button type="submit" { "Open" }
                }
            };
            return (StatusCode::BAD_REQUEST, frame::page(tables::PATH, TITLE, &body)).into_response();
        }
        Err(error) => return tables::failed(&error),
    };
    let own = key_of(&table, &item);
    let body = html! {
        (head(&table, &own, notation))
        @if query.done == "saved" { p.box.good role="status" { "The item was saved." } }
        (edit(&context, &table, &item, notation))
        (delete(&context, &table, &own))
    };
    frame::page(tables::PATH, TITLE, &body).into_response()
}

/// Renders the links of the page: back to the table, the other notation, and the key in every store.
fn head(table: &TableResource, own: &str, notation: ItemNotation) -> Markup {
    html! {
        @if !own.is_empty() { p.mono { (own) } }
        nav.pages aria-label="Item" {
            a href=(tables::href(&table.name)) { "All items of " (table.name) }
            @for other in ItemNotation::ALL.into_iter().filter(|other| *other != notation) {
                a href=(href(&table.name, own, other)) { "Show as " (other.label()) }
            }
            @if !own.is_empty() { a href=(key::href(own)) { "This key in every store" } }
        }
    }
}

/// Returns the text of a new item.
fn example(table: &TableResource, notation: ItemNotation) -> String {
    RawItem::parse(&example_key(table)).map(|item| notation.format(&item)).unwrap_or_default()
}

fn editor(label: &str, text: &str) -> Markup {
    let rows = (text.lines().count() + 2).clamp(8, 40);
    html! {
        label for="item" { (label) }
        textarea #item name="item" rows=(rows) spellcheck="false" aria-describedby="item-help" required {
            (text)
        }
        p #item-help .note { "At most " (MAX_ITEM_BYTES / 1024) " KB. Numbers keep all their digits." }
    }
}

fn create(context: &LocalContext, table: &TableResource, notation: ItemNotation, text: &str) -> Markup {
    html! {
        form method="post" action=(PATH) {
            (frame::token_field(context))
            input type="hidden" name="table" value=(table.name);
            input type="hidden" name="view" value=(notation.as_str());
            (editor(&format!("New item of {} in {}", table.name, notation.label()), text))
            button type="submit" { "Create" }
        }
    }
}

/// Renders the form of an item that exists. `shown` is the fingerprint of the item that the person sees.
fn change(
    context: &LocalContext,
    table: &TableResource,
    own: &str,
    shown: &str,
    notation: ItemNotation,
    text: &str,
) -> Markup {
    html! {
        form method="post" action=(PATH) {
            (frame::token_field(context))
            input type="hidden" name="table" value=(table.name);
            input type="hidden" name="key" value=(own);
            input type="hidden" name="shown" value=(shown);
            input type="hidden" name="view" value=(notation.as_str());
            (editor(&format!("Item in {}", notation.label()), text))
            button type="submit" { "Save" }
        }
    }
}

/// Renders an item, as a form unless its notation cannot express it.
fn edit(context: &LocalContext, table: &TableResource, item: &RawItem, notation: ItemNotation) -> Markup {
    let own = key_of(table, item);
    let lost = if notation == ItemNotation::Plain { plain_losses(item) } else { Vec::new() };
    html! {
        p.note { (item.size_bytes()) " bytes" @if tables::role(context, &table.name) == Some("replica") {
            ". This table is a replica: a change here makes it differ from the source, which the verify light "
            "and the task "
            code {
                "verify"
            }
            " report"
        } "." }
        @if lost.is_empty() { (change(context, table, &own, &fingerprint(item), notation, &notation.format(item))) }
        @else {
            p.box { "Plain JSON cannot express " (lost.join(", ")) " (sets or binary data): "
                a href=(href(&table.name, &own, ItemNotation::DynamoDb)) { "edit the item as DynamoDB JSON" } "." }
            pre tabindex="0" role="region" aria-label="Item in plain JSON" { (notation.format(item)) }
        }
    }
}

fn delete(context: &LocalContext, table: &TableResource, own: &str) -> Markup {
    html! {
        details.box {
            summary { "Delete the item" }
            form method="post" action=(format!("{PATH}/delete")) {
                (frame::token_field(context))
                input type="hidden" name="table" value=(table.name);
                input type="hidden" name="key" value=(own);
                p { "The deletion is a change like any other: every replica gets a tombstone. It cannot be undone." }
                button type="submit" { "Delete this item" }
            }
        }
    }
}

/// Saves an item.
pub(crate) async fn save(State(context): State<LocalContext>, form: Result<Form<ItemForm>, FormRejection>) -> Response {
    let form = match form {
        Ok(Form(form)) => form,
        Err(rejection) => {
            let reason = format!("the form has more than {} MB, or is not complete ({rejection})", FORM_BYTES >> 20);
            return frame::failed(StatusCode::PAYLOAD_TOO_LARGE, tables::PATH, TITLE, &reason);
        }
    };
    if let Err(rejected) = context.guard.check_token(form.token.as_deref()) {
        return rejected.into_response();
    }
    let client = context.stack.dynamodb();
    let table = match table_items::describe(&client, &form.table).await {
        Ok(table) => table,
        Err(error) => return tables::failed(&error),
    };
    let notation = ItemNotation::parse(&form.view);
    match write(&context, &table, &form, notation).await {
        Ok(key) => {
            let saved = format!("{}&done=saved", href(&table.name, &key, notation));
            Redirect::to(&saved).into_response()
        }
        Err(ItemError::Invalid(reason)) => {
            // The entered text stays in the form.
            let body = html! {
                (head(&table, &form.key, notation))
                (frame::problem(&reason))
                @if form.key.is_empty() { (create(&context, &table, notation, &form.item)) }
                @else { (change(&context, &table, &form.key, &form.shown, notation, &form.item)) }
            };
            (StatusCode::BAD_REQUEST, frame::page(tables::PATH, TITLE, &body)).into_response()
        }
        Err(error) => tables::failed(&error),
    }
}

/// Writes the item of a form and returns its key.
async fn write(
    context: &LocalContext,
    table: &TableResource,
    form: &ItemForm,
    notation: ItemNotation,
) -> Result<String, ItemError> {
    let client = context.stack.dynamodb();
    let item = notation.parse_item(&form.item, table).map_err(ItemError::Invalid)?;
    let own = key_of(table, &item);
    if form.key.is_empty() {
        table_items::put_item(&client, table, item, false).await?;
        return Ok(own);
    }
    let key = parse_key(table, &form.key)?;
    let former = key_of(table, &RawItem::new(key.clone()));
    if own != former {
        let reason = format!(
            "the key of the item is {own}, but the form is for {former}: restore the key, or create another item"
        );
        return Err(ItemError::Invalid(reason));
    }
    match table_items::read_item(&client, table, key).await? {
        Some(stored) if fingerprint(&stored) != form.shown => Err(ItemError::Invalid(
            "the item was changed after this page was loaded: copy your text, open the item again, and repeat the \
             change"
                .to_owned(),
        )),
        _ => table_items::put_item(&client, table, item, true).await.map(|()| own),
    }
}

/// Deletes an item.
pub(crate) async fn remove(State(context): State<LocalContext>, Form(form): Form<ItemForm>) -> Response {
    if let Err(rejected) = context.guard.check_token(form.token.as_deref()) {
        return rejected.into_response();
    }
    let client = context.stack.dynamodb();
    let deleted = async {
        let table = table_items::describe(&client, &form.table).await?;
        let key = parse_key(&table, &form.key)?;
        table_items::delete_item(&client, &table, key).await
    };
    match deleted.await {
        Ok(()) => Redirect::to(&format!("{}&done=deleted", tables::href(&form.table))).into_response(),
        Err(error) => tables::failed(&error),
    }
}
