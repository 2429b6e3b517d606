//! Pages of a list: how many records, and from where on.
//!
//! A cursor is the key of the last record given, bound to the list that it was given for. It is opaque but not sealed:
//! whoever may read the list may as well start anywhere in it. What protects it further belongs into [`encode`] and
//! [`decode`].

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use shared::table::{Listing, Position};
use shared::user::json::Number;
use shared::user::timestamp::Timestamp;

use crate::query::Query;

/// Records in a page when the client does not say.
const DEFAULT_LIMIT: usize = 100;
/// Records in a page at most.
const MAX_LIMIT: usize = 1_000;
/// The cursor's layout; one of another layout is refused, not misread.
const FORMAT: u8 = 1;
/// Bytes of the list's digest: enough to catch a cursor of another list, which is all that it is for.
const BINDING_BYTES: usize = 8;
/// DynamoDB's bound of a partition key.
const MAX_KEY_BYTES: usize = 2_048;

/// The parameter `limit`.
pub(crate) fn limit(query: &mut Query) -> usize {
    let limit = query.take("limit", |text| match text.parse() {
        Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
        _ => Err(format!("must be a whole number from 1 to {MAX_LIMIT}")),
    });
    limit.unwrap_or(DEFAULT_LIMIT)
}

/// The parameter `cursor`, for this list.
pub(crate) fn cursor(query: &mut Query, listing: Listing<'_>) -> Option<Position> {
    query.take("cursor", |text| {
        decode(text, listing).ok_or("is none that this list gave: start again without it, or with the same filters")
    })
}

/// The cursor after this position.
pub(crate) fn encode(position: &Position, listing: Listing<'_>) -> String {
    let mut bytes = vec![FORMAT];
    bytes.extend(binding(listing));
    bytes.push(u8::try_from(position.timestamp.len()).unwrap_or(u8::MAX));
    bytes.extend(position.timestamp.as_bytes());
    bytes.extend(position.user_id.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(text: &str, listing: Listing<'_>) -> Option<Position> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (&format, rest) = bytes.split_first()?;
    let (bound, rest) = rest.split_at_checked(BINDING_BYTES)?;
    let (&length, rest) = rest.split_first()?;
    let (timestamp, user_id) = rest.split_at_checked(usize::from(length))?;
    let position = Position {
        user_id: String::from_utf8(user_id.to_vec()).ok()?,
        timestamp: String::from_utf8(timestamp.to_vec()).ok()?,
    };
    let sound = format == FORMAT
        && bound == binding(listing)
        && (1..=MAX_KEY_BYTES).contains(&position.user_id.len())
        && Number::parse(&position.timestamp).is_ok()
        && lies_in(&position, listing);
    sound.then_some(position)
}

/// DynamoDB refuses to start outside of what is asked for.
fn lies_in(position: &Position, listing: Listing<'_>) -> bool {
    let Listing::User { id, from, to } = listing else {
        return true;
    };
    if position.user_id != id.as_str() || (from.is_none() && to.is_none()) {
        return position.user_id == id.as_str();
    }
    let (from, to) = (from.map_or(0, Timestamp::seconds), to.map_or(Timestamp::MAX_SECONDS, Timestamp::seconds));
    // Another program's record may stand between two seconds.
    let (whole, fraction) = position.timestamp.split_once('.').unwrap_or((&position.timestamp, ""));
    whole.parse().is_ok_and(|second: i64| from <= second && (second < to || (second == to && fraction.is_empty())))
}

fn binding(listing: Listing<'_>) -> [u8; BINDING_BYTES] {
    let bound = |second: Option<Timestamp>| second.map_or(String::new(), |second| second.seconds().to_string());
    let filter = match listing {
        Listing::All => "all".to_owned(),
        Listing::Email(email) => format!("email {}", email.as_str()),
        Listing::User { id, from, to } => format!("user {id} {} {}", bound(from), bound(to)),
    };
    let mut bytes = [0; BINDING_BYTES];
    bytes.copy_from_slice(&Sha256::digest(filter)[..BINDING_BYTES]);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::user::email::Email;
    use shared::user::id::UserId;

    use super::*;

    fn position() -> Position {
        Position { user_id: "ada".into(), timestamp: "1700000000".into() }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::parse(seconds).unwrap()
    }

    #[test]
    fn a_cursor_leads_back_to_its_position() {
        let (id, email) = (UserId::parse("ada").unwrap(), Email::parse("a@b.cd").unwrap());
        for listing in [Listing::All, Listing::Email(&email), Listing::User { id: &id, from: Some(at(0)), to: None }] {
            let cursor = encode(&position(), listing);
            assert_eq!(decode(&cursor, listing), Some(position()));
            assert!(cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{cursor}");
        }
    }

    #[test]
    fn a_cursor_of_another_list_is_refused() {
        let (ada, eve) = (UserId::parse("ada").unwrap(), UserId::parse("eve").unwrap());
        let (one, other) = (Email::parse("a@b.cd").unwrap(), Email::parse("b@b.cd").unwrap());
        let lists = [
            Listing::All,
            Listing::Email(&one),
            Listing::Email(&other),
            Listing::User { id: &ada, from: None, to: None },
            Listing::User { id: &ada, from: Some(at(0)), to: None },
            Listing::User { id: &ada, from: None, to: Some(at(1_800_000_000)) },
            Listing::User { id: &eve, from: None, to: None },
        ];
        for (given, listing) in lists.iter().enumerate() {
            for (asked, other) in lists.iter().enumerate() {
                let decoded = decode(&encode(&position(), *listing), *other);
                assert_eq!(decoded.is_some(), given == asked && given != 6, "{listing:?} {other:?}");
            }
        }
    }

    #[test]
    fn a_cursor_outside_of_its_own_range_is_refused() {
        let id = UserId::parse("ada").unwrap();
        let listing = Listing::User { id: &id, from: Some(at(1_700_000_001)), to: Some(at(1_800_000_000)) };
        assert_eq!(decode(&encode(&position(), listing), listing), None);
    }

    #[test]
    fn a_position_that_no_list_can_start_from_is_refused() {
        let at_second = |timestamp: &str| Position { timestamp: timestamp.into(), ..position() };
        let of_nobody = Position { user_id: "a".repeat(2_049), ..position() };
        for position in [at_second(&"9".repeat(39)), at_second("1e200"), at_second("x"), of_nobody] {
            assert_eq!(decode(&encode(&position, Listing::All), Listing::All), None, "{position:?}");
        }
        let id = UserId::parse("ada").unwrap();
        let within = Listing::User { id: &id, from: Some(at(5)), to: Some(at(7)) };
        let until = Listing::User { id: &id, from: None, to: Some(at(7)) };
        for (timestamp, in_within, in_until) in [
            ("4.5", false, true),
            ("5", true, true),
            ("6.5", true, true),
            ("7", true, true),
            ("7.5", false, false),
            ("1e0", false, false),
            ("-1", false, false),
        ] {
            for (listing, lies) in [(within, in_within), (until, in_until)] {
                let decoded = decode(&encode(&at_second(timestamp), listing), listing);
                assert_eq!(decoded.is_some(), lies, "{timestamp} in {listing:?}");
            }
        }
    }

    #[test]
    fn a_limit_is_at_least_one_and_at_most_a_thousand() {
        let of = |text: &str| {
            let mut query = Query::parse(Some(text), &["limit"]);
            let limit = limit(&mut query);
            query.finish().map(|()| limit).ok()
        };
        assert_eq!([of(""), of("limit=1"), of("limit=1000")], [Some(100), Some(1), Some(1_000)]);
        for text in ["limit=0", "limit=-1", "limit=1001", "limit=", "limit=ten", "limit=1.5"] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_misread_as_a_cursor(text in "[A-Za-z0-9_-]{0,80}") {
            prop_assert_eq!(decode(&text, Listing::All), None);
        }
    }
}
