//! The sort order of a search, and the position of a record in it, which a cursor contains.
//!
//! Every sort order ends with the record's key, so positions are unique, and a page continues after a position instead
//! of skipping a number of rows (keyset pagination). A nullable column sorts as PostgreSQL's indexes do: nulls last if
//! ascending, first if descending.

use serde::{Deserialize, Serialize};

use crate::statement::SqlBuilder;

/// The member by which records are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SortField {
    UpdatedAt,
    CreatedAt,
    Timestamp,
    Name,
    UserId,
    Similarity,
}

/// The direction of the sort order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SortDirection {
    Asc,
    Desc,
}

/// An SQL expression of a sort order.
#[derive(Clone, Copy)]
struct SortColumn {
    sql: &'static str,
    /// The SQL type to which the text in a position is cast.
    kind: &'static str,
    nullable: bool,
}

const USER_ID: SortColumn = SortColumn { sql: "user_id", kind: "text", nullable: false };
const TIMESTAMP: SortColumn = SortColumn { sql: "\"timestamp\"", kind: "numeric", nullable: false };

/// The position of a record in a sort order: the values of its sort columns, as texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeysetPosition(pub(crate) Vec<Option<String>>);

impl KeysetPosition {
    /// Returns whether the position has the form that this sort order requires.
    pub(crate) fn is_valid_for(&self, sort: SortField) -> bool {
        self.0.len() == sort.columns("").len() && self.0.iter().skip(1).all(Option::is_some)
    }
}

/// `{similar_to}` is the SQL parameter with the name that others are compared with.
const SIMILARITY: SortColumn =
    SortColumn { sql: "similarity(name_folded, {similar_to})::float8", kind: "float8", nullable: true };

impl SortField {
    pub(crate) const NAMES: [&str; 6] = ["updated_at", "created_at", "timestamp", "name", "user_id", "similarity"];
    const ALL: [Self; 6] =
        [Self::UpdatedAt, Self::CreatedAt, Self::Timestamp, Self::Name, Self::UserId, Self::Similarity];

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|sort| sort.as_str() == text);
        found.ok_or_else(|| format!("must be one of {}", Self::NAMES.join(", ")))
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::UpdatedAt => "updated_at",
            Self::CreatedAt => "created_at",
            Self::Timestamp => "timestamp",
            Self::Name => "name",
            Self::UserId => "user_id",
            Self::Similarity => "similarity",
        }
    }

    /// Names and identifiers sort ascending by default, times and similarity descending.
    pub(crate) fn default_order(self) -> SortDirection {
        if matches!(self, Self::Name | Self::UserId) { SortDirection::Asc } else { SortDirection::Desc }
    }

    fn leading_column(self) -> Option<SortColumn> {
        let time = |sql| SortColumn { sql, kind: "timestamptz", nullable: true };
        match self {
            Self::UpdatedAt => Some(time("updated_at")),
            Self::CreatedAt => Some(time("created_at")),
            // The column's collation compares code points, regardless of the database's locale.
            Self::Name => Some(SortColumn { sql: "name_folded", kind: "text", nullable: true }),
            Self::Similarity => Some(SIMILARITY),
            Self::Timestamp | Self::UserId => None,
        }
    }

    /// Returns the compared columns in order of precedence. `similar_to` is the SQL of the name that others are
    /// compared with.
    fn columns(self, similar_to: &str) -> Vec<(String, SortColumn)> {
        let columns = match (self, self.leading_column()) {
            (Self::Timestamp, _) => vec![TIMESTAMP, USER_ID],
            (_, None) => vec![USER_ID, TIMESTAMP],
            (_, Some(own)) => vec![own, USER_ID, TIMESTAMP],
        };
        columns.into_iter().map(|column| (column.sql.replace("{similar_to}", similar_to), column)).collect()
    }

    /// Returns the select list of a position's texts.
    pub(crate) fn position_columns(self, similar_to: &str) -> String {
        // Each text needs an alias of its own: otherwise a column name in `order by` would refer to the text.
        let texts =
            self.columns(similar_to).into_iter().zip(0..).map(|((sql, _), at)| format!("({sql})::text as at_{at}"));
        texts.collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn order_by(self, order: SortDirection, similar_to: &str) -> String {
        let parts = self.columns(similar_to).into_iter().map(|(sql, _)| format!("{sql} {}", order.as_str()));
        parts.collect::<Vec<_>>().join(", ")
    }

    /// Returns the number of ranges after a position: the rest of the range that contains it, plus the null or non-null
    /// values of the leading column if they follow it.
    pub(crate) fn page_ranges(self, after: Option<&KeysetPosition>, order: SortDirection) -> usize {
        let Some(KeysetPosition(values)) = after else { return 1 };
        let may_be_empty = self.leading_column().is_some_and(|own| own.nullable);
        let is_empty = values.first().is_none_or(Option::is_none);
        let goes_on = may_be_empty && (is_empty == (order == SortDirection::Desc));
        1 + usize::from(goes_on)
    }

    /// Adds the condition that a record follows this position, restricted to one range. It is a single row comparison,
    /// so that an index scan starts at the position.
    pub(crate) fn push_keyset_condition(
        self,
        sql: &mut SqlBuilder,
        after: &KeysetPosition,
        stretch: usize,
        order: SortDirection,
        similar_to: &str,
    ) {
        let columns = self.columns(similar_to);
        let is_empty = after.0.first().is_none_or(Option::is_none);
        let beyond = if order == SortDirection::Asc { ">" } else { "<" };
        match (stretch, is_empty) {
            (0, false) => compare(sql, &columns, &after.0, beyond),
            (0, true) => {
                sql.push(&format!(" and {} is null", columns[0].0));
                compare(sql, &columns[1..], &after.0[1..], beyond);
            }
            (_, false) => sql.push(&format!(" and {} is null", columns[0].0)),
            (_, true) => sql.push(&format!(" and {} is not null", columns[0].0)),
        }
    }
}

fn compare(sql: &mut SqlBuilder, columns: &[(String, SortColumn)], values: &[Option<String>], beyond: &str) {
    let left = columns.iter().map(|(sql, _)| sql.as_str()).collect::<Vec<_>>().join(", ");
    let right = columns
        .iter()
        .zip(values)
        .map(|((_, column), value)| format!("{}::{}", sql.parameter(value.clone().unwrap_or_default()), column.kind));
    let right = right.collect::<Vec<_>>().join(", ");
    sql.push(&format!(" and ({left}) {beyond} ({right})"));
}

impl SortDirection {
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "asc" => Ok(Self::Asc),
            "desc" => Ok(Self::Desc),
            _ => Err("must be asc or desc"),
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Asc => "asc",
            Self::Desc => "desc",
        }
    }
}
