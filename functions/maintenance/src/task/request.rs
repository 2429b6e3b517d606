//! Parsing of a request's JSON fields (`RequestFields`), and the validation that several tasks share.
//!
//! A request contains the fields of every task and the task's own fields in one JSON object. Serde's `flatten` can
//! neither reject unknown fields nor keep the JSON text of a key, so the object is read as a list of fields first: the
//! fields of every task are taken out, and the rest is parsed as the task's request.

use std::fmt::{self, Display, Formatter};
use std::ops::RangeInclusive;

use millrace_shared::change::CanonicalKey;
use millrace_sinks::SinkName;
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::error::{ClassifiedError, TaskErrorKind};
use super::registry::task_names;

/// The fields that every task accepts, in addition to `task`.
pub const COMMON_FIELDS: [&str; 4] = ["run_id", "segments", "segment", "cursor"];

/// The similarity above which a name is suggested instead of an unknown one, the same as of clap.
const SIMILARITY: f64 = 0.7;
/// Maximum number of characters of a value that an error quotes.
const QUOTED_CHARACTERS: usize = 60;

/// Returns what to pass instead of a text that is not JSON. Serde says what it expects in place of other JSON.
fn json_hint(error: &serde_json::Error) -> &'static str {
    if error.is_data() { "" } else { "; pass a JSON object such as {\"task\":\"verify\"}" }
}

/// An invalid task request. The message names the field and the fix.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRequest {
    /// The payload is not a JSON object.
    #[error("invalid task request: {0}{hint}", hint = json_hint(.0))]
    MalformedJson(#[source] serde_json::Error),
    /// The payload does not name a task.
    #[error("missing field `task`: set it to one of {names}", names = joined(task_names()))]
    MissingTask,
    /// The task is unknown.
    #[error(
        "unknown task {name:?}: expected one of {names}{hint}",
        names = joined(task_names()),
        hint = suggestion(*nearest)
    )]
    UnknownTask {
        /// The given name.
        name: String,
        /// The most similar name.
        nearest: Option<&'static str>,
    },
    /// The task does not accept this field.
    #[error(
        "{field} is not a field of {task}: expected one of {fields}{hint}",
        fields = joined(known.iter().chain(&COMMON_FIELDS).copied()),
        hint = suggestion(*nearest)
    )]
    UnknownField {
        /// The task.
        task: &'static str,
        /// The field.
        field: String,
        /// The task's own fields.
        known: &'static [&'static str],
        /// The most similar field.
        nearest: Option<&'static str>,
    },
    /// A value has the wrong type.
    #[error("{field} is {found}: {reason}")]
    FieldType {
        /// The field.
        field: String,
        /// The given value.
        found: String,
        /// The expected type.
        reason: String,
    },
    /// One of these fields is required.
    #[error("{0} needs {1}")]
    MissingField(&'static str, &'static str),
    /// A value is out of its range.
    #[error("{field} is {found}: set it to {wanted}")]
    Value {
        /// The field.
        field: &'static str,
        /// The given value.
        found: String,
        /// The allowed values.
        wanted: String,
    },
    /// The cursor belongs to another task or another segment.
    #[error(
        "the cursor belongs to {0} but this is {1}: pass the cursor returned by this task, or omit it to start over"
    )]
    CursorMismatch(String, String),
    /// No replica has this name.
    #[error(
        "replica is {name:?}, which is not configured: set it to one of {names}{hint}",
        names = joined(known.iter().map(String::as_str)),
        hint = suggestion(nearest(name, known.iter().map(String::as_str)))
    )]
    UnknownReplica {
        /// The given name.
        name: String,
        /// The names of the configured replicas.
        known: Vec<String>,
    },
    /// The replicas are not those of the run to which the cursor belongs.
    #[error(
        "the cursor belongs to a run over the replicas {then:?}, but the task would now process {now:?}: omit it to \
         start over"
    )]
    CursorReplicas {
        /// The replicas of the run.
        then: Vec<String>,
        /// The replicas that are configured and requested now.
        now: Vec<String>,
    },
    /// The cursor was not returned by this version.
    #[error("the cursor is not a cursor of {0}: {1}; omit it to start over")]
    Cursor(&'static str, #[source] serde_json::Error),
}

impl ClassifiedError for InvalidRequest {
    fn kind(&self) -> TaskErrorKind {
        TaskErrorKind::Invalid
    }
}

fn joined<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}

/// Returns the candidate that is most similar to an unknown name, if one is similar enough. Like clap, by the Jaro
/// similarity, which does not overrate long common prefixes.
#[must_use]
pub fn nearest<'n>(name: &str, candidates: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let similar = candidates.into_iter().map(|candidate| (strsim::jaro(name, candidate), candidate));
    let nearest = similar.max_by(|(one, _), (other, _)| one.total_cmp(other));
    nearest.filter(|(similarity, _)| *similarity > SIMILARITY).map(|(_, candidate)| candidate)
}

/// The fields of a request: their names and their JSON texts. Names are unique. A field that is `null` is absent.
#[derive(Debug)]
pub(super) struct RequestFields(Vec<(String, Box<RawValue>)>);

impl RequestFields {
    /// Splits a payload into its fields.
    pub(super) fn parse(payload: &RawValue) -> Result<Self, InvalidRequest> {
        let mut fields: Self = serde_json::from_str(payload.get()).map_err(InvalidRequest::MalformedJson)?;
        fields.0.retain(|(_, value)| value.get() != "null");
        Ok(fields)
    }

    /// Takes out a field of every task.
    pub(super) fn take<T: DeserializeOwned>(&mut self, field: &str) -> Result<Option<T>, InvalidRequest> {
        let Some(index) = self.0.iter().position(|(name, _)| name == field) else { return Ok(None) };
        let (name, value) = self.0.remove(index);
        match serde_json::from_str(value.get()) {
            Ok(parsed) => Ok(Some(parsed)),
            Err(error) => Err(wrong_type(&name, &value, &error)),
        }
    }

    /// Parses the fields as the request of this task. A field of another task is rejected: if it were ignored, the task
    /// would do something else than requested.
    pub(super) fn into_request<R: DeserializeOwned>(self, task: &'static str) -> Result<R, InvalidRequest> {
        let known = field_names::<R>();
        if let Some((field, _)) = self.0.iter().find(|(field, _)| !known.contains(&field.as_str())) {
            let nearest = nearest(field, known.iter().chain(&COMMON_FIELDS).copied());
            return Err(InvalidRequest::UnknownField { task, field: field.clone(), known, nearest });
        }
        serde_json::from_str(&object(&self.0)).map_err(|error| {
            // The error of the whole request does not name the field: parse each one by itself.
            let culprit = self.0.iter().find_map(|field| {
                let error = serde_json::from_str::<R>(&object(std::slice::from_ref(field))).err()?;
                Some(wrong_type(&field.0, &field.1, &error))
            });
            culprit.unwrap_or(InvalidRequest::MalformedJson(error))
        })
    }
}

impl<'de> Deserialize<'de> for RequestFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = RequestFields;

            fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object such as {\"task\":\"verify\"}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RequestFields, A::Error> {
                let mut fields: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if fields.iter().any(|(given, _)| *given == name) {
                        return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
                    }
                    fields.push((name, value));
                }
                Ok(RequestFields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

fn object(fields: &[(String, Box<RawValue>)]) -> String {
    let fields: std::collections::BTreeMap<&str, &RawValue> =
        fields.iter().map(|(name, value)| (name.as_str(), &**value)).collect();
    serde_json::to_string(&fields).unwrap_or_default()
}

fn wrong_type(field: &str, value: &RawValue, error: &serde_json::Error) -> InvalidRequest {
    let mut found: String = value.get().chars().take(QUOTED_CHARACTERS).collect();
    if found.len() < value.get().len() {
        found.push('…');
    }
    // The position is that in the field, not in the request.
    let reason = error.to_string();
    let reason = reason.split(" at line ").next().unwrap_or_default().to_owned();
    InvalidRequest::FieldType { field: field.to_owned(), found, reason }
}

/// Returns the names of the fields of a request type, in the order of their declaration, as serde has derived them.
pub(super) fn field_names<R: DeserializeOwned>() -> &'static [&'static str] {
    /// Receives the names, and fails instead of a value.
    struct FieldNames<'a>(&'a mut &'static [&'static str]);
    impl<'de> Deserializer<'de> for FieldNames<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom("only the names of fields are of interest"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let mut names: &'static [&'static str] = &[];
    // Always an error: the names are the result.
    let _ = R::deserialize(FieldNames(&mut names));
    names
}

/// Parses a key in DynamoDB JSON.
pub(super) fn key(field: &'static str, json: &RawValue) -> Result<CanonicalKey, InvalidRequest> {
    CanonicalKey::parse(json.get()).map_err(|error| InvalidRequest::Value {
        field,
        found: format!("not a valid key ({error})"),
        wanted: "DynamoDB JSON such as {\"pk\":{\"S\":\"a\"},\"sk\":{\"N\":\"1\"}}".to_owned(),
    })
}

/// Parses the name of a replica.
pub(super) fn replica_name(text: Option<String>) -> Result<Option<SinkName>, InvalidRequest> {
    let parsed = |text: String| {
        let wanted = "the name of a replica: a lowercase letter, then lowercase letters, digits or hyphens".to_owned();
        SinkName::parse(&text).map_err(|_| InvalidRequest::Value {
            field: "replica",
            found: format!("{text:?}"),
            wanted,
        })
    };
    text.map(parsed).transpose()
}

/// Parses a time in RFC 3339.
pub(super) fn time(field: &'static str, text: Option<&str>) -> Result<Option<OffsetDateTime>, InvalidRequest> {
    let parsed = |text: &str| {
        let wanted = "an RFC 3339 time such as 2026-11-24T08:00:00Z".to_owned();
        OffsetDateTime::parse(text, &Rfc3339).map_err(|_| InvalidRequest::Value {
            field,
            found: format!("{text:?}"),
            wanted,
        })
    };
    text.map(parsed).transpose()
}

/// Returns the number if it is in the range.
pub(super) fn in_range<N: PartialOrd + Display>(
    field: &'static str,
    number: Option<N>,
    range: RangeInclusive<N>,
) -> Result<Option<N>, InvalidRequest> {
    match number {
        Some(number) if !range.contains(&number) => {
            let wanted = format!("a number from {} to {}", range.start(), range.end());
            Err(InvalidRequest::Value { field, found: number.to_string(), wanted })
        }
        number => Ok(number),
    }
}

/// Returns the meaning of the given word, or of the first one if none is given.
pub(super) fn one_of<T: Copy>(
    field: &'static str,
    given: Option<&str>,
    words: [(&str, T); 2],
) -> Result<T, InvalidRequest> {
    let [(first, default), (second, _)] = words;
    let Some(given) = given else { return Ok(default) };
    let known = words.into_iter().find(|(word, _)| *word == given).map(|(_, meaning)| meaning);
    known.ok_or_else(|| InvalidRequest::Value {
        field,
        found: format!("{given:?}"),
        wanted: format!("{first:?} or {second:?}"),
    })
}
