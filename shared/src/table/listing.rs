//! Paginated lists of records.
//!
//! DynamoDB filters expired records after reading them, so a page of the table may contain fewer records than
//! requested, or none. A page here is therefore filled from several calls, up to a maximum. Each page requests one
//! record more than its limit, which shows without another call whether it is the last page.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};
use time::OffsetDateTime;

use super::expression::ExpressionBuilder;
use super::{TableError, UserTable};
use crate::item::{self, AttributeMap, ItemParseError};
use crate::user::Timestamp;
use crate::user::email::Email;
use crate::user::id::UserId;
use crate::user::{User, UserKey};

/// The maximum number of calls for one page. Each reads at most 1 MB.
const CALLS: usize = 5;
/// The minimum limit of each call after the first, which has shown that most of the records here have expired.
const MIN_REFILL_LIMIT: usize = 200;

/// The sort order of a list, by the records' timestamps.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ListOrder {
    /// Latest timestamp first.
    #[default]
    NewestFirst,
    /// Earliest timestamp first.
    OldestFirst,
}

/// One segment of a parallel scan.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListSegment {
    /// The index of the segment, from 0.
    pub index: u16,
    /// The number of segments.
    pub of: u16,
}

/// The records to list, and their order.
#[derive(Clone, Copy, Debug)]
pub enum ListQuery<'a> {
    /// The records of one user with a timestamp in an inclusive range.
    User {
        /// The user.
        id: &'a UserId,
        /// The earliest timestamp.
        from: Option<Timestamp>,
        /// The latest timestamp.
        to: Option<Timestamp>,
        /// The sort order.
        order: ListOrder,
    },
    /// The records with this email. Eventually consistent, because it reads the email index.
    Email {
        /// The email.
        email: &'a Email,
        /// The sort order.
        order: ListOrder,
    },
    /// Every record, in the order of a table scan.
    All {
        /// The segment to scan; `None` scans the whole table.
        segment: Option<ListSegment>,
    },
}

/// A position in a list: the key of the record after which the next page starts. It contains the key's original text,
/// because that record may not be a valid user record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PageKey {
    /// The value of the partition key.
    pub user_id: String,
    /// The value of the sort key, in decimal.
    pub timestamp: String,
}

impl From<&UserKey> for PageKey {
    fn from(key: &UserKey) -> Self {
        Self { user_id: key.id.as_str().to_owned(), timestamp: key.timestamp.seconds().to_string() }
    }
}

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserPage {
    /// The live records, at most as many as requested.
    pub users: Vec<User>,
    /// The position after which the next page starts; `None` on the last page. A short or empty page may still have a
    /// next one.
    pub next: Option<PageKey>,
    /// The errors of live items that are not valid user records. They are skipped, so that they do not hide the other
    /// records.
    pub corrupt: Vec<ItemParseError>,
}

impl UserTable {
    /// Reads a page of at most `limit` records after a position.
    ///
    /// # Errors
    /// The call failed.
    pub async fn list(
        &self,
        listing: ListQuery<'_>,
        after: Option<&PageKey>,
        limit: usize,
        now: OffsetDateTime,
    ) -> Result<UserPage, TableError> {
        let mut page = UserPage::default();
        let mut start = after.cloned();
        let mut taken = None;
        for call in 0..CALLS {
            let wanted = limit - page.users.len() + 1;
            let page_limit = if call == 0 { wanted } else { wanted.max(MIN_REFILL_LIMIT) };
            let (items, end) = self.items(listing, start.as_ref(), page_limit, now).await?;
            for item in items {
                if page.users.len() == limit {
                    page.next = taken;
                    return Ok(page);
                }
                taken = position(&item);
                match item::decode(item, now) {
                    Ok(user) => page.users.push(user),
                    Err(corrupt) => page.corrupt.push(corrupt),
                }
            }
            start = end.as_ref().and_then(position);
            if start.is_none() || page.users.len() == limit {
                break;
            }
        }
        page.next = start;
        Ok(page)
    }

    async fn items(
        &self,
        listing: ListQuery<'_>,
        after: Option<&PageKey>,
        page_limit: usize,
        now: OffsetDateTime,
    ) -> Result<(Vec<AttributeMap>, Option<AttributeMap>), TableError> {
        let mut expression = ExpressionBuilder::default();
        let live = expression.live(now);
        let page_limit = i32::try_from(page_limit).unwrap_or(i32::MAX);
        let start = after.map(|position| start_key(listing, position));
        let (condition, order) = match listing {
            ListQuery::User { id, from, to, order } => (user_condition(&mut expression, id, from, to), order),
            ListQuery::Email { email, order } => {
                let (name, email) =
                    (expression.name(item::EMAIL), expression.value("email", item::text(email.as_str())));
                (format!("{name} = {email}"), order)
            }
            ListQuery::All { segment } => {
                let (names, values) = expression.into_parts();
                let call = self
                    .client
                    .scan()
                    .table_name(&*self.name)
                    .consistent_read(true)
                    .set_segment(segment.map(|segment| segment.index.into()))
                    .set_total_segments(segment.map(|segment| segment.of.into()))
                    .return_consumed_capacity(ReturnConsumedCapacity::Total)
                    .filter_expression(live)
                    .set_expression_attribute_names(names)
                    .set_expression_attribute_values(values)
                    .set_exclusive_start_key(start)
                    .limit(page_limit);
                let output = call.send().await.map_err(TableError::from_sdk)?;
                self.meter.add(output.consumed_capacity());
                return Ok((output.items.unwrap_or_default(), output.last_evaluated_key));
            }
        };
        let by_email = matches!(listing, ListQuery::Email { .. });
        let (names, values) = expression.into_parts();
        let call = self
            .client
            .query()
            .table_name(&*self.name)
            .set_index_name(by_email.then(|| self.email_index.to_string()))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .consistent_read(!by_email)
            .scan_index_forward(order == ListOrder::OldestFirst)
            .key_condition_expression(condition)
            .filter_expression(live)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .set_exclusive_start_key(start)
            .limit(page_limit);
        let output = call.send().await.map_err(TableError::from_sdk)?;
        self.meter.add(output.consumed_capacity());
        Ok((output.items.unwrap_or_default(), output.last_evaluated_key))
    }
}

fn user_condition(
    expression: &mut ExpressionBuilder,
    id: &UserId,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
) -> String {
    let (key, id) = (expression.name(item::USER_ID), expression.value("id", item::text(id.as_str())));
    if from.is_none() && to.is_none() {
        return format!("{key} = {id}");
    }
    let seconds = |bound: Option<Timestamp>, open: i64| item::integer(bound.map_or(open, Timestamp::seconds));
    let second = expression.name(item::TIMESTAMP);
    let from = expression.value("from", seconds(from, 0));
    let to = expression.value("to", seconds(to, Timestamp::MAX_SECONDS));
    format!("{key} = {id} AND {second} BETWEEN {from} AND {to}")
}

fn position(item: &AttributeMap) -> Option<PageKey> {
    match (item.get(item::USER_ID), item.get(item::TIMESTAMP)) {
        (Some(AttributeValue::S(user_id)), Some(AttributeValue::N(timestamp))) => {
            Some(PageKey { user_id: user_id.clone(), timestamp: timestamp.clone() })
        }
        _ => None,
    }
}

fn start_key(listing: ListQuery<'_>, position: &PageKey) -> AttributeMap {
    let mut key = HashMap::from([
        (item::USER_ID.to_owned(), item::text(&position.user_id)),
        (item::TIMESTAMP.to_owned(), item::integer(&position.timestamp)),
    ]);
    if let ListQuery::Email { email, .. } = listing {
        key.insert(item::EMAIL.to_owned(), item::text(email.as_str()));
    }
    key
}
