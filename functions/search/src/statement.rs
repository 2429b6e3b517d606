//! The SQL statements: constant fragments with separate parameters.

use crate::filter::SearchFilter;
use crate::sort::{KeysetPosition, SortDirection, SortField};

/// The condition of a visible record of the view `users_search`: it is not expired at the second `$1`. As with DynamoDB's
/// TTL, an expiry time more than five years in the past is ignored.
macro_rules! live {
    () => {
        "(expires_at is null or expires_at > $1::text::numeric \
         or expires_at <= $1::text::numeric - 157788000)"
    };
}

/// Formats a timestamp as records do: RFC 3339 in UTC with milliseconds.
macro_rules! moment {
    ($of:literal) => {
        concat!("to_char(", $of, " at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')")
    };
}

/// The freshness of the replica: the time of the latest change that it contains.
pub(crate) const AS_OF: &str = concat!("select ", moment!("max(changed_at)"), " from users");

/// The summary of the records of user `$2`: the latest record, the number of records, and the first and last times.
pub(crate) const SUMMARY: &str = concat!(
    "select latest.item::text, counted.records, counted.first::text, counted.last::text, ",
    moment!("counted.created"),
    ", ",
    moment!("counted.updated"),
    " from (select count(*) as records, min(\"timestamp\") as first, max(\"timestamp\") as last, ",
    "min(created_at) as created, max(updated_at) as updated from users_search where user_id = $2::text and ",
    live!(),
    ") as counted cross join (select item from users_search where user_id = $2::text and ",
    live!(),
    " order by \"timestamp\" desc limit 1) as latest"
);

/// The statistics of all records: the total, and the numbers by status, by day of creation over the `$2` days before
/// the second `$1`, and for the `$3` most frequent domains. It is one statement, so that all numbers are from one
/// snapshot.
///
/// The counts are stored (`users_counts`, `users_count_log`), and contain the records that have expired, which an index
/// finds, until DynamoDB removes them.
pub(crate) const STATS: &str = concat!(
    "with expired as (select users_count(grouping(status, day, email_domain), status, day, email_domain, -count(*)) as count ",
    "from (select status, (created_at at time zone 'UTC')::date as day, email_domain from users_search where ",
    "expires_at <= $1::text::numeric and expires_at > $1::text::numeric - 157788000) as each ",
    "group by grouping sets ((status), (day), (email_domain))), ",
    "counted as materialized (select dimension, value, sum(records)::int8 as records from (",
    "select dimension, value, records from users_counts ",
    "union all select dimension, value, records from users_count_log cross join unnest(changes) ",
    "union all select (count).dimension, (count).value, (count).records from expired) as each ",
    "where value is not null group by dimension, value having sum(records) > 0), ",
    "days as (select date '1970-01-01' + value::int as day, records from counted where dimension = 'day') ",
    "select (select coalesce(sum(records), 0)::int8 from counted where dimension in ('status', 'no status')), ",
    "(select coalesce(json_agg(each), '[]')::text from (",
    "select case when dimension = 'status' then value collate \"default\" end as status, records from counted ",
    "where dimension in ('status', 'no status') order by records desc, status) as each), ",
    "(select coalesce(json_agg(each), '[]')::text from (select to_char(day, 'YYYY-MM-DD') as day, records from days ",
    "where day >= (to_timestamp($1::text::float8) at time zone 'UTC')::date - $2::text::int order by days.day) as each), ",
    "(select coalesce(json_agg(each), '[]')::text from (select value as domain, records from counted ",
    "where dimension = 'domain' order by records desc, domain limit $3::text::int8) as each)"
);

/// A search query: complete items, each with its position.
pub(crate) struct SearchQuery<'a> {
    pub(crate) filter: &'a SearchFilter,
    pub(crate) sort: SortField,
    pub(crate) order: SortDirection,
    pub(crate) after: Option<&'a KeysetPosition>,
    /// The current time in epoch seconds.
    pub(crate) now: i64,
}

impl SearchQuery<'_> {
    /// Returns the number of consecutive ranges in which the records after the position are read.
    pub(crate) fn page_ranges(&self) -> usize {
        self.sort.page_ranges(self.after, self.order)
    }

    /// Returns the statement for at most `limit` records of one range.
    pub(crate) fn statement(&self, stretch: usize, limit: usize) -> SqlBuilder {
        let mut sql = SqlBuilder::new("");
        sql.parameter(self.now.to_string());
        let like = self.filter.like().filter(|_| self.sort == SortField::Similarity);
        let similar_to = like.map(|like| sql.parameter(like.to_owned())).unwrap_or_default();
        sql.push("select item::text, ");
        sql.push(&self.sort.position_columns(&similar_to));
        // Similarity matches are materialized first and then sorted (`offset 0` is an optimization fence). Otherwise
        // PostgreSQL would walk the index of the sort order and compare each name on the way, which scans the complete
        // index if there are few matches.
        let is_looked_up = self.filter.like().is_some() && self.sort != SortField::Similarity;
        sql.push(if is_looked_up { " from (select * from users_search where " } else { " from users_search where " });
        sql.push(live!());
        self.filter.push(&mut sql);
        if let Some(after) = self.after {
            self.sort.push_keyset_condition(&mut sql, after, stretch, self.order, &similar_to);
        }
        if is_looked_up {
            sql.push(" offset 0) as found");
        }
        sql.push(" order by ");
        sql.push(&self.sort.order_by(self.order, &similar_to));
        sql.push(" limit ");
        let limit = sql.parameter(limit.to_string());
        sql.push(&limit);
        sql.push("::int8");
        sql
    }
}

/// An SQL statement under construction. Text and parameters are separate from the start.
#[derive(Debug)]
pub(crate) struct SqlBuilder {
    text: String,
    parameters: Vec<String>,
}

impl SqlBuilder {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), parameters: Vec::new() }
    }

    /// Appends a fragment, which must be a constant of this crate and never input of a caller.
    pub(crate) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Adds a parameter and returns its placeholder.
    pub(crate) fn parameter(&mut self, value: String) -> String {
        self.parameters.push(value);
        format!("${}::text", self.parameters.len())
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn parameters(&self) -> &[String] {
        &self.parameters
    }
}
