//! The members `where`, `attributes` and `hash_keys` of a document: what a replica stores of an item.

use std::collections::BTreeMap;
use std::fmt;

use millrace_shared::replica_item::ReservedNames;
use millrace_transform::{AttributePath, AttributeSettings, RowFilter, TransformSettings};
use serde::{Serialize, Serializer};

use super::json::{JsonValue, member_pointer};
use super::{DocumentProblem, DocumentReader, Members, ReplicationDocument, nearest};

/// The members of `attributes`.
const ATTRIBUTE_MEMBERS: [&str; 5] = ["include", "exclude", "hash", "truncate", "rename"];
/// The maximum number of characters of `truncate`: as many as an item has bytes.
const MAX_CHARACTERS: i128 = 400 * 1024;

/// The ARN of the secret that contains the key of a hash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretArn(String);

impl SecretArn {
    /// Parses an ARN.
    ///
    /// # Errors
    /// The problem and the fix if the text is not the ARN of a secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.splitn(7, ':').collect();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@!-".contains(&byte);
        match parts[..] {
            ["arn", partition, "secretsmanager", region, account, "secret", name]
                if [partition, region, account, name].iter().all(|part| !part.is_empty())
                    && name.bytes().all(is_plain) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(format!(
                "is {text:?}: set it to arn:aws:secretsmanager:<region>:<account>:secret:<name>, the ARN of a \
                             secret that contains the key"
            )),
        }
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for SecretArn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl ReplicationDocument {
    /// Returns the secrets of the hash keys, by the name of the key.
    #[must_use]
    pub fn hash_keys(&self) -> &BTreeMap<String, SecretArn> {
        &self.hash_keys
    }

    /// Returns the rules that concern an attribute which replication adds to the items of a replica.
    #[must_use]
    pub fn reserved_problems(&self, names: &ReservedNames) -> Vec<DocumentProblem> {
        let of = |(index, settings): (usize, &TransformSettings)| {
            let problems = settings.attributes.reserved_problems(&names.all());
            problems.into_iter().map(move |problem| DocumentProblem {
                pointer: format!("/replicas/{index}/attributes{}", problem.pointer),
                reason: problem.reason,
            })
        };
        self.replicas.iter().map(|replica| &replica.transform).enumerate().flat_map(of).collect()
    }
}

impl DocumentReader {
    pub(super) fn hash_keys(&mut self, value: Option<&JsonValue>) -> BTreeMap<String, SecretArn> {
        let mut keys = BTreeMap::new();
        let Some(value) = value else { return keys };
        for (name, location, value) in self.named("/hash_keys", value, "an object of names and secrets") {
            let text = self.text(&location, Some(value), "the ARN of a secret");
            if let Some(arn) = text.and_then(|text| self.parsed(&location, SecretArn::parse(text))) {
                keys.insert(name.clone(), arn);
            }
        }
        keys
    }

    pub(super) fn transform(
        &mut self,
        pointer: &str,
        members: &Members<'_>,
        hash_keys: Option<&JsonValue>,
    ) -> TransformSettings {
        TransformSettings {
            filter: members.get("where").and_then(|value| self.filter(&member_pointer(pointer, "where"), value)),
            attributes: members.get("attributes").map_or_else(AttributeSettings::default, |value| {
                self.attributes(&member_pointer(pointer, "attributes"), value, hash_keys)
            }),
        }
    }

    fn filter(&mut self, pointer: &str, value: &JsonValue) -> Option<RowFilter> {
        let before = self.problems.len();
        self.reject_repeated_members(pointer, value);
        let JsonValue::List(listed) = value else {
            self.add(pointer, format!("is {}: set it to a list of patterns", value.quoted()));
            return None;
        };
        let patterns: Vec<serde_json::Value> = listed.iter().map(JsonValue::to_value).collect();
        match RowFilter::parse(&patterns) {
            Ok(filter) => (self.problems.len() == before).then_some(filter),
            Err(problems) => {
                for problem in problems {
                    self.add(format!("{pointer}{}", problem.pointer), problem.reason);
                }
                None
            }
        }
    }

    /// Reports members that occur twice, at any depth: only one of them would have an effect.
    fn reject_repeated_members(&mut self, pointer: &str, value: &JsonValue) {
        match value {
            JsonValue::List(values) => {
                for (index, value) in values.iter().enumerate() {
                    self.reject_repeated_members(&format!("{pointer}/{index}"), value);
                }
            }
            JsonValue::Object(members) => {
                for (index, (name, value)) in members.iter().enumerate() {
                    let location = member_pointer(pointer, name);
                    self.reject_repeated_members(&location, value);
                    if members[..index].iter().any(|(other, _)| other == name) {
                        self.add(location, "occurs twice: remove one of them");
                    }
                }
            }
            _ => {}
        }
    }

    fn attributes(&mut self, pointer: &str, value: &JsonValue, hash_keys: Option<&JsonValue>) -> AttributeSettings {
        let before = self.problems.len();
        let Some(members) = self.members(pointer, value, &ATTRIBUTE_MEMBERS, "the attributes of a replica") else {
            return AttributeSettings::default();
        };
        if members.is_empty() && self.problems.len() == before {
            self.add(pointer, format!("is empty: add {}, or remove the member", ATTRIBUTE_MEMBERS.join(", ")));
        }
        let mut paths = |name| {
            let before = self.problems.len();
            let paths = members.get(name).map(|value| self.paths(&member_pointer(pointer, name), value));
            (paths, self.problems.len() == before)
        };
        let ((include, has_include), (exclude, has_exclude)) = (paths("include"), paths("exclude"));
        let mut settings = AttributeSettings { include, exclude, ..AttributeSettings::default() };
        for (path, location, value) in
            self.by_path(pointer, &members, "hash", "an object of paths and names of hash keys")
        {
            let Some(name) = self.text(&location, Some(value), "the name of a hash key") else { continue };
            let known: Vec<&str> = match hash_keys {
                Some(JsonValue::Object(keys)) => keys.iter().map(|(name, _)| name.as_str()).collect(),
                _ => Vec::new(),
            };
            if !known.contains(&name) {
                let hint = nearest(name, &known).map(|name| format!("; did you mean {name:?}?")).unwrap_or_default();
                let fix = format!("add it there with the ARN of a secret{hint}");
                self.add(location, format!("is {name:?}, which /hash_keys does not contain: {fix}"));
            }
            settings.hash.insert(path, name.to_owned());
        }
        for (path, location, value) in self.by_path(pointer, &members, "truncate", "an object of paths and numbers") {
            match value {
                JsonValue::Integer(number) if (0..=MAX_CHARACTERS).contains(number) => {
                    settings.truncate.insert(path, usize::try_from(*number).unwrap_or_default());
                }
                other => {
                    let reason =
                        format!("is {}: set it to a number of characters from 0 to {MAX_CHARACTERS}", other.quoted());
                    self.add(location, reason);
                }
            }
        }
        let before = self.problems.len();
        for (path, location, value) in self.by_path(pointer, &members, "rename", "an object of paths and new names") {
            if let Some(name) = self.text(&location, Some(value), "the new name") {
                settings.rename.insert(path, name.to_owned());
            }
        }
        // A path of a list that was not read would appear as a contradiction of other rules.
        let include = settings.include.clone().filter(|_| has_include && self.problems.len() == before);
        let exclude = settings.exclude.clone().filter(|_| has_exclude);
        for problem in (AttributeSettings { include, exclude, ..settings.clone() }).problems() {
            self.add(format!("{pointer}{}", problem.pointer), problem.reason);
        }
        settings
    }

    fn paths(&mut self, pointer: &str, value: &JsonValue) -> Vec<AttributePath> {
        let JsonValue::List(listed) = value else {
            self.add(pointer, format!("is {}: set it to a list of paths, such as [\"status\"]", value.quoted()));
            return Vec::new();
        };
        let path = |(index, value)| {
            let location = format!("{pointer}/{index}");
            let text = self.text(&location, Some(value), "a path such as \"address.city\"")?;
            self.path(&location, text)
        };
        listed.iter().enumerate().filter_map(path).collect()
    }

    fn path(&mut self, location: &str, text: &str) -> Option<AttributePath> {
        self.parsed(location, AttributePath::parse(text).map_err(|error| format!("is {text:?}, which {error}")))
    }

    /// Returns the members of an object that has a value for each path.
    fn by_path<'v>(
        &mut self,
        pointer: &str,
        members: &Members<'v>,
        name: &str,
        expected: &str,
    ) -> Vec<(AttributePath, String, &'v JsonValue)> {
        let Some(value) = members.get(name).copied() else { return Vec::new() };
        let listed = self.named(&member_pointer(pointer, name), value, expected);
        let paths = listed
            .into_iter()
            .filter_map(|(text, location, value)| self.path(&location, text).map(|path| (path, location, value)));
        paths.collect()
    }

    /// Returns the members of an object with any names, with the pointer of each. One that occurs twice is a problem.
    fn named<'v>(
        &mut self,
        pointer: &str,
        value: &'v JsonValue,
        expected: &str,
    ) -> Vec<(&'v String, String, &'v JsonValue)> {
        let JsonValue::Object(members) = value else {
            self.add(pointer, format!("is {}: set it to {expected}", value.quoted()));
            return Vec::new();
        };
        if members.is_empty() {
            self.add(pointer, format!("is empty: set it to {expected}, or remove the member"));
        }
        let mut named = Vec::new();
        for (index, (name, value)) in members.iter().enumerate() {
            let location = member_pointer(pointer, name);
            if members[..index].iter().any(|(other, _)| other == name) {
                self.add(location, "occurs twice: remove one of them");
            } else {
                named.push((name, location, value));
            }
        }
        named
    }
}
