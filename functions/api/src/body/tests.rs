use millrace_http::problem::ErrorLocation;
use proptest::prelude::*;
use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-22 10:00 UTC);

fn key() -> UserKey {
    UserKey { id: UserId::parse("ada").unwrap(), timestamp: Timestamp::parse(7).unwrap() }
}

fn mistakes<T>(read: Result<T, Problem>) -> Vec<(String, String)> {
    let Err(Problem::Body(mistakes)) = read else { panic!("not refused for its members") };
    let pointer_of = |location| match location {
        ErrorLocation::Pointer(pointer) => pointer,
        other => panic!("{other:?}"),
    };
    mistakes.into_iter().map(|mistake| (pointer_of(mistake.location), mistake.detail)).collect()
}

fn pointers<T>(read: Result<T, Problem>) -> Vec<String> {
    mistakes(read).into_iter().map(|(pointer, _)| pointer).collect()
}

#[test]
fn a_whole_draft_is_read() {
    let text = r#"{"user_id": "ada", "timestamp": 7, "name": "Ad\u0061", "email": "ada@example.com", "status": "on",
        "attributes": {"n": 1}, "expires_at": 1900000000}"#;
    let Ok(draft) = parse_create(text.as_bytes(), NOW) else { panic!("refused") };
    assert_eq!((draft.id.unwrap(), draft.timestamp.unwrap()), (key().id, key().timestamp));
    assert_eq!(draft.profile.name.as_str(), "Ada");
    assert_eq!(draft.profile.email.unwrap().as_str(), "ada@example.com");
    assert_eq!(draft.profile.status.unwrap().as_str(), "on");
    assert_eq!(draft.profile.attributes.unwrap().members().len(), 1);
    assert_eq!(draft.profile.expires_at.unwrap().seconds(), 1_900_000_000);
}

#[test]
fn null_is_absent_where_a_part_may_be() {
    let text = br#"{"user_id":null,"timestamp":null,"name":"A","email":null,"status":null,"attributes":null,"expires_at":null}"#;
    let Ok(draft) = parse_create(text, NOW) else { panic!("refused") };
    assert!(draft.id.is_none() && draft.timestamp.is_none());
    let profile = draft.profile;
    assert!(profile.email.is_none() && profile.status.is_none() && profile.attributes.is_none());
    assert_eq!(profile.expires_at, None);
}

#[test]
fn all_field_errors_are_returned_at_once() {
    let text = r#"{"user_id":"a b","timestamp":-1,"name":" ","email":"x","status":7,"attributes":{"a":[1e999]},
        "expires_at":"soon","nmae":1,"a/b":2,"version":3}"#;
    assert_eq!(
        pointers(parse_create(text.as_bytes(), NOW)),
        [
            "/user_id",
            "/timestamp",
            "/name",
            "/email",
            "/status",
            "/attributes/a/0",
            "/expires_at",
            "/nmae",
            "/a~1b",
            "/version"
        ]
    );
}

#[test]
fn a_name_is_demanded_once_and_a_duplicate_is_named() {
    assert_eq!(pointers(parse_create(b"{}", NOW)), ["/name"]);
    assert_eq!(pointers(parse_create(br#"{"name":null}"#, NOW)), ["/name"]);
    assert_eq!(pointers(parse_create(br#"{"name":"A","name":"B"}"#, NOW)), ["/name"]);
    assert_eq!(pointers(parse_create(br#"{"name":"\ud800"}"#, NOW)), ["/name"]);
    assert_eq!(pointers(parse_create(br#"{"name":"A","attributes":{"b":1,"b":2}}"#, NOW)), ["/attributes/b"]);
}

#[test]
fn a_number_of_seconds_is_whole() {
    for number in ["1.0", "1e3", "\"7\"", "true", "99999999999999999999", "[]"] {
        let text = format!(r#"{{"name":"A","timestamp":{number}}}"#);
        assert_eq!(pointers(parse_create(text.as_bytes(), NOW)), ["/timestamp"], "{number}");
    }
}

#[test]
fn non_object_and_malformed_json_bodies_are_rejected() {
    for text in ["[]", "null", "7", "\"a\""] {
        assert_eq!(pointers(parse_create(text.as_bytes(), NOW)), [""], "{text}");
    }
    for text in [&b""[..], b"{", b"{\"a\":1,}", b"{} x", b"{\"a\":\"\xff\"}", b"\xef\xbb\xbf{}"] {
        let read = parse_create(text, NOW);
        assert!(matches!(read, Err(Problem::MalformedJson { .. })), "{}", String::from_utf8_lossy(text));
    }
}

#[test]
fn a_replacement_may_repeat_the_key_and_not_change_it() {
    assert!(replacement(br#"{"user_id":"ada","timestamp":7,"name":"A"}"#, &key(), NOW).is_ok());
    let changed = replacement(br#"{"user_id":"eve","timestamp":null,"name":"A"}"#, &key(), NOW);
    assert_eq!(pointers(changed), ["/user_id", "/timestamp"]);
}

#[test]
fn a_patch_keeps_sets_and_removes() {
    let Ok(read) = parse_merge_patch(br#"{"name":"B","email":null,"attributes":{"a":null}}"#, &key(), NOW) else {
        panic!("refused")
    };
    assert_eq!(read.name.unwrap().as_str(), "B");
    assert_eq!((read.email, read.status, read.expires_at), (FieldPatch::Remove, FieldPatch::Keep, FieldPatch::Keep));
    assert!(matches!(read.attributes, FieldPatch::Set(_)));
    let Ok(empty) = parse_merge_patch(b"{}", &key(), NOW) else { panic!("refused") };
    assert_eq!(empty, UserPatch::default());
}

#[test]
fn a_patch_cannot_remove_the_name_nor_touch_what_the_service_sets() {
    let read = parse_merge_patch(
        br#"{"user_id":"eve","timestamp":8,"name":null,"version":1,"created_at":null,"updated_at":"x","attributes":[]}"#,
        &key(),
        NOW,
    );
    let mut pointers = pointers(read);
    pointers.sort();
    assert_eq!(pointers, ["/attributes", "/created_at", "/name", "/timestamp", "/updated_at", "/user_id", "/version"]);
}

#[test]
fn a_body_of_nothing_but_mistakes_is_not_answered_with_all_of_them() {
    let members: Vec<_> = (0..5_000).map(|index| format!("\"{index}\":1")).collect();
    assert_eq!(mistakes(parse_create(format!("{{{}}}", members.join(",")).as_bytes(), NOW)).len(), 100);
}

/// Texts that are JSON or almost JSON: the member names of bodies, with values that mostly do not fit them.
fn nearly_json() -> impl Strategy<Value = String> {
    let names = "(user_id|timestamp|name|email|status|attributes|expires_at|version|keys|[a-z~/]{0,3})";
    let values = prop_oneof![
        "[-+]?[0-9]{1,40}(\\.[0-9]{0,40})?([eE][-+]?[0-9]{1,4})?",
        "\"([ -!#-\\[\\]-~]|\\\\u[0-9a-fA-F]{4}|\\\\[nt\"/]|\\PC){0,20}\"",
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just(format!("{}1{}", "[".repeat(200), "]".repeat(200))),
        Just(r#"[{"user_id":"a","timestamp":7},7]"#.to_owned()),
        Just(r#"{"a":{"a":1,"a":2}}"#.to_owned()),
        Just(r#"{"":1}"#.to_owned()),
        "\\PC{0,8}",
    ];
    let members = proptest::collection::vec((names, values), 0..6);
    members.prop_map(|members| {
        let members: Vec<_> = members.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

/// Checks that no input causes a panic and that every rejection contains a reason.
fn read_in_every_way(bytes: &[u8]) {
    let refusals = [
        parse_create(bytes, NOW).err(),
        replacement(bytes, &key(), NOW).err(),
        parse_merge_patch(bytes, &key(), NOW).err(),
        keys(bytes).err(),
    ];
    for refusal in refusals.into_iter().flatten() {
        match refusal {
            Problem::MalformedJson { line, reason, .. } => assert!(line > 0 && !reason.is_empty()),
            Problem::Body(mistakes) => {
                assert!(!mistakes.is_empty() && mistakes.len() <= 100);
                for mistake in mistakes {
                    assert!(
                        matches!(mistake.location, ErrorLocation::Pointer(_)) && !mistake.detail.is_empty(),
                        "{mistake:?}"
                    );
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_are_parsed_or_rejected_with_a_reason(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read_in_every_way(&bytes);
    }

    #[test]
    fn near_json_text_is_parsed_or_rejected_with_a_reason(text in nearly_json(), cut in 0_usize..300) {
        read_in_every_way(text.as_bytes());
        read_in_every_way(&text.as_bytes()[..cut.min(text.len())]);
    }
}
