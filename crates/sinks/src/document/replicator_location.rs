//! The tables that a deployed replicator replicates to, by its environment variables: [`ReplicatorLocation`].

use std::collections::HashMap;

use super::{ReplicationDocument, RoleArn, SinkSettings, TableAddress};

/// The Region and the account of a replicator, in which it finds a table that it names without an ARN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicatorLocation {
    region: String,
    account: String,
}

impl ReplicatorLocation {
    /// Returns the location of the function with this ARN, otherwise that of the stream that it reads.
    #[must_use]
    pub fn new(function_arn: Option<&str>, stream_arn: &str) -> Self {
        let location = |arn: &str| {
            let mut parts = arn.split(':').skip(3);
            Some(Self { region: parts.next()?.to_owned(), account: parts.next()?.to_owned() })
        };
        let unknown = || Self { region: String::new(), account: String::new() };
        function_arn.and_then(location).or_else(|| location(stream_arn)).unwrap_or_else(unknown)
    }

    /// Returns whether a table of the function's configuration is this one, which is an ARN. A name and an ARN can be
    /// the same table; a name is looked up in the Region, and in the account of the role, that are set next to it.
    fn is_table(&self, named: &TableAddress, region: Option<&str>, role: Option<&str>, table: &TableAddress) -> bool {
        let role_account = role.and_then(|role| role.split(':').nth(4));
        named.name() == table.name()
            && named.partition().is_none_or(|partition| Some(partition) == table.partition())
            && Some(named.region().or(region).unwrap_or(&self.region)) == table.region()
            && Some(named.account().or(role_account).unwrap_or(&self.account)) == table.account()
    }

    /// Returns whether the variables of a replicator without a document name this table as the replica.
    #[must_use]
    pub fn names_as_replica(&self, variables: &HashMap<String, String>, table: &TableAddress) -> bool {
        let text = |name| variables.get(name).map(String::as_str).filter(|text: &&str| !text.is_empty());
        let named = text("REPLICA_TABLE").and_then(|named| TableAddress::parse(named).ok());
        named.is_some_and(|named| self.is_table(&named, text("REPLICA_REGION"), text("REPLICA_ROLE_ARN"), table))
    }

    /// Returns whether a document has this table as a replica.
    #[must_use]
    pub fn has_replica(&self, document: &ReplicationDocument, table: &TableAddress) -> bool {
        document.replicas().iter().any(|replica| match &replica.sink {
            SinkSettings::DynamoDb(settings) => {
                let role = settings.role_arn.as_ref().map(RoleArn::as_str);
                self.is_table(&settings.table, settings.region.as_deref(), role, table)
            }
            SinkSettings::Archive { .. } | SinkSettings::Postgres(_) => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replica_of_a_function_is_found_by_name_and_by_arn() {
        let arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/Orders";
        let table = TableAddress::parse(arn).unwrap();
        let stream = "arn:aws:dynamodb:eu-west-1:123456789012:table/Copy/stream/2026-11-27T08:00:00.000";
        let own = "arn:aws:lambda:eu-west-1:123456789012:function:back";
        let role = "arn:aws:iam::999988887777:role/replica";
        for (function, name, region, role, expected) in [
            (own, "Orders", None, None, true),
            (own, arn, None, None, true),
            (own, "Orders", Some("eu-west-1"), None, true),
            (own, "Orders2", None, None, false),
            // The same name elsewhere is another table.
            (own, "Orders", Some("us-east-1"), None, false),
            (own, "Orders", None, Some(role), false),
            (own, "arn:aws:dynamodb:us-east-1:123456789012:table/Orders", None, None, false),
            (own, "arn:aws:dynamodb:eu-west-1:999988887777:table/Orders", None, None, false),
            ("arn:aws:lambda:us-east-1:123456789012:function:back", "Orders", None, None, false),
            ("arn:aws:lambda:us-east-1:123456789012:function:back", "Orders", Some("eu-west-1"), None, true),
            ("arn:aws:lambda:eu-west-1:999988887777:function:back", "Orders", None, None, false),
            ("arn:aws:lambda:eu-west-1:999988887777:function:back", arn, None, Some(role), true),
        ] {
            let location = ReplicatorLocation::new(Some(function), stream);
            let set = [("REPLICA_TABLE", Some(name)), ("REPLICA_REGION", region), ("REPLICA_ROLE_ARN", role)];
            let variables =
                set.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?.to_owned()))).collect();
            assert_eq!(location.names_as_replica(&variables, &table), expected, "{function} {variables:?}");
            let mut replica = serde_json::json!({"name": "back", "sink": "dynamodb", "table": name});
            for (member, text) in [("region", region), ("role_arn", role)] {
                if let Some(text) = text {
                    replica[member] = text.into();
                }
            }
            let document = serde_json::json!({"version": 1, "replicas": [replica]}).to_string();
            let document = ReplicationDocument::parse(&document).unwrap();
            assert_eq!(location.has_replica(&document, &table), expected, "{function} {variables:?}");
        }
        let variables = [("SOURCE_TABLE".to_owned(), "Orders".to_owned())].into();
        assert!(!ReplicatorLocation::new(None, stream).names_as_replica(&variables, &table));
        let variables = [("REPLICA_TABLE".to_owned(), "Orders".to_owned())].into();
        assert!(ReplicatorLocation::new(None, stream).names_as_replica(&variables, &table), "the stream's location");
    }
}
