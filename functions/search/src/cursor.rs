//! The cursors of a search: the position of the last record of a page, sealed for the query and the caller that it was
//! issued for.

use millrace_shared::http::caller::Caller;
use millrace_shared::http::cursor_seal::{SealKeys, SealNonce};
use millrace_shared::http::page_limit;
use time::OffsetDateTime;

use crate::request::SearchRequest;
use crate::sort::KeysetPosition;

/// Seals and opens the cursors of one query of one caller.
pub(crate) struct SearchCursors<'a> {
    pub(crate) keys: &'a SealKeys,
    pub(crate) question: &'a SearchRequest,
    pub(crate) caller: &'a Caller,
}

impl SearchCursors<'_> {
    /// Returns the cursor of the page after this position, or `None` if the position is longer than the cipher accepts.
    pub(crate) fn encode(&self, place: &KeysetPosition, now: OffsetDateTime, salt: SealNonce) -> Option<String> {
        page_limit::seal(self.keys, &serde_json::to_string(place).ok()?, &self.binding(), now, salt)
    }

    pub(crate) fn decode(&self, text: &str, now: OffsetDateTime) -> Option<KeysetPosition> {
        let place = page_limit::open(self.keys, text, &self.binding(), now)?;
        let place: KeysetPosition = serde_json::from_str(&place).ok()?;
        place.is_valid_for(self.question.sort).then_some(place)
    }

    /// Returns the text that a cursor is bound to: the query and the caller.
    fn binding(&self) -> String {
        let asked = self.question;
        let question = (asked.sort.as_str(), asked.order.as_str(), asked.filter.conditions(), self.caller.name());
        // Nested lists of texts are unambiguous as JSON and can always be serialized.
        format!("search {}", serde_json::to_string(&question).unwrap_or_default())
    }
}
