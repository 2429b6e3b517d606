//! The filter of a search: a query's parameters as conditions, each a constant SQL fragment with separate values. Input
//! of a caller never becomes part of a statement's text.

mod attribute;
mod tokenize;

use millrace_shared::folding::fold_case;
use millrace_shared::http::query::QueryParameters;
use millrace_shared::user::{UserName, UserStatus};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::statement::SqlBuilder;
use millrace_http::path::parse_epoch_seconds;

/// The filter parameters other than `attributes.…`.
pub(crate) const NAMES: [&str; 12] = [
    "status",
    "name_prefix",
    "name_like",
    "email_domain",
    "from",
    "to",
    "created_from",
    "created_to",
    "updated_from",
    "updated_to",
    "expires_from",
    "expires_to",
];
/// The prefix of the parameters that filter by a value in `attributes`.
pub(crate) const ATTRIBUTES: &str = "attributes.";
/// Maximum number of conditions on `attributes` in one query.
const MAX_ATTRIBUTE_FILTERS: usize = 10;
/// The maximum length of a domain (RFC 1035).
const DOMAIN_CHARS: usize = 253;

/// A condition: SQL with a `{}` for each value.
type SqlCondition = (&'static str, Vec<String>);

/// The conditions that a record must satisfy, combined with AND.
#[derive(Debug, Default)]
pub(crate) struct SearchFilter {
    conditions: Vec<SqlCondition>,
    like: Option<String>,
}

impl SearchFilter {
    /// Parses the parameters; errors are collected in the query.
    pub(crate) fn read(query: &mut QueryParameters) -> Self {
        let mut filter = Self::default();
        let status = query.take("status", |text| UserStatus::parse(text).map(|status| status.as_str().to_owned()));
        filter.add("status = {}", status);
        let prefix = query.take("name_prefix", name);
        filter.add("name_folded like {} || '%'", prefix.map(|prefix| escape_like(&prefix)));
        filter.like = query.take("name_like", name);
        for word in filter.like.as_deref().map(tokenize::words).unwrap_or_default() {
            filter.add("users_name_keys(name_folded) && users_name_keys({})", Some(word));
        }
        let domain = query.take("email_domain", domain);
        filter.add("email_domain = {}", domain);
        let epoch = |text: &str| parse_epoch_seconds(text).map(|second| second.seconds().to_string());
        filter.range(query, ["from", "to"], ["\"timestamp\" >= {}::numeric", "\"timestamp\" <= {}::numeric"], epoch);
        filter.range(
            query,
            ["created_from", "created_to"],
            ["created_at >= {}::timestamptz", "created_at <= {}::timestamptz"],
            timestamp,
        );
        filter.range(
            query,
            ["updated_from", "updated_to"],
            ["updated_at >= {}::timestamptz", "updated_at <= {}::timestamptz"],
            timestamp,
        );
        filter.range(
            query,
            ["expires_from", "expires_to"],
            ["expires_at >= {}::numeric", "expires_at <= {}::numeric"],
            epoch,
        );
        let parameters = query.with_prefix(ATTRIBUTES);
        if parameters.len() > MAX_ATTRIBUTE_FILTERS {
            query.refuse(
                &parameters[MAX_ATTRIBUTE_FILTERS],
                &format!("exceeds the limit: at most {MAX_ATTRIBUTE_FILTERS} attribute filters are allowed"),
            );
        }
        for parameter in parameters {
            let path = &parameter[ATTRIBUTES.len()..];
            let wanted = query.take(&parameter, |value| attribute::containment_json(path, value));
            if let Some([one, listed]) = wanted {
                filter.conditions.push(("(attributes @> {}::jsonb or attributes @> {}::jsonb)", vec![one, listed]));
            }
        }
        filter
    }

    fn add(&mut self, sql: &'static str, value: Option<String>) {
        self.conditions.extend(value.map(|value| (sql, vec![value])));
    }

    fn range(
        &mut self,
        query: &mut QueryParameters,
        names: [&str; 2],
        sql: [&'static str; 2],
        parse: impl Fn(&str) -> Result<String, String>,
    ) {
        for (name, sql) in names.into_iter().zip(sql) {
            let value = query.take(name, &parse);
            self.add(sql, value);
        }
    }

    /// Returns the name to which the names of records must be similar.
    pub(crate) fn like(&self) -> Option<&str> {
        self.like.as_deref()
    }

    /// Adds the conditions to a statement.
    pub(crate) fn push(&self, sql: &mut SqlBuilder) {
        for (condition, values) in &self.conditions {
            let mut values = values.iter();
            let mut parts = condition.split("{}");
            sql.push(" and ");
            sql.push(parts.next().unwrap_or_default());
            for part in parts {
                let parameter = sql.parameter(values.next().cloned().unwrap_or_default());
                sql.push(&parameter);
                sql.push(part);
            }
        }
    }

    /// Returns the conditions, to which a cursor is bound.
    pub(crate) fn conditions(&self) -> &[SqlCondition] {
        &self.conditions
    }
}

/// Parses a name and folds it in the same way as the replica's column for comparisons.
fn name(text: &str) -> Result<String, String> {
    UserName::parse(text).map(|name| fold_case(name.as_str()).into_owned()).map_err(|error| error.to_string())
}

/// Escapes the characters that are wildcards in SQL `like`.
fn escape_like(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

/// Parses a domain and folds it in the same way as the replica's column for comparisons. The domain of a valid email
/// contains no other characters, so no record would match another text.
fn domain(text: &str) -> Result<String, String> {
    let letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '.';
    let is_domain = (1..=DOMAIN_CHARS).contains(&text.len()) && text.chars().all(letter);
    if is_domain { Ok(fold_case(text).into_owned()) } else { Err("must be a domain such as example.com".to_owned()) }
}

/// Validates a timestamp in the years that both PostgreSQL and RFC 3339 can represent.
fn timestamp(text: &str) -> Result<String, String> {
    match OffsetDateTime::parse(text, &Rfc3339) {
        Ok(moment) if (1..=9999).contains(&moment.to_offset(time::UtcOffset::UTC).year()) => Ok(text.to_owned()),
        _ => Err("must be an RFC 3339 timestamp such as 2026-11-22T10:00:00Z".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SearchFilter, String> {
        let mut query = QueryParameters::with_family(Some(text), &NAMES, ATTRIBUTES);
        let filter = SearchFilter::read(&mut query);
        query.finish().map(|()| filter).map_err(|mistakes| serde_json::to_string(&mistakes).unwrap())
    }

    #[test]
    fn no_value_becomes_part_of_a_statement() {
        let odd = "%27%3B%20drop%20table%20users--%20%22%7B%7D%24%31%5C%25";
        let text =
            format!("status={odd}&name_prefix={odd}&name_like={odd}&attributes.{}={odd}", odd.replace("%5C", ""));
        let filter = read(&text).unwrap();
        let mut sql = SqlBuilder::new("select 1 where true");
        filter.push(&mut sql);
        assert!(!sql.text().contains("drop"), "{}", sql.text());
        // Four of the parameters are words of a name.
        assert_eq!(sql.parameters().len(), 8);
        assert_eq!(sql.parameters()[1], "'; drop table users-- \"{}$1\\\\\\%");
    }

    #[test]
    fn invalid_filter_parameter_is_rejected_by_name() {
        for (text, name) in [
            ("status=%00", "status"),
            ("name_prefix=", "name_prefix"),
            ("email_domain=a@b.c", "email_domain"),
            ("from=yesterday", "from"),
            ("created_to=2026-11-22", "created_to"),
            ("updated_from=2026-11-22T10:00:00", "updated_from"),
            ("expires_to=-1", "expires_to"),
            ("attributes.=1", "attributes."),
            ("attributes.a.=1", "attributes.a."),
            ("attributes.a=%00", "attributes.a"),
            ("attribute.a=1", "attribute.a"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(&format!("{{\"parameter\":\"{name}\"")), "{text}: {message}");
        }
        let many: Vec<String> = (0..11).map(|n| format!("attributes.a{n}=1")).collect();
        assert!(read(&many.join("&")).unwrap_err().contains("exceeds the limit: at most 10 attribute filters"));
    }
}
