//! Conversion of DynamoDB JSON to plain JSON, from text to text: the form of `attributes` in which a client queries a
//! path.
//!
//! The rules are those of [`attributes::decode`](crate::item::attributes::decode), but no values are built: a number
//! keeps its text, a set is a sorted list, and binary data is base64 text.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::change::BorrowedText;
use crate::number;

/// Converts a value of any type to JSON. A NULL is `Some(None)`; the result is `None` if the value contains an unknown
/// type or a number that DynamoDB cannot store.
#[must_use]
pub fn any(value: &RawValue) -> Option<Option<String>> {
    let mut json = String::with_capacity(value.get().len());
    PlainJson(&mut json).deserialize(&mut serde_json::Deserializer::from_str(value.get())).ok()?;
    Some((json != "null").then_some(json))
}

/// Appends a typed value as JSON.
struct PlainJson<'j>(&'j mut String);

impl<'de> DeserializeSeed<'de> for PlainJson<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for PlainJson<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value with its type tag")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let Some(BorrowedText(kind)) = map.next_key::<BorrowedText<'_>>()? else {
            return Err(M::Error::custom("missing type tag"));
        };
        match kind.as_ref() {
            "S" | "B" => push_text(self.0, &map.next_value::<BorrowedText<'_>>()?.0),
            "N" => push_number(self.0, &map.next_value::<BorrowedText<'_>>()?.0)?,
            "BOOL" => self.0.push_str(if map.next_value::<bool>()? { "true" } else { "false" }),
            "NULL" => {
                map.next_value::<IgnoredAny>()?;
                self.0.push_str("null");
            }
            "M" => map.next_value_seed(MapVisitor(&mut *self.0))?,
            "L" => map.next_value_seed(ListVisitor(&mut *self.0))?,
            "SS" => push_set(self.0, map.next_value()?, |json, text| {
                push_text(json, text);
                Ok(())
            })?,
            "NS" => push_set(self.0, map.next_value()?, push_number)?,
            "BS" => {
                let mut set: Vec<BorrowedText<'_>> = map.next_value()?;
                // Sorted by the decoded bytes, as in the API's responses.
                set.sort_by_cached_key(|BorrowedText(text)| bytes(text));
                push_list(self.0, &set, |json, text| {
                    push_text(json, text);
                    Ok(())
                })?;
            }
            _ => return Err(M::Error::custom("unknown type tag")),
        }
        if map.next_key::<IgnoredAny>()?.is_some() { Err(M::Error::custom("more than one type tag")) } else { Ok(()) }
    }
}

fn bytes(base64: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(base64).unwrap_or_default()
}

/// Appends the members of a map.
struct MapVisitor<'j>(&'j mut String);

impl<'de> DeserializeSeed<'de> for MapVisitor<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MapVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of values")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        self.0.push('{');
        let mut first = true;
        while let Some(BorrowedText(name)) = map.next_key::<BorrowedText<'_>>()? {
            if !std::mem::take(&mut first) {
                self.0.push(',');
            }
            push_text(self.0, &name);
            self.0.push(':');
            map.next_value_seed(PlainJson(&mut *self.0))?;
        }
        self.0.push('}');
        Ok(())
    }
}

/// Appends the items of a list.
struct ListVisitor<'j>(&'j mut String);

impl<'de> DeserializeSeed<'de> for ListVisitor<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ListVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of values")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<(), S::Error> {
        self.0.push('[');
        let start = self.0.len();
        loop {
            let before = self.0.len();
            if before > start {
                self.0.push(',');
            }
            if list.next_element_seed(PlainJson(&mut *self.0))?.is_none() {
                self.0.truncate(before);
                break;
            }
        }
        self.0.push(']');
        Ok(())
    }
}

fn push_set<E: serde::de::Error>(
    json: &mut String,
    mut set: Vec<BorrowedText<'_>>,
    push: impl Fn(&mut String, &str) -> Result<(), E>,
) -> Result<(), E> {
    set.sort_unstable();
    push_list(json, &set, push)
}

fn push_list<E: serde::de::Error>(
    json: &mut String,
    list: &[BorrowedText<'_>],
    push: impl Fn(&mut String, &str) -> Result<(), E>,
) -> Result<(), E> {
    json.push('[');
    for (index, BorrowedText(text)) in list.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        push(json, text)?;
    }
    json.push(']');
    Ok(())
}

fn push_text(json: &mut String, text: &str) {
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        json.push('"');
        json.push_str(text);
        json.push('"');
    } else {
        // Serializing a string cannot fail.
        json.push_str(&serde_json::to_string(text).unwrap_or_default());
    }
}

/// Appends the number in its original format if that is valid JSON, and otherwise in canonical form, which is.
fn push_number<E: serde::de::Error>(json: &mut String, text: &str) -> Result<(), E> {
    // PostgreSQL refuses a `jsonb` with a number that its `numeric` cannot store, and with it the whole batch.
    let canonical = number::canonical(text).filter(|number| number::is_in_range(number));
    let canonical = canonical.ok_or_else(|| E::custom("not a number of DynamoDB"))?;
    let spelled: Cow<'_, str> = if is_json(text) { Cow::Borrowed(text) } else { canonical };
    json.push_str(&spelled);
    Ok(())
}

/// Returns whether JSON allows this format: it has no plus sign, no leading zero and no bare decimal point.
fn is_json(number: &str) -> bool {
    serde_json::from_str::<&RawValue>(number).is_ok()
}
