//! Conversion of XML, as services of AWS return it, to JSON: [`json_of`].

use serde_json::{Map, Value};
use xmlparser::{ElementEnd, Token, Tokenizer};

/// The maximum depth of elements.
const MAX_ELEMENT_DEPTH: usize = 64;

#[derive(Default)]
struct OpenElement {
    name: String,
    text: String,
    children: Vec<(String, Value)>,
}

impl OpenElement {
    /// Returns the value: the text, a list of the children `member` or `item`, or the children by name, of which those
    /// that are repeated are lists.
    fn value(self) -> Value {
        if self.children.is_empty() {
            return self.text.into();
        }
        if self.children.iter().all(|(name, _)| name == "member" || name == "item") {
            return self.children.into_iter().map(|(_, value)| value).collect();
        }
        let mut members: Map<String, Value> = Map::new();
        let mut lists: Vec<String> = Vec::new();
        for (name, value) in self.children {
            match members.get_mut(&name) {
                Some(Value::Array(items)) if lists.contains(&name) => items.push(value),
                Some(first) => {
                    *first = Value::Array(vec![first.take(), value]);
                    lists.push(name);
                }
                None => {
                    members.insert(name, value);
                }
            }
        }
        Value::Object(members)
    }
}

/// Converts the content of the root element; attributes are left out.
///
/// # Errors
/// The description, if the text is not XML or is nested too deeply.
pub(super) fn json_of(text: &str) -> Result<Value, String> {
    let mut open: Vec<OpenElement> = Vec::new();
    for token in Tokenizer::from(text) {
        match token.map_err(|error| format!("not XML: {error}"))? {
            Token::ElementStart { local, .. } => {
                if open.len() == MAX_ELEMENT_DEPTH {
                    return Err("the XML is nested too deeply".to_owned());
                }
                open.push(OpenElement { name: local.to_string(), ..OpenElement::default() });
            }
            Token::ElementEnd { end: ElementEnd::Open, .. } => {}
            Token::ElementEnd { .. } => {
                let Some(element) = open.pop() else { return Err("not XML: an element ends twice".to_owned()) };
                let (name, value) = (element.name.clone(), element.value());
                match open.last_mut() {
                    Some(parent) => parent.children.push((name, value)),
                    None => return Ok(value),
                }
            }
            Token::Text { text } => {
                if let Some(element) = open.last_mut() {
                    element.text.push_str(&unescaped(text.as_str()));
                }
            }
            Token::Cdata { text, .. } => {
                if let Some(element) = open.last_mut() {
                    element.text.push_str(text.as_str());
                }
            }
            _ => {}
        }
    }
    Err("not XML: no element ends".to_owned())
}

/// Replaces references to characters; others are left as they are.
fn unescaped(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        result.push_str(&rest[..start]);
        rest = &rest[start..];
        let reference = rest.find(';').map(|end| &rest[1..end]);
        let letter = reference.and_then(|name| match name {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            number => {
                let number = number.strip_prefix('#')?;
                let code = match number.strip_prefix('x') {
                    Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16),
                    None => number.parse(),
                };
                code.ok().and_then(char::from_u32)
            }
        });
        if let (Some(letter), Some(name)) = (letter, reference) {
            result.push(letter);
            rest = &rest[name.len() + 2..];
        } else {
            result.push('&');
            rest = &rest[1..];
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;
    use serde_json::json;

    use super::*;

    #[test]
    fn elements_become_members_and_repeated_ones_lists() {
        let text = r#"<?xml version="1.0"?><R xmlns="http://x/"><L><member><A>1</A></member></L><E/>
            <Rule><S>a &lt; b &#x41;&#66; &amp; &x;</S></Rule><Rule><S><![CDATA[<c>]]></S></Rule></R>"#;
        let expected = json!({"L": [{"A": "1"}], "E": "", "Rule": [{"S": "a < b AB & &x;"}, {"S": "<c>"}]});
        assert_eq!(json_of(text), Ok(expected));
        assert_eq!(
            json_of("<R><set><item><id>1</id></item><item><id>2</id></item></set></R>").unwrap()["set"][1]["id"],
            "2"
        );
    }

    #[test]
    fn malformed_or_too_deep_xml_is_an_error() {
        let deep = "<a>".repeat(100);
        for text in ["", "{}", "<a>", "</a>", "<a", deep.as_str()] {
            assert!(json_of(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_conversion_panic(text in "[<>/a&;#x!\\[\\]CDAT é0-9-]{0,40}") {
            let _ = json_of(&text);
        }
    }
}
