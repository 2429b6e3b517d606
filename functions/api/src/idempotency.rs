//! The header `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): which request it names, for whom.
//!
//! The draft writes it as a quoted string (RFC 9651, section 3.3.3); many clients leave the quotes out, and mean the same.

use axum::http::{HeaderMap, HeaderName};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use front::problem::{Mistake, Place, Problem};
use sha2::{Digest, Sha256};
use shared::http::caller::Caller;

const NAME: &str = "idempotency-key";
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static(NAME);
const MAX_CHARS: usize = 255;

/// A key as a client gave it.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Key(String);

/// Reads the header, if it is given.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<Key>, Problem> {
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
        Some(text) => Ok(Some(Key(text.to_owned()))),
        None => {
            Err(refused("must be given once, with 1 to 255 visible characters, none of them a comma, a quote or \\"))
        }
    }
}

/// A key would be ignored here, and its client rely on what it is not given.
pub(crate) fn not_offered() -> Problem {
    refused("is not offered by this deployment: leave it out")
}

fn refused(detail: &str) -> Problem {
    Problem::Request(vec![Mistake { place: Place::Header(NAME), detail: detail.to_owned() }])
}

impl Key {
    /// The key within its caller, method and path.
    pub(crate) fn id(&self, caller: &Caller, method: &str, path: &str) -> String {
        digest(&[self.0.as_bytes(), method.as_bytes(), path.as_bytes(), caller.name().as_bytes()])
    }
}

/// Which request it was.
pub(crate) fn fingerprint(body: &[u8]) -> String {
    digest(&[body])
}

/// Each part with its length before it: two lists of parts never read alike.
fn digest(parts: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    URL_SAFE_NO_PAD.encode(digest.finalize())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn read(values: &[&[u8]]) -> Result<Option<Key>, Problem> {
        key(&values.iter().map(|value| (IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap())).collect())
    }

    #[test]
    fn a_key_is_the_same_with_and_without_quotes() {
        let uuid = "8e03978e-40d5-43e8-bc93-6894a57f9324";
        assert_eq!(read(&[uuid.as_bytes()]).unwrap(), Some(Key(uuid.into())));
        assert_eq!(read(&[format!("\"{uuid}\"").as_bytes()]).unwrap(), Some(Key(uuid.into())));
        assert_eq!(read(&[]).unwrap(), None);
        assert!(read(&["x".repeat(255).as_bytes()]).is_ok());
    }

    #[test]
    fn what_is_no_key_is_refused() {
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
    fn a_key_is_its_caller_s_and_its_path_s_own() {
        let (one, other) = (Caller::trusted("one".into()), Caller::trusted("other".into()));
        let key = Key("a".into());
        let ids = [key.id(&one, "POST", "/users"), key.id(&other, "POST", "/users"), key.id(&one, "POST", "/other")];
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[0] != Key("b".into()).id(&one, "POST", "/users"));
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
