//! Paths of attributes, as in DynamoDB's `ProjectionExpression`: [`AttributePath`].
//!
//! `address.city` is the member `city` of the map `address`, and `lines[0].sku` a member of the first element of a
//! list. A dot, bracket or backslash that is part of a name is written with a backslash before it: `a\.b` is one
//! attribute with the name `a.b`. There are no placeholders such as `#name`: every other character is literal.
//!
//! # Example
//!
//! ```
//! use millrace_shared::change::ItemImage;
//! use millrace_transform::AttributePath;
//! use serde_json::value::RawValue;
//!
//! let image: &RawValue = serde_json::from_str(r#"{"id":{"S":"7"},"lines":{"L":[{"M":{"sku":{"S":"A-1"}}}]}}"#)?;
//! let image = ItemImage::parse(image).expect("an object");
//! let path = AttributePath::parse("lines[0].sku")?;
//! assert_eq!(path.find(image)?.map(RawValue::get), Some(r#"{"S":"A-1"}"#));
//! assert_eq!(AttributePath::parse("lines[1].sku")?.find(image)?.map(RawValue::get), None);
//!
//! let error = AttributePath::parse("lines[x]").unwrap_err();
//! assert_eq!(error.position, 6);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::borrow::Cow;
use std::fmt;

use millrace_shared::change::ItemImage;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

/// The maximum number of steps: DynamoDB nests values up to 32 levels deep.
pub const MAX_STEPS: usize = 32;
/// The maximum length of an attribute's name in bytes.
pub const MAX_NAME_BYTES: usize = 65_535;

/// A text that is not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not a path at character {}: {reason}", position + 1)]
pub struct PathSyntaxError {
    /// The number of characters before the fault.
    pub position: usize,
    /// The problem and the fix.
    pub reason: String,
}

/// An image in which a path cannot be looked up: it is not DynamoDB JSON.
///
/// The message contains the position of the fault, and no part of the image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not DynamoDB JSON (line {line}, column {column})")]
pub struct ImageSyntaxError {
    line: usize,
    column: usize,
}

impl From<serde_json::Error> for ImageSyntaxError {
    fn from(error: serde_json::Error) -> Self {
        Self { line: error.line(), column: error.column() }
    }
}

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathStep {
    /// The member of a map with this name; the first step is the item's attribute.
    Member(String),
    /// The element of a list with this index, from 0.
    Element(usize),
}

/// The place of a value in an item: an attribute, and the way to a value inside it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttributePath {
    attribute: String,
    inner: Vec<PathStep>,
}

impl AttributePath {
    /// Parses a path such as `address.city`, `lines[0].sku` or `a\.b`.
    ///
    /// # Errors
    /// [`PathSyntaxError`], which has the position of the fault and the fix.
    pub fn parse(text: &str) -> Result<Self, PathSyntaxError> {
        let mut parser = PathParser { rest: text, position: 0 };
        let attribute = parser.name()?;
        let mut inner = Vec::new();
        while let Some(next) = parser.next() {
            let position = parser.position - 1;
            inner.push(match next {
                '.' => PathStep::Member(parser.name()?),
                // `PathParser::name` stops only at these two characters and at the end.
                _ => PathStep::Element(parser.index()?),
            });
            if inner.len() >= MAX_STEPS {
                return Err(fault(
                    position,
                    format!("has more than {MAX_STEPS} steps, the depth that DynamoDB allows"),
                ));
            }
            if let Some(other) = parser.rest.chars().next().filter(|next| !matches!(next, '.' | '[')) {
                return Err(fault(parser.position, format!("has {other:?} after a bracket: write . or [")));
            }
        }
        Ok(Self { attribute, inner })
    }

    /// Returns the path of a whole attribute.
    #[must_use]
    pub fn from_attribute(name: impl Into<String>) -> Self {
        Self { attribute: name.into(), inner: Vec::new() }
    }

    /// Returns the name of the item's attribute with which the path begins.
    #[must_use]
    pub fn attribute(&self) -> &str {
        &self.attribute
    }

    /// Returns the steps inside the attribute; empty if the path is the whole attribute.
    #[must_use]
    pub fn inner(&self) -> &[PathStep] {
        &self.inner
    }

    /// Returns the last name of the path, which a rename replaces; `None` if the path ends with an element of a list.
    #[must_use]
    pub fn last_name(&self) -> Option<&str> {
        match self.inner.last() {
            None => Some(&self.attribute),
            Some(PathStep::Member(name)) => Some(name),
            Some(PathStep::Element(_)) => None,
        }
    }

    /// Returns the path of the same value after its last name was replaced; a path that ends with an element of a list
    /// is returned unchanged.
    #[must_use]
    pub fn renamed(&self, name: &str) -> Self {
        let mut renamed = self.clone();
        match renamed.inner.last_mut() {
            None => name.clone_into(&mut renamed.attribute),
            Some(PathStep::Member(last)) => name.clone_into(last),
            Some(PathStep::Element(_)) => {}
        }
        renamed
    }

    /// Returns the value that one of two paths uses as a map and the other as a list, if there is one.
    #[must_use]
    pub fn differing_container(&self, other: &Self) -> Option<Self> {
        if self.attribute != other.attribute {
            return None;
        }
        let common = self.inner.iter().zip(&other.inner).take_while(|(one, other)| one == other).count();
        let (one, other) = (self.inner.get(common)?, other.inner.get(common)?);
        let is_same_kind = matches!(one, PathStep::Member(_)) == matches!(other, PathStep::Member(_));
        (!is_same_kind).then(|| Self { attribute: self.attribute.clone(), inner: self.inner[..common].to_vec() })
    }

    /// Returns whether `other` is this path or is inside the value that it names.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.attribute == other.attribute && other.inner.starts_with(&self.inner)
    }

    /// Returns the value at this path in DynamoDB JSON, such as `{"S":"Ada"}`, with its text in the image; `None` if
    /// the image has no such value. Of two attributes with the same name, the last one counts.
    ///
    /// # Errors
    /// [`ImageSyntaxError`] if the part of the image that the path concerns is not DynamoDB JSON.
    pub fn find<'i>(&self, image: ItemImage<'i>) -> Result<Option<&'i RawValue>, ImageSyntaxError> {
        match member(image.get(), &self.attribute)? {
            Some(value) => self.find_inner(value),
            None => Ok(None),
        }
    }

    /// Returns the value at this path inside the value of its attribute ([`AttributePath::attribute`]), for a caller
    /// that reads several paths in one pass over the attributes of an image.
    ///
    /// # Errors
    /// As [`AttributePath::find`].
    pub fn find_inner<'i>(&self, attribute: &'i RawValue) -> Result<Option<&'i RawValue>, ImageSyntaxError> {
        let mut value = attribute;
        for step in &self.inner {
            let found = match step {
                PathStep::Member(name) => match typed(value, "M")? {
                    Some(map) => member(map.get(), name)?,
                    None => None,
                },
                PathStep::Element(index) => match typed(value, "L")? {
                    Some(list) => element(list.get(), *index)?,
                    None => None,
                },
            };
            let Some(found) = found else { return Ok(None) };
            value = found;
        }
        Ok(Some(value))
    }
}

/// Serializes the text of the path.
impl Serialize for AttributePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Formats the path so that [`AttributePath::parse`] returns it.
impl fmt::Display for AttributePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_name(f, &self.attribute)?;
        for step in &self.inner {
            match step {
                PathStep::Member(name) => {
                    f.write_str(".")?;
                    write_name(f, name)?;
                }
                PathStep::Element(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

fn write_name(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    for part in name.split_inclusive(['.', '[', ']', '\\']) {
        match part.char_indices().next_back().filter(|(_, last)| matches!(last, '.' | '[' | ']' | '\\')) {
            Some((at, last)) => write!(f, "{}\\{last}", &part[..at])?,
            None => f.write_str(part)?,
        }
    }
    Ok(())
}

fn fault(position: usize, reason: impl Into<String>) -> PathSyntaxError {
    PathSyntaxError { position, reason: reason.into() }
}

/// The part of a text that is not parsed yet.
struct PathParser<'t> {
    rest: &'t str,
    /// The number of characters before the rest.
    position: usize,
}

impl PathParser<'_> {
    fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let next = characters.next()?;
        self.rest = characters.as_str();
        self.position += 1;
        Some(next)
    }

    /// Reads a name, up to an unescaped `.` or `[` or the end.
    fn name(&mut self) -> Result<String, PathSyntaxError> {
        let (start, mut name) = (self.position, String::new());
        while let Some(next) = self.rest.chars().next().filter(|next| !matches!(next, '.' | '[')) {
            let position = self.position;
            self.next();
            name.push(match next {
                '\\' => match self.next() {
                    Some(escaped @ ('.' | '[' | ']' | '\\')) => escaped,
                    _ => return Err(fault(position, r"has a \ before none of . [ ] \: write \\ for a backslash")),
                },
                ']' => return Err(fault(position, r"has a ] without a [: write \] if it is part of a name")),
                other => other,
            });
        }
        if name.is_empty() {
            return Err(fault(start, "has an empty name: write the name of an attribute"));
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(fault(start, format!("has a name of more than {MAX_NAME_BYTES} bytes")));
        }
        Ok(name)
    }

    /// Reads an index and the closing bracket.
    fn index(&mut self) -> Result<usize, PathSyntaxError> {
        let start = self.position;
        let Some((digits, rest)) = self.rest.split_once(']') else {
            return Err(fault(start, r"has a [ without a ]: write an index such as [0], or \[ in a name"));
        };
        let is_canonical =
            digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
        let index = digits.parse().ok().filter(|_| is_canonical);
        let index = index.ok_or_else(|| fault(start, "has no index between [ and ]: write a number such as [0]"))?;
        (self.rest, self.position) = (rest, start + digits.len() + 1);
        Ok(index)
    }
}

/// An attribute's name, borrowed unless it contains an escape.
#[derive(Deserialize)]
pub(crate) struct AttributeName<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// Returns the member of a JSON object with this name.
fn member<'i>(object: &'i str, name: &str) -> Result<Option<&'i RawValue>, ImageSyntaxError> {
    let mut json = serde_json::Deserializer::from_str(object);
    Ok(MemberSearch(name).deserialize(&mut json)?)
}

/// Returns the content of a value if it has this type: `[…]` of `{"L":[…]}`.
fn typed<'i>(value: &'i RawValue, kind: &str) -> Result<Option<&'i RawValue>, ImageSyntaxError> {
    member(value.get(), kind)
}

/// Returns the element of a JSON array with this index.
fn element(array: &str, index: usize) -> Result<Option<&RawValue>, ImageSyntaxError> {
    let mut json = serde_json::Deserializer::from_str(array);
    Ok(ElementSearch(index).deserialize(&mut json)?)
}

struct MemberSearch<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for MemberSearch<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MemberSearch<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut found = None;
        while let Some(AttributeName(name)) = map.next_key()? {
            if name == self.0 {
                found = Some(map.next_value::<&'de RawValue>()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

struct ElementSearch(usize);

impl<'de> DeserializeSeed<'de> for ElementSearch {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ElementSearch {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut elements: S) -> Result<Self::Value, S::Error> {
        let mut found = None;
        for index in 0.. {
            if index == self.0 {
                found = elements.next_element::<&'de RawValue>()?;
                if found.is_none() {
                    break;
                }
            } else if elements.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn find(image: &str, path: &str) -> Option<String> {
        let image: &RawValue = serde_json::from_str(image).unwrap();
        let found = AttributePath::parse(path).unwrap().find(ItemImage::parse(image).unwrap()).unwrap();
        found.map(|value| value.get().to_owned())
    }

    #[test]
    fn path_leads_through_maps_and_lists() {
        let image =
            r#"{"a":{"M":{"b":{"L":[{"N":"1"},{"M":{"c.d":{"S":"x"}}}]}}},"\u0061b":{"S":"y"},"n":{"NULL":true}}"#;
        for (path, expected) in [
            ("a.b[0]", Some(r#"{"N":"1"}"#)),
            (r"a.b[1].c\.d", Some(r#"{"S":"x"}"#)),
            ("ab", Some(r#"{"S":"y"}"#)),
            ("a.b[2]", None),
            ("a.b[0].c", None),
            ("a[0]", None),
            ("a.M", None),
            ("n.x", None),
            ("x", None),
        ] {
            assert_eq!(find(image, path).as_deref(), expected, "{path}");
        }
        assert_eq!(find(r#"{"a":{"N":"1"},"a":{"N":"2"}}"#, "a").unwrap(), r#"{"N":"2"}"#);
    }

    #[test]
    fn fault_has_its_position_and_fix() {
        for (text, position, part) in [
            ("", 0, "empty name"),
            (".a", 0, "empty name"),
            ("a.", 2, "empty name"),
            ("a..b", 2, "empty name"),
            ("a[0", 2, "[ without a ]"),
            ("é[]", 2, "no index"),
            ("a[-1]", 2, "no index"),
            ("a[01]", 2, "no index"),
            ("a[99999999999999999999999]", 2, "no index"),
            ("a[0]b", 4, "after a bracket"),
            ("a]", 1, r"write \]"),
            (r"a\b", 1, r"write \\"),
            ("a\\", 1, r"write \\"),
        ] {
            let error = AttributePath::parse(text).unwrap_err();
            assert_eq!(error.position, position, "{text}: {error}");
            assert!(error.reason.contains(part), "{text}: {error}");
        }
        let deep = vec!["a"; MAX_STEPS].join(".");
        assert!(AttributePath::parse(&deep).is_ok());
        assert!(AttributePath::parse(&format!("{deep}.a")).unwrap_err().reason.contains("32 steps"));
    }

    #[test]
    fn malformed_image_is_an_error_without_its_values() {
        let image: &RawValue = serde_json::from_str(r#"{"a":["secret"]}"#).unwrap();
        let path = AttributePath::parse("a.b").unwrap();
        let error = path.find(ItemImage::parse(image).unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("is not DynamoDB JSON (line 1") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn path_contains_what_is_inside_it() {
        let path = |text| AttributePath::parse(text).unwrap();
        assert!(path("a").contains(&path("a")) && path("a").contains(&path("a.b[0]")));
        assert!(!path("a.b").contains(&path("a")) && !path("a").contains(&path(r"a\.b")));
        assert_eq!(path("a[0].b").last_name(), Some("b"));
        assert_eq!((path("a").last_name(), path("a[0]").last_name()), (Some("a"), None));
    }

    proptest! {
        #[test]
        fn path_is_parsed_as_it_is_formatted(
            attribute in r"[a-zé.\[\]\\]{1,6}",
            steps in proptest::collection::vec(
                prop_oneof![
                    r"[a-z .\[\]\\#:]{1,4}".prop_map(PathStep::Member),
                    (0..1000_usize).prop_map(PathStep::Element),
                ],
                0..6,
            ),
        ) {
            let path = AttributePath { attribute, inner: steps };
            prop_assert_eq!(AttributePath::parse(&path.to_string()), Ok(path));
        }

        #[test]
        fn any_text_is_a_path_or_an_error_inside_it(text in r"[ab.\[\]\\0-9é]{0,12}") {
            match AttributePath::parse(&text) {
                Ok(path) => prop_assert_eq!(AttributePath::parse(&path.to_string()), Ok(path)),
                Err(error) => prop_assert!(error.position <= text.chars().count(), "{}", error),
            }
        }
    }
}
