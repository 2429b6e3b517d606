//! The item that a restore creates from an archived one: [`restored`].
//!
//! A restore is a create. The item gets a new `version`, so that no cache and no client mistakes it for the previous
//! item, and another `expires_at`, because with its own it would expire at once. If it has `updated_at`, that becomes
//! the time of the restore. All other attributes stay as archived, including `created_at`.

use aws_sdk_dynamodb::types::AttributeValue;
use time::OffsetDateTime;

use super::{AttributeMap, EXPIRES_AT, UPDATED_AT, VERSION, is_live, text, version, whole};
use crate::raw_item::RawItem;
use crate::user::{first_version, format_rfc3339_millis};

/// The expiry of a restored item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestoredExpiry {
    /// The item does not expire: `expires_at` is removed.
    Never,
    /// The item expires this number of seconds after it is restored.
    After(i64),
}

/// Returns the item as it is created at `now`. `over` is the version of the existing item if it replaces one.
#[must_use]
pub fn restored(archived: RawItem, expiry: RestoredExpiry, over: Option<u64>, now: OffsetDateTime) -> AttributeMap {
    let mut item = archived.into_attributes();
    match expiry {
        RestoredExpiry::Never => drop(item.remove(EXPIRES_AT)),
        RestoredExpiry::After(seconds) => {
            item.insert(EXPIRES_AT.to_owned(), whole(now.unix_timestamp().saturating_add(seconds)));
        }
    }
    if item.contains_key(UPDATED_AT) {
        item.insert(UPDATED_AT.to_owned(), text(format_rfc3339_millis(now)));
    }
    let above = over.map_or(0, |over| over.saturating_add(1));
    item.insert(VERSION.to_owned(), whole(first_version(now).max(above)));
    item
}

/// Returns whether a live item is the result of restoring the archived one, regardless of when.
#[must_use]
pub fn matches_archived(live: &RawItem, archived: &RawItem) -> bool {
    live.get(VERSION) != archived.get(VERSION)
        && live
            .diff_attribute_names(archived)
            .iter()
            .all(|name| [VERSION, EXPIRES_AT, UPDATED_AT].contains(&name.as_str()))
}

/// An existing item under the key of an item to restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExistingItem {
    /// Its version; `None` if it has none or an invalid one.
    pub version: Option<u64>,
    /// Whether it is live. An expired item still has to be removed by TTL and archived.
    pub is_live: bool,
}

impl ExistingItem {
    /// Describes the existing item.
    #[must_use]
    pub fn of(item: &RawItem, now: OffsetDateTime) -> Self {
        let item = item.clone().into_attributes();
        let has_one = matches!(item.get(VERSION), Some(AttributeValue::N(_)));
        Self { version: version(&item).ok().filter(|_| has_one), is_live: is_live(&item, now) }
    }
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
        let item = RawItem::new(restored(archived(), RestoredExpiry::After(60), None, now));
        assert_eq!(item.diff_attribute_names(&archived()), ["expires_at", "updated_at", "version"]);
        let number = |name| item.get(name).unwrap().as_n().unwrap().clone();
        assert_eq!(number("version"), first_version(now).to_string());
        assert_eq!(number("expires_at"), (now.unix_timestamp() + 60).to_string());
        assert!(matches_archived(&item, &archived()) && !matches_archived(&archived(), &archived()));
        let never = RawItem::new(restored(archived(), RestoredExpiry::Never, None, now));
        assert!(never.get("expires_at").is_none());
    }

    #[test]
    fn over_another_its_version_is_above_that() {
        let now = datetime!(2026-11-24 8:00 UTC);
        let ahead = first_version(now) + 5;
        let item = restored(archived(), RestoredExpiry::Never, Some(ahead), now);
        assert_eq!(item["version"], whole(ahead + 1));
        assert_eq!(restored(archived(), RestoredExpiry::Never, Some(7), now)["version"], whole(first_version(now)));
    }

    #[test]
    fn what_is_in_the_way_is_told_by_its_version_and_whether_it_lives() {
        let now = datetime!(2026-11-24 8:00 UTC);
        for (ends, is_live) in [(now.unix_timestamp() - 1, false), (now.unix_timestamp() + 1, true), (100, true)] {
            let mut item = archived().into_attributes();
            item.insert("expires_at".to_owned(), whole(ends));
            let obstacle = ExistingItem::of(&RawItem::new(item), now);
            assert_eq!(
                obstacle,
                ExistingItem { version: Some(7), is_live },
                "TTL never deletes items that expired long ago: {ends}"
            );
        }
        let bare = RawItem::parse(r#"{"user_id":{"S":"ada"}}"#).unwrap();
        assert_eq!(ExistingItem::of(&bare, now), ExistingItem { version: None, is_live: true });
    }
}
