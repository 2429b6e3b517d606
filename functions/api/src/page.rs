//! The cursors of the lists of users: the key of the last record given, for the list that it was given for and the caller
//! that it was given to.

use front::problem::Problem;
use shared::http::caller::Caller;
use shared::http::page;
use shared::http::query::Query;
use shared::http::seal::{Keys, Salt};
use shared::table::{Listing, Order, Position};
use shared::user::timestamp::Timestamp;
use time::OffsetDateTime;

/// The parameter `cursor`, for this list.
pub(crate) fn cursor(query: &mut Query, cursors: &Cursors<'_>, now: OffsetDateTime) -> Option<Position> {
    query.take("cursor", |text| cursors.decode(text, now).ok_or(page::WRONG))
}

/// The cursors of one list for one caller.
pub(crate) struct Cursors<'a> {
    pub(crate) keys: &'a Keys,
    pub(crate) listing: Listing<'a>,
    pub(crate) caller: &'a Caller,
}

impl Cursors<'_> {
    /// The cursor after this position.
    pub(crate) fn encode(&self, position: &Position, now: OffsetDateTime, salt: Salt) -> Result<String, Problem> {
        let place = format!("{} {}", position.timestamp, position.user_id);
        let sealed = page::seal(self.keys, &place, &self.binding(), now, salt);
        sealed.ok_or_else(|| Problem::Internal { cause: "a cursor cannot be sealed".into() })
    }

    fn decode(&self, text: &str, now: OffsetDateTime) -> Option<Position> {
        let place = page::open(self.keys, text, &self.binding(), now)?;
        let (timestamp, user_id) = place.split_once(' ')?;
        Some(Position { user_id: user_id.to_owned(), timestamp: timestamp.to_owned() })
    }

    /// What a cursor serves: the caller's name comes last, for it may have anything in it.
    fn binding(&self) -> String {
        let bound = |second: Option<Timestamp>| second.map_or(String::new(), |second| second.seconds().to_string());
        let order = |order: Order| match order {
            Order::NewestFirst => "desc",
            Order::OldestFirst => "asc",
        };
        let list = match self.listing {
            Listing::All { segment: None } => "all".to_owned(),
            Listing::All { segment: Some(segment) } => format!("all {}/{}", segment.index, segment.of),
            Listing::Email { email, order: by } => format!("email {} {}", email.as_str(), order(by)),
            Listing::User { id, from, to, order: by } => {
                format!("user {id} {}-{} {}", bound(from), bound(to), order(by))
            }
        };
        format!("{list}\n{}", self.caller.name())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::table::Segment;
    use shared::user::email::Email;
    use shared::user::id::UserId;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-22 10:00 UTC);
    const SALT: Salt = [7; 12];

    fn keys() -> Keys {
        Keys::parse("test:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=").unwrap()
    }

    fn position() -> Position {
        Position { user_id: "ada".into(), timestamp: "1700000000".into() }
    }

    fn at(seconds: i64) -> Option<Timestamp> {
        Timestamp::parse(seconds).ok()
    }

    #[test]
    fn a_cursor_leads_back_to_its_position_for_its_own_list_and_caller_alone() {
        let (ada, eve) = (UserId::parse("ada").unwrap(), UserId::parse("eve").unwrap());
        let (one, other) = (Email::parse("a@b.cd").unwrap(), Email::parse("b@b.cd").unwrap());
        let (desc, asc) = (Order::NewestFirst, Order::OldestFirst);
        let lists = [
            Listing::All { segment: None },
            Listing::All { segment: Some(Segment { index: 0, of: 2 }) },
            Listing::All { segment: Some(Segment { index: 1, of: 2 }) },
            Listing::All { segment: Some(Segment { index: 1, of: 3 }) },
            Listing::Email { email: &one, order: desc },
            Listing::Email { email: &one, order: asc },
            Listing::Email { email: &other, order: desc },
            Listing::User { id: &ada, from: None, to: None, order: desc },
            Listing::User { id: &ada, from: None, to: None, order: asc },
            Listing::User { id: &ada, from: at(5), to: None, order: desc },
            Listing::User { id: &ada, from: None, to: at(5), order: desc },
            Listing::User { id: &eve, from: None, to: None, order: desc },
        ];
        let keys = keys();
        let callers = ["one", "other"].map(|name| Caller::trusted(name.into()));
        let all = || (0..lists.len()).flat_map(|list| (0..callers.len()).map(move |caller| (list, caller)));
        let of =
            |(list, caller): (usize, usize)| Cursors { keys: &keys, listing: lists[list], caller: &callers[caller] };
        for given in all() {
            let cursor = of(given).encode(&position(), NOW, SALT).unwrap();
            for asked in all() {
                let decoded = of(asked).decode(&cursor, NOW);
                assert_eq!(decoded, (given == asked).then(position), "{given:?} {asked:?}");
            }
        }
    }

    #[test]
    fn another_program_s_key_survives_in_a_cursor() {
        let (keys, caller) = (keys(), Caller::trusted("one".into()));
        let cursors = Cursors { keys: &keys, listing: Listing::All { segment: None }, caller: &caller };
        let strange = Position { user_id: " a b\n\u{e9} ".into(), timestamp: "-1.5".into() };
        let cursor = cursors.encode(&strange, NOW, SALT).unwrap();
        assert_eq!(cursors.decode(&cursor, NOW), Some(strange));
    }

    proptest! {
        #[test]
        fn no_bytes_are_misread_as_a_cursor(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (keys, caller) = (keys(), Caller::trusted("one".into()));
            let cursors = Cursors { keys: &keys, listing: Listing::All { segment: None }, caller: &caller };
            prop_assert_eq!(cursors.decode(&String::from_utf8_lossy(&bytes), NOW), None);
        }
    }
}
