//! A filter by a value in `attributes`, identified by its path.
//!
//! `attributes.address.city=Paris` matches records whose member `city` of the member `address` is the text `Paris`, or
//! a list that contains it. A value that parses as a JSON number, `true`, `false`, `null` or a quoted text is that
//! value; any other value is a text. Numbers are compared by their exact numeric value: `12` matches `12.0` but not
//! `"12"`. In a name, a `\` escapes a dot that is part of the name, and another `\`.

use std::collections::BTreeMap;

use millrace_shared::user::json::{JsonValue, MAX_DEPTH};

/// Returns the JSON that `attributes` must contain: the value itself, or a list that contains it.
pub(super) fn containment_json(path: &str, value: &str) -> Result<[String; 2], String> {
    let names = names(path)?;
    let value = scalar(value)?;
    let below = |value: JsonValue| {
        let whole =
            names.iter().rev().fold(value, |inner, name| JsonValue::Object(BTreeMap::from([(name.clone(), inner)])));
        serde_json::to_string(&whole).map_err(|error| error.to_string())
    };
    Ok([below(value.clone())?, below(JsonValue::Array(vec![value]))?])
}

fn names(path: &str) -> Result<Vec<String>, String> {
    let mut names = vec![String::new()];
    let mut letters = path.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '.' => names.push(String::new()),
            '\\' => match letters.next() {
                Some(escaped @ ('.' | '\\')) => names.iter_mut().last().into_iter().for_each(|name| name.push(escaped)),
                _ => return Err("contains a \\ that is not followed by a dot or another \\".to_owned()),
            },
            other => names.iter_mut().last().into_iter().for_each(|name| name.push(other)),
        }
    }
    if names.iter().any(String::is_empty) {
        return Err(
            "contains an empty name: expected a path such as attributes.plan or attributes.address.city".to_owned()
        );
    }
    if names.len() > MAX_DEPTH {
        return Err(format!("is too deep: attributes has at most {MAX_DEPTH} levels"));
    }
    if path.contains('\0') {
        return Err("contains a NUL character (U+0000), which is not allowed in a name".to_owned());
    }
    Ok(names)
}

fn scalar(text: &str) -> Result<JsonValue, String> {
    let value = match text.as_bytes().first() {
        Some(b'"' | b'-' | b'0'..=b'9') => match JsonValue::parse(text) {
            Ok(value) => value,
            // A number that the table cannot store matches no record and is rejected; any other value is meant as a
            // text, as in `12 High Street`.
            Err(error) if error.reason.starts_with("number ") => return Err(error.reason),
            Err(_) => JsonValue::String(text.to_owned()),
        },
        _ if ["true", "false", "null"].contains(&text) => JsonValue::parse(text).map_err(|error| error.reason)?,
        _ => JsonValue::String(text.to_owned()),
    };
    match &value {
        JsonValue::String(text) if text.contains('\0') => {
            Err("contains a NUL character (U+0000), which is not allowed in a string".to_owned())
        }
        _ => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(path: &str, value: &str) -> String {
        containment_json(path, value).map_or_else(|error| error, |[one, _]| one)
    }

    #[test]
    fn a_path_leads_down_member_by_member() {
        assert_eq!(one("plan", "pro"), r#"{"plan":"pro"}"#);
        assert_eq!(one("address.city", "Paris"), r#"{"address":{"city":"Paris"}}"#);
        assert_eq!(one(r"a\.b.c\\d", "x"), r#"{"a.b":{"c\\d":"x"}}"#);
        assert_eq!(containment_json("tags", "new").unwrap()[1], r#"{"tags":["new"]}"#);
        for path in ["", ".", "a..b", "a.", r"a\b", "a\0"] {
            assert!(containment_json(path, "x").is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_value_is_what_it_reads_as() {
        for (value, json) in [
            ("12", "12"),
            ("-1.50", "-1.50"),
            ("12345678901234567890123456789012345678", "12345678901234567890123456789012345678"),
            ("true", "true"),
            ("null", "null"),
            ("\"12\"", "\"12\""),
            ("12 High Street", "\"12 High Street\""),
            ("2026-11-22", "\"2026-11-22\""),
            ("True", "\"True\""),
            ("[1]", "\"[1]\""),
            ("{}", "\"{}\""),
            ("", "\"\""),
            ("say \"hi\"", r#""say \"hi\"""#),
        ] {
            assert_eq!(one("a", value), format!("{{\"a\":{json}}}"), "{value}");
        }
        assert!(containment_json("a", "1e400").is_err() && containment_json("a", &"9".repeat(39)).is_err());
        assert!(containment_json("a", "x\0").is_err() && containment_json("a", "\"\\u0000\"").is_err());
    }
}
