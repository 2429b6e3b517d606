//! Items created again from an archive: the one way to write to the table that is neither the API's nor a replica's.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};

use super::fault::{Fault, Refusal, refusal};
use crate::item::{self, Item};
use crate::raw_item::RawItem;

/// What an item is put over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Nothing: what is there stays, be it expired.
    Nothing,
    /// What is there, as long as it has this version, or none.
    Version(Option<u64>),
}

/// Why an item was not put.
#[derive(Debug)]
pub enum NotPut {
    /// This is there instead; nothing, if it went before it could be told.
    Held(Option<RawItem>),
    /// The table failed.
    Fault(Fault),
}

/// The table, as a restore writes to it.
#[derive(Debug, Clone)]
pub struct RestoreTable {
    client: Client,
    name: String,
}

impl RestoreTable {
    /// The table of this name.
    #[must_use]
    pub fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    /// Puts an item.
    ///
    /// # Errors
    /// [`NotPut`], with what is there instead.
    pub async fn put(&self, item: Item, over: Over) -> Result<(), NotPut> {
        let names = |names: &[&'static str]| -> HashMap<String, String> {
            names.iter().map(|name| (format!("#{name}"), (*name).to_owned())).collect()
        };
        let (condition, names, values) = match over {
            Over::Nothing => ("attribute_not_exists(#user_id)", names(&[item::USER_ID]), None),
            Over::Version(None) => (
                "attribute_exists(#user_id) AND attribute_not_exists(#version)",
                names(&[item::USER_ID, item::VERSION]),
                None,
            ),
            Over::Version(Some(version)) => {
                let values = HashMap::from([(":version".to_owned(), AttributeValue::N(version.to_string()))]);
                ("#version = :version", names(&[item::VERSION]), Some(values))
            }
        };
        let put = self.client.put_item().table_name(&self.name).set_item(Some(item)).condition_expression(condition);
        let put = put.set_expression_attribute_names(Some(names)).set_expression_attribute_values(values);
        let put =
            put.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld).send().await;
        put.map(drop).map_err(|error| {
            let refused = refusal(error, |error| match error {
                PutItemError::ConditionalCheckFailedException(failed) => Some(failed),
                _ => None,
            });
            match refused {
                Refusal::Condition(item) => NotPut::Held(item.map(RawItem::new)),
                Refusal::Fault(fault) => NotPut::Fault(fault),
            }
        })
    }
}
