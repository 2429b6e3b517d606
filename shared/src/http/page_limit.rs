//! Page limits of a list, and the cursor of its next page.
//!
//! A cursor is a sealed position in a list ([`super::cursor_seal`]). It is bound to a context that its API defines, and
//! it expires after a day. It therefore cannot be modified, read, used after a day, or used for another list, and so
//! always contains a position inside its list.

use time::OffsetDateTime;

use super::cursor_seal::{SealKeys, SealNonce};
use super::query::QueryParameters;

/// The number of records in a page if the client specifies no limit.
const DEFAULT_LIMIT: usize = 100;
/// The maximum number of records in a page.
const MAX_LIMIT: usize = 1_000;
/// The error for a cursor that cannot be opened.
pub const INVALID_CURSOR: &str =
    "is modified, older than a day, or issued for other parameters or another caller: restart without it";
/// The time after which a cursor expires.
const VALID_SECONDS: i64 = 24 * 60 * 60;

/// Takes the parameter `limit`, which must be at least 1. A limit above the maximum is reduced to it.
pub fn limit(query: &mut QueryParameters) -> usize {
    let limit = query.take("limit", |text| {
        let digits = text.trim_start_matches('0');
        if digits.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("must be a whole number, 1 or more");
        }
        // A number that is too large to parse exceeds the maximum.
        Ok(digits.parse().unwrap_or(MAX_LIMIT).min(MAX_LIMIT))
    });
    limit.unwrap_or(DEFAULT_LIMIT)
}

/// Seals a position as a cursor for the context `serves`. Returns `None` only if the position is longer than the cipher
/// allows.
#[must_use]
pub fn seal(keys: &SealKeys, position: &str, serves: &str, now: OffsetDateTime, salt: SealNonce) -> Option<String> {
    let until = now.unix_timestamp() + VALID_SECONDS;
    keys.seal(format!("{until} {position}").as_bytes(), serves.as_bytes(), salt)
}

/// Returns the position in a cursor if the cursor is for the context `serves` and has not expired.
#[must_use]
pub fn open(keys: &SealKeys, cursor: &str, serves: &str, now: OffsetDateTime) -> Option<String> {
    let text = String::from_utf8(keys.open(cursor, serves.as_bytes())?).ok()?;
    let (until, position) = text.split_once(' ')?;
    let until: i64 = until.parse().ok()?;
    (now.unix_timestamp() < until).then(|| position.to_owned())
}

#[cfg(test)]
mod tests {
    use time::Duration;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_cursor_is_good_for_a_day_and_for_what_it_serves() {
        let now = datetime!(2026-11-22 10:00 UTC);
        let keys = SealKeys::parse("test:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=").unwrap();
        let cursor = seal(&keys, "a position", "this list", now, [7; 12]).unwrap();
        let open_at = |serves, now| open(&keys, &cursor, serves, now);
        assert_eq!(open_at("this list", now + Duration::DAY - Duration::SECOND).as_deref(), Some("a position"));
        assert_eq!(open_at("this list", now + Duration::DAY), None);
        assert_eq!(open_at("that list", now), None);
        assert!(!cursor.contains("position"), "the position is encrypted");
    }

    #[test]
    fn a_limit_is_at_least_one_and_clamped_to_a_page() {
        let of = |text: &str| {
            let mut query = QueryParameters::parse(Some(text), &["limit"]);
            let limit = limit(&mut query);
            query.finish().map(|()| limit).ok()
        };
        assert_eq!([of(""), of("limit=1"), of("limit=1000")], [Some(100), Some(1), Some(1_000)]);
        assert_eq!([of("limit=1001"), of(&format!("limit={}", "9".repeat(99)))], [Some(1_000), Some(1_000)]);
        for text in ["limit=0", "limit=00", "limit=-1", "limit=%2B1", "limit=", "limit=ten", "limit=1.5"] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
