//! The item that a restore creates from an archived one: [`RestoreRules`].
//!
//! A restore is a create. The item gets another expiry in the table's TTL attribute, because with its own it would
//! expire at once. All other attributes stay as archived, except for two of a user: it gets a new `version`, so that no
//! cache and no client mistakes it for the previous item, and if it has `updated_at`, that becomes the time of the
//! restore.

use aws_sdk_dynamodb::types::AttributeValue;
use time::OffsetDateTime;

use super::{AttributeMap, EXPIRES_AT, UPDATED_AT, USER_ID, VERSION, expiry, integer, text, version};
use crate::raw_item::RawItem;
use crate::user::{first_version, format_rfc3339_millis};

/// The kind of items that the source table contains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SourceSchema {
    /// Items with any attributes.
    #[default]
    Any,
    /// The records of the users service.
    Users,
}

impl SourceSchema {
    /// Parses the value of the environment variable `SOURCE_SCHEMA`.
    ///
    /// # Errors
    /// The text is neither `any` nor `users`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "any" => Ok(Self::Any),
            "users" => Ok(Self::Users),
            _ => Err(format!("is {text:?}: set it to any or users")),
        }
    }
}

/// The new expiry of a restored item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoredExpiry {
    /// The item does not expire: its TTL attribute is removed.
    Never,
    /// The item expires this number of seconds after it is restored.
    After(i64),
}

impl RestoredExpiry {
    /// Returns the value of the TTL attribute of an item that is restored at `now`; `None` if the item has none.
    fn at(self, now: OffsetDateTime) -> Option<AttributeValue> {
        match self {
            Self::Never => None,
            Self::After(seconds) => Some(integer(now.unix_timestamp().saturating_add(seconds))),
        }
    }
}

/// The attributes of a table that a restore sets and compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreRules {
    /// The name of the partition key.
    pub partition_key: String,
    /// The attribute that contains the expiry; `None` if TTL is not enabled.
    pub ttl_attribute: Option<String>,
    /// The kind of items.
    pub schema: SourceSchema,
}

impl RestoreRules {
    /// Returns the rules of the users table.
    #[must_use]
    pub fn users() -> Self {
        Self {
            partition_key: USER_ID.to_owned(),
            ttl_attribute: Some(EXPIRES_AT.to_owned()),
            schema: SourceSchema::Users,
        }
    }

    /// Returns the item as it is created at `now`. `over` is the version of the existing item if it replaces one.
    #[must_use]
    pub fn restored(
        &self,
        archived: RawItem,
        expiry: RestoredExpiry,
        over: Option<u64>,
        now: OffsetDateTime,
    ) -> AttributeMap {
        let mut item = archived.into_attributes();
        if let Some(ttl_attribute) = &self.ttl_attribute {
            match expiry.at(now) {
                None => drop(item.remove(ttl_attribute)),
                Some(expires_at) => drop(item.insert(ttl_attribute.clone(), expires_at)),
            }
        }
        if self.schema == SourceSchema::Users {
            if item.contains_key(UPDATED_AT) {
                item.insert(UPDATED_AT.to_owned(), text(format_rfc3339_millis(now)));
            }
            let above = over.map_or(0, |over| over.saturating_add(1));
            item.insert(VERSION.to_owned(), integer(first_version(now).max(above)));
        }
        item
    }

    /// Returns whether a live item is the result of restoring the archived one, regardless of when.
    #[must_use]
    pub fn matches_archived(&self, live: &RawItem, archived: &RawItem) -> bool {
        let ttl_attribute = self.ttl_attribute.as_deref();
        let (set, changed): (&[&str], _) = match self.schema {
            SourceSchema::Users => (&[VERSION, UPDATED_AT], live.get(VERSION) != archived.get(VERSION)),
            // The expiry is the only attribute that a restore changes. An item that has the archived one is not restored.
            SourceSchema::Any => {
                let is_archived = |name| archived.get(name).is_some() && live.get(name) == archived.get(name);
                (&[], !ttl_attribute.is_some_and(is_archived))
            }
        };
        let is_set = |name: &String| set.contains(&name.as_str()) || ttl_attribute == Some(name.as_str());
        changed && live.diff_attribute_names(archived).iter().all(is_set)
    }

    /// Returns whether a live item has the expiry that a restore at `now` gives. An item of a table without TTL has no
    /// expiry to compare.
    #[must_use]
    pub fn has_expiry(&self, live: &RawItem, expiry: RestoredExpiry, now: OffsetDateTime) -> bool {
        let Some(ttl_attribute) = &self.ttl_attribute else { return true };
        live.get(ttl_attribute) == expiry.at(now).as_ref()
    }

    /// Describes an existing item under the key of an item to restore.
    #[must_use]
    pub fn existing(&self, item: &RawItem, now: OffsetDateTime) -> ExistingItem {
        let item = item.clone().into_attributes();
        let has_one = self.schema == SourceSchema::Users && matches!(item.get(VERSION), Some(AttributeValue::N(_)));
        let ends = self.ttl_attribute.as_ref().and_then(|name| expiry(&item, name, now));
        ExistingItem {
            version: version(&item).ok().filter(|_| has_one),
            is_live: ends.is_none_or(|ends| !ends.is_past(now)),
        }
    }
}

/// An existing item under the key of an item to restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExistingItem {
    /// The version of a user; `None` if it has none or an invalid one.
    pub version: Option<u64>,
    /// Whether it is live. An expired item still has to be removed by TTL and archived.
    pub is_live: bool,
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn archived() -> RawItem {
        RawItem::parse(
            r#"{"user_id":{"S":"ada"},"timestamp":{"N":"1"},"version":{"N":"7"},"expires_at":{"N":"100"},
                "updated_at":{"S":"2020-01-01T00:00:00Z"},"created_at":{"S":"2019-01-01T00:00:00Z"},"score":{"N":"1.50"}}"#,
        )
        .unwrap()
    }

    #[test]
    fn it_gets_a_new_version_and_another_expiry_and_keeps_the_rest() {
        let now = datetime!(2026-11-24 8:00 UTC);
        let item = RawItem::new(RestoreRules::users().restored(archived(), RestoredExpiry::After(60), None, now));
        assert_eq!(item.diff_attribute_names(&archived()), ["expires_at", "updated_at", "version"]);
        let number = |name| item.get(name).unwrap().as_n().unwrap().clone();
        assert_eq!(number("version"), first_version(now).to_string());
        assert_eq!(number("expires_at"), (now.unix_timestamp() + 60).to_string());
        let users = RestoreRules::users();
        assert!(users.matches_archived(&item, &archived()) && !users.matches_archived(&archived(), &archived()));
        let never = RawItem::new(RestoreRules::users().restored(archived(), RestoredExpiry::Never, None, now));
        assert!(never.get("expires_at").is_none());
    }

    #[test]
    fn over_another_its_version_is_above_that() {
        let now = datetime!(2026-11-24 8:00 UTC);
        let ahead = first_version(now) + 5;
        let users = RestoreRules::users();
        let item = users.restored(archived(), RestoredExpiry::Never, Some(ahead), now);
        assert_eq!(item["version"], integer(ahead + 1));
        assert_eq!(
            users.restored(archived(), RestoredExpiry::Never, Some(7), now)["version"],
            integer(first_version(now))
        );
    }

    #[test]
    fn existing_item_is_described_by_version_and_liveness() {
        let now = datetime!(2026-11-24 8:00 UTC);
        for (ends, is_live) in [(now.unix_timestamp() - 1, false), (now.unix_timestamp() + 1, true), (100, true)] {
            let mut item = archived().into_attributes();
            item.insert("expires_at".to_owned(), integer(ends));
            let obstacle = RestoreRules::users().existing(&RawItem::new(item), now);
            assert_eq!(
                obstacle,
                ExistingItem { version: Some(7), is_live },
                "TTL never deletes items that expired long ago: {ends}"
            );
        }
        let bare = RawItem::parse(r#"{"user_id":{"S":"ada"}}"#).unwrap();
        assert_eq!(RestoreRules::users().existing(&bare, now), ExistingItem { version: None, is_live: true });
    }

    fn rules_with_ttl(ttl_attribute: Option<&str>) -> RestoreRules {
        let ttl_attribute = ttl_attribute.map(str::to_owned);
        RestoreRules { partition_key: "pk".to_owned(), ttl_attribute, schema: SourceSchema::Any }
    }

    #[test]
    fn of_any_item_only_the_expiry_changes() {
        let now = datetime!(2026-11-24 8:00 UTC);
        let archived = RawItem::parse(
            r#"{"pk":{"S":"a"},"ttl":{"N":"100"},"version":{"S":"v1"},"expires_at":{"S":"soon"},"updated_at":{"N":"1"}}"#,
        )
        .unwrap();
        let rules = rules_with_ttl(Some("ttl"));
        let item = RawItem::new(rules.restored(archived.clone(), RestoredExpiry::After(60), Some(9), now));
        assert_eq!(item.diff_attribute_names(&archived), ["ttl"]);
        assert_eq!(item.get("ttl").unwrap().as_n().unwrap(), &(now.unix_timestamp() + 60).to_string());
        assert!(rules.matches_archived(&item, &archived) && !rules.matches_archived(&archived, &archived));
        let never = RawItem::new(rules.restored(archived.clone(), RestoredExpiry::Never, None, now));
        assert!(never.get("ttl").is_none() && rules.matches_archived(&never, &archived));
        let without = RawItem::parse(r#"{"pk":{"S":"a"},"expires":{"N":"100"}}"#).unwrap();
        assert!(rules.matches_archived(&without, &without), "its table had another TTL attribute then");
        let other = RawItem::parse(r#"{"pk":{"S":"a"},"version":{"S":"v2"}}"#).unwrap();
        assert!(!rules.matches_archived(&other, &archived));
    }

    #[test]
    fn has_expiry_compares_the_ttl_attribute_with_the_one_that_a_restore_writes() {
        let now = datetime!(2026-11-24 8:00 UTC);
        let item = |ttl: &str| RawItem::parse(&format!(r#"{{"pk":{{"S":"a"}}{ttl}}}"#)).unwrap();
        let (minute, never) = (RestoredExpiry::After(60), RestoredExpiry::Never);
        let (restored, bare) = (item(&format!(r#","ttl":{{"N":"{}"}}"#, now.unix_timestamp() + 60)), item(""));
        let rules = rules_with_ttl(Some("ttl"));
        assert!(rules.has_expiry(&restored, minute, now) && !rules.has_expiry(&restored, never, now));
        assert!(!rules.has_expiry(&restored, minute, now + time::Duration::SECOND), "a restore counts from its time");
        assert!(rules.has_expiry(&bare, never, now) && !rules.has_expiry(&bare, minute, now));
        assert!(rules_with_ttl(None).has_expiry(&restored, never, now), "the table has no expiry");
    }

    #[test]
    fn without_ttl_an_item_is_restored_as_it_was_and_lives() {
        let now = datetime!(2026-11-24 8:00 UTC);
        let archived = RawItem::parse(r#"{"pk":{"S":"a"},"expires_at":{"N":"100"}}"#).unwrap();
        let rules = rules_with_ttl(None);
        let item = RawItem::new(rules.restored(archived.clone(), RestoredExpiry::Never, None, now));
        assert!(item.diff_attribute_names(&archived).is_empty() && rules.matches_archived(&item, &archived));
        assert_eq!(rules.existing(&item, now), ExistingItem { version: None, is_live: true });
    }
}
