//! Pages of a list: how many there are in one, and the cursor that leads to the next.
//!
//! A cursor is a place in a list, sealed ([`super::cursor_seal`]) for what it serves, which its API says, and for a day. So it
//! cannot be changed, read, kept for ever, or used elsewhere; that it names a place inside of the list follows.

use time::OffsetDateTime;

use super::cursor_seal::{SealKeys, SealNonce};
use super::query::QueryParameters;

/// Records in a page when the client does not say.
const DEFAULT_LIMIT: usize = 100;
/// Records in a page at most, whatever the client says.
const MAX_LIMIT: usize = 1_000;
/// The error for a cursor that cannot be opened.
pub const INVALID_CURSOR: &str =
    "is modified, older than a day, or issued for other parameters or another caller: restart without it";
/// How long a cursor may be used.
const VALID_SECONDS: i64 = 24 * 60 * 60;

/// The parameter `limit`: at least one; more than a page holds is as much as a page holds.
pub fn limit(query: &mut QueryParameters) -> usize {
    let limit = query.take("limit", |text| {
        let digits = text.trim_start_matches('0');
        if digits.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("must be a whole number, 1 or more");
        }
        // What is too long for a number is more than a page holds.
        Ok(digits.parse().unwrap_or(MAX_LIMIT).min(MAX_LIMIT))
    });
    limit.unwrap_or(DEFAULT_LIMIT)
}

/// A place as a cursor. Nothing comes of it only if the place is longer than a cipher takes.
#[must_use]
pub fn seal(keys: &SealKeys, place: &str, serves: &str, now: OffsetDateTime, salt: SealNonce) -> Option<String> {
    let until = now.unix_timestamp() + VALID_SECONDS;
    keys.seal(format!("{until} {place}").as_bytes(), serves.as_bytes(), salt)
}

/// The place of a cursor that serves this, now.
#[must_use]
pub fn open(keys: &SealKeys, cursor: &str, serves: &str, now: OffsetDateTime) -> Option<String> {
    let text = String::from_utf8(keys.open(cursor, serves.as_bytes())?).ok()?;
    let (until, place) = text.split_once(' ')?;
    let until: i64 = until.parse().ok()?;
    (now.unix_timestamp() < until).then(|| place.to_owned())
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
        let cursor = seal(&keys, "a place", "this list", now, [7; 12]).unwrap();
        let open_at = |serves, now| open(&keys, &cursor, serves, now);
        assert_eq!(open_at("this list", now + Duration::DAY - Duration::SECOND).as_deref(), Some("a place"));
        assert_eq!(open_at("this list", now + Duration::DAY), None);
        assert_eq!(open_at("that list", now), None);
        assert!(!cursor.contains("place"), "nothing of it can be read");
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
