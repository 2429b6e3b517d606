//! A question about all users, as a query asks it.

use shared::http::page;
use shared::http::query::Query;
use shared::user::fields::Fields;

use crate::filter::{self, Filter};
use crate::sort::{Order, Place, Sort};
use crate::statement::Wanted;

/// What is asked for, without a place to go on from.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) filter: Filter,
    pub(crate) sort: Sort,
    pub(crate) order: Order,
    pub(crate) fields: Fields,
    pub(crate) limit: usize,
}

impl Question {
    /// The query's parameters.
    pub(crate) fn parameters(query: Option<&str>) -> Query {
        let own = ["sort", "order", "fields", "limit", "cursor"];
        let known = [&filter::NAMES[..], &own[..]].concat();
        Query::with_family(query, &known, filter::ATTRIBUTES)
    }

    /// Reads all but the cursor; what is wrong is remembered in the query.
    pub(crate) fn read(query: &mut Query) -> Self {
        let filter = Filter::read(query);
        let usual = match () {
            () if query.has("name_like") => Sort::Similarity,
            // As they are looked up in a register; and the index of names gives a page of them without the rest.
            () if query.has("name_prefix") => Sort::Name,
            () => Sort::UpdatedAt,
        };
        let sort = query.take("sort", Sort::parse).unwrap_or(usual);
        if sort == Sort::Similarity && !query.has("name_like") {
            query.refuse("sort", "similarity requires the parameter name_like");
        }
        let order = query.take("order", Order::parse).unwrap_or(sort.usual_order());
        let fields = query.take("fields", Fields::parse).unwrap_or(Fields::ALL);
        Self { filter, sort, order, fields, limit: page::limit(query) }
    }

    /// What is looked for after this place, at this second.
    pub(crate) fn wanted<'a>(&'a self, after: Option<&'a Place>, now: i64) -> Wanted<'a> {
        Wanted { filter: &self.filter, sort: self.sort, order: self.order, after, now }
    }
}
