use super::*;
use crate::user::attributes::UserAttributes;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-11-22 10:00:00.123 UTC);

fn full() -> User {
    User::created(
        UserKey { id: UserId::parse("ada").unwrap(), timestamp: Timestamp::parse(7).unwrap() },
        UserProfile {
            name: UserName::parse("Ada").unwrap(),
            email: Some(Email::parse("ada@example.com").unwrap()),
            status: Some(UserStatus::parse("active").unwrap()),
            attributes: Some(UserAttributes::parse(r#"{"n": 1.5, "l": [null, true]}"#).unwrap()),
            expires_at: Some(ExpiresAt::parse(1_900_000_000, NOW).unwrap()),
        },
        NOW,
    )
}

fn unreadable(change: impl FnOnce(&mut AttributeMap)) -> &'static str {
    let mut item = encode(&full());
    change(&mut item);
    decode(item, NOW).unwrap_err().attribute
}

#[test]
fn a_user_is_read_back_from_its_item() {
    let item = encode(&full());
    assert_eq!(item.len(), 10);
    assert_eq!(item[TIMESTAMP], integer(7));
    assert_eq!(item[VERSION], integer(full().version));
    assert_eq!(item[CREATED_AT], text("2026-11-22T10:00:00.123Z"));
    assert_eq!(decode(item, NOW).unwrap(), full());
}

#[test]
fn absent_profile_fields_have_no_attribute() {
    let mut user = full();
    user.profile = UserProfile { email: None, status: None, attributes: None, expires_at: None, ..user.profile };
    let item = encode(&user);
    assert_eq!(item.len(), 6);
    assert_eq!(decode(item, NOW).unwrap(), user);
}

#[test]
fn the_key_of_an_item_is_the_key_alone() {
    let item = encode(&full());
    let key = key(&full().key);
    assert_eq!(key.len(), 2);
    assert!(key.iter().all(|(name, value)| item[name] == *value));
}

#[test]
fn attributes_of_another_program_are_not_read_and_do_no_harm() {
    let mut item = encode(&full());
    item.insert("tags".into(), AttributeValue::Ss(vec!["x".into()]));
    for ours in [VERSION, CREATED_AT, UPDATED_AT] {
        item.remove(ours);
    }
    let user = decode(item, NOW).unwrap();
    assert_eq!((user.version, user.created_at, user.updated_at), (0, None, None));
}

#[test]
fn an_item_that_is_no_user_names_its_attribute_and_no_value() {
    assert_eq!(unreadable(|item| drop(item.remove(NAME))), NAME);
    assert_eq!(unreadable(|item| drop(item.insert(NAME.into(), text(" ")))), NAME);
    assert_eq!(unreadable(|item| drop(item.insert(USER_ID.into(), text("a b")))), USER_ID);
    assert_eq!(unreadable(|item| drop(item.insert(TIMESTAMP.into(), integer(-1)))), TIMESTAMP);
    assert_eq!(unreadable(|item| drop(item.insert(EMAIL.into(), text("nobody")))), EMAIL);
    assert_eq!(unreadable(|item| drop(item.insert(STATUS.into(), integer(1)))), STATUS);
    assert_eq!(unreadable(|item| drop(item.insert(ATTRIBUTES.into(), text("{}")))), ATTRIBUTES);
    assert_eq!(unreadable(|item| drop(item.insert(VERSION.into(), text("1")))), VERSION);
    assert_eq!(unreadable(|item| drop(item.insert(CREATED_AT.into(), text("yesterday")))), CREATED_AT);
    let mut item = encode(&full());
    item.insert(EMAIL.into(), integer(4711));
    assert!(!decode(item, NOW).unwrap_err().to_string().contains("4711"));
}

#[test]
fn a_record_is_live_until_the_second_of_its_expiry() {
    let at = |seconds: i64| HashMap::from([(EXPIRES_AT.to_owned(), integer(seconds))]);
    let now = NOW.unix_timestamp();
    assert!(is_live(&HashMap::new(), NOW));
    assert!(is_live(&at(now + 1), NOW));
    assert!(!is_live(&at(now), NOW));
    assert!(!is_live(&at(now - 1), NOW));
}

#[test]
fn an_expiry_of_another_program_is_read_as_ttl_reads_it() {
    let now = NOW.unix_timestamp();
    for (value, live, shown) in [
        (integer(format!("{now}.5")), true, Some(now + 1)),
        (integer(format!("{}.5", now - 1)), false, Some(now)),
        (integer(0), true, None),
        (integer(-1), true, None),
        (integer(now - ExpiresAt::TTL_SECONDS), true, None),
        (integer(now - ExpiresAt::TTL_SECONDS + 1), false, Some(now - ExpiresAt::TTL_SECONDS + 1)),
        (integer(now * 1_000), true, Some(now * 1_000)),
        (integer("12345678901234567890123456789012345678"), true, None),
        (text(now.to_string()), true, None),
        (AttributeValue::Null(true), true, None),
    ] {
        let mut item = encode(&full());
        item.insert(EXPIRES_AT.into(), value.clone());
        assert_eq!(is_live(&item, NOW), live, "{value:?}");
        let user = decode(item, NOW).unwrap();
        assert_eq!(user.profile.expires_at.map(ExpiresAt::seconds), shown, "{value:?}");
    }
}
