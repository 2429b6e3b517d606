//! Selection of items by patterns over their images: [`RowFilter`].
//!
//! The patterns are those of `EventBridge`, matched by the crate `quamina`, over the image in DynamoDB JSON. An item
//! matches if any pattern matches. `{"status": {"S": ["paid", "shipped"]}}` selects the items whose attribute `status`
//! is one of two strings.
//!
//! A pattern that could never match, or that `quamina` would understand differently, is rejected by name: a filter that
//! selects nothing leaves a replica empty, and one that selects too much publishes items.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use quamina::Quamina;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use millrace_shared::change::ItemImage;

/// The types of `DynamoDB` JSON.
const TYPES: [&str; 10] = ["S", "N", "B", "BOOL", "NULL", "SS", "NS", "BS", "M", "L"];
/// The operators of a pattern that apply to DynamoDB JSON.
const OPERATORS: [&str; 8] =
    ["anything-but", "equals-ignore-case", "exists", "prefix", "suffix", "wildcard", "regexp", "cidr"];

/// The largest number of alternatives of a pattern ([`alternatives`]).
const MAX_ALTERNATIVES: usize = 100;

/// The reason against a pattern with a quote: with it, `quamina` matches other texts than those that contain it.
const QUOTE: &str = "contains a double quote, which patterns cannot match exactly: filter by another value";

/// A problem of a list of patterns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternProblem {
    /// The JSON Pointer of the value inside the list.
    pub pointer: String,
    /// The problem and the fix.
    pub reason: String,
}

/// An image that the patterns cannot be evaluated on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnmatchableImage;

/// Selects the items whose image matches any of its patterns.
#[derive(Clone)]
pub struct RowFilter {
    patterns: Vec<Value>,
    /// An item is selected if one of them matches.
    matchers: Vec<Quamina<()>>,
}

impl RowFilter {
    /// Parses a list of patterns.
    ///
    /// # Errors
    /// Every problem of the patterns.
    pub fn parse(patterns: &[Value]) -> Result<Self, Vec<PatternProblem>> {
        let mut reader = PatternReader::default();
        if patterns.is_empty() {
            reader.add("", "is empty, so that no item would be replicated: add a pattern, or remove the member");
        }
        let mut matchers = Vec::new();
        for (index, pattern) in patterns.iter().enumerate() {
            let pointer = format!("/{index}");
            let before = reader.problems.len();
            match pattern {
                Value::Object(attributes) if !attributes.is_empty() => {
                    reader.attributes(&pointer, pattern);
                    reader.presence(&pointer, pattern, before);
                }
                _ => reader.add(&pointer, "is not a pattern: write one such as {\"status\":{\"S\":[\"paid\"]}}"),
            }
            if reader.problems.len() == before {
                match compile(pattern) {
                    Ok(compiled) => matchers.extend(compiled),
                    Err(reason) => reader.add(&pointer, &reason),
                }
            }
        }
        if reader.problems.is_empty() {
            Ok(Self { patterns: patterns.to_vec(), matchers })
        } else {
            Err(reader.problems)
        }
    }

    /// Returns whether an item with this image is selected.
    ///
    /// # Errors
    /// [`UnmatchableImage`] if the image cannot be read: the item is then neither selected nor left out.
    pub fn matches(&self, image: ItemImage<'_>) -> Result<bool, UnmatchableImage> {
        for matcher in &self.matchers {
            if matcher.has_matches(image.get().as_bytes()).map_err(|_| UnmatchableImage)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the patterns in canonical form, sorted: filters with the same result of this function select the same
    /// items.
    #[must_use]
    pub fn canonical(&self) -> Vec<String> {
        let mut patterns: Vec<String> = self.patterns.iter().map(canonical_json).collect();
        patterns.sort_unstable();
        patterns.dedup();
        patterns
    }
}

impl fmt::Debug for RowFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RowFilter").field(&self.canonical()).finish()
    }
}

impl PartialEq for RowFilter {
    fn eq(&self, other: &Self) -> bool {
        self.canonical() == other.canonical()
    }
}

impl Eq for RowFilter {}

/// Serializes the patterns.
impl Serialize for RowFilter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.patterns.serialize(serializer)
    }
}

/// Returns JSON with the members of each object sorted, whatever order the parser keeps.
pub(crate) fn canonical_json(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| name.as_str());
            let members =
                members.iter().map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), canonical_json(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Value::Array(elements) => format!("[{}]", elements.iter().map(canonical_json).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// Checks the structure of patterns, and collects the problems.
#[derive(Default)]
struct PatternReader {
    problems: Vec<PatternProblem>,
}

impl PatternReader {
    fn add(&mut self, pointer: &str, reason: &str) {
        self.problems.push(PatternProblem { pointer: pointer.to_owned(), reason: reason.to_owned() });
    }

    /// Rejects a pattern of several absent attributes and nothing else, which the matcher does not evaluate. Does nothing
    /// if the pattern has a problem already.
    fn presence(&mut self, pointer: &str, pattern: &Value, problems: usize) {
        let (mut absent, mut others) = (0, 0);
        count_conditions(pattern, &mut absent, &mut others);
        if self.problems.len() == problems && absent > 1 && others == 0 {
            let reason = "has only conditions that an attribute is absent, of which several cannot be evaluated without \
                          another condition: add one that every item meets, such as {\"exists\":true} for an attribute \
                          of the key";
            self.add(pointer, reason);
        }
    }

    /// Checks a map from the names of attributes to conditions of their values.
    fn attributes(&mut self, pointer: &str, value: &Value) {
        let Some(members) = value.as_object().filter(|members| !members.is_empty()) else {
            return self.add(pointer, "is not a map of attributes: write one such as {\"city\":{\"S\":[\"Paris\"]}}");
        };
        for (name, value) in members {
            let pointer = member(pointer, name);
            if name.starts_with("$or") {
                self.add(&pointer, "is not supported: write each alternative as a pattern of its own");
            } else if name.contains(['.', '\n']) {
                self.add(
                    &pointer,
                    "contains a dot or a line break, which patterns cannot match: filter by another attribute",
                );
            } else {
                self.types(&pointer, value);
            }
        }
    }

    /// Checks the conditions of a value, by its type.
    fn types(&mut self, pointer: &str, value: &Value) {
        let members = match value {
            Value::Object(members) if !members.is_empty() => members,
            Value::Array(_) => {
                let reason = "is a list, but an image contains the type of each value: write {\"S\":[…]} for strings, \
                              {\"N\":[…]} for numbers";
                return self.add(pointer, reason);
            }
            _ => {
                return self
                    .add(pointer, "is not a condition: write the type and the values, such as {\"S\":[\"paid\"]}");
            }
        };
        let before = self.problems.len();
        for (kind, value) in members {
            let location = member(pointer, kind);
            match kind.as_str() {
                "M" => self.attributes(&location, value),
                "L" => self.types(&location, value),
                kind if TYPES.contains(&kind) => self.values(&location, kind, value),
                name if name.starts_with("$or") => {
                    self.add(&location, "is not supported: write each alternative as a pattern of its own");
                }
                _ => {
                    let reason =
                        format!("is not a type of DynamoDB: use {} (a member of a map is below M)", TYPES.join(", "));
                    self.add(&location, &reason);
                }
            }
        }
        // Elements of a list are matched one at a time, so this also applies to their types.
        let mut required = members.iter().filter(|(kind, value)| requires_type(kind, value)).map(|(kind, _)| kind);
        if self.problems.len() == before
            && let (Some(first), Some(second)) = (required.next(), required.next())
        {
            let reason = format!(
                "is a second type of the value, in addition to {first}, so the pattern never matches: write each as \
                 a pattern of its own"
            );
            self.add(&member(pointer, second), &reason);
        }
    }

    /// Checks a list of values and operators.
    fn values(&mut self, pointer: &str, kind: &str, value: &Value) {
        let Some(values) = value.as_array().filter(|values| !values.is_empty()) else {
            return self.add(pointer, "is not a list of values: write at least one in brackets, such as [\"paid\"]");
        };
        if values.len() > 1 && values.iter().any(|value| value.get("exists").is_some()) {
            let reason = "combines exists with other conditions, of which only the first would be evaluated: write each \
                          as a pattern of its own";
            return self.add(pointer, reason);
        }
        for (index, value) in values.iter().enumerate() {
            let location = format!("{pointer}/{index}");
            match value {
                Value::Object(operator) => match operator.iter().next() {
                    Some((name, operand)) if operator.len() == 1 => {
                        self.operator(&member(&location, name), kind, name, operand);
                    }
                    _ => self.add(&location, "is not one operator: write each operator in an object of its own"),
                },
                other => self.exact(&location, kind, other),
            }
        }
    }

    fn operator(&mut self, pointer: &str, kind: &str, name: &str, operand: &Value) {
        match name {
            "exists" if operand.is_boolean() => {}
            "exists" => self.add(pointer, "is not true or false"),
            "numeric" => {
                let reason = "is not supported: DynamoDB's numbers are strings in an image, and are compared only with \
                              exact values and anything-but; store what you filter by in a string attribute";
                self.add(pointer, reason);
            }
            "anything-but" if kind == "NULL" => {
                self.add(pointer, "is not supported for NULL, whose value is always true: use exists");
            }
            "anything-but" => match operand {
                Value::Array(values) if kind == "BOOL" && excludes_both(values) => {
                    self.add(
                        pointer,
                        "lists true and false, so that no value is left: list one of them, or use exists",
                    );
                }
                Value::Array(values) if !values.is_empty() => {
                    for (index, value) in values.iter().enumerate() {
                        self.exact(&format!("{pointer}/{index}"), kind, value);
                    }
                }
                Value::Object(_) => {
                    self.add(pointer, "is not supported with an operator: list the values, such as [\"draft\"]");
                }
                value => self.exact(pointer, kind, value),
            },
            _ if !OPERATORS.contains(&name) => {
                self.add(pointer, &format!("is not an operator: use {}", OPERATORS.join(", ")));
            }
            _ if !matches!(kind, "S" | "SS") => {
                self.add(pointer, &format!("is not supported for {kind}: use exact values, anything-but or exists"));
            }
            _ if !operand.is_string() => self.add(pointer, "is not a string"),
            _ if has_quote(operand) => self.add(pointer, QUOTE),
            "regexp" if operand.as_str().is_some_and(has_foreign_syntax) => {
                let reason = "contains \\, or begins with ^ or ends with $, which would be ordinary characters: the escape \
                              character is ~, and an expression always matches the whole text";
                self.add(pointer, reason);
            }
            _ => {}
        }
    }

    /// Checks a value that is compared as it is written.
    fn exact(&mut self, pointer: &str, kind: &str, value: &Value) {
        match (kind, value) {
            (_, value) if has_quote(value) => self.add(pointer, QUOTE),
            ("BOOL", Value::Bool(_)) | ("NULL", Value::Bool(true)) | ("S" | "SS", Value::String(_)) => {}
            ("NULL", Value::Bool(false)) => {
                let reason = "is false, but the value of a NULL is always true: write true, or {\"exists\":false} for an \
                              attribute that is not NULL";
                self.add(pointer, reason);
            }
            ("B" | "BS", Value::String(text)) if BASE64.decode(text).is_ok() => {}
            ("B" | "BS", Value::String(_)) => {
                let reason = "is not base64 as DynamoDB writes it: encode the bytes with the standard alphabet and \
                              padding, such as \"AAE=\"";
                self.add(pointer, reason);
            }
            ("BOOL" | "NULL", _) => self.add(pointer, "is not true or false, the values of this type"),
            ("N" | "NS", Value::String(number)) if is_plain_number(number) => {}
            ("N" | "NS", Value::String(_)) => {
                let reason =
                    "is not a number as DynamoDB writes it: leave out the exponent, a plus sign and needless zeros";
                self.add(pointer, reason);
            }
            ("N" | "NS", Value::Number(number)) => {
                self.add(pointer, &format!("is a JSON number, but an image contains strings: write \"{number}\""));
            }
            _ => self.add(pointer, &format!("is not a string, the JSON type of {kind}")),
        }
    }
}

/// Counts the conditions that an attribute is absent, and the others.
fn count_conditions(pattern: &Value, absent: &mut usize, others: &mut usize) {
    match pattern {
        Value::Object(members) => members.values().for_each(|value| count_conditions(value, absent, others)),
        conditions if *conditions == json!([{"exists": false}]) => *absent += 1,
        _ => *others += 1,
    }
}

/// Returns the matchers of a pattern, which matches if one of them does.
///
/// `quamina` 0.7 adds an exact value to the states of the operators that a matcher has already, and other values share
/// these states: a matcher for the prefix `A-` and the value `A-10` finds the value also in `A-20`. Therefore each
/// matcher has one pattern, in which each list has either exact values or one operator.
fn compile(pattern: &Value) -> Result<Vec<Quamina<()>>, String> {
    let count = count_alternatives(pattern);
    if count > MAX_ALTERNATIVES {
        return Err(format!(
            "has {count} combinations of operators, of which {MAX_ALTERNATIVES} are supported: list fewer operators for \
             an attribute, or write several patterns"
        ));
    }
    let matcher = |alternative: &Value| {
        let mut matcher = Quamina::new();
        let added = matcher.add_pattern((), &alternative.to_string());
        added.map(|()| matcher).map_err(|error| format!("is rejected ({error}): correct the pattern"))
    };
    alternatives(&matched_form(pattern)).iter().map(matcher).collect()
}

/// Returns the parts of a list of conditions: its exact values together, and each operator.
fn condition_groups(conditions: &[Value]) -> Vec<Value> {
    let (operators, values): (Vec<&Value>, Vec<&Value>) =
        conditions.iter().partition(|condition| condition.is_object());
    let values = (!values.is_empty()).then(|| json!(values));
    values.into_iter().chain(operators.into_iter().map(|operator| json!([operator]))).collect()
}

/// Returns the number of [`alternatives`] of a pattern.
fn count_alternatives(pattern: &Value) -> usize {
    match pattern {
        Value::Object(members) => members.values().map(count_alternatives).fold(1, usize::saturating_mul),
        Value::Array(conditions) => condition_groups(conditions).len(),
        _ => 1,
    }
}

/// Returns the patterns with one part of each list of conditions, of which one matches where the pattern matches.
fn alternatives(pattern: &Value) -> Vec<Value> {
    match pattern {
        Value::Object(members) => {
            let mut chosen = vec![serde_json::Map::new()];
            for (name, member) in members {
                let options = alternatives(member);
                let with_member = |members: &serde_json::Map<String, Value>| {
                    let extended = options.iter().map(|option| {
                        let mut members = members.clone();
                        members.insert(name.clone(), option.clone());
                        members
                    });
                    extended.collect::<Vec<_>>()
                };
                chosen = chosen.iter().flat_map(with_member).collect();
            }
            chosen.into_iter().map(Value::Object).collect()
        }
        Value::Array(conditions) => condition_groups(conditions),
        other => vec![other.clone()],
    }
}

/// Returns a pattern in the form that `quamina` matches. After an attribute that exists, it does not evaluate whether a
/// later one is absent; the conditions that every value of a type meets have the same result and are evaluated.
fn matched_form(attributes: &Value) -> Value {
    let Some(members) = attributes.as_object() else { return attributes.clone() };
    members.iter().map(|(name, types)| (name.clone(), matched_types(types))).collect()
}

/// As [`matched_form`], for the conditions of a value by its type.
fn matched_types(types: &Value) -> Value {
    let Some(members) = types.as_object() else { return types.clone() };
    let matched = members.iter().map(|(kind, condition)| {
        let is_presence = *condition == json!([{"exists": true}]);
        let matched = match kind.as_str() {
            "M" => matched_form(condition),
            "L" => matched_types(condition),
            "BOOL" if !is_presence => condition.as_array().map_or_else(Value::default, |values| {
                values.iter().map(|value| remaining_truth(value).map_or_else(|| value.clone(), Value::Bool)).collect()
            }),
            _ if !is_presence => condition.clone(),
            "BOOL" => json!([true, false]),
            "NULL" => json!([true]),
            _ => json!([{"prefix": ""}]),
        };
        (kind.clone(), matched)
    });
    matched.collect()
}

/// Returns the truth value that `anything-but` leaves, whose list of truth values `quamina` does not accept.
fn remaining_truth(condition: &Value) -> Option<bool> {
    let excluded = condition.get("anything-but")?;
    let excluded = excluded.as_bool().or_else(|| excluded.as_array()?.first()?.as_bool())?;
    Some(!excluded)
}

/// Returns whether a condition is met only by a value of this type, and not by the absence of one.
fn requires_type(kind: &str, condition: &Value) -> bool {
    match (kind, condition) {
        ("M", Value::Object(attributes)) => attributes.values().any(requires_any_type),
        ("L", elements) => requires_any_type(elements),
        (_, Value::Array(values)) => !values.iter().any(|value| value.get("exists") == Some(&Value::Bool(false))),
        _ => false,
    }
}

/// Returns whether one of the conditions of a value, by its type, requires this type.
fn requires_any_type(types: &Value) -> bool {
    types.as_object().is_some_and(|types| types.iter().any(|(kind, condition)| requires_type(kind, condition)))
}

/// Returns whether a list contains both truth values.
fn excludes_both(values: &[Value]) -> bool {
    [true, false].iter().all(|value| values.contains(&Value::Bool(*value)))
}

/// Returns whether a text contains the quote that delimits it in `quamina`'s automaton.
fn has_quote(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.contains('"'))
}

/// Returns whether a regular expression uses the escape character or the anchors of other dialects.
fn has_foreign_syntax(expression: &str) -> bool {
    expression.contains('\\') || expression.starts_with('^') || expression.ends_with('$')
}

/// Returns whether a number has the format in which `DynamoDB` returns it.
fn is_plain_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').map_or((unsigned, None), |(whole, part)| (whole, Some(part)));
    let is_whole = digits(whole) && (whole == "0" || !whole.starts_with('0'));
    is_whole && fraction.is_none_or(|part| digits(part) && !part.ends_with('0')) && text != "-0"
}

fn member(parent: &str, name: &str) -> String {
    format!("{parent}/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn matches(pattern: &Value, image: &str) -> bool {
        let filter = RowFilter::parse(std::slice::from_ref(pattern)).unwrap();
        filter.matches(ItemImage::parse(serde_json::from_str::<&RawValue>(image).unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn any_pattern_selects_an_item() {
        let image = r#"{"id":{"S":"1"},"status":{"S":"paid"},"total":{"N":"7.5"},"vip":{"BOOL":true},
            "tags":{"SS":["a","b"]},
            "address":{"M":{"city":{"S":"Par\u0069s"}}},"lines":{"L":[{"M":{"sku":{"S":"x"}}}]}}"#;
        for (pattern, expected) in [
            (json!({"status": {"S": ["paid", "shipped"]}}), true),
            (json!({"status": {"S": [{"anything-but": ["draft"]}]}}), true),
            (json!({"status": {"S": [{"anything-but": ["paid"]}]}}), false),
            (json!({"missing": {"S": [{"anything-but": ["draft"]}]}}), false),
            (json!({"missing": {"S": [{"exists": false}]}}), true),
            (json!({"status": {"S": [{"exists": true}]}}), true),
            (json!({"total": {"N": ["7.5"]}}), true),
            (json!({"total": {"N": ["7"]}}), false),
            (json!({"vip": {"BOOL": [true]}}), true),
            (json!({"vip": {"BOOL": [false]}}), false),
            (json!({"tags": {"SS": ["b"]}}), true),
            (json!({"address": {"M": {"city": {"S": [{"prefix": "Pari"}]}}}}), true),
            (json!({"lines": {"L": {"M": {"sku": {"S": ["x"]}}}}}), true),
            (json!({"status": {"S": ["paid"]}, "vip": {"BOOL": [false]}}), false),
        ] {
            assert_eq!(matches(&pattern, image), expected, "{pattern}");
        }
        let two = [json!({"status": {"S": ["draft"]}}), json!({"vip": {"BOOL": [true]}})];
        let image = ItemImage::parse(serde_json::from_str::<&RawValue>(image).unwrap()).unwrap();
        assert_eq!(RowFilter::parse(&two).unwrap().matches(image), Ok(true));
    }

    #[test]
    fn exact_value_next_to_an_operator_selects_no_other_value() {
        let parse = |patterns: &[Value]| RowFilter::parse(patterns).unwrap();
        let selects = |filter: &RowFilter, image: Value| {
            let image = RawValue::from_string(image.to_string()).unwrap();
            filter.matches(ItemImage::parse(&image).unwrap()).unwrap()
        };
        let filter = parse(&[json!({"status": {"S": [{"equals-ignore-case": "paid"}, "pending"]}})]);
        for (status, expected) in [("PAID", true), ("pending", true), ("Pending", false)] {
            assert_eq!(selects(&filter, json!({"status": {"S": status}})), expected, "{status}");
        }
        let filter =
            parse(&[json!({"sku": {"S": [{"prefix": "A-"}]}, "zone": {"S": ["FR"]}}), json!({"sku": {"S": ["A-10"]}})]);
        for (sku, zone, expected) in [("A-20", "FR", true), ("A-10", "DE", true), ("A-20", "DE", false)] {
            assert_eq!(selects(&filter, json!({"sku": {"S": sku}, "zone": {"S": zone}})), expected, "{sku} {zone}");
        }
        let filter =
            parse(&[json!({"n": {"N": [{"anything-but": ["0"]}]}, "z": {"S": ["x"]}}), json!({"n": {"N": ["1"]}})]);
        assert!(selects(&filter, json!({"n": {"N": "1"}})) && !selects(&filter, json!({"n": {"N": "2"}})));
        let filter = parse(&[json!({"vip": {"BOOL": [{"anything-but": [true]}]}})]);
        assert!(selects(&filter, json!({"vip": {"BOOL": false}})) && !selects(&filter, json!({"vip": {"BOOL": true}})));
    }

    /// Whether a text meets a condition, by the definition of the operators.
    fn meets(condition: &Value, text: &str) -> bool {
        let operand = |name: &str| condition.get(name).and_then(Value::as_str);
        match condition {
            Value::String(exact) => exact == text,
            _ if let Some(prefix) = operand("prefix") => text.starts_with(prefix),
            _ if let Some(suffix) = operand("suffix") => text.ends_with(suffix),
            _ if let Some(other) = operand("equals-ignore-case") => text.eq_ignore_ascii_case(other),
            _ => condition["anything-but"].as_array().unwrap().iter().all(|excluded| *excluded != *text),
        }
    }

    fn condition() -> impl Strategy<Value = Value> {
        let text = || "[abA]{1,3}";
        prop_oneof![
            3 => text().prop_map(Value::from),
            1 => text().prop_map(|text| json!({"prefix": text})),
            1 => text().prop_map(|text| json!({"suffix": text})),
            1 => text().prop_map(|text| json!({"equals-ignore-case": text})),
            1 => prop::collection::vec(text(), 1..3).prop_map(|texts| json!({"anything-but": texts})),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn patterns_select_by_the_definition_of_their_operators_in_any_order(
            patterns in prop::collection::vec((
                prop::collection::vec(condition(), 1..4), prop::option::of(prop::collection::vec(condition(), 1..3)),
            ), 1..4),
            items in prop::collection::vec(("[abA]{1,3}", prop::option::of("[abA]{1,3}")), 1..30),
        ) {
            let pattern = |(first, second): &(Vec<Value>, Option<Vec<Value>>)| match second {
                Some(second) => json!({"a": {"S": first}, "b": {"S": second}}),
                None => json!({"a": {"S": first}}),
            };
            let mut listed: Vec<Value> = patterns.iter().map(pattern).collect();
            let filter = RowFilter::parse(&listed).unwrap();
            listed.reverse();
            let reversed = RowFilter::parse(&listed).unwrap();
            prop_assert_eq!(filter.canonical(), reversed.canonical());
            for (a, b) in &items {
                let any = |conditions: &[Value], text: &str| conditions.iter().any(|condition| meets(condition, text));
                let expected = patterns.iter().any(|(first, second)| {
                    any(first, a)
                        && second.as_ref().is_none_or(|second| b.as_ref().is_some_and(|text| any(second, text)))
                });
                let mut image = json!({"a": {"S": a}});
                if let Some(b) = b {
                    image["b"] = json!({"S": b});
                }
                let image = RawValue::from_string(image.to_string()).unwrap();
                let image = ItemImage::parse(&image).unwrap();
                prop_assert_eq!(filter.matches(image), Ok(expected), "{} {:?}", image.get(), listed);
                prop_assert_eq!(reversed.matches(image), Ok(expected), "{} {:?}", image.get(), listed);
            }
        }
    }

    #[test]
    fn conditions_of_two_types_match_if_at_most_one_of_them_requires_a_value() {
        let absent = || json!([{"exists": false}]);
        let pattern = json!({"a": {"S": ["x"], "N": absent(), "M": {"b": {"S": absent()}}}});
        assert!(matches(&pattern, r#"{"a":{"S":"x"}}"#) && !matches(&pattern, r#"{"a":{"N":"1"}}"#));
        assert!(matches(
            &json!({"a": {"B": ["AAE="]}, "b": {"NULL": [true]}}),
            r#"{"a":{"B":"AAE="},"b":{"NULL":true}}"#
        ));
    }

    #[test]
    fn present_attribute_and_absent_attribute_are_combined_in_any_order() {
        for (pattern, image, expected) in [
            (json!({"a": {"S": [{"exists": true}]}, "b": {"S": [{"exists": false}]}}), r#"{"a":{"S":"x"}}"#, true),
            (json!({"a": {"S": [{"exists": true}]}, "b": {"S": [{"exists": false}]}}), r#"{"b":{"S":"x"}}"#, false),
            (json!({"a": {"N": [{"exists": true}]}, "b": {"S": [{"exists": false}]}}), r#"{"a":{"N":"1"}}"#, true),
            (
                json!({"a": {"BOOL": [{"exists": true}]}, "b": {"S": [{"exists": false}]}}),
                r#"{"a":{"BOOL":false}}"#,
                true,
            ),
            (
                json!({"a": {"NULL": [{"exists": true}]}, "b": {"S": [{"exists": false}]}}),
                r#"{"a":{"NULL":true}}"#,
                true,
            ),
            (json!({"a": {"SS": [{"exists": true}]}, "b": {"S": [{"exists": false}]}}), r#"{"a":{"SS":["x"]}}"#, true),
            (json!({"b": {"S": [{"exists": true}]}, "a": {"S": [{"exists": false}]}}), r#"{"b":{"S":""}}"#, true),
            (
                json!({"a": {"S": [{"exists": true}]}, "b": {"S": [{"exists": false}]}}),
                r#"{"a":{"S":"x"},"b":{"S":""}}"#,
                false,
            ),
        ] {
            assert_eq!(matches(&pattern, image), expected, "{pattern} {image}");
        }
    }

    #[test]
    fn two_types_of_an_element_never_match() {
        // The reason for which they are rejected also in a list: the matcher looks at one element at a time.
        for (pattern, image) in [
            (json!({"l": {"L": {"S": ["x"], "N": ["1"]}}}), r#"{"l":{"L":[{"S":"x"},{"N":"1"}]}}"#),
            (
                json!({"l": {"L": {"M": {"a": {"S": ["x"], "N": ["1"]}}}}}),
                r#"{"l":{"L":[{"M":{"a":{"S":"x"}}},{"M":{"a":{"N":"1"}}}]}}"#,
            ),
        ] {
            let mut matcher = Quamina::new();
            matcher.add_pattern((), &pattern.to_string()).unwrap();
            assert!(!matcher.has_matches(image.as_bytes()).unwrap(), "{pattern}");
        }
    }

    #[test]
    fn presence_and_absence_are_evaluated_in_any_combination() {
        let attributes = ["a", "b", "c"];
        let conditions = [None, Some(json!([{"exists": false}])), Some(json!([{"exists": true}])), Some(json!(["x"]))];
        for number in 1..64_usize {
            let chosen = |index: usize| number / 4_usize.pow(u32::try_from(index).unwrap()) % 4;
            let members = attributes.iter().enumerate().filter_map(|(index, name)| {
                conditions[chosen(index)].clone().map(|condition| ((*name).to_owned(), json!({ "S": condition })))
            });
            let pattern: Value = members.collect();
            if RowFilter::parse(std::slice::from_ref(&pattern)).is_err() {
                assert!((0..3).all(|index| chosen(index) < 2), "{pattern}");
                continue;
            }
            for present in 0..8 {
                let has = |index: usize| present >> index & 1 == 1;
                let image: Value = (0..3)
                    .filter(|index| has(*index))
                    .map(|index| (attributes[index].to_owned(), json!({"S": "x"})))
                    .collect();
                let expected = (0..3).all(|index| match chosen(index) {
                    0 => true,
                    1 => !has(index),
                    _ => has(index),
                });
                let image = image.to_string();
                assert_eq!(matches(&pattern, &image), expected, "{pattern} {image}");
            }
        }
    }

    fn many_operators() -> Vec<Value> {
        (0..11).map(|number| json!({"prefix": number.to_string()})).collect()
    }

    #[test]
    fn pattern_that_cannot_be_evaluated_is_rejected_by_name() {
        for (pattern, pointer, part) in [
            (json!({"$or": [{"a": {"S": ["x"]}}]}), "/0/$or", "pattern of its own"),
            (json!({"a": {"S": [{"anything-but": {"prefix": "x"}}]}}), "/0/a/S/0/anything-but", "with an operator"),
            (json!({"a": {"N": [{"numeric": [">", 5]}]}}), "/0/a/N/0/numeric", "numbers are strings"),
            (json!({"a": {"N": [5]}}), "/0/a/N/0", "write \"5\""),
            (json!({"a": {"N": ["5.0"]}}), "/0/a/N/0", "as DynamoDB writes it"),
            (json!({"a": ["x"]}), "/0/a", "type of each value"),
            (json!({"a": {"city": {"S": ["x"]}}}), "/0/a/city", "below M"),
            (json!({"a": {"S": []}}), "/0/a/S", "at least one"),
            (json!({"a": {"S": "x"}}), "/0/a/S", "at least one"),
            (json!({"a": {"S": [{"prefix": "x", "suffix": "y"}]}}), "/0/a/S/0", "object of its own"),
            (json!({"a": {"S": [{"like": "x"}]}}), "/0/a/S/0/like", "is not an operator"),
            (json!({"a": {"S": [{"prefix": 1}]}}), "/0/a/S/0/prefix", "is not a string"),
            (json!({"a": {"N": [{"prefix": "1"}]}}), "/0/a/N/0/prefix", "not supported for N"),
            (json!({"a": {"S": [null]}}), "/0/a/S/0", "is not a string"),
            (json!({"a": {"BOOL": ["true"]}}), "/0/a/BOOL/0", "true or false"),
            (json!({"a": {"S": ["\""]}}), "/0/a/S/0", "double quote"),
            (json!({"a": {"S": [{"prefix": "\""}]}}), "/0/a/S/0/prefix", "double quote"),
            (json!({"a.b": {"S": ["x"]}}), "/0/a.b", "contains a dot"),
            (json!({"a": {"S": ["paid"], "N": ["1"]}}), "/0/a/", "pattern of its own"),
            (
                json!({"a": {"S": [{"exists": false}]}, "b": {"S": [{"exists": false}]}}),
                "/0",
                "add one that every item",
            ),
            (json!({"a": {"S": [{"exists": true}], "NULL": [true]}}), "/0/a/", "is a second type of the value"),
            (json!({"m": {"M": {"a": {"S": ["x"], "SS": ["x"]}}}}), "/0/m/M/a/", "is a second type of the value"),
            (json!({"m": {"M": {"a": {"S": ["x"]}}, "S": ["x"]}}), "/0/m/", "is a second type of the value"),
            (json!({"l": {"L": {"S": ["x"], "N": ["1"]}}}), "/0/l/L/", "is a second type of the value"),
            (
                json!({"l": {"L": {"M": {"a": {"S": ["x"], "N": ["1"]}}}}}),
                "/0/l/L/M/a/",
                "is a second type of the value",
            ),
            (json!({"a": {"S": ["x", {"exists": false}]}}), "/0/a/S", "combines exists"),
            (json!({"a": {"S": [{"exists": true}, {"prefix": "x"}]}}), "/0/a/S", "combines exists"),
            (json!({"a": {"NULL": [false]}}), "/0/a/NULL/0", "write true"),
            (json!({"a": {"NULL": [{"anything-but": [true]}]}}), "/0/a/NULL/0/anything-but", "use exists"),
            (json!({"a": {"BOOL": [{"anything-but": [true, false]}]}}), "/0/a/BOOL/0/anything-but", "use exists"),
            (json!({"a": {"B": ["zz"]}}), "/0/a/B/0", "is not base64"),
            (json!({"a": {"B": ["zz=="]}}), "/0/a/B/0", "is not base64"),
            (json!({"a": {"BS": ["AAE"]}}), "/0/a/BS/0", "is not base64"),
            (json!({"a": {"B": [{"anything-but": ["_w=="]}]}}), "/0/a/B/0/anything-but/0", "is not base64"),
            (json!({"a": {"S": [{"regexp": "("}]}}), "/0", "is rejected (invalid pattern"),
            (json!({"a": {"S": [{"regexp": "A-\\d+"}]}}), "/0/a/S/0/regexp", "the escape character is ~"),
            (json!({"a": {"S": [{"regexp": "^A"}]}}), "/0/a/S/0/regexp", "always matches the whole text"),
            (json!({"a": {"S": [{"regexp": "A$"}]}}), "/0/a/S/0/regexp", "always matches the whole text"),
            (
                json!({"a": {"S": many_operators()}, "b": {"S": many_operators()}}),
                "/0",
                "121 combinations of operators",
            ),
            (json!({}), "/0", "is not a pattern"),
            (json!([]), "/0", "is not a pattern"),
        ] {
            let problems = RowFilter::parse(std::slice::from_ref(&pattern)).unwrap_err();
            assert_eq!(problems.len(), 1, "{pattern}: {problems:?}");
            // Of two types, either may be the second.
            let location = problems[0].pointer.as_str();
            assert!(
                location == pointer || pointer.ends_with('/') && location.starts_with(pointer),
                "{pattern}: {location}"
            );
            assert!(problems[0].reason.contains(part), "{pattern}: {}", problems[0].reason);
        }
        assert!(RowFilter::parse(&[]).unwrap_err()[0].reason.contains("no item would be replicated"));
        assert_eq!(RowFilter::parse(&[json!({"a": [], "b": 1}), json!(1)]).unwrap_err().len(), 3);
    }

    #[test]
    fn filters_are_equal_by_their_patterns() {
        let parse = |patterns: &[Value]| RowFilter::parse(patterns).unwrap();
        let (a, b) = (json!({"a": {"S": ["x"]}, "b": {"S": ["y"]}}), json!({"c": {"S": ["z"]}}));
        let swapped: Value = serde_json::from_str(r#"{"b":{"S":["y"]},"a":{"S":["x"]}}"#).unwrap();
        assert_eq!(parse(&[a.clone(), b.clone()]), parse(&[b.clone(), swapped]));
        assert_ne!(parse(&[a]), parse(&[b]));
    }

    /// Any character that JSON may write in several ways, and some that it may not.
    const TEXT: &str = r#"[ab"\\/é\n\t𝄞*.]{0,4}"#;
    /// The same without the quote, which patterns may not contain.
    const LISTED: &str = r"[ab\\/é\n\t𝄞*.]{0,4}";

    proptest! {
        #[test]
        fn exact_values_match_as_texts_however_json_escapes_them(
            value in TEXT, listed in proptest::collection::vec(LISTED, 1..4), nested: bool,
        ) {
            let escaped = value.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect::<Vec<_>>().concat();
            for text in [json!(value).to_string(), format!("\"{escaped}\"")] {
                let typed = format!(r#"{{"S":{text}}}"#);
                let inner = format!(r#"{{"a":{typed}}}"#);
                let image = if nested { format!(r#"{{"m":{{"M":{inner}}}}}"#) } else { inner };
                let pattern = |condition: Value| {
                    let inner = json!({"a": {"S": condition}});
                    if nested { json!({"m": {"M": inner}}) } else { inner }
                };
                prop_assert_eq!(matches(&pattern(json!(listed)), &image), listed.contains(&value));
                let other_than = pattern(json!([{"anything-but": listed}]));
                prop_assert_eq!(matches(&other_than, &image), !listed.contains(&value));
                let prefix = pattern(json!([{"prefix": listed[0]}]));
                prop_assert_eq!(matches(&prefix, &image), value.starts_with(&listed[0]));
            }
        }
    }
}
