//! Items of any table of the stack: by key, by query and by scan, of the table or of one of its indexes.
//! [`read_page`], [`read_item`]
//!
//! Every call has a time limit, and every page a limit of items: a table of any size is read page by page.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, KeySchemaElement, TableDescription};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use millrace_local::template::{AttributeType, KeyDefinition, SecondaryIndex, TableResource};
use millrace_shared::error_chain::error_chain;
use millrace_shared::number;
use millrace_shared::raw_item::RawItem;

/// The maximum number of tables that are listed.
const TABLES: i32 = 100;
/// The maximum number of items of a page.
const ITEMS: i32 = 25;
/// The time limit of a call.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// A condition on the sort key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum SortCondition {
    #[default]
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Between,
    BeginsWith,
}

impl SortCondition {
    pub(crate) const ALL: [Self; 7] = [
        Self::Equal,
        Self::Less,
        Self::LessOrEqual,
        Self::Greater,
        Self::GreaterOrEqual,
        Self::Between,
        Self::BeginsWith,
    ];

    /// Returns the name in the page's address.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "eq",
            Self::Less => "lt",
            Self::LessOrEqual => "le",
            Self::Greater => "gt",
            Self::GreaterOrEqual => "ge",
            Self::Between => "between",
            Self::BeginsWith => "begins-with",
        }
    }

    /// Returns the label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::Less => "<",
            Self::LessOrEqual => "≤",
            Self::Greater => ">",
            Self::GreaterOrEqual => "≥",
            Self::Between => "between",
            Self::BeginsWith => "begins with",
        }
    }

    fn expression(self) -> &'static str {
        match self {
            Self::Equal => "#s = :s",
            Self::Less => "#s < :s",
            Self::LessOrEqual => "#s <= :s",
            Self::Greater => "#s > :s",
            Self::GreaterOrEqual => "#s >= :s",
            Self::Between => "#s BETWEEN :s AND :e",
            Self::BeginsWith => "begins_with(#s, :s)",
        }
    }

    /// Parses a name; an empty text is [`SortCondition::Equal`].
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() { Some(Self::Equal) } else { Self::ALL.into_iter().find(|own| own.as_str() == text) }
    }
}

/// The selection of a page's items, as a person enters it: keys as text, each of the type of its attribute.
#[derive(Debug, Clone, Default)]
pub(crate) struct ItemSelection {
    /// The index; empty for the table itself.
    pub(crate) index: String,
    /// The partition key; empty for a scan.
    pub(crate) partition: String,
    pub(crate) condition: SortCondition,
    /// The sort key; empty for all items of the partition.
    pub(crate) sort: String,
    /// The upper end of [`SortCondition::Between`].
    pub(crate) sort_end: String,
    /// Whether a query returns the highest sort key first.
    pub(crate) descending: bool,
    /// The key after which the page begins, in DynamoDB JSON; empty for the first page.
    pub(crate) after: String,
}

/// A page of items.
#[derive(Debug, Default)]
pub(crate) struct ItemPage {
    pub(crate) items: Vec<RawItem>,
    /// The key after which the next page begins, in DynamoDB JSON.
    pub(crate) next: Option<String>,
}

/// Why items cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ItemError {
    /// The input is not valid: what to correct.
    Invalid(String),
    /// The table does not exist.
    Gone(String),
    /// The engine does not respond, or fails.
    Failed(String),
}

impl std::fmt::Display for ItemError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invalid(reason) | Self::Gone(reason) | Self::Failed(reason) => f.write_str(reason),
        }
    }
}

/// A key that is queried.
struct QueryKey {
    partition: (String, AttributeValue),
    sort: Option<(String, AttributeValue)>,
    sort_end: Option<AttributeValue>,
}

/// Returns the names of the tables, in order, at most 100.
///
/// # Errors
/// [`ItemError::Failed`] if the engine does not respond.
pub(crate) async fn list_tables(client: &Client) -> Result<Vec<String>, ItemError> {
    let listed = within("the tables cannot be listed", client.list_tables().limit(TABLES).send()).await?;
    Ok(listed.table_names.unwrap_or_default())
}

/// Describes a table.
///
/// # Errors
/// [`ItemError::Gone`] if it does not exist, [`ItemError::Failed`] if the engine does not respond.
pub(crate) async fn describe(client: &Client, name: &str) -> Result<TableResource, ItemError> {
    let failed = format!("table {name} cannot be described");
    let described = within(&failed, client.describe_table().table_name(name).send()).await?;
    described.table.map(resource).ok_or_else(|| ItemError::Failed(format!("{failed}: the response is empty")))
}

fn resource(table: TableDescription) -> TableResource {
    let keys = |schema: &[KeySchemaElement]| {
        let key = |key: &KeySchemaElement| {
            let (name, role) = (key.attribute_name().to_owned(), key.key_type().as_str().to_owned());
            KeyDefinition { name, role }
        };
        schema.iter().map(key).collect::<Vec<_>>()
    };
    let index = |name: Option<&str>, schema: &[KeySchemaElement]| SecondaryIndex {
        name: name.unwrap_or_default().to_owned(),
        keys: keys(schema),
        // Reading does not depend on the projection.
        projection: String::new(),
        non_key_attributes: Vec::new(),
    };
    let attribute = |attribute: &aws_sdk_dynamodb::types::AttributeDefinition| AttributeType {
        name: attribute.attribute_name().to_owned(),
        kind: attribute.attribute_type().as_str().to_owned(),
    };
    let global = table.global_secondary_indexes().iter();
    let local = table.local_secondary_indexes().iter();
    TableResource {
        logical_id: String::new(),
        keys: keys(table.key_schema()),
        attributes: table.attribute_definitions().iter().map(attribute).collect(),
        indexes: global.map(|own| index(own.index_name(), own.key_schema())).collect(),
        local_indexes: local.map(|own| index(own.index_name(), own.key_schema())).collect(),
        ttl_attribute: None,
        stream_view: None,
        name: table.table_name.unwrap_or_default(),
    }
}

/// Returns the type of a key attribute: `S`, `N` or `B`.
pub(crate) fn kind_of<'t>(table: &'t TableResource, name: &str) -> &'t str {
    table.attributes.iter().find(|own| own.name == name).map_or("S", |own| own.kind.as_str())
}

/// Returns the indexes of a table.
pub(crate) fn indexes(table: &TableResource) -> impl Iterator<Item = &SecondaryIndex> {
    table.indexes.iter().chain(&table.local_indexes)
}

/// Returns the keys of the table, or of one of its indexes.
///
/// # Errors
/// [`ItemError::Invalid`] if the table has no such index.
pub(crate) fn keys_of<'t>(table: &'t TableResource, index: &str) -> Result<&'t [KeyDefinition], ItemError> {
    if index.is_empty() {
        return Ok(&table.keys);
    }
    let found = indexes(table).find(|own| own.name == index);
    found.map(|own| own.keys.as_slice()).ok_or_else(|| {
        let names: Vec<&str> = indexes(table).map(|own| own.name.as_str()).collect();
        let names = if names.is_empty() { "the table has none".to_owned() } else { names.join(", ") };
        ItemError::Invalid(format!("table {} has no index {index:?}: choose one of the list ({names})", table.name))
    })
}

/// Converts a text to a key value of this type.
fn key_value(name: &str, kind: &str, text: &str) -> Result<AttributeValue, ItemError> {
    let invalid = |expected: &str| {
        Err(ItemError::Invalid(format!("{name}: {text:?} is not a value of the type {kind}: expected {expected}")))
    };
    match kind {
        "N" => match number::canonical(text) {
            Some(_) => Ok(AttributeValue::N(text.to_owned())),
            None => invalid("a number of at most 38 digits, such as 17"),
        },
        "B" => match BASE64.decode(text) {
            Ok(bytes) => Ok(AttributeValue::B(Blob::new(bytes))),
            Err(_) => invalid("Base64, such as YQ=="),
        },
        _ => Ok(AttributeValue::S(text.to_owned())),
    }
}

/// Returns the key of a query; `None` for a scan.
fn query_key(table: &TableResource, selection: &ItemSelection) -> Result<Option<QueryKey>, ItemError> {
    let keys = keys_of(table, &selection.index)?;
    let [partition, rest @ ..] = keys else { return Ok(None) };
    let sort = rest.first();
    if selection.partition.is_empty() {
        if selection.sort.is_empty() {
            return Ok(None);
        }
        let reason = format!(
            "the sort key has a value, but the partition key {} has none: enter it, or clear the sort key to scan",
            partition.name
        );
        return Err(ItemError::Invalid(reason));
    }
    let value = |key: &KeyDefinition, text: &str| key_value(&key.name, kind_of(table, &key.name), text);
    let mut key = QueryKey {
        partition: (partition.name.clone(), value(partition, &selection.partition)?),
        sort: None,
        sort_end: None,
    };
    if !selection.sort.is_empty() {
        let sort = sort.ok_or_else(|| {
            ItemError::Invalid("there is no sort key: clear its value, or choose another index".to_owned())
        })?;
        if selection.condition == SortCondition::BeginsWith && kind_of(table, &sort.name) == "N" {
            let reason = format!("{} is a number, which has no beginning: choose another condition", sort.name);
            return Err(ItemError::Invalid(reason));
        }
        key.sort = Some((sort.name.clone(), value(sort, &selection.sort)?));
        if selection.condition == SortCondition::Between {
            if selection.sort_end.is_empty() {
                return Err(ItemError::Invalid(format!("{}: between needs a second value", sort.name)));
            }
            key.sort_end = Some(value(sort, &selection.sort_end)?);
        }
    }
    Ok(Some(key))
}

/// Reads a page of items.
///
/// # Errors
/// [`ItemError`]
pub(crate) async fn read_page(
    client: &Client,
    table: &TableResource,
    selection: &ItemSelection,
) -> Result<ItemPage, ItemError> {
    let key = query_key(table, selection)?;
    let after = match selection.after.as_str() {
        "" => None,
        text => Some(RawItem::parse(text).map(RawItem::into_attributes).map_err(|error| {
            ItemError::Invalid(format!("the position of the page is not valid ({error}): start at the first page"))
        })?),
    };
    let index = (!selection.index.is_empty()).then(|| selection.index.clone());
    let failed = format!("table {} cannot be read", table.name);
    let (items, next) = match key {
        None => {
            let scan = client.scan().table_name(&table.name).set_index_name(index).limit(ITEMS);
            let page = within(&failed, scan.set_exclusive_start_key(after).send()).await?;
            (page.items, page.last_evaluated_key)
        }
        Some(key) => {
            let mut condition = "#p = :p".to_owned();
            let query = client.query().table_name(&table.name).set_index_name(index).limit(ITEMS);
            let mut query = query.scan_index_forward(!selection.descending).set_exclusive_start_key(after);
            let (name, value) = key.partition;
            query = query.expression_attribute_names("#p", name).expression_attribute_values(":p", value);
            if let Some((name, value)) = key.sort {
                condition = format!("{condition} AND {}", selection.condition.expression());
                query = query.expression_attribute_names("#s", name).expression_attribute_values(":s", value);
            }
            if let Some(end) = key.sort_end {
                query = query.expression_attribute_values(":e", end);
            }
            let page = within(&failed, query.key_condition_expression(condition).send()).await?;
            (page.items, page.last_evaluated_key)
        }
    };
    let items = items.unwrap_or_default().into_iter().map(RawItem::new).collect();
    let next = next.filter(|key| !key.is_empty()).map(|key| RawItem::new(key).encode());
    Ok(ItemPage { items, next })
}

/// Returns the key attributes of an item in DynamoDB JSON.
pub(crate) fn key_of(table: &TableResource, item: &RawItem) -> String {
    let attribute = |key: &KeyDefinition| Some((key.name.clone(), item.get(&key.name)?.clone()));
    RawItem::new(table.keys.iter().filter_map(attribute).collect()).encode()
}

/// Parses a key in DynamoDB JSON, and checks it against the table.
///
/// # Errors
/// [`ItemError::Invalid`], which names the attribute and shows an example.
pub(crate) fn parse_key(table: &TableResource, text: &str) -> Result<HashMap<String, AttributeValue>, ItemError> {
    let invalid = |reason: String| {
        let example = example_key(table);
        ItemError::Invalid(format!("the key {reason}: expected DynamoDB JSON such as {example}"))
    };
    let item = RawItem::parse(text).map_err(|error| invalid(format!("is {error}")))?;
    for key in &table.keys {
        let kind = kind_of(table, &key.name);
        let found = match item.get(&key.name) {
            None => return Err(invalid(format!("has no attribute {:?}", key.name))),
            Some(AttributeValue::S(_)) => "S",
            Some(AttributeValue::N(_)) => "N",
            Some(AttributeValue::B(_)) => "B",
            Some(_) => "",
        };
        if found != kind {
            return Err(invalid(format!("has another type of {:?} than {kind}", key.name)));
        }
    }
    let attributes = item.into_attributes();
    match attributes.keys().find(|name| !table.keys.iter().any(|key| key.name == **name)) {
        Some(other) => Err(invalid(format!("has the attribute {other:?}, which is not part of it"))),
        None => Ok(attributes),
    }
}

/// Returns a key of the table as an example.
pub(crate) fn example_key(table: &TableResource) -> String {
    let value = |kind: &str| match kind {
        "N" => AttributeValue::N("1".to_owned()),
        "B" => AttributeValue::B(Blob::new("a")),
        _ => AttributeValue::S("ada".to_owned()),
    };
    let attribute = |key: &KeyDefinition| (key.name.clone(), value(kind_of(table, &key.name)));
    RawItem::new(table.keys.iter().map(attribute).collect()).encode()
}

/// Reads one item; `None` if there is none.
///
/// # Errors
/// [`ItemError`]
pub(crate) async fn read_item(
    client: &Client,
    table: &TableResource,
    key: HashMap<String, AttributeValue>,
) -> Result<Option<RawItem>, ItemError> {
    let get = client.get_item().table_name(&table.name).set_key(Some(key)).consistent_read(true);
    let found = within(&format!("table {} cannot be read", table.name), get.send()).await?;
    Ok(found.item.map(RawItem::new))
}

/// Writes an item: a new one if `exists` is false, otherwise in place of the one with its key.
///
/// # Errors
/// [`ItemError::Invalid`] if the table rejects the item, or if its key is taken or no longer exists.
pub(crate) async fn put_item(
    client: &Client,
    table: &TableResource,
    item: RawItem,
    exists: bool,
) -> Result<(), ItemError> {
    let function = if exists { "attribute_exists" } else { "attribute_not_exists" };
    let partition = table.keys.first().map(|key| key.name.clone()).unwrap_or_default();
    let put = client.put_item().table_name(&table.name).set_item(Some(item.into_attributes()));
    let put = put.condition_expression(format!("{function}(#p)")).expression_attribute_names("#p", partition);
    match within(&format!("table {} does not accept the item", table.name), put.send()).await {
        Err(ItemError::Invalid(reason)) if reason.contains("ConditionalCheckFailed") => {
            Err(ItemError::Invalid(if exists {
                "the item was deleted in the meantime: create it again".to_owned()
            } else {
                "an item with this key exists already: open it, or choose another key".to_owned()
            }))
        }
        written => written.map(drop),
    }
}

/// Deletes an item.
///
/// # Errors
/// [`ItemError`]
pub(crate) async fn delete_item(
    client: &Client,
    table: &TableResource,
    key: HashMap<String, AttributeValue>,
) -> Result<(), ItemError> {
    let delete = client.delete_item().table_name(&table.name).set_key(Some(key));
    within(&format!("table {} does not delete the item", table.name), delete.send()).await.map(drop)
}

/// Awaits a call for at most [`READ_TIMEOUT`], and classifies its error.
async fn within<T, E, R>(failed: &str, call: impl Future<Output = Result<T, SdkError<E, R>>>) -> Result<T, ItemError>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    let Ok(result) = tokio::time::timeout(READ_TIMEOUT, Box::pin(call)).await else {
        return Err(ItemError::Failed(format!("{failed}: no response within {} s", READ_TIMEOUT.as_secs())));
    };
    result.map_err(|error| match error.as_service_error() {
        None => ItemError::Failed(format!("{failed}: {}", error_chain(&error))),
        Some(rejected) => {
            let (code, message) = (rejected.code().unwrap_or("unknown error"), rejected.message().unwrap_or_default());
            let reason = format!("{failed}: {code}: {message}");
            match code {
                "ResourceNotFoundException" => ItemError::Gone(reason),
                "ValidationException" | "ConditionalCheckFailedException" => ItemError::Invalid(reason),
                _ => ItemError::Failed(reason),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TableResource {
        let key = |name: &str, role: &str| KeyDefinition { name: name.to_owned(), role: role.to_owned() };
        let kind = |name: &str, kind: &str| AttributeType { name: name.to_owned(), kind: kind.to_owned() };
        TableResource {
            logical_id: String::new(),
            name: "Orders".to_owned(),
            keys: vec![key("shop", "HASH"), key("number", "RANGE")],
            attributes: vec![kind("shop", "S"), kind("number", "N"), kind("digest", "B")],
            indexes: vec![SecondaryIndex {
                name: "by_digest".to_owned(),
                keys: vec![key("digest", "HASH")],
                projection: String::new(),
                non_key_attributes: Vec::new(),
            }],
            local_indexes: Vec::new(),
            ttl_attribute: None,
            stream_view: None,
        }
    }

    fn selection(partition: &str, condition: SortCondition, sort: &str, end: &str) -> ItemSelection {
        let (partition, sort, sort_end) = (partition.to_owned(), sort.to_owned(), end.to_owned());
        ItemSelection { partition, condition, sort, sort_end, ..ItemSelection::default() }
    }

    fn reason(selection: &ItemSelection) -> String {
        query_key(&table(), selection).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn key_has_the_type_of_its_attribute() {
        let key = query_key(&table(), &selection("7", SortCondition::Between, "1", "2")).unwrap().unwrap();
        assert_eq!(key.partition, ("shop".to_owned(), AttributeValue::S("7".to_owned())));
        assert_eq!(key.sort, Some(("number".to_owned(), AttributeValue::N("1".to_owned()))));
        assert_eq!(key.sort_end, Some(AttributeValue::N("2".to_owned())));
        let by_digest =
            ItemSelection { index: "by_digest".to_owned(), ..selection("YQ==", SortCondition::Equal, "", "") };
        let key = query_key(&table(), &by_digest).unwrap().unwrap();
        assert_eq!(key.partition.1, AttributeValue::B(Blob::new("a")));
        assert!(query_key(&table(), &ItemSelection::default()).unwrap().is_none(), "a scan");
    }

    #[test]
    fn invalid_selection_is_named_with_the_fix() {
        use SortCondition::{BeginsWith, Between, Equal};
        for (selection, expected) in [
            (selection("a", Equal, "many", ""), "number: \"many\" is not a value of the type N: expected a number"),
            (selection("", Equal, "1", ""), "the partition key shop has none"),
            (selection("a", Between, "1", ""), "number: between needs a second value"),
            (selection("a", BeginsWith, "1", ""), "number is a number, which has no beginning"),
            (
                ItemSelection { index: "by_size".to_owned(), ..ItemSelection::default() },
                "has no index \"by_size\": choose one of the list (by_digest)",
            ),
            (
                ItemSelection { index: "by_digest".to_owned(), ..selection("*", Equal, "", "") },
                "digest: \"*\" is not a value of the type B: expected Base64",
            ),
            (
                ItemSelection { index: "by_digest".to_owned(), ..selection("YQ==", Equal, "1", "") },
                "there is no sort key",
            ),
        ] {
            assert!(reason(&selection).contains(expected), "{}", reason(&selection));
        }
    }

    #[test]
    fn key_of_the_table_is_parsed_and_others_are_named() {
        assert_eq!(example_key(&table()), r#"{"number":{"N":"1"},"shop":{"S":"ada"}}"#);
        assert!(parse_key(&table(), &example_key(&table())).is_ok());
        for (text, expected) in [
            ("ada", "the key is not a DynamoDB JSON map"),
            (r#"{"shop":{"S":"a"}}"#, "has no attribute \"number\""),
            (r#"{"shop":{"S":"a"},"number":{"S":"1"}}"#, "another type of \"number\" than N"),
            (r#"{"shop":{"S":"a"},"number":{"N":"1"},"x":{"N":"1"}}"#, "the attribute \"x\", which is not part"),
        ] {
            let error = parse_key(&table(), text).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("expected DynamoDB JSON such as"), "{error}");
        }
    }

    #[tokio::test]
    async fn engine_that_is_down_is_named() {
        // A port that was free a moment ago has no listener.
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let client = millrace_local::clients::dynamodb(&format!("http://{free}"));
        let error = read_page(&client, &table(), &ItemSelection::default()).await.unwrap_err();
        assert!(
            matches!(&error, ItemError::Failed(reason) if reason.contains("table Orders cannot be read")),
            "{error}"
        );
    }
}
