//! The cursors of a search: the place of the last record given, for the question that it was given for and the caller
//! that it was given to.

use shared::http::caller::Caller;
use shared::http::cursor_seal::{SealKeys, SealNonce};
use shared::http::page_limit;
use time::OffsetDateTime;

use crate::request::SearchRequest;
use crate::sort::KeysetPosition;

/// The cursors of one question of one caller.
pub(crate) struct SearchCursors<'a> {
    pub(crate) keys: &'a SealKeys,
    pub(crate) question: &'a SearchRequest,
    pub(crate) caller: &'a Caller,
}

impl SearchCursors<'_> {
    /// The cursor after this place; nothing comes of it only if the place is longer than a cipher takes.
    pub(crate) fn encode(&self, place: &KeysetPosition, now: OffsetDateTime, salt: SealNonce) -> Option<String> {
        page_limit::seal(self.keys, &serde_json::to_string(place).ok()?, &self.binding(), now, salt)
    }

    pub(crate) fn decode(&self, text: &str, now: OffsetDateTime) -> Option<KeysetPosition> {
        let place = page_limit::open(self.keys, text, &self.binding(), now)?;
        let place: KeysetPosition = serde_json::from_str(&place).ok()?;
        place.is_valid_for(self.question.sort).then_some(place)
    }

    /// What a cursor serves.
    fn binding(&self) -> String {
        let asked = self.question;
        let question = (asked.sort.as_str(), asked.order.as_str(), asked.filter.conditions(), self.caller.name());
        // Texts in lists: nothing of it could be read in another way, and nothing fails to be written.
        format!("search {}", serde_json::to_string(&question).unwrap_or_default())
    }
}
