//! Keyed hashes of attribute values: [`HashKey`].
//!
//! The hash is HMAC-SHA-256 over the canonical DynamoDB JSON of a value: numbers in canonical format, the elements of a
//! set and the members of a map sorted. Equal values therefore have equal hashes, whichever attribute, item or table
//! they are in, as long as the key is the same. A hash without a key would reveal the value: all email addresses that
//! have ever leaked can be hashed in minutes.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::hmac;
use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use millrace_shared::hash::to_hex;
use millrace_shared::number;
use millrace_shared::raw_item::RawItem;

/// The minimum length of a key in bytes.
const MIN_KEY_BYTES: usize = 16;
/// The message whose hash identifies a key without revealing it.
const FINGERPRINT: &[u8] = b"millrace hash key";

/// A key that is too short to resist guessing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("has {0} bytes: set it to at least {MIN_KEY_BYTES} random bytes, such as 64 hexadecimal digits")]
pub struct HashKeyError(usize);

/// A value of which no hash can be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnhashableValueError;

/// The key of a hash.
#[derive(Clone)]
pub struct HashKey(hmac::Key);

impl HashKey {
    /// Takes the bytes of a key.
    ///
    /// # Errors
    /// [`HashKeyError`] if there are too few of them.
    pub fn new(bytes: &[u8]) -> Result<Self, HashKeyError> {
        if bytes.len() < MIN_KEY_BYTES {
            return Err(HashKeyError(bytes.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    /// Returns an identifier of the key, which does not reveal it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        to_hex(&hmac::sign(&self.0, FINGERPRINT).as_ref()[..8])
    }

    /// Returns the hash of a value in DynamoDB JSON, as 64 hexadecimal digits.
    pub(crate) fn hash(&self, text: &str) -> Result<String, UnhashableValueError> {
        let tag = if is_plain_text(text) {
            hmac::sign(&self.0, text.as_bytes())
        } else {
            hmac::sign(&self.0, canonical(text)?.as_bytes())
        };
        Ok(to_hex(tag.as_ref()))
    }
}

/// Shows the fingerprint, not the key.
impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HashKey").field(&self.fingerprint()).finish()
    }
}

/// Returns whether a value certainly is a string in canonical form: the common case.
fn is_plain_text(value: &str) -> bool {
    let inner = value.strip_prefix(r#"{"S":""#).and_then(|rest| rest.strip_suffix(r#""}"#));
    inner.is_some_and(|inner| !inner.bytes().any(|byte| matches!(byte, b'"' | b'\\')))
}

/// Returns the canonical DynamoDB JSON of a value.
fn canonical(value: &str) -> Result<String, UnhashableValueError> {
    let item = RawItem::parse(&format!("{{\"v\":{value}}}")).map_err(|_| UnhashableValueError)?;
    let value = item.get("v").ok_or(UnhashableValueError)?;
    let mut text = String::new();
    write_canonical(value, &mut text)?;
    Ok(text)
}

fn write_canonical(value: &AttributeValue, text: &mut String) -> Result<(), UnhashableValueError> {
    use AttributeValue::{B, Bool, Bs, L, M, N, Ns, Null, S, Ss};
    let number = |number: &String| number::canonical(number).map(|it| quoted(&it)).ok_or(UnhashableValueError);
    let set = |mut elements: Vec<String>| {
        elements.sort_unstable();
        format!("[{}]", elements.join(","))
    };
    let (kind, content) = match value {
        S(it) => ("S", quoted(it)),
        N(it) => ("N", number(it)?),
        B(it) => ("B", quoted(&BASE64.encode(it))),
        Bool(it) => ("BOOL", it.to_string()),
        Null(it) => ("NULL", it.to_string()),
        Ss(it) => ("SS", set(it.iter().map(|it| quoted(it)).collect())),
        Ns(it) => ("NS", set(it.iter().map(number).collect::<Result<_, _>>()?)),
        Bs(it) => ("BS", set(it.iter().map(|it| quoted(&BASE64.encode(it))).collect())),
        L(it) => {
            let mut list = "[".to_owned();
            for (index, element) in it.iter().enumerate() {
                list.push_str(if index > 0 { "," } else { "" });
                write_canonical(element, &mut list)?;
            }
            ("L", list + "]")
        }
        M(it) => {
            let mut map = "{".to_owned();
            for (index, (name, member)) in it.iter().collect::<BTreeMap<_, _>>().into_iter().enumerate() {
                map.push_str(if index > 0 { "," } else { "" });
                map.push_str(&quoted(name));
                map.push(':');
                write_canonical(member, &mut map)?;
            }
            ("M", map + "}")
        }
        _ => return Err(UnhashableValueError),
    };
    text.extend(["{\"", kind, "\":", &content, "}"]);
    Ok(())
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_with(key: &[u8], value: &str) -> Option<String> {
        HashKey::new(key).unwrap().hash(value).ok()
    }

    fn hash(value: &str) -> Option<String> {
        hash_with(b"0123456789abcdef", value)
    }

    #[test]
    fn equal_values_have_equal_hashes_and_others_do_not() {
        let groups: [&[&str]; 6] = [
            &[r#"{"S":"é"}"#, r#"{"S":"\u00e9"}"#, r#"{ "S" : "é" }"#],
            &[r#"{"N":"1500"}"#, r#"{"N":"1.5e3"}"#, r#"{"N":"1500.0"}"#],
            &[r#"{"S":"1500"}"#],
            &[r#"{"NS":["1","2.0"]}"#, r#"{"NS":["2","1e0"]}"#],
            &[r#"{"SS":["1","2"]}"#, r#"{"SS":["2","1"]}"#],
            &[
                r#"{"M":{"a":{"L":[{"N":"1"},{"BS":["AQ==","Ag=="]}]},"b":{"NULL":true}}}"#,
                r#"{"M":{"b":{"NULL":true},"a":{"L":[{"N":"1.0"},{"BS":["Ag==","AQ=="]}]}}}"#,
            ],
        ];
        let mut all = Vec::new();
        for group in groups {
            let first = hash(group[0]).unwrap();
            assert!(group.iter().all(|value| hash(value).as_ref() == Some(&first)), "{group:?}");
            assert_eq!(first.len(), 64);
            all.push(first);
        }
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), groups.len());
    }

    #[test]
    fn hash_is_the_published_function() {
        // printf '{"S":"ada@example.com"}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let expected = "83b1209e1acdee0a5ff396462fd4576024488eba31b550fa03d07f3abb78db28";
        assert_eq!(hash(r#"{"S":"ada@example.com"}"#).unwrap(), expected);
    }

    #[test]
    fn hash_depends_on_the_key_and_does_not_reveal_it() {
        let (one, other) = (b"0123456789abcdef", b"0123456789abcdeX");
        assert_ne!(hash_with(one, r#"{"S":"a"}"#), hash_with(other, r#"{"S":"a"}"#));
        let key = HashKey::new(one).unwrap();
        assert_ne!(key.fingerprint(), HashKey::new(other).unwrap().fingerprint());
        assert!(!format!("{key:?}").contains("0123456789"), "{key:?}");
        assert!(HashKey::new(b"short").unwrap_err().to_string().contains("at least 16 random bytes"));
    }

    #[test]
    fn malformed_value_has_no_hash() {
        for value in [r#"{"N":"x"}"#, r#"{"X":"1"}"#, r#"{"B":"*"}"#, r#"{"S":1}"#, "{}", r#""a""#, r#"{"NS":["x"]}"#] {
            assert_eq!(hash(value), None, "{value}");
        }
    }
}
