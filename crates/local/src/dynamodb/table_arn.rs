//! Tables that a request names by ARN: [`TableArns`].
//!
//! DynamoDB accepts the ARN of a table wherever a request names one, and the engine accepts only names. The front
//! therefore replaces the ARNs of the engine's own tables before it forwards a request, and restores them in the members
//! of the response that AWS fills with the text of the request. ARNs of other Regions and accounts are forwarded as they
//! are: the engine has no such tables, and rejects them.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// The ARN of a table up to its name, with the Region and the account of the engine.
const PREFIX: &str = "arn:aws:dynamodb:dynoxide:000000000000:table/";
/// The members of an action of a transaction.
const ACTIONS: [&str; 5] = ["ConditionCheck", "Delete", "Get", "Put", "Update"];
/// The members of a response that contain one entry for each table, by the text of the request.
const BY_TABLE: [&str; 4] = ["Responses", "UnprocessedKeys", "UnprocessedItems", "ItemCollectionMetrics"];

/// Returns the ARN of a table of the engine.
pub(crate) fn table_arn(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// The tables that a request names by ARN.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TableArns(BTreeSet<String>);

impl TableArns {
    /// Returns the request with names instead of ARNs, and the tables; `None` if the request contains no ARN of the
    /// engine where it names a table.
    pub(super) fn from_request(body: &[u8]) -> Option<(Vec<u8>, Self)> {
        // Few requests contain an ARN, so the others are not parsed.
        if !body.windows(PREFIX.len()).any(|part| part == PREFIX.as_bytes()) {
            return None;
        }
        let mut request: Value = serde_json::from_slice(body).ok()?;
        let mut arns = Self::default();
        arns.take_name(&mut request);
        if let Some(tables) = request.get_mut("RequestItems").and_then(Value::as_object_mut) {
            rename(tables, |table| arns.name_of(table));
        }
        for item in request.get_mut("TransactItems").and_then(Value::as_array_mut).into_iter().flatten() {
            for action in ACTIONS {
                item.get_mut(action).into_iter().for_each(|action| arns.take_name(action));
            }
        }
        (!arns.0.is_empty()).then(|| (request.to_string().into_bytes(), arns))
    }

    /// Returns the response with the ARNs of the request; `None` if it contains no name of these tables.
    pub(super) fn restored(&self, body: &[u8]) -> Option<Vec<u8>> {
        let mut response: Value = serde_json::from_slice(body).ok()?;
        let arn = |name: &str| self.0.contains(name).then(|| table_arn(name));
        for member in BY_TABLE {
            if let Some(tables) = response.get_mut(member).and_then(Value::as_object_mut) {
                rename(tables, arn);
            }
        }
        let capacity = match response.get_mut("ConsumedCapacity") {
            Some(Value::Array(tables)) => tables.iter_mut().collect(),
            Some(table) => vec![table],
            None => Vec::new(),
        };
        for name in capacity.into_iter().filter_map(|table| table.get_mut("TableName")) {
            if let Some(arn) = name.as_str().and_then(arn) {
                *name = arn.into();
            }
        }
        Some(response.to_string().into_bytes())
    }

    /// Replaces the member `TableName`.
    fn take_name(&mut self, node: &mut Value) {
        if let Some(table) = node.get_mut("TableName")
            && let Some(name) = table.as_str().and_then(|table| self.name_of(table))
        {
            *table = name.into();
        }
    }

    /// Returns the name of the table with this ARN, and remembers it.
    fn name_of(&mut self, table: &str) -> Option<String> {
        let name = table.strip_prefix(PREFIX).filter(|name| !name.contains('/'))?;
        self.0.insert(name.to_owned());
        Some(name.to_owned())
    }
}

/// Renames the members for which there is another name.
fn rename(members: &mut Map<String, Value>, mut other: impl FnMut(&str) -> Option<String>) {
    let renamed: Vec<(String, String)> = members.keys().filter_map(|name| Some((name.clone(), other(name)?))).collect();
    for (name, other) in renamed {
        if let Some(value) = members.remove(&name) {
            members.insert(other, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rewritten(request: &Value) -> Option<(Value, Vec<String>)> {
        let (body, arns) = TableArns::from_request(request.to_string().as_bytes())?;
        Some((serde_json::from_slice(&body).unwrap(), arns.0.into_iter().collect()))
    }

    #[test]
    fn arns_become_names_where_a_request_names_a_table() {
        let (orders, users) = (table_arn("Orders"), table_arn("Users"));
        for (request, expected, names) in [
            (json!({"TableName": orders, "Key": {}}), json!({"TableName": "Orders", "Key": {}}), &["Orders"][..]),
            (
                json!({"RequestItems": {&orders: {"Keys": []}, "Users": []}}),
                json!({"RequestItems": {"Orders": {"Keys": []}, "Users": []}}),
                &["Orders"],
            ),
            (
                json!({"TransactItems": [{"Put": {"TableName": orders}}, {"ConditionCheck": {"TableName": users}}]}),
                json!({"TransactItems": [{"Put": {"TableName": "Orders"}}, {"ConditionCheck": {"TableName": "Users"}}]}),
                &["Orders", "Users"],
            ),
        ] {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(rewritten(&request), Some((expected, names)), "{request}");
        }
    }

    #[test]
    fn other_texts_are_left_as_they_are() {
        let arn = table_arn("Orders");
        for request in [
            json!({"TableName": "Orders"}),
            // An attribute may contain an ARN.
            json!({"TableName": "Orders", "Item": {"pk": {"S": arn}, "TableName": {"S": arn}}}),
            json!({"TableName": "arn:aws:dynamodb:eu-west-1:123456789012:table/Orders"}),
            json!({"TableName": format!("{arn}/stream/2026-11-28T00:00:00.000")}),
        ] {
            assert_eq!(rewritten(&request), None, "{request}");
        }
        assert_eq!(TableArns::from_request(format!("{{{arn}").as_bytes()), None);
    }

    #[test]
    fn response_has_the_arns_of_the_request() {
        let arn = table_arn("Orders");
        let request = json!({"RequestItems": {&arn: {"Keys": []}, "Users": {"Keys": []}}}).to_string();
        let (_, arns) = TableArns::from_request(request.as_bytes()).unwrap();
        let response = json!({
            "Responses": {"Orders": [{"TableName": {"S": "Orders"}}], "Users": []},
            "UnprocessedKeys": {"Orders": {"Keys": []}},
            "ConsumedCapacity": [{"TableName": "Orders"}, {"TableName": "Users"}],
        });
        let restored: Value = serde_json::from_slice(&arns.restored(response.to_string().as_bytes()).unwrap()).unwrap();
        let expected = json!({
            "Responses": {&arn: [{"TableName": {"S": "Orders"}}], "Users": []},
            "UnprocessedKeys": {&arn: {"Keys": []}},
            "ConsumedCapacity": [{"TableName": arn}, {"TableName": "Users"}],
        });
        assert_eq!(restored, expected);
        let one = arns.restored(br#"{"ConsumedCapacity":{"TableName":"Orders"}}"#).unwrap();
        assert_eq!(String::from_utf8(one).unwrap(), format!(r#"{{"ConsumedCapacity":{{"TableName":"{arn}"}}}}"#));
        assert_eq!(arns.restored(b"<html>"), None);
    }
}
