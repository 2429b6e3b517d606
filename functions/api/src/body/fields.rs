//! A reader that takes the members of a body one by one; the remaining members are unknown.

use millrace_http::problem::{ErrorLocation, FieldError, Problem};
use millrace_shared::user::attributes::UserAttributes;
use millrace_shared::user::json::{JsonMembers, push_pointer};
use millrace_shared::user::{FieldPatch, InvalidFieldError};
use serde_json::value::RawValue;

/// The members that only the service sets.
const READ_ONLY: [&str; 3] = ["version", "created_at", "updated_at"];

/// Maximum number of errors in one response: the errors of a 1 MB body in which every member is invalid would exceed
/// the size limit of a Lambda function's response.
const MAX_MISTAKES: usize = 100;

pub(super) struct BodyReader<'a> {
    members: Vec<(String, &'a RawValue)>,
    mistakes: Vec<FieldError>,
}

impl<'a> BodyReader<'a> {
    /// Opens a body. Malformed JSON is reported with its line and column; errors in the members are collected.
    pub(super) fn open(body: &'a [u8]) -> Result<Self, Problem> {
        match serde_json::from_slice(body) {
            Ok(JsonMembers(members)) => Ok(Self { members, mistakes: Vec::new() }),
            Err(error) if error.is_data() => {
                Err(Problem::Body(vec![field_error(String::new(), "the body must be a JSON object")]))
            }
            Err(error) => {
                let text = error.to_string();
                let reason = text.split(" at line ").next().unwrap_or_default().to_owned();
                Err(Problem::MalformedJson { line: error.line(), column: error.column(), reason })
            }
        }
    }

    /// Takes a member that is a text and parses it.
    pub(super) fn text<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(String) -> Result<T, InvalidFieldError>,
    ) -> FieldPatch<T> {
        self.take(name, |raw| match serde_json::from_str(raw) {
            Ok(text) => parse(text).map_err(|error| (String::new(), error.to_string())),
            Err(_) => Err((String::new(), format!("{name} must be a string of Unicode characters"))),
        })
    }

    /// Takes a member that is an integer and parses it.
    pub(super) fn integer<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(i64) -> Result<T, InvalidFieldError>,
    ) -> FieldPatch<T> {
        self.take(name, |raw| match serde_json::from_str(raw) {
            Ok(number) => parse(number).map_err(|error| (String::new(), error.to_string())),
            Err(_) => Err((String::new(), format!("{name} must be an integer number of seconds, without quotes"))),
        })
    }

    /// Takes a member that is a list, whose items remain unparsed.
    pub(super) fn items(&mut self, name: &str) -> FieldPatch<Vec<&'a RawValue>> {
        self.take(name, |raw| {
            serde_json::from_str(raw).map_err(|_| (String::new(), format!("{name} must be an array")))
        })
    }

    /// Takes the member `attributes`, which accepts any JSON object.
    pub(super) fn attributes(&mut self) -> FieldPatch<UserAttributes> {
        self.take("attributes", |raw| UserAttributes::parse(raw).map_err(|error| (error.pointer, error.reason)))
    }

    /// Takes a member. An invalid member counts as absent from then on; [`BodyReader::finish`] rejects the body.
    fn take<T>(&mut self, name: &str, parse: impl FnOnce(&'a str) -> Result<T, (String, String)>) -> FieldPatch<T> {
        let Some(position) = self.members.iter().position(|(given, _)| given == name) else {
            return FieldPatch::Keep;
        };
        let (_, raw) = self.members.remove(position);
        if self.members.iter().any(|(given, _)| given == name) {
            self.members.retain(|(given, _)| given != name);
            self.add_error(name, &format!("{name} is repeated"));
            return FieldPatch::Keep;
        }
        if raw.get() == "null" {
            return FieldPatch::Remove;
        }
        match parse(raw.get()) {
            Ok(value) => FieldPatch::Set(value),
            Err((below, detail)) => {
                self.mistakes.push(field_error(pointer(name) + &below, detail));
                FieldPatch::Keep
            }
        }
    }

    /// Records an error of a member.
    pub(super) fn add_error(&mut self, name: &str, detail: &str) {
        self.add_error_at(pointer(name), detail);
    }

    /// Records an error at a pointer below a member.
    pub(super) fn add_error_at(&mut self, pointer: String, detail: impl Into<String>) {
        self.mistakes.push(field_error(pointer, detail));
    }

    /// Records that a member is missing, unless it was present and invalid.
    pub(super) fn add_missing_error(&mut self, name: &str, detail: &str) {
        let pointer = pointer(name);
        if !self
            .mistakes
            .iter()
            .any(|mistake| matches!(&mistake.location, ErrorLocation::Pointer(reported) if *reported == pointer))
        {
            self.mistakes.push(field_error(pointer, detail));
        }
    }

    /// Fails if the body had any error or if members remain.
    pub(super) fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in std::mem::take(&mut self.members) {
            let detail = if READ_ONLY.contains(&name.as_str()) {
                format!("{name} is read-only: omit it")
            } else {
                "unknown member: put additional data into attributes".to_owned()
            };
            self.mistakes.push(field_error(pointer(&name), detail));
        }
        self.mistakes.truncate(MAX_MISTAKES);
        if self.mistakes.is_empty() { Ok(()) } else { Err(Problem::Body(self.mistakes)) }
    }
}

fn pointer(name: &str) -> String {
    let mut pointer = String::new();
    push_pointer(&mut pointer, name);
    pointer
}

fn field_error(pointer: String, detail: impl Into<String>) -> FieldError {
    FieldError { location: ErrorLocation::Pointer(pointer), detail: detail.into() }
}
