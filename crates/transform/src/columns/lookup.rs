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
        if let Some(place) = groups.iter().position(|group| group.attribute == name) {
            found[place] = Some(value.to_raw());
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
                Some(place) => found[place] = Some(map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}
