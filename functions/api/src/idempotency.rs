//! The header `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): its syntax, and the identity of the
//! request that it names.
//!
//! The draft defines the value as a quoted string (RFC 9651, section 3.3.3). Many clients omit the quotes, so both
//! forms are accepted and mean the same.

use axum::http::{HeaderMap, HeaderName};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use millrace_http::problem::{ErrorLocation, FieldError, Problem};
use millrace_shared::hash::Sha256Hasher;
use millrace_shared::http::caller::Caller;
use millrace_shared::table::IN_PROGRESS_EXPIRY_SECONDS;
use millrace_shared::user::email::Email;
use millrace_shared::user::expiry::ExpiresAt;
use millrace_shared::user::id::UserId;
use millrace_shared::user::json::{write_canonical_object, write_canonical_text};
use millrace_shared::user::{Timestamp, UserStatus};

use crate::body::CreateUserBody;

const NAME: &str = "idempotency-key";
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static(NAME);
const MAX_CHARS: usize = 255;
/// The function's timeout: an older request has ended, with or without success.
const MAX_REQUEST_SECONDS: i64 = 10;
/// The shortest time that `Retry-After` can express.
const SOON_SECONDS: i64 = 1;

/// An idempotency key, as the client sent it but without quotes.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct IdempotencyKey(String);

/// Parses the header, if it is present.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let text = if values.next().is_none() { value.to_str().ok().map(str::trim) } else { None };
    let text = text.and_then(|text| match text.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"'),
        None => Some(text),
    });
    let is_key = |text: &&str| {
        let allowed = |byte: u8| byte.is_ascii_graphic() && !b"\"\\,".contains(&byte);
        (1..=MAX_CHARS).contains(&text.len()) && text.bytes().all(allowed)
    };
    match text.filter(is_key) {
        Some(text) => Ok(Some(IdempotencyKey(text.to_owned()))),
        None => Err(refused("must be sent once, with 1 to 255 visible ASCII characters except comma, quote and \\")),
    }
}

/// Returns the error for a deployment without idempotency. Ignoring the key instead would let the client rely on a
/// protection that it does not have.
pub(crate) fn unsupported() -> Problem {
    refused("is not supported by this deployment: omit it")
}

fn refused(detail: &str) -> Problem {
    Problem::Request(vec![FieldError { location: ErrorLocation::Header(NAME), detail: detail.to_owned() }])
}

impl IdempotencyKey {
    /// Returns the id of the key's record, which is unique per caller, method and path.
    pub(crate) fn id(&self, caller: &Caller, method: &str, path: &str) -> String {
        digest(&[self.0.as_bytes(), method.as_bytes(), path.as_bytes(), caller.name().as_bytes()])
    }
}

/// Returns a digest that identifies the parsed request. Two bodies that differ only in the order of members, white
/// space, escapes or number formats are the same request, and a member that is null counts as absent. Repeated members
/// have already been rejected ([`crate::body`]).
pub(crate) fn fingerprint(draft: &CreateUserBody) -> String {
    let CreateUserBody { id, timestamp, profile } = draft;
    let mut text = String::from("{");
    let mut member = |name: &str, write: &dyn Fn(&mut String)| {
        write_canonical_text(name, &mut text);
        text.push(':');
        write(&mut text);
        text.push(',');
    };
    let texts = [
        ("user_id", id.as_ref().map(UserId::as_str)),
        ("name", Some(profile.name.as_str())),
        ("email", profile.email.as_ref().map(Email::as_str)),
        ("status", profile.status.as_ref().map(UserStatus::as_str)),
    ];
    for (name, value) in texts.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        member(name, &|text| write_canonical_text(value, text));
    }
    let seconds =
        [("timestamp", timestamp.map(Timestamp::seconds)), ("expires_at", profile.expires_at.map(ExpiresAt::seconds))];
    for (name, value) in seconds.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        member(name, &|text| text.push_str(&value.to_string()));
    }
    if let Some(attributes) = &profile.attributes {
        member("attributes", &|text| write_canonical_object(attributes.members(), text));
    }
    digest(&[text.as_bytes()])
}

/// Returns the seconds after which to retry a request whose key is claimed for `left` more seconds. A request usually
/// takes milliseconds. A claim that is older than any request can be was interrupted, and its key becomes available
/// only when the claim expires.
pub(crate) fn retry_after(left: i64) -> i64 {
    let age = IN_PROGRESS_EXPIRY_SECONDS - left;
    if age < MAX_REQUEST_SECONDS { left.clamp(1, SOON_SECONDS) } else { left.max(1) }
}

/// Returns a digest of the parts. Each part is preceded by its length, so that different lists of parts never produce
/// the same input.
fn digest(parts: &[&[u8]]) -> String {
    let mut digest = Sha256Hasher::new();
    for part in parts {
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    URL_SAFE_NO_PAD.encode(digest.finish())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;
    use crate::body;

    fn read(values: &[&[u8]]) -> Result<Option<IdempotencyKey>, Problem> {
        key(&values.iter().map(|value| (IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap())).collect())
    }

    #[test]
    fn a_key_is_the_same_with_and_without_quotes() {
        let uuid = "8e03978e-40d5-43e8-bc93-6894a57f9324";
        assert_eq!(read(&[uuid.as_bytes()]).unwrap(), Some(IdempotencyKey(uuid.into())));
        assert_eq!(read(&[format!("\"{uuid}\"").as_bytes()]).unwrap(), Some(IdempotencyKey(uuid.into())));
        assert_eq!(read(&[]).unwrap(), None);
        assert!(read(&["x".repeat(255).as_bytes()]).is_ok());
    }

    #[test]
    fn invalid_idempotency_key_is_rejected() {
        let long = "x".repeat(256);
        let wrong: [&[&[u8]]; 10] = [
            &[b""],
            &[b"\"\""],
            &[b"\"a"],
            &[b"a\""],
            &[b"a b"],
            &[b"a,b"],
            &[b"a\\b"],
            &[b"\xff"],
            &[b"a", b"a"],
            &[long.as_bytes()],
        ];
        for values in wrong {
            assert!(matches!(read(values), Err(Problem::Request(_))), "{values:?}");
        }
    }

    #[test]
    fn a_request_in_another_form_is_the_same_request() {
        let now = datetime!(2026-11-22 10:00 UTC);
        let of = |body: &str| body::parse_create(body.as_bytes(), now).map(|draft| fingerprint(&draft)).ok();
        let body = r#"{"user_id":"ada","timestamp":7,"name":"Ad\u0061","email":"ada@example.com","status":"on","expires_at":1900000000,"attributes":{"a":[1,{"b":1.50}],"c":"/"}}"#;
        let first = of(body).unwrap();
        for same in [
            r#"{"attributes":{"c":"\/","a":[1.0,{"b":15e-1}]},"expires_at":1900000000,"status":"on","email":"ada@example.com","name":"Ada","timestamp":7,"user_id":"ada"}"#,
            &body.replace(',', " ,\n\t").replace(':', " : "),
            &body.replace("\"name\"", "\"na\\u006de\""),
        ] {
            assert_eq!(of(same).as_ref(), Some(&first), "{same}");
        }
        for (part, other) in [
            ("\"ada\"", "\"eve\""),
            (":7", ":8"),
            ("0061", "0062"),
            ("ada@", "eve@"),
            ("\"on\"", "\"off\""),
            ("1900000000", "1900000001"),
            ("1.50", "1.51"),
            ("[1,", "[\"1\","),
            ("\"c\":", "\"d\":"),
            ("\"status\":\"on\",", ""),
        ] {
            assert!(body.contains(part));
            let other = of(&body.replacen(part, other, 1));
            assert!(other.is_some() && other.as_ref() != Some(&first), "{part}");
        }
        assert_eq!(of(r#"{"name":"A","status":null}"#), of(r#"{"name":"A"}"#), "null is absent");
        assert_ne!(of(r#"{"name":"A","attributes":{}}"#), of(r#"{"name":"A"}"#));
        for twice in [r#"{"name":"A","name":"A"}"#, r#"{"name":"A","attributes":{"a":1,"a":1}}"#] {
            assert_eq!(of(twice), None, "duplicates are rejected: {twice}");
        }
    }

    #[test]
    fn a_claim_is_waited_for_as_long_as_it_is_known_to_last() {
        let after = [30, 29, 25, 21, 20, 15, 1, 0].map(retry_after);
        assert_eq!(after, [1, 1, 1, 1, 20, 15, 1, 1]);
    }

    #[test]
    fn a_key_is_its_caller_s_and_its_path_s_own() {
        let (one, other) = (Caller::unrestricted("one".into()), Caller::unrestricted("other".into()));
        let key = IdempotencyKey("a".into());
        let ids = [key.id(&one, "POST", "/users"), key.id(&other, "POST", "/users"), key.id(&one, "POST", "/other")];
        assert!(
            ids[0] != ids[1] && ids[0] != ids[2] && ids[0] != IdempotencyKey("b".into()).id(&one, "POST", "/users")
        );
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_key_or_a_refusal(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let read = key(&HeaderMap::from_iter([(IDEMPOTENCY_KEY, value)]));
                prop_assert!(matches!(read, Ok(Some(_)) | Err(Problem::Request(_))));
            }
        }
    }
}
