//! A question about all users, as a query asks it.

use shared::http::page_limit;
use shared::http::query::QueryParameters;
use shared::user::fields::FieldMask;

use crate::filter::{self, SearchFilter};
use crate::sort::{KeysetPosition, SortDirection, SortField};
use crate::statement::SearchQuery;

/// What is asked for, without a place to go on from.
#[derive(Debug)]
pub(crate) struct SearchRequest {
    pub(crate) filter: SearchFilter,
    pub(crate) sort: SortField,
    pub(crate) order: SortDirection,
    pub(crate) fields: FieldMask,
    pub(crate) limit: usize,
}

impl SearchRequest {
    /// The query's parameters.
    pub(crate) fn parameters(query: Option<&str>) -> QueryParameters {
        let own = ["sort", "order", "fields", "limit", "cursor"];
        let known = [&filter::NAMES[..], &own[..]].concat();
        QueryParameters::with_family(query, &known, filter::ATTRIBUTES)
    }

    /// Reads all but the cursor; what is wrong is remembered in the query.
    pub(crate) fn read(query: &mut QueryParameters) -> Self {
        let filter = SearchFilter::read(query);
        let usual = match () {
            () if query.has("name_like") => SortField::Similarity,
            // As they are looked up in a register; and the index of names gives a page of them without the rest.
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

    /// What is looked for after this place, at this second.
    pub(crate) fn to_query<'a>(&'a self, after: Option<&'a KeysetPosition>, now: i64) -> SearchQuery<'a> {
        SearchQuery { filter: &self.filter, sort: self.sort, order: self.order, after, now }
    }
}
