//! The members of a body, taken one by one; what is left is unknown.

use front::problem::{ErrorLocation, FieldError, Problem};
use serde_json::value::RawValue;
use shared::user::attributes::UserAttributes;
use shared::user::json::{JsonMembers, push_pointer};
use shared::user::{FieldPatch, InvalidField};

/// What the service alone sets.
const READ_ONLY: [&str; 3] = ["version", "created_at", "updated_at"];

/// Mistakes that one answer tells: a megabyte of them would not fit into a Lambda function's answer.
const MAX_MISTAKES: usize = 100;

pub(super) struct BodyReader<'a> {
    members: Vec<(String, &'a RawValue)>,
    mistakes: Vec<FieldError>,
}

impl<'a> BodyReader<'a> {
    /// Opens a body. Malformed JSON is told with its place; what is wrong with the members is collected.
    pub(super) fn open(body: &'a [u8]) -> Result<Self, Problem> {
        match serde_json::from_slice(body) {
            Ok(JsonMembers(members)) => Ok(Self { members, mistakes: Vec::new() }),
            Err(error) if error.is_data() => {
                Err(Problem::Body(vec![mistake(String::new(), "the body must be a JSON object")]))
            }
            Err(error) => {
                let text = error.to_string();
                let reason = text.split(" at line ").next().unwrap_or_default().to_owned();
                Err(Problem::MalformedJson { line: error.line(), column: error.column(), reason })
            }
        }
    }

    /// A text, parsed.
    pub(super) fn text<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(String) -> Result<T, InvalidField>,
    ) -> FieldPatch<T> {
        self.take(name, |raw| match serde_json::from_str(raw) {
            Ok(text) => parse(text).map_err(|error| (String::new(), error.to_string())),
            Err(_) => Err((String::new(), format!("{name} must be a string of Unicode characters"))),
        })
    }

    /// A whole number, parsed.
    pub(super) fn integer<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(i64) -> Result<T, InvalidField>,
    ) -> FieldPatch<T> {
        self.take(name, |raw| match serde_json::from_str(raw) {
            Ok(number) => parse(number).map_err(|error| (String::new(), error.to_string())),
            Err(_) => Err((String::new(), format!("{name} must be an integer number of seconds, without quotes"))),
        })
    }

    /// A list, unread.
    pub(super) fn items(&mut self, name: &str) -> FieldPatch<Vec<&'a RawValue>> {
        self.take(name, |raw| {
            serde_json::from_str(raw).map_err(|_| (String::new(), format!("{name} must be an array")))
        })
    }

    /// The free part.
    pub(super) fn attributes(&mut self) -> FieldPatch<UserAttributes> {
        self.take("attributes", |raw| UserAttributes::parse(raw).map_err(|error| (error.pointer, error.reason)))
    }

    /// Takes a member. One that is wrong counts as absent from then on; [`BodyReader::finish`] refuses the whole.
    fn take<T>(&mut self, name: &str, parse: impl FnOnce(&'a str) -> Result<T, (String, String)>) -> FieldPatch<T> {
        let Some(place) = self.members.iter().position(|(given, _)| given == name) else {
            return FieldPatch::Keep;
        };
        let (_, raw) = self.members.remove(place);
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
                self.mistakes.push(mistake(pointer(name) + &below, detail));
                FieldPatch::Keep
            }
        }
    }

    /// Remembers what is wrong with a member.
    pub(super) fn add_error(&mut self, name: &str, detail: &str) {
        self.add_error_at(pointer(name), detail);
    }

    /// Remembers what is wrong below a member.
    pub(super) fn add_error_at(&mut self, pointer: String, detail: impl Into<String>) {
        self.mistakes.push(mistake(pointer, detail));
    }

    /// Remembers that a member is missing, unless it was there and wrong.
    pub(super) fn add_missing_error(&mut self, name: &str, detail: &str) {
        let pointer = pointer(name);
        if !self
            .mistakes
            .iter()
            .any(|mistake| matches!(&mistake.place, ErrorLocation::Pointer(place) if *place == pointer))
        {
            self.mistakes.push(mistake(pointer, detail));
        }
    }

    /// Refuses the body if anything was wrong with it, or anything is left of it.
    pub(super) fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in std::mem::take(&mut self.members) {
            let detail = if READ_ONLY.contains(&name.as_str()) {
                format!("{name} is read-only: omit it")
            } else {
                "unknown member: put additional data into attributes".to_owned()
            };
            self.mistakes.push(mistake(pointer(&name), detail));
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

fn mistake(pointer: String, detail: impl Into<String>) -> FieldError {
    FieldError { place: ErrorLocation::Pointer(pointer), detail: detail.into() }
}
