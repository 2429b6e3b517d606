//! Member of a JSON document that knows its JSON pointer, so that each error names the member: [`JsonMember`].

use serde_json::{Map, Value};

use super::TableDescriptionError;

/// A value in a JSON document.
#[derive(Debug, Clone)]
pub(super) struct JsonMember<'v> {
    value: &'v Value,
    pointer: String,
}

impl<'v> JsonMember<'v> {
    /// Returns the whole document.
    pub(super) fn root(value: &'v Value) -> Self {
        Self { value, pointer: String::new() }
    }

    /// Returns an error at this member.
    pub(super) fn error(&self, problem: &str) -> TableDescriptionError {
        let pointer = (!self.pointer.is_empty()).then(|| self.pointer.clone());
        TableDescriptionError { pointer, problem: problem.to_owned() }
    }

    fn expected(&self, what: &str) -> TableDescriptionError {
        // Only scalars are short enough to be quoted.
        let found = match self.value {
            Value::Object(_) => "an object".to_owned(),
            Value::Array(_) => "an array".to_owned(),
            // Unlike JSON, this escapes every control character.
            Value::String(text) => format!("{text:?}"),
            scalar => scalar.to_string(),
        };
        self.error(&format!("{found}: expected {what}"))
    }

    pub(super) fn object(&self) -> Result<&'v Map<String, Value>, TableDescriptionError> {
        self.value.as_object().ok_or_else(|| self.expected("an object"))
    }

    fn child(&self, name: &str, value: &'v Value) -> Self {
        // RFC 6901 escapes; names of AWS members have neither character.
        let name = name.replace('~', "~0").replace('/', "~1");
        Self { value, pointer: format!("{}/{name}", self.pointer) }
    }

    /// Returns the member with this name; `None` if it is absent or null.
    pub(super) fn optional(&self, name: &str) -> Result<Option<Self>, TableDescriptionError> {
        Ok(self.object()?.get(name).filter(|value| !value.is_null()).map(|value| self.child(name, value)))
    }

    /// Returns the member with this name.
    pub(super) fn required(&self, name: &str) -> Result<Self, TableDescriptionError> {
        self.optional(name)?
            .ok_or_else(|| self.child(name, self.value).error("missing: expected it in the description"))
    }

    /// Returns the word with this name; `None` if it is absent.
    pub(super) fn optional_word(&self, name: &str) -> Result<Option<String>, TableDescriptionError> {
        self.optional(name)?.map(|member| member.word()).transpose()
    }

    pub(super) fn text(&self) -> Result<&'v str, TableDescriptionError> {
        self.value.as_str().filter(|text| !text.is_empty()).ok_or_else(|| self.expected("a text"))
    }

    /// Returns a text that is one word, such as a status or a version: letters, digits, `_`, `.` and `-`.
    pub(super) fn word(&self) -> Result<String, TableDescriptionError> {
        let text = self.text()?;
        let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if is_word { Ok(text.to_owned()) } else { Err(self.expected("one word of letters, digits, _, . or -")) }
    }

    pub(super) fn number(&self) -> Result<u64, TableDescriptionError> {
        self.value.as_u64().ok_or_else(|| self.expected("a whole number of at least 0"))
    }

    pub(super) fn boolean(&self) -> Result<bool, TableDescriptionError> {
        self.value.as_bool().ok_or_else(|| self.expected("true or false"))
    }

    pub(super) fn elements(&self) -> Result<Vec<Self>, TableDescriptionError> {
        let elements = self.value.as_array().ok_or_else(|| self.expected("an array"))?;
        Ok(elements.iter().enumerate().map(|(index, value)| self.child(&index.to_string(), value)).collect())
    }

    /// Returns the value that belongs to the text of this member.
    pub(super) fn one_of<T: Copy>(&self, allowed: &[(&str, T)]) -> Result<T, TableDescriptionError> {
        let text = self.text()?;
        allowed.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<&str> = allowed.iter().map(|(name, _)| *name).collect();
            let (last, first) = names.split_last().unwrap_or((&"", &[]));
            self.expected(&format!("{} or {last}", first.join(", ")))
        })
    }
}
