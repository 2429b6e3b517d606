//! Conditions and updates in DynamoDB's expression language.
//!
//! Attribute names always use placeholders, because some (`name`, `status`, `timestamp`) are reserved words. A
//! placeholder is declared when it is used, because DynamoDB rejects unused ones.

use std::collections::HashMap;
use std::fmt::Write as _;

use aws_sdk_dynamodb::types::AttributeValue;
use time::OffsetDateTime;

use crate::item;
use crate::user::expiry::ExpiresAt;
use crate::user::precondition::{EntityTags, Precondition};
use crate::user::{FieldPatch, first_version, format_rfc3339_millis};

type NamePlaceholders = Option<HashMap<String, String>>;
type ValuePlaceholders = Option<HashMap<String, AttributeValue>>;

/// The placeholders that the expressions of one call share.
#[derive(Default)]
pub(super) struct ExpressionBuilder {
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl ExpressionBuilder {
    pub(super) fn name(&mut self, attribute: &str) -> String {
        let placeholder = format!("#{attribute}");
        if !self.names.contains_key(&placeholder) {
            self.names.insert(placeholder.clone(), attribute.to_owned());
        }
        placeholder
    }

    pub(super) fn value(&mut self, label: &str, value: AttributeValue) -> String {
        let placeholder = format!(":{label}");
        self.values.insert(placeholder.clone(), value);
        placeholder
    }

    pub(super) fn into_parts(self) -> (NamePlaceholders, ValuePlaceholders) {
        (Some(self.names).filter(|names| !names.is_empty()), Some(self.values).filter(|values| !values.is_empty()))
    }

    /// Returns the condition that a record has not expired: [`item::is_live`] as an expression. A comparison with an
    /// expiry that is not a number is false in both directions, hence the separate check of its type.
    pub(super) fn live(&mut self, now: OffsetDateTime) -> String {
        let (expiry, now, forgotten) = self.expiry(now);
        let number = self.value("number", item::text("N"));
        format!(
            "(attribute_not_exists({expiry}) OR NOT attribute_type({expiry}, {number}) OR {expiry} > {now} \
             OR {expiry} <= {forgotten})"
        )
    }

    /// Returns the condition that no item exists, or an expired one.
    pub(super) fn absent(&mut self, now: OffsetDateTime) -> String {
        let key = self.name(item::USER_ID);
        let (expiry, now, forgotten) = self.expiry(now);
        format!("attribute_not_exists({key}) OR ({expiry} <= {now} AND {expiry} > {forgotten})")
    }

    /// Returns the name of the expiry and the bounds between which it is past: up to `now`, and after the last second
    /// that TTL ignores as too old.
    fn expiry(&mut self, now: OffsetDateTime) -> (String, String, String) {
        let forgotten = self.value("forgotten", item::integer(ExpiresAt::last_forgotten(now)));
        (self.name(item::EXPIRES_AT), self.value("now", item::integer(now.unix_timestamp())), forgotten)
    }

    /// Returns the condition that a live record exists and satisfies the precondition.
    pub(super) fn present(&mut self, precondition: &Precondition, now: OffsetDateTime) -> String {
        let key = self.name(item::USER_ID);
        let mut text = format!("attribute_exists({key}) AND {}", self.live(now));
        self.require(&mut text, precondition);
        text
    }

    /// Returns the condition that no item exists, or a live record that satisfies the precondition.
    pub(super) fn absent_or_present(&mut self, precondition: &Precondition, now: OffsetDateTime) -> String {
        let key = self.name(item::USER_ID);
        // AND takes precedence over OR. Parentheses around the whole condition could be doubled, which DynamoDB
        // rejects.
        let mut text = format!("attribute_not_exists({key}) OR {}", self.live(now));
        self.require(&mut text, precondition);
        text
    }

    fn require(&mut self, text: &mut String, precondition: &Precondition) {
        if let Some(EntityTags::Versions(versions)) = &precondition.if_match {
            let one_of = self.one_of("is", versions);
            let _ = write!(text, " AND {one_of}");
        }
        if let Some(tags) = &precondition.if_none_match {
            let one_of = match tags {
                EntityTags::Any => format!("attribute_exists({})", self.name(item::USER_ID)),
                EntityTags::Versions(versions) => self.one_of("not", versions),
            };
            let _ = write!(text, " AND NOT {one_of}");
        }
    }

    /// Returns the condition that the version is one of `versions`. An empty list matches no version; since the
    /// language has no constant `false`, the condition for it is one that no existing item satisfies.
    fn one_of(&mut self, label: &str, versions: &[u64]) -> String {
        if versions.is_empty() {
            return format!("attribute_not_exists({})", self.name(item::USER_ID));
        }
        let version = self.name(item::VERSION);
        let listed: Vec<_> = versions
            .iter()
            .enumerate()
            .map(|(index, version)| self.value(&format!("{label}{index}"), item::integer(version)))
            .collect();
        let mut text = format!("({version} IN ({})", listed.join(", "));
        if versions.contains(&0) {
            let _ = write!(text, " OR attribute_not_exists({version})");
        }
        text.push(')');
        text
    }
}

/// The actions of an update expression.
#[derive(Default)]
pub(super) struct UpdateExpression {
    set: Vec<String>,
    remove: Vec<String>,
}

impl UpdateExpression {
    pub(super) fn set(&mut self, expression: &mut ExpressionBuilder, attribute: &str, value: AttributeValue) {
        let (name, value) = (expression.name(attribute), expression.value(attribute, value));
        self.set.push(format!("{name} = {value}"));
    }

    pub(super) fn remove(&mut self, expression: &mut ExpressionBuilder, attribute: &str) {
        self.remove.push(expression.name(attribute));
    }

    /// Sets the attribute if the item does not have it.
    pub(super) fn keep_or_set(&mut self, expression: &mut ExpressionBuilder, attribute: &str, value: AttributeValue) {
        let (name, value) = (expression.name(attribute), expression.value(attribute, value));
        self.set.push(format!("{name} = if_not_exists({name}, {value})"));
    }

    pub(super) fn edit<T>(
        &mut self,
        expression: &mut ExpressionBuilder,
        attribute: &str,
        edit: &FieldPatch<T>,
        encode: impl FnOnce(&T) -> AttributeValue,
    ) {
        match edit {
            FieldPatch::Keep => {}
            FieldPatch::Remove => self.remove(expression, attribute),
            FieldPatch::Set(value) => self.set(expression, attribute, encode(value)),
        }
    }

    /// Adds the changes that every write makes: it increments the version, or sets a first one if there is none, and
    /// sets the time of the write.
    pub(super) fn set_updated_at(&mut self, expression: &mut ExpressionBuilder, now: OffsetDateTime) {
        let version = expression.name(item::VERSION);
        let before = expression.value("before", item::integer(first_version(now) - 1));
        let one = expression.value("one", item::integer(1));
        self.set.push(format!("{version} = if_not_exists({version}, {before}) + {one}"));
        self.set(expression, item::UPDATED_AT, item::text(format_rfc3339_millis(now)));
    }

    pub(super) fn into_text(self) -> String {
        let mut text = format!("SET {}", self.set.join(", "));
        if !self.remove.is_empty() {
            let _ = write!(text, " REMOVE {}", self.remove.join(", "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn present(if_match: Option<EntityTags>, if_none_match: Option<EntityTags>) -> (String, usize) {
        let mut expression = ExpressionBuilder::default();
        let text = expression.present(&Precondition { if_match, if_none_match }, NOW);
        let (names, values) = expression.into_parts();
        for name in names.unwrap().keys() {
            assert!(text.contains(name.as_str()), "{name} is unused in {text}");
        }
        (text, values.unwrap().len())
    }

    #[test]
    fn condition_expression_encodes_the_precondition() {
        let live = "attribute_exists(#user_id) AND (attribute_not_exists(#expires_at) OR \
            NOT attribute_type(#expires_at, :number) OR #expires_at > :now OR #expires_at <= :forgotten)";
        assert_eq!(present(None, None), (live.to_owned(), 3));
        assert_eq!(present(Some(EntityTags::Any), None), (live.to_owned(), 3));
        assert_eq!(
            present(Some(EntityTags::Versions(vec![3, 4])), Some(EntityTags::Versions(vec![5]))),
            (format!("{live} AND (#version IN (:is0, :is1)) AND NOT (#version IN (:not0))"), 6)
        );
        assert_eq!(
            present(Some(EntityTags::Versions(vec![])), Some(EntityTags::Any)),
            (format!("{live} AND attribute_not_exists(#user_id) AND NOT attribute_exists(#user_id)"), 3)
        );
    }

    #[test]
    fn version_zero_is_also_no_version_at_all() {
        let (text, _) = present(Some(EntityTags::Versions(vec![0])), None);
        assert!(text.ends_with(" AND (#version IN (:is0) OR attribute_not_exists(#version))"), "{text}");
    }

    #[test]
    fn an_update_without_removals_has_no_remove_clause() {
        let mut expression = ExpressionBuilder::default();
        let mut assignments = UpdateExpression::default();
        assignments.edit(&mut expression, item::EMAIL, &FieldPatch::<&str>::Keep, |text| item::text(*text));
        assignments.edit(&mut expression, item::STATUS, &FieldPatch::Set("on"), |text| item::text(*text));
        assert_eq!(assignments.into_text(), "SET #status = :status");
        let mut assignments = UpdateExpression::default();
        assignments.edit(&mut expression, item::EMAIL, &FieldPatch::<&str>::Remove, |text| item::text(*text));
        assignments.set_updated_at(&mut expression, NOW);
        assert_eq!(
            assignments.into_text(),
            "SET #version = if_not_exists(#version, :before) + :one, #updated_at = :updated_at REMOVE #email"
        );
    }
}
