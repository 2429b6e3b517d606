//! The cursors of user lists: the key of the last record of a page, sealed for the list and the caller that it was
//! issued for.

use millrace_http::problem::Problem;
use millrace_shared::http::caller::Caller;
use millrace_shared::http::cursor_seal::{SealKeys, SealNonce};
use millrace_shared::http::page_limit;
use millrace_shared::http::query::QueryParameters;
use millrace_shared::table::{ListOrder, ListQuery, PageKey};
use millrace_shared::user::Timestamp;
use time::OffsetDateTime;

/// Parses the parameter `cursor` for this list.
pub(crate) fn cursor(query: &mut QueryParameters, cursors: &ListCursors<'_>, now: OffsetDateTime) -> Option<PageKey> {
    query.take("cursor", |text| cursors.decode(text, now).ok_or(page_limit::INVALID_CURSOR))
}

/// Seals and opens the cursors of one list for one caller.
pub(crate) struct ListCursors<'a> {
    pub(crate) keys: &'a SealKeys,
    pub(crate) listing: ListQuery<'a>,
    pub(crate) caller: &'a Caller,
}

impl ListCursors<'_> {
    /// Returns the cursor of the page that starts after this position.
    pub(crate) fn encode(&self, position: &PageKey, now: OffsetDateTime, salt: SealNonce) -> Result<String, Problem> {
        let text = format!("{} {}", position.timestamp, position.user_id);
        let sealed = page_limit::seal(self.keys, &text, &self.binding(), now, salt);
        sealed.ok_or_else(|| Problem::Internal { cause: "cannot encrypt the cursor".into() })
    }

    fn decode(&self, text: &str, now: OffsetDateTime) -> Option<PageKey> {
        let opened = page_limit::open(self.keys, text, &self.binding(), now)?;
        let (timestamp, user_id) = opened.split_once(' ')?;
        Some(PageKey { user_id: user_id.to_owned(), timestamp: timestamp.to_owned() })
    }

    /// Returns the text that a cursor is bound to: the list and the caller. The caller's name comes last, because it
    /// may contain any character.
    fn binding(&self) -> String {
        let bound = |second: Option<Timestamp>| second.map_or(String::new(), |second| second.seconds().to_string());
        let order = |order: ListOrder| match order {
            ListOrder::NewestFirst => "desc",
            ListOrder::OldestFirst => "asc",
        };
        let list = match self.listing {
            ListQuery::All { segment: None } => "all".to_owned(),
            ListQuery::All { segment: Some(segment) } => format!("all {}/{}", segment.index, segment.of),
            ListQuery::Email { email, order: by } => format!("email {} {}", email.as_str(), order(by)),
            ListQuery::User { id, from, to, order: by } => {
                format!("user {id} {}-{} {}", bound(from), bound(to), order(by))
            }
        };
        format!("{list}\n{}", self.caller.name())
    }
}

#[cfg(test)]
mod tests {
    use millrace_shared::table::ListSegment;
    use millrace_shared::user::email::Email;
    use millrace_shared::user::id::UserId;
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-22 10:00 UTC);
    const SALT: SealNonce = [7; 12];

    fn keys() -> SealKeys {
        SealKeys::parse("test:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=").unwrap()
    }

    fn position() -> PageKey {
        PageKey { user_id: "ada".into(), timestamp: "1700000000".into() }
    }

    fn at(seconds: i64) -> Option<Timestamp> {
        Timestamp::parse(seconds).ok()
    }

    #[test]
    fn a_cursor_leads_back_to_its_position_for_its_own_list_and_caller_alone() {
        let (ada, eve) = (UserId::parse("ada").unwrap(), UserId::parse("eve").unwrap());
        let (one, other) = (Email::parse("a@b.cd").unwrap(), Email::parse("b@b.cd").unwrap());
        let (desc, asc) = (ListOrder::NewestFirst, ListOrder::OldestFirst);
        let lists = [
            ListQuery::All { segment: None },
            ListQuery::All { segment: Some(ListSegment { index: 0, of: 2 }) },
            ListQuery::All { segment: Some(ListSegment { index: 1, of: 2 }) },
            ListQuery::All { segment: Some(ListSegment { index: 1, of: 3 }) },
            ListQuery::Email { email: &one, order: desc },
            ListQuery::Email { email: &one, order: asc },
            ListQuery::Email { email: &other, order: desc },
            ListQuery::User { id: &ada, from: None, to: None, order: desc },
            ListQuery::User { id: &ada, from: None, to: None, order: asc },
            ListQuery::User { id: &ada, from: at(5), to: None, order: desc },
            ListQuery::User { id: &ada, from: None, to: at(5), order: desc },
            ListQuery::User { id: &eve, from: None, to: None, order: desc },
        ];
        let keys = keys();
        let callers = ["one", "other"].map(|name| Caller::unrestricted(name.into()));
        let all = || (0..lists.len()).flat_map(|list| (0..callers.len()).map(move |caller| (list, caller)));
        let of = |(list, caller): (usize, usize)| ListCursors {
            keys: &keys,
            listing: lists[list],
            caller: &callers[caller],
        };
        for given in all() {
            let cursor = of(given).encode(&position(), NOW, SALT).unwrap();
            for other in all() {
                let decoded = of(other).decode(&cursor, NOW);
                assert_eq!(decoded, (given == other).then(position), "{given:?} {other:?}");
            }
        }
    }

    #[test]
    fn another_program_s_key_survives_in_a_cursor() {
        let (keys, caller) = (keys(), Caller::unrestricted("one".into()));
        let cursors = ListCursors { keys: &keys, listing: ListQuery::All { segment: None }, caller: &caller };
        let strange = PageKey { user_id: " a b\n\u{e9} ".into(), timestamp: "-1.5".into() };
        let cursor = cursors.encode(&strange, NOW, SALT).unwrap();
        assert_eq!(cursors.decode(&cursor, NOW), Some(strange));
    }

    proptest! {
        #[test]
        fn no_bytes_are_misread_as_a_cursor(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (keys, caller) = (keys(), Caller::unrestricted("one".into()));
            let cursors = ListCursors { keys: &keys, listing: ListQuery::All { segment: None }, caller: &caller };
            prop_assert_eq!(cursors.decode(&String::from_utf8_lossy(&bytes), NOW), None);
        }
    }
}
