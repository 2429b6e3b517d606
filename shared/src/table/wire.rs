//! The JSON of the requests that concern one record, and of their responses.
//!
//! `millrace_dynamodb_client` sends these requests, so their bodies are written and parsed here: once, and without the
//! SDK's types in between where the caller does not need them. The member names are those of DynamoDB's API.

use std::collections::HashMap;
use std::fmt;

use aws_sdk_dynamodb::types::{AttributeValue, Delete, Put, ReturnValue, Update};
use bytes::Bytes;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::error::TableError;
use crate::item::{self, AttributeMap};
use crate::raw_item::AttributesJson;

/// `ReturnConsumedCapacity`: the units of the table and its indexes together.
const TOTAL: &str = "TOTAL";

/// Returns the body of a `GetItem` with strong consistency.
pub(super) fn get_request(table_name: &str, key: &AttributeMap) -> Result<Bytes, TableError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct GetRequest<'a> {
        table_name: &'a str,
        key: AttributesJson<'a>,
        consistent_read: bool,
        return_consumed_capacity: &'static str,
    }
    let key = AttributesJson(key);
    body(&GetRequest { table_name, key, consistent_read: true, return_consumed_capacity: TOTAL })
}

/// A conditional write. If the condition fails, the error contains the existing item.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WriteRequest<'a> {
    table_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<AttributesJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<AttributesJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_expression: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition_expression: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expression_attribute_names: Option<&'a HashMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expression_attribute_values: Option<AttributesJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    return_values: Option<&'a str>,
    return_consumed_capacity: &'static str,
    return_values_on_condition_check_failure: &'static str,
}

impl<'a> WriteRequest<'a> {
    fn new(
        table_name: &'a str,
        condition: Option<&'a str>,
        names: Option<&'a HashMap<String, String>>,
        values: Option<&'a HashMap<String, AttributeValue>>,
    ) -> Self {
        Self {
            table_name,
            item: None,
            key: None,
            update_expression: None,
            condition_expression: condition,
            expression_attribute_names: names,
            expression_attribute_values: values.map(AttributesJson),
            return_values: None,
            return_consumed_capacity: TOTAL,
            return_values_on_condition_check_failure: "ALL_OLD",
        }
    }
}

/// Returns the body of a `PutItem`.
pub(super) fn put_request(put: &Put) -> Result<Bytes, TableError> {
    let (names, values) = (put.expression_attribute_names(), put.expression_attribute_values());
    let request = WriteRequest::new(put.table_name(), put.condition_expression(), names, values);
    body(&WriteRequest { item: Some(AttributesJson(put.item())), ..request })
}

/// Returns the body of an `UpdateItem` that returns these attributes.
pub(super) fn update_request(update: &Update, returned: &ReturnValue) -> Result<Bytes, TableError> {
    let (names, values) = (update.expression_attribute_names(), update.expression_attribute_values());
    let request = WriteRequest::new(update.table_name(), update.condition_expression(), names, values);
    body(&WriteRequest {
        key: Some(AttributesJson(update.key())),
        update_expression: Some(update.update_expression()),
        return_values: Some(returned.as_str()),
        ..request
    })
}

/// Returns the body of a `DeleteItem` that returns the deleted item.
pub(super) fn delete_request(delete: &Delete) -> Result<Bytes, TableError> {
    let (names, values) = (delete.expression_attribute_names(), delete.expression_attribute_values());
    let request = WriteRequest::new(delete.table_name(), delete.condition_expression(), names, values);
    let key = Some(AttributesJson(delete.key()));
    body(&WriteRequest { key, return_values: Some(ReturnValue::AllOld.as_str()), ..request })
}

fn body(request: &impl Serialize) -> Result<Bytes, TableError> {
    serde_json::to_vec(request).map(Bytes::from).map_err(TableError::refused)
}

/// The response to a `GetItem`, whose item is parsed as `T`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct GetResponse<T> {
    pub(super) item: Option<T>,
    consumed_capacity: Option<CapacityJson>,
}

/// The response to a write, whose attributes are parsed as `T`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct WriteResponse<T> {
    pub(super) attributes: Option<T>,
    consumed_capacity: Option<CapacityJson>,
}

/// The attributes of an item, in the SDK's type.
#[derive(Deserialize)]
#[serde(from = "serde_dynamo::Item")]
pub(super) struct AttributesOutput(pub(super) AttributeMap);

impl From<serde_dynamo::Item> for AttributesOutput {
    fn from(item: serde_dynamo::Item) -> Self {
        Self(item.into())
    }
}

/// The item that a write has replaced: its number of attributes, and those that the new record depends on. The others
/// are not parsed.
#[derive(Debug, Default)]
pub(super) struct ReplacedItem {
    pub(super) attributes: usize,
    /// The attributes `version` and `created_at`.
    pub(super) kept: AttributeMap,
}

impl<'de> Deserialize<'de> for ReplacedItem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ReplacedItemVisitor)
    }
}

struct ReplacedItemVisitor;

impl<'de> Visitor<'de> for ReplacedItemVisitor {
    type Value = ReplacedItem;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an item")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<ReplacedItem, A::Error> {
        let mut replaced = ReplacedItem::default();
        while let Some(KeptName(name)) = access.next_key()? {
            replaced.attributes += 1;
            if let Some(name) = name {
                let value: serde_dynamo::AttributeValue = access.next_value()?;
                replaced.kept.insert(name.to_owned(), value.into());
            } else {
                access.next_value::<IgnoredAny>()?;
            }
        }
        Ok(replaced)
    }
}

/// The name of an attribute, if its value is kept.
struct KeptName(Option<&'static str>);

impl<'de> Deserialize<'de> for KeptName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeptNameVisitor)
    }
}

struct KeptNameVisitor;

impl Visitor<'_> for KeptNameVisitor {
    type Value = KeptName;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of an attribute")
    }

    fn visit_str<E>(self, name: &str) -> Result<KeptName, E> {
        Ok(KeptName([item::VERSION, item::CREATED_AT].into_iter().find(|kept| *kept == name)))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CapacityJson {
    capacity_units: Option<f64>,
}

impl<T> GetResponse<T> {
    /// Returns the capacity units of the read, or 0 if they are not known.
    pub(super) fn consumed_units(&self) -> f64 {
        units(self.consumed_capacity.as_ref())
    }
}

impl<T> WriteResponse<T> {
    /// Returns the capacity units of the write, or 0 if they are not known.
    pub(super) fn consumed_units(&self) -> f64 {
        units(self.consumed_capacity.as_ref())
    }
}

fn units(consumed: Option<&CapacityJson>) -> f64 {
    consumed.and_then(|consumed| consumed.capacity_units).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::item::stored::StoredUser;

    fn key() -> AttributeMap {
        HashMap::from([("user_id".to_owned(), item::text("a\"da")), ("timestamp".to_owned(), item::integer(7))])
    }

    fn parsed(body: Result<Bytes, TableError>) -> Value {
        serde_json::from_slice(&body.unwrap()).unwrap()
    }

    #[test]
    fn read_is_consistent_and_reports_its_capacity() {
        let expected = json!({
            "TableName": "Users", "Key": {"user_id": {"S": "a\"da"}, "timestamp": {"N": "7"}},
            "ConsistentRead": true, "ReturnConsumedCapacity": "TOTAL",
        });
        assert_eq!(parsed(get_request("Users", &key())), expected);
    }

    #[test]
    fn write_has_the_members_of_its_operation() {
        let put = Put::builder().table_name("Users").set_item(Some(key())).build().unwrap();
        let common = |mut more: Value| {
            more["TableName"] = "Users".into();
            more["ReturnConsumedCapacity"] = "TOTAL".into();
            more["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD".into();
            more
        };
        let key_json = json!({"user_id": {"S": "a\"da"}, "timestamp": {"N": "7"}});
        assert_eq!(parsed(put_request(&put)), common(json!({"Item": key_json})));
        let update = Update::builder()
            .table_name("Users")
            .set_key(Some(key()))
            .update_expression("SET #n = :n")
            .condition_expression("attribute_exists(#n)")
            .expression_attribute_names("#n", "name")
            .expression_attribute_values(":n", AttributeValue::L(vec![AttributeValue::Null(true)]));
        let expected = common(json!({
            "Key": key_json, "UpdateExpression": "SET #n = :n", "ConditionExpression": "attribute_exists(#n)",
            "ExpressionAttributeNames": {"#n": "name"}, "ExpressionAttributeValues": {":n": {"L": [{"NULL": true}]}},
            "ReturnValues": "ALL_NEW",
        }));
        assert_eq!(parsed(update_request(&update.build().unwrap(), &ReturnValue::AllNew)), expected);
        let delete = Delete::builder().table_name("Users").set_key(Some(key())).condition_expression("x");
        let expected = common(json!({"Key": key_json, "ConditionExpression": "x", "ReturnValues": "ALL_OLD"}));
        assert_eq!(parsed(delete_request(&delete.build().unwrap())), expected);
    }

    #[test]
    fn response_contains_the_item_and_its_capacity() {
        let found: GetResponse<AttributesOutput> = serde_json::from_str(
            r#"{"ConsumedCapacity":{"CapacityUnits":1.5,"TableName":"Users"},"Item":{"a":{"S":"x"}}}"#,
        )
        .unwrap();
        assert_eq!((found.consumed_units(), found.item.unwrap().0.len()), (1.5, 1));
        let absent: GetResponse<StoredUser> = serde_json::from_str("{}").unwrap();
        assert_eq!((absent.consumed_units(), absent.item.is_none()), (0.0, true));
        let written: WriteResponse<AttributesOutput> =
            serde_json::from_str(r#"{"Attributes":{"a":{"N":"1"}}}"#).unwrap();
        assert_eq!(written.attributes.unwrap().0["a"], item::integer(1));
        for other in ["[]", "7", r#"{"Attributes":7}"#, r#"{"Attributes":{"a":7}}"#, "<html>"] {
            assert!(serde_json::from_str::<WriteResponse<AttributesOutput>>(other).is_err(), "{other}");
        }
        for other in ["[]", r#"{"Item":7}"#, r#"{"Item":{"a":7}}"#] {
            assert!(serde_json::from_str::<GetResponse<StoredUser>>(other).is_err(), "{other}");
        }
    }

    #[test]
    fn replaced_item_keeps_what_the_new_record_depends_on() {
        let replaced: WriteResponse<ReplacedItem> = serde_json::from_str(
            r#"{"Attributes":{"a":{"M":{"version":{"N":"1"}}},"ver\u0073ion":{"N":"7"},"created_at":{"S":"x"}}}"#,
        )
        .unwrap();
        let replaced = replaced.attributes.unwrap();
        let kept = [(item::VERSION.to_owned(), item::integer(7)), (item::CREATED_AT.to_owned(), item::text("x"))];
        assert_eq!((replaced.attributes, replaced.kept), (3, HashMap::from(kept)));
        for other in [r#"{"Attributes":7}"#, r#"{"Attributes":{"version":7}}"#] {
            assert!(serde_json::from_str::<WriteResponse<ReplacedItem>>(other).is_err(), "{other}");
        }
    }
}
