//! A search over all users, parsed from a query string.

use millrace_shared::http::page_limit;
use millrace_shared::http::query::QueryParameters;
use millrace_shared::user::fields::FieldMask;

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
