//! A validating scanner of JSON text: [`JsonScanner`].
//!
//! One pass validates the text and returns the text of its values, without converting any of them. The scanner accepts
//! exactly the JSON that `serde_json` accepts for a `RawValue`, in a fraction of the time; the text is stepped through
//! eight bytes at a time. It reports no reason: a caller that needs one parses the text again with `serde_json`. The
//! methods therefore return an `Option`, and after `None` the scanner must not be used any more.
//!
//! # Example
//!
//! Read one member of an object, and validate the others:
//!
//! ```
//! use millrace_json_scanner::JsonScanner;
//!
//! fn total(json: &str) -> Option<&str> {
//!     let (mut scanner, mut total) = (JsonScanner::new(json), None);
//!     let mut members = scanner.object()?;
//!     while let Some(name) = scanner.plain_member(&mut members)? {
//!         let value = scanner.value()?;
//!         total = if name == "total" { Some(value.get()) } else { total };
//!     }
//!     if scanner.is_at_end() { total } else { None }
//! }
//! assert_eq!(total(r#"{"lines": [1, {"total": 2}], "total": {"N": "7"}}"#), Some(r#"{"N": "7"}"#));
//! assert_eq!(total(r#"{"total": 7, "lines": [1, }"#), None);
//! ```

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The deepest nesting that is scanned; deeper text counts as invalid. DynamoDB nests 32 levels of values, each of
/// which is two levels of JSON.
const MAX_DEPTH: u32 = u128::BITS;

/// The text of one valid JSON value, without white space around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonText<'a>(&'a str);

impl<'a> JsonText<'a> {
    /// Scans a text; returns `None` unless it is one valid value, nested at most 128 levels deep.
    #[must_use]
    pub fn scan(text: &'a str) -> Option<Self> {
        let mut scanner = JsonScanner::new(text);
        let value = scanner.value()?;
        scanner.is_at_end().then_some(value)
    }

    /// Returns the text.
    #[must_use]
    pub fn get(self) -> &'a str {
        self.0
    }

    /// Returns the value as `serde_json`'s type, which parses the text again.
    #[must_use]
    pub fn to_raw(self) -> &'a RawValue {
        // The text is valid, since a scanner or serde_json has parsed it.
        serde_json::from_str(self.0).unwrap_or(RawValue::NULL)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for JsonText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(Self::from)
    }
}

impl<'a> From<&'a RawValue> for JsonText<'a> {
    fn from(raw: &'a RawValue) -> Self {
        Self(raw.get())
    }
}

/// A position in a JSON text, which moves forward token by token.
#[derive(Debug, Clone)]
pub struct JsonScanner<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> JsonScanner<'a> {
    /// Starts at the beginning of a text.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self { text, position: 0 }
    }

    /// Returns the number of bytes that are not scanned yet.
    #[must_use]
    pub fn remaining_bytes(&self) -> usize {
        self.text.len() - self.position
    }

    /// Returns the first byte of the next token, after white space, without consuming it.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        let byte = *self.text.as_bytes().get(self.position)?;
        if byte > b' ' { Some(byte) } else { self.peek_after_space() }
    }

    /// [`JsonScanner::peek`] in the less common case of white space.
    #[cold]
    fn peek_after_space(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.position..];
        self.position += rest.iter().position(|byte| !matches!(byte, b' ' | b'\n' | b'\t' | b'\r'))?;
        self.text.as_bytes().get(self.position).copied()
    }

    /// Consumes the next token if it is this punctuation character. Returns whether it is.
    #[inline]
    pub fn eat(&mut self, punctuation: u8) -> bool {
        let is_next = self.peek() == Some(punctuation);
        self.position += usize::from(is_next);
        is_next
    }

    /// Returns whether only white space is left.
    pub fn is_at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    /// Consumes a value, valid as a whole, and returns its text.
    pub fn value(&mut self) -> Option<JsonText<'a>> {
        self.with_text(Self::skip_value).map(|(text, ())| text)
    }

    /// Consumes `null`, or a value that `read` consumes; `Some(None)` for `null`.
    pub fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.peek()? == b'n' { self.skip_value().map(|()| None) } else { read(self).map(Some) }
    }

    /// Consumes one value by `read` and returns its text with the result. Nothing but one whole value may be consumed.
    pub fn with_text<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<(JsonText<'a>, T)> {
        self.peek()?;
        let start = self.position;
        let result = read(self)?;
        Some((JsonText(self.text.get(start..self.position)?), result))
    }

    /// Consumes a string and returns the text between its quotes, with its escape sequences as they are, and whether it
    /// contains any.
    #[inline]
    pub fn string(&mut self) -> Option<(&'a str, bool)> {
        if !self.eat(b'"') {
            return None;
        }
        let start = self.position;
        let is_escaped = self.skip_string()?;
        Some((self.text.get(start..self.position - 1)?, is_escaped))
    }

    /// Consumes a string without escape sequences and returns its content. A string with escape sequences counts as
    /// invalid.
    pub fn plain_string(&mut self) -> Option<&'a str> {
        self.string().and_then(|(text, is_escaped)| (!is_escaped).then_some(text))
    }

    /// Consumes the opening brace of an object, whose members [`JsonScanner::member`] then returns.
    pub fn object(&mut self) -> Option<ObjectMembers> {
        self.eat(b'{').then_some(ObjectMembers { is_first: true })
    }

    /// Consumes the name of the next member of an object and the colon after it, and returns the name as
    /// [`JsonScanner::string`] does; `Some(None)` consumes the end of the object. The member's value must be consumed
    /// before the next call.
    pub fn member(&mut self, members: &mut ObjectMembers) -> Option<Option<(&'a str, bool)>> {
        let is_first = std::mem::take(&mut members.is_first);
        if self.eat(b'}') {
            return Some(None);
        }
        if !is_first && !self.eat(b',') {
            return None;
        }
        let name = self.string()?;
        self.eat(b':').then_some(Some(name))
    }

    /// Like [`JsonScanner::member`], but a name with escape sequences counts as invalid.
    pub fn plain_member(&mut self, members: &mut ObjectMembers) -> Option<Option<&'a str>> {
        match self.member(members)? {
            Some((_, true)) => None,
            name => Some(name.map(|(name, _)| name)),
        }
    }

    /// Consumes the next byte after white space.
    #[inline]
    fn token(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.position += 1;
        Some(byte)
    }

    /// Consumes a value. Its nesting is kept as one bit for each level, which is set for an object.
    fn skip_value(&mut self) -> Option<()> {
        let (mut enclosing, mut depth) = (0_u128, 0_u32);
        loop {
            let first = self.token()?;
            match first {
                b'"' => drop(self.skip_string()?),
                b'{' | b'[' => {
                    let is_object = first == b'{';
                    let is_empty = self.eat(if is_object { b'}' } else { b']' });
                    if !is_empty {
                        if depth == MAX_DEPTH {
                            return None;
                        }
                        (enclosing, depth) = (enclosing << 1 | u128::from(is_object), depth + 1);
                        if !is_object {
                            continue;
                        }
                        if !self.skip_typed_text()? {
                            self.skip_name()?;
                            continue;
                        }
                    }
                }
                b't' => self.skip_literal("true")?,
                b'f' => self.skip_literal("false")?,
                b'n' => self.skip_literal("null")?,
                _ => self.skip_number(first)?,
            }
            // The value is complete, and with it the objects and lists whose ends follow.
            loop {
                if depth == 0 {
                    return Some(());
                }
                let is_object = enclosing & 1 == 1;
                match self.token()? {
                    b',' => {
                        if is_object {
                            self.skip_name()?;
                        }
                        break;
                    }
                    b'}' if is_object => {}
                    b']' if !is_object => {}
                    _ => return None,
                }
                (enclosing, depth) = (enclosing >> 1, depth - 1);
            }
        }
    }

    /// Consumes a member of one letter whose value is a string, as in `{"S":"text"}`, the most common value of
    /// DynamoDB. Returns whether it is one; otherwise nothing is consumed.
    fn skip_typed_text(&mut self) -> Option<bool> {
        let next = self.text.as_bytes().get(self.position..).and_then(<[u8]>::first_chunk::<5>);
        let Some([b'"', b'A'..=b'Z', b'"', b':', b'"']) = next else { return Some(false) };
        self.position += "\"S\":\"".len();
        self.skip_string().map(|_| true)
    }

    /// Consumes the name of a member and the colon after it.
    fn skip_name(&mut self) -> Option<()> {
        if self.token()? != b'"' {
            return None;
        }
        self.skip_string()?;
        (self.token()? == b':').then_some(())
    }

    /// Consumes the rest of `true`, `false` or `null`.
    fn skip_literal(&mut self, literal: &str) -> Option<()> {
        let start = self.position - 1;
        let text = self.text.as_bytes().get(start..start + literal.len())?;
        self.position = start + literal.len();
        (text == literal.as_bytes()).then_some(())
    }

    /// Consumes a string up to and including its closing quote; the opening one is consumed. Returns whether the string
    /// contains an escape sequence.
    #[inline]
    fn skip_string(&mut self) -> Option<bool> {
        let bytes = self.text.as_bytes();
        self.position = find_special(bytes, self.position)?;
        if bytes[self.position] == b'"' {
            self.position += 1;
            return Some(false);
        }
        self.skip_escaped_string().map(|()| true)
    }

    /// Consumes the rest of a string from the first character that is neither plain nor the closing quote. As in
    /// `serde_json`, half of a surrogate pair is valid as long as nothing decodes it.
    #[inline(never)]
    fn skip_escaped_string(&mut self) -> Option<()> {
        loop {
            self.position = find_special(self.text.as_bytes(), self.position)?;
            match self.byte()? {
                b'"' => return Some(()),
                b'\\' => match self.byte()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        let digits = self.text.as_bytes().get(self.position..self.position + 4)?;
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return None;
                        }
                        self.position += 4;
                    }
                    _ => return None,
                },
                _ => return None,
            }
        }
    }

    /// Consumes the rest of a number after its first character.
    fn skip_number(&mut self, first: u8) -> Option<()> {
        let first = if first == b'-' { self.byte()? } else { first };
        match first {
            b'0' if self.is_next(u8::is_ascii_digit) => return None,
            b'0' => {}
            b'1'..=b'9' => self.skip_digits(),
            _ => return None,
        }
        if self.is_next(|byte| *byte == b'.') {
            self.position += 1;
            self.skip_some_digits()?;
        }
        if self.is_next(|byte| matches!(byte, b'e' | b'E')) {
            self.position += 1;
            self.position += usize::from(self.is_next(|byte| matches!(byte, b'+' | b'-')));
            self.skip_some_digits()?;
        }
        Some(())
    }

    fn skip_some_digits(&mut self) -> Option<()> {
        self.byte()?.is_ascii_digit().then(|| self.skip_digits())
    }

    fn skip_digits(&mut self) {
        while self.is_next(u8::is_ascii_digit) {
            self.position += 1;
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.text.as_bytes().get(self.position)?;
        self.position += 1;
        Some(byte)
    }

    fn is_next(&self, condition: impl FnOnce(&u8) -> bool) -> bool {
        self.text.as_bytes().get(self.position).is_some_and(condition)
    }
}

/// The state of reading an object's members ([`JsonScanner::member`]).
#[derive(Debug)]
pub struct ObjectMembers {
    is_first: bool,
}

/// Returns the position of the first byte from `start` on that ends a string, begins an escape sequence or is not
/// allowed in a string.
///
/// Most strings are short, so the time is that of one step: 16 bytes with vector instructions take longer.
#[inline]
fn find_special(bytes: &[u8], start: usize) -> Option<usize> {
    let mut position = start;
    while let Some(chunk) = bytes.get(position..)?.first_chunk::<8>() {
        let specials = specials(u64::from_le_bytes(*chunk));
        if specials != 0 {
            return Some(position + (specials.trailing_zeros() / u8::BITS) as usize);
        }
        position += chunk.len();
    }
    let offset = bytes[position..].iter().position(|byte| matches!(byte, b'"' | b'\\' | ..b' '))?;
    Some(position + offset)
}

/// Returns a word whose lowest set bit is in the lowest byte of `chunk` that is a quote, a backslash or a control
/// character. Subtraction borrows only from bytes above such a byte.
#[inline]
fn specials(chunk: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let quotes = chunk ^ (ONES * 0x22);
    let backslashes = chunk ^ (ONES * 0x5c);
    let controls = chunk.wrapping_sub(ONES * 0x20);
    let is_below = controls & !chunk;
    let is_equal = (quotes.wrapping_sub(ONES) & !quotes) | (backslashes.wrapping_sub(ONES) & !backslashes);
    (is_below | is_equal) & (ONES << 7)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the text of the value that is the whole text, by the scanner.
    fn scanned(text: &str) -> Option<&str> {
        let mut scanner = JsonScanner::new(text);
        let value = scanner.value()?;
        scanner.is_at_end().then_some(value.get())
    }

    /// The same by `serde_json`.
    fn parsed(text: &str) -> Option<&str> {
        serde_json::from_str::<&RawValue>(text).ok().map(RawValue::get)
    }

    #[test]
    fn scanner_accepts_what_serde_json_accepts() {
        for text in [
            "",
            " ",
            "null",
            " true ",
            "false",
            "nul",
            "truee",
            "0",
            "-0",
            "01",
            "-",
            "1.",
            "1.5e",
            "1e+9",
            "-1.25E-3",
            ".5",
            "+1",
            "1e400",
            "\"\"",
            "\"a",
            "\"\\\"\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\ud800\"",
            "\"\\u00e9é\"",
            "\"\\",
            "\"\\u12",
            "\"\t\"",
            "\"\u{7f}\"",
            "\"\u{0}\"",
            "[]",
            "[ ]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1",
            "{}",
            "{ }",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{1:2}",
            "{\"a\":1 \"b\":2}",
            "[}",
            "{]",
            "[[[]]]",
            "{\"a\":{\"b\":[1,{\"c\":null}]}}",
            " {\n\"a\" :\t1 ,\r\"b\": [ ] } ",
            "1 2",
            "[]]",
            "\u{feff}1",
            "\"0123456789012345678\\n0123456\"",
            "\"01234567890\u{1f}12345678\"",
            "\u{b}1",
        ] {
            assert_eq!(scanned(text), parsed(text), "{text:?}");
        }
    }

    #[test]
    fn nesting_beyond_the_limit_is_not_scanned() {
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        let limit = usize::try_from(MAX_DEPTH).unwrap();
        assert!(scanned(&nested(limit)).is_some());
        assert!(scanned(&nested(limit + 1)).is_none() && parsed(&nested(limit + 1)).is_some());
    }

    #[test]
    fn members_are_returned_in_order() {
        let mut scanner = JsonScanner::new(r#" { "a" : 1 , "b\n":[2]} x"#);
        let mut members = scanner.object().unwrap();
        assert_eq!(scanner.member(&mut members), Some(Some(("a", false))));
        assert_eq!(scanner.value().unwrap().get(), "1");
        assert_eq!(scanner.member(&mut members), Some(Some(("b\\n", true))));
        assert_eq!(scanner.value().unwrap().to_raw().get(), "[2]");
        assert_eq!(scanner.member(&mut members), Some(None));
        assert!(!scanner.is_at_end());
        for text in ["[]", r#"{"a":1 "b":2}"#, r#"{"a":1,}"#, r#"{"a" 1}"#, "{", "{1:2}"] {
            let mut scanner = JsonScanner::new(text);
            let read = scanner.object().and_then(|mut members| {
                while scanner.member(&mut members)?.is_some() {
                    scanner.value()?;
                }
                Some(())
            });
            assert_eq!(read, None, "{text}");
        }
    }

    fn json() -> impl Strategy<Value = String> {
        let text = prop_oneof![".{0,20}", "[a-z\\\\\"\u{0}-\u{1f}é𝄞]{0,30}"];
        let leaf = prop_oneof![
            text.prop_map(|text| serde_json::Value::from(text).to_string()),
            any::<f64>().prop_map(|number| serde_json::Value::from(number).to_string()),
            any::<i64>().prop_map(|number| number.to_string()),
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("\"\\ud83d\\uDE00 \\/\"".to_owned()),
        ];
        leaf.prop_recursive(5, 60, 6, |inner| {
            let spaces = "[ \n\r\t]{0,2}";
            prop_oneof![
                (prop::collection::vec(inner.clone(), 0..6), spaces)
                    .prop_map(|(values, spaces)| format!("[{spaces}{}{spaces}]", values.join(&format!("{spaces},")))),
                (prop::collection::vec((".{0,9}", inner), 0..6), spaces).prop_map(|(members, spaces)| {
                    let member = |(name, value)| format!("{}{spaces}:{value}", serde_json::Value::String(name));
                    let members: Vec<String> = members.into_iter().map(member).collect();
                    format!("{{{}{spaces}}}", members.join(&format!(",{spaces}")))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn valid_text_is_accepted_whole(text in json()) {
            prop_assert_eq!(scanned(&text), parsed(&text));
            prop_assert!(scanned(&text).is_some());
        }

        #[test]
        fn changed_text_is_accepted_or_rejected_as_by_serde_json(
            text in json(), chosen: prop::sample::Index, inserted in "[\\[\\]{},:\"\\\\0-9a-u.eE+\\- \n\u{1}é]{0,3}",
            cut in 0..3_usize,
        ) {
            let starts: Vec<usize> = text.char_indices().map(|(start, _)| start).chain([text.len()]).collect();
            let first = chosen.index(starts.len());
            let (start, end) = (starts[first], starts[(first + cut).min(starts.len() - 1)]);
            let changed = format!("{}{inserted}{}", &text[..start], &text[end..]);
            prop_assert_eq!(scanned(&changed), parsed(&changed), "{}", changed);
        }

        #[test]
        fn any_text_is_accepted_or_rejected_as_by_serde_json(
            text in "[\\[\\]{},:\"\\\\0-9tfnruealsx.eE+\\- \u{1}é]{0,24}",
        ) {
            prop_assert_eq!(scanned(&text), parsed(&text));
        }

        #[test]
        fn special_bytes_are_found_at_every_place(bytes: Vec<u8>, start in 0..4_usize) {
            let expected = bytes.iter().skip(start).position(|byte| matches!(byte, b'"' | b'\\' | ..b' '));
            prop_assert_eq!(find_special(&bytes, start), expected.map(|offset| offset + start));
        }
    }
}
