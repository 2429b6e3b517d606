//! `If-Match` and `If-None-Match` (RFC 9110, sections 13.1.1 and 13.1.2), and the entity tag that they refer to: the
//! record's version, quoted.
//!
//! No `Last-Modified` is sent, so the headers about modification times are ignored, as section 13.1.4 requires.

use axum::http::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue};
use millrace_http::problem::{ErrorLocation, FieldError, Problem};
use millrace_shared::user::precondition::{EntityTags, Precondition};

/// More tags than any client needs. They become operands of DynamoDB's `IN`, which accepts at most 100.
const MAX_TAGS: usize = 50;

/// Returns the entity tag of a version. A record without a version has no tag: a write by another program would not
/// change it.
pub(crate) fn entity_tag(version: u64) -> Option<HeaderValue> {
    (version > 0).then(|| HeaderValue::from_str(&format!("\"{version}\"")).ok()).flatten()
}

/// Parses the preconditions of a request.
pub(crate) fn read(headers: &HeaderMap) -> Result<Precondition, Problem> {
    // If-Match compares strongly: a weak tag never matches there (section 8.8.3.2).
    let if_match = tags(headers, &IF_MATCH, false).map_err(|detail| header_error("if-match", detail))?;
    let if_none_match = tags(headers, &IF_NONE_MATCH, true).map_err(|detail| header_error("if-none-match", detail))?;
    Ok(Precondition { if_match, if_none_match })
}

fn header_error(header: &'static str, detail: &str) -> Problem {
    Problem::Request(vec![FieldError { location: ErrorLocation::Header(header), detail: detail.to_owned() }])
}

fn tags(headers: &HeaderMap, name: &HeaderName, weak: bool) -> Result<Option<EntityTags>, &'static str> {
    const MALFORMED: &str = "must be * or a list of quoted entity tags";
    let mut given = false;
    let mut any = false;
    let mut count = 0;
    let mut versions = Vec::new();
    for line in headers.get_all(name) {
        given = true;
        // A tag may contain bytes above ASCII (section 8.8.3). Decoding them lossily is safe, because the tags of this
        // API contain only digits.
        let line = String::from_utf8_lossy(line.as_bytes());
        // A list may have empty elements (section 5.6.1.2).
        let mut rest = line.trim_matches([',', ' ', '\t']);
        if line.trim() == "*" {
            any = true;
            continue;
        }
        while !rest.is_empty() {
            let (tag, is_weak) = match rest.strip_prefix("W/") {
                Some(tag) => (tag, true),
                None => (rest, false),
            };
            let (opaque, after) = tag.strip_prefix('"').and_then(|tag| tag.split_once('"')).ok_or(MALFORMED)?;
            // Section 8.8.3: spaces and control characters are not allowed; bytes above ASCII are.
            if opaque.chars().any(|letter| letter <= ' ' || letter == '\u{7f}') {
                return Err(MALFORMED);
            }
            if weak || !is_weak {
                versions.extend(version(opaque));
            }
            count += 1;
            rest = after.trim_start();
            if !rest.is_empty() {
                rest = rest.strip_prefix(',').ok_or(MALFORMED)?.trim_start_matches([',', ' ', '\t']);
            }
        }
    }
    // A client that sends the header without a tag has lost the tag: the request must not be treated as one without a
    // precondition.
    if given && any == (count > 0) {
        return Err(MALFORMED);
    }
    if count > MAX_TAGS {
        return Err("must have at most 50 entity tags");
    }
    Ok(given.then_some(if any { EntityTags::Any } else { EntityTags::Versions(versions) }))
}

/// Returns the version in a tag that this API issued. A tag of another format is well-formed and matches nothing.
fn version(opaque: &str) -> Option<u64> {
    let digits = opaque.bytes().all(|byte| byte.is_ascii_digit()) && !opaque.starts_with('0');
    opaque.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn if_match(lines: &[&str]) -> Result<Option<EntityTags>, Problem> {
        let lines = lines.iter().map(|line| (IF_MATCH, HeaderValue::from_bytes(line.as_bytes()).unwrap()));
        read(&lines.collect()).map(|precondition| precondition.if_match)
    }

    fn versions(versions: &[u64]) -> EntityTags {
        EntityTags::Versions(versions.to_vec())
    }

    #[test]
    fn a_tag_is_the_version_quoted() {
        assert_eq!(entity_tag(7).unwrap(), "\"7\"");
        assert_eq!(entity_tag(0), None);
    }

    #[test]
    fn lists_of_tags_are_read_in_every_spelling() {
        for (lines, tags) in [
            (vec!["*"], Some(EntityTags::Any)),
            (vec!["\"7\""], Some(versions(&[7]))),
            (vec!["\"7\", \"8\""], Some(versions(&[7, 8]))),
            (vec!["\"7\",, ,\"8\" ,"], Some(versions(&[7, 8]))),
            (vec!["\"7\"", "\"8\""], Some(versions(&[7, 8]))),
            (vec![", \"7\"", " ,"], Some(versions(&[7]))),
            (vec!["\"\u{e9}\", \"7\""], Some(versions(&[7]))),
            (vec!["\"07\", \"0\", \"+7\", \"a,b\", \"\", \"99999999999999999999\""], Some(versions(&[]))),
            (vec![], None),
        ] {
            assert_eq!(if_match(&lines).unwrap(), tags, "{lines:?}");
        }
    }

    #[test]
    fn weak_tags_match_only_where_the_comparison_is_weak() {
        assert_eq!(if_match(&["W/\"7\", \"8\""]).unwrap(), Some(versions(&[8])));
        let headers = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static("W/\"7\""))]);
        assert_eq!(read(&headers).unwrap().if_none_match, Some(versions(&[7])));
    }

    #[test]
    fn invalid_entity_tag_list_is_rejected() {
        for lines in [
            vec!["7"],
            vec![""],
            vec![" , "],
            vec!["\"7"],
            vec!["\"7\" \"8\""],
            vec!["w/\"7\""],
            vec!["*", "\"7\""],
            vec!["*, \"7\""],
            vec!["\"a b\""],
        ] {
            assert!(if_match(&lines).is_err(), "{lines:?}");
        }
        assert!(if_match(&[&"\"1\",".repeat(50)]).is_ok());
        assert!(if_match(&[&"\"1\",".repeat(51)]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_precondition_or_a_refusal(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            tags in "[W/\"*,0-9 \ta-z]{0,60}",
        ) {
            for text in [&bytes[..], tags.as_bytes()] {
                if let Ok(value) = HeaderValue::from_bytes(text) {
                    let headers = [(IF_MATCH, value.clone()), (IF_NONE_MATCH, value)];
                    let read = read(&HeaderMap::from_iter(headers));
                    prop_assert!(matches!(read, Ok(_) | Err(Problem::Request(_))));
                }
            }
        }
    }
}
