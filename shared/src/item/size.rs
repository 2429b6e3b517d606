//! The maximum size of a record's `attributes`, given DynamoDB's limit of 400 KB for an item ([`MAX_ITEM_BYTES`]).

#[cfg(doc)]
use crate::raw_item::MAX_ITEM_BYTES;

/// The maximum size of `attributes` in a record, in bytes. The rest of the 400 KB is reserved for the other attributes
/// at their maximum lengths and for `_rev`, which replication adds to a replica item.
pub const MAX_ATTRIBUTES_BYTES: usize = 398 * 1_024;

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::item::{AttributeMap, encode};
    use crate::raw_item::{MAX_ITEM_BYTES, value_bytes};
    use crate::user::Timestamp;
    use crate::user::attributes::UserAttributes;
    use crate::user::email::Email;
    use crate::user::expiry::ExpiresAt;
    use crate::user::id::UserId;
    use crate::user::{User, UserKey, UserName, UserProfile, UserStatus};

    /// The name of the revision attribute and the longest revision.
    const REVISION_BYTES: usize = "_rev".len() + 31;

    #[test]
    fn the_longest_record_leaves_room_for_a_replica_s_revision() {
        let now = datetime!(2026-11-22 10:00 UTC);
        let profile = UserProfile {
            name: UserName::parse("\u{10ffff}".repeat(UserName::MAX_CHARS)).unwrap(),
            email: Some(
                Email::parse(format!("a@{}.{}.{}.{}", "b".repeat(63), "c".repeat(63), "d".repeat(63), "e".repeat(60)))
                    .unwrap(),
            ),
            status: Some(UserStatus::parse("\u{10ffff}".repeat(UserStatus::MAX_CHARS)).unwrap()),
            attributes: Some(UserAttributes::default()),
            expires_at: ExpiresAt::from_stored(&ExpiresAt::MAX_STORED_SECONDS.to_string(), now),
        };
        assert_eq!(profile.email.as_ref().unwrap().as_str().len(), Email::MAX_CHARS);
        let id = UserId::parse("u".repeat(UserId::MAX_CHARS)).unwrap();
        let key = UserKey { id, timestamp: Timestamp::parse(Timestamp::MAX_SECONDS).unwrap() };
        let mut user = User::created(key, profile, now);
        user.version = u64::MAX;
        let item: AttributeMap = encode(&user);
        let rest: usize = item.iter().map(|(name, value)| name.len() + value_bytes(value)).sum();
        // `rest` includes three bytes for the empty map, which `MAX_ATTRIBUTES_BYTES` includes too.
        assert!(rest - 3 + REVISION_BYTES + MAX_ATTRIBUTES_BYTES <= MAX_ITEM_BYTES, "{rest}");
    }
}
