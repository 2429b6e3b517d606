//! A single pass over an item's JSON that finds the attributes with a column.

use std::fmt;

use millrace_json_scanner::JsonScanner;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::ColumnDefinition;
use super::convert::BorrowedText;

/// The columns whose paths begin with the same attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathGroup {
    attribute: String,
    /// The indexes of the columns.
    pub(super) columns: Vec<usize>,
}

/// Groups columns by the first attribute of their paths.
pub(super) fn group_by_attribute(columns: &[ColumnDefinition]) -> Vec<PathGroup> {
    let mut groups: Vec<PathGroup> = Vec::new();
    for (index, column) in columns.iter().enumerate() {
        let attribute = column.path.attribute();
        match groups.iter_mut().find(|group| group.attribute == attribute) {
            Some(group) => group.columns.push(index),
            None => groups.push(PathGroup { attribute: attribute.to_owned(), columns: vec![index] }),
        }
    }
    groups
}

/// Returns the value of each group's attribute; of two attributes with the same name, the last one counts.
pub(super) fn attributes_of<'a>(
    item: &'a str,
    groups: &[PathGroup],
) -> Result<Vec<Option<&'a RawValue>>, serde_json::Error> {
    match scan_attributes(item, groups) {
        Some(found) => Ok(found),
        // An unusual or malformed item, whose error states the position.
        None => AttributeSearch(groups).deserialize(&mut serde_json::Deserializer::from_str(item)),
    }
}

/// Finds the attributes by a scan of the item. Returns `None` if it has to be parsed: it is malformed, or a name has
/// escape sequences.
fn scan_attributes<'a>(item: &'a str, groups: &[PathGroup]) -> Option<Vec<Option<&'a RawValue>>> {
    let mut scanner = JsonScanner::new(item);
    let (mut members, mut found) = (scanner.object()?, vec![None; groups.len()]);
    while let Some(name) = scanner.plain_member(&mut members)? {
        let value = scanner.value()?;
        if let Some(index) = groups.iter().position(|group| group.attribute == name) {
            found[index] = Some(value.to_raw());
        }
    }
    Some(found)
}

struct AttributeSearch<'g>(&'g [PathGroup]);

impl<'de> DeserializeSeed<'de> for AttributeSearch<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for AttributeSearch<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of attributes")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut found = vec![None; self.0.len()];
        while let Some(BorrowedText(name)) = map.next_key::<BorrowedText<'de>>()? {
            match self.0.iter().position(|group| group.attribute == name) {
                Some(index) => found[index] = Some(map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn groups() -> Vec<PathGroup> {
        ["a", "b"].map(|name| PathGroup { attribute: name.to_owned(), columns: Vec::new() }).into()
    }

    fn texts<'a>(found: &[Option<&'a RawValue>]) -> Vec<Option<&'a str>> {
        found.iter().map(|value| value.map(RawValue::get)).collect()
    }

    fn parsed<'a>(item: &'a str, groups: &[PathGroup]) -> Option<Vec<Option<&'a RawValue>>> {
        AttributeSearch(groups).deserialize(&mut serde_json::Deserializer::from_str(item)).ok()
    }

    #[test]
    fn the_last_attribute_of_a_name_counts() {
        let item = r#"{"a":{"S":"1"},"c":{"S":"2"}, "a" : {"S":"3"} }"#;
        let expected = Some(vec![Some(r#"{"S":"3"}"#), None]);
        assert_eq!(scan_attributes(item, &groups()).map(|found| texts(&found)), expected);
        assert_eq!(parsed(item, &groups()).map(|found| texts(&found)), expected);
        let escaped = r#"{"\u0061":{"S":"1"}}"#;
        assert!(scan_attributes(escaped, &groups()).is_none(), "a name with an escape sequence is parsed");
        assert_eq!(texts(&attributes_of(escaped, &groups()).unwrap()), [Some(r#"{"S":"1"}"#), None]);
    }

    proptest! {
        #[test]
        fn a_scan_finds_what_parsing_finds(
            tokens in proptest::collection::vec(
                proptest::sample::select(vec![
                    "{", "}", "[", "]", ",", ":", " ", "\"a\"", "\"b\"", "\"c\"", "\"\\u0061\"", "\"a\":{\"S\":\"1\"},",
                    "\"b\":{\"N\":\"-1E3\"},", "\"a\":null,", "\"c\":{\"L\":[]}", "-1.5e3", "01", "true", "\"\\", "é",
                ]),
                0..8,
            ),
        ) {
            let item = format!("{{{}}}", tokens.concat());
            if let Some(found) = scan_attributes(&item, &groups()) {
                prop_assert_eq!(Some(texts(&found)), parsed(&item, &groups()).map(|found| texts(&found)), "{}", item);
            }
        }
    }
}
