//! A search over all users, parsed from a query string, and the cursors of its pages.

use millrace_shared::http::caller::Caller;
use millrace_shared::http::cursor_seal::{SealKeys, SealNonce};
use millrace_shared::http::page_limit;
use millrace_shared::http::query::QueryParameters;
use millrace_shared::user::fields::FieldMask;
use time::OffsetDateTime;

use crate::filter::{self, SearchFilter};
use crate::sort::{KeysetPosition, SortDirection, SortField};
use crate::statement::SearchQuery;

/// The search without its position.
#[derive(Debug)]
pub(crate) struct SearchRequest {
    pub(crate) filter: SearchFilter,
    pub(crate) sort: SortField,
    pub(crate) order: SortDirection,
    pub(crate) fields: FieldMask,
    pub(crate) limit: usize,
}

impl SearchRequest {
    /// Splits the query string into its known parameters.
    pub(crate) fn parameters(query: Option<&str>) -> QueryParameters {
        let own = ["sort", "order", "fields", "limit", "cursor"];
        let known = [&filter::NAMES[..], &own[..]].concat();
        QueryParameters::with_family(query, &known, filter::ATTRIBUTES)
    }

    /// Parses all parameters except the cursor; errors are collected in the query.
    pub(crate) fn read(query: &mut QueryParameters) -> Self {
        let filter = SearchFilter::read(query);
        let usual = match () {
            () if query.has("name_like") => SortField::Similarity,
            // Names are listed in alphabetical order, as in a directory; the name index returns one page without
            // reading the rest.
            () if query.has("name_prefix") => SortField::Name,
            () => SortField::UpdatedAt,
        };
        let sort = query.take("sort", SortField::parse).unwrap_or(usual);
        if sort == SortField::Similarity && !query.has("name_like") {
            query.refuse("sort", "similarity requires the parameter name_like");
        }
        let order = query.take("order", SortDirection::parse).unwrap_or(sort.default_order());
        let fields = query.take("fields", FieldMask::parse).unwrap_or(FieldMask::ALL);
        Self { filter, sort, order, fields, limit: page_limit::limit(query) }
    }

    /// Returns the search for records after this position, at this second.
    pub(crate) fn to_query<'a>(&'a self, after: Option<&'a KeysetPosition>, now: i64) -> SearchQuery<'a> {
        SearchQuery { filter: &self.filter, sort: self.sort, order: self.order, after, now }
    }
}

/// Seals and opens the cursors of one search of one caller. A cursor contains the position of the last record of a
/// page.
pub(crate) struct SearchCursors<'a> {
    pub(crate) keys: &'a SealKeys,
    pub(crate) question: &'a SearchRequest,
    pub(crate) caller: &'a Caller,
}

impl SearchCursors<'_> {
    /// Returns the cursor of the page after this position, or `None` if the position is longer than the cipher accepts.
    pub(crate) fn encode(&self, position: &KeysetPosition, now: OffsetDateTime, salt: SealNonce) -> Option<String> {
        page_limit::seal(self.keys, &serde_json::to_string(position).ok()?, &self.binding(), now, salt)
    }

    pub(crate) fn decode(&self, text: &str, now: OffsetDateTime) -> Option<KeysetPosition> {
        let position = page_limit::open(self.keys, text, &self.binding(), now)?;
        let position: KeysetPosition = serde_json::from_str(&position).ok()?;
        position.is_valid_for(self.question.sort).then_some(position)
    }

    /// Returns the text that a cursor is bound to: the query and the caller.
    fn binding(&self) -> String {
        let query = self.question;
        let binding = (query.sort.as_str(), query.order.as_str(), query.filter.conditions(), self.caller.name());
        // Nested lists of texts are unambiguous as JSON and can always be serialized.
        format!("search {}", serde_json::to_string(&binding).unwrap_or_default())
    }
}
