//! Selection and masking of attributes: [`AttributeSettings`], and the rules that they become.
//!
//! The rules apply in this order: `include` or `exclude`, `hash`, `truncate`, `rename`. Every path names a place in the
//! source's item, whatever the other rules do. Parts of an image that no rule concerns keep their bytes.
//!
//! The rules fail closed. With `include`, only what is named passes. A value that a rule has to mask but cannot is an
//! error, and so is a value on the path to a masked value that is not the map or list that the path requires.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{self, Display};

use millrace_json_scanner::JsonScanner;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::attribute_path::{AttributeName, AttributePath, PathStep};
use crate::item_transform::TransformError;
use crate::value_hash::HashKey;

/// The maximum number of paths in the rules of a replica: each is compared with all others.
const MAX_PATHS: usize = 1_000;

/// The rules for the attributes of a replica, by path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct AttributeSettings {
    /// The only values that pass; `None` if all pass that are not excluded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include: Option<Vec<AttributePath>>,
    /// The values that do not pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude: Option<Vec<AttributePath>>,
    /// The values that are replaced by their hash, each with the name of the key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub hash: BTreeMap<AttributePath, String>,
    /// The strings that are cut, each with its maximum number of characters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub truncate: BTreeMap<AttributePath, usize>,
    /// The attributes and members of maps that get another name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rename: BTreeMap<AttributePath, String>,
}

/// A problem of the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleProblem {
    /// The JSON Pointer of the rule inside the settings.
    pub pointer: String,
    /// The problem and the fix.
    pub reason: String,
}

/// Formats the pointer of a rule.
fn pointer(rule: &str, subject: &dyn Display) -> String {
    format!("/{rule}/{}", subject.to_string().replace('~', "~0").replace('/', "~1"))
}

impl AttributeSettings {
    /// Returns whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns every rule with its pointer and path.
    fn rules(&self) -> Vec<(&'static str, String, &AttributePath)> {
        let mut rules = Vec::new();
        for (rule, paths) in [("include", &self.include), ("exclude", &self.exclude)] {
            let listed = paths.iter().flatten().enumerate();
            rules.extend(listed.map(|(index, path)| (rule, pointer(rule, &index), path)));
        }
        rules.extend(self.hash.keys().map(|path| ("hash", pointer("hash", path), path)));
        rules.extend(self.truncate.keys().map(|path| ("truncate", pointer("truncate", path), path)));
        rules.extend(self.rename.keys().map(|path| ("rename", pointer("rename", path), path)));
        rules
    }

    /// Returns the contradictions between the rules.
    #[must_use]
    pub fn problems(&self) -> Vec<RuleProblem> {
        let mut problems = Vec::new();
        let mut add = |pointer: String, reason: String| problems.push(RuleProblem { pointer, reason });
        if self.include.is_some() && self.exclude.is_some() {
            add("/exclude".to_owned(), "is set in addition to include: remove one of them".to_owned());
        }
        for (rule, paths) in [("include", &self.include), ("exclude", &self.exclude)] {
            if paths.as_ref().is_some_and(Vec::is_empty) {
                add(format!("/{rule}"), "is empty: add a path, or remove the member".to_owned());
            }
        }
        let rules = self.rules();
        if rules.len() > MAX_PATHS {
            add(String::new(), format!("has {} paths: at most {MAX_PATHS} are allowed", rules.len()));
            return problems;
        }
        for (index, (rule, at, path)) in rules.iter().enumerate() {
            for (other_rule, other_at, other) in &rules[..index] {
                if let Some(reason) = Self::contradiction((rule, path), (other_rule, other_at, other)) {
                    add(at.clone(), reason);
                    break;
                }
            }
            if let ("hash" | "truncate" | "rename", Some(included)) = (*rule, &self.include) {
                let is_included = included.iter().any(|included| included.contains(path));
                let is_partly = *rule == "rename" && included.iter().any(|included| path.contains(included));
                if !is_included && !is_partly {
                    add(at.clone(), format!("names {path}, which include does not contain as a whole: add it there"));
                }
            }
        }
        for (path, name) in &self.rename {
            if let Some(reason) = self.rename_problem(path, name) {
                add(pointer("rename", path), reason);
            }
        }
        problems
    }

    /// Returns why two rules cannot be combined.
    fn contradiction(
        (rule, path): (&str, &AttributePath),
        (other_rule, other_at, other): (&str, &str, &AttributePath),
    ) -> Option<String> {
        let at = format!("/attributes{other_at}");
        if let Some(common) = path.differing_container(other) {
            return Some(format!("uses {common} as a map, and {at} as a list, or the reverse: correct one of them"));
        }
        let overlaps = path.contains(other) || other.contains(path);
        if !overlaps {
            return None;
        }
        match (other_rule, rule) {
            ("include", "include") | ("exclude", "exclude") | ("truncate", "truncate") | ("hash", "hash") => {
                Some(format!("overlaps with {at}: remove one of them"))
            }
            ("exclude", "hash" | "truncate") => {
                Some(format!("overlaps with {at}, which is removed: remove one of them"))
            }
            ("exclude", "rename") if other.contains(path) => Some(format!("is removed by {at}: remove one of them")),
            ("hash", "truncate") if path != other => {
                Some(format!("overlaps with {at}: only the whole hash can be truncated"))
            }
            ("hash" | "truncate", "rename") if path != other && other.contains(path) => {
                Some(format!("is inside the value of {at}: remove one of them"))
            }
            _ => None,
        }
    }

    fn rename_problem(&self, path: &AttributePath, name: &str) -> Option<String> {
        let own = path.last_name();
        if own.is_none() {
            return Some(format!("is {name:?}, but an element of a list has no name: rename the list"));
        }
        if name.is_empty() {
            return Some("is empty: set it to the new name".to_owned());
        }
        if name.contains('\0') {
            return Some(format!("is {name:?}, which contains U+0000: choose a name that every store accepts"));
        }
        if own == Some(name) {
            return Some(format!("is {name:?}, the name that it has: remove the rule"));
        }
        let target = path.renamed(name);
        let mut others = self.rename.iter().filter(|(other, _)| *other != path);
        if let Some((other, _)) = others.clone().find(|(other, its)| other.renamed(its) == target) {
            // Of two such renames, one is the problem.
            return (other < path)
                .then(|| format!("is {name:?}, as for /attributes{}: choose another name", pointer("rename", other)));
        }
        let is_renamed_away = others.any(|(other, _)| *other == target);
        let passes = self
            .include
            .as_ref()
            .is_some_and(|included| included.iter().any(|included| target.contains(included) || *included == target));
        (passes && !is_renamed_away).then(|| {
            format!("is {name:?}, which include contains as well: choose another name, or rename that one too")
        })
    }

    /// Returns the rules that concern an attribute with one of these names, which replication adds to an item or takes
    /// from the key.
    #[must_use]
    pub fn reserved_problems(&self, reserved: &[&str]) -> Vec<RuleProblem> {
        let mut problems = Vec::new();
        let fix = "is reserved for the attributes that replication adds: choose another name, or set RESERVED_PREFIX";
        for (_, pointer, path) in self.rules() {
            if reserved.contains(&path.attribute()) {
                problems.push(RuleProblem { pointer, reason: format!("names {}, which {fix}", path.attribute()) });
            }
        }
        for (path, name) in self.rename.iter().filter(|(path, _)| path.inner().is_empty()) {
            if reserved.contains(&name.as_str()) {
                problems.push(RuleProblem {
                    pointer: pointer("rename", path),
                    reason: format!("is {name:?}, which {fix}"),
                });
            }
        }
        problems
    }

    /// Returns the rules that a table with these key attributes does not allow: a key attribute is not removed, changed
    /// or renamed.
    #[must_use]
    pub fn key_problems(&self, key_names: &[String]) -> Vec<RuleProblem> {
        let mut problems = Vec::new();
        let is_key = |name: &str| key_names.iter().any(|key| key == name);
        if let Some(included) = &self.include {
            let is_included =
                |key: &&String| included.iter().any(|path| path.attribute() == **key && path.inner().is_empty());
            for key in key_names.iter().filter(|key| !is_included(key)) {
                let reason =
                    format!("lacks {key}, a key attribute of the table: add it, because a replica has the same key");
                problems.push(RuleProblem { pointer: "/include".to_owned(), reason });
            }
        }
        for (rule, pointer, path) in self.rules() {
            if rule != "include" && is_key(path.attribute()) {
                let reason =
                    format!("names {path}, a key attribute of the table, which stays as it is: remove the rule");
                problems.push(RuleProblem { pointer, reason });
            }
        }
        for (path, name) in &self.rename {
            if path.inner().is_empty() && is_key(name) && !is_key(path.attribute()) {
                let reason = format!("is {name:?}, a key attribute of the table: choose another name");
                problems.push(RuleProblem { pointer: pointer("rename", path), reason });
            }
        }
        problems
    }

    /// Returns the rules by which a key attribute of an index of the table gets a value that `DynamoDB` rejects: another
    /// type than that of the index, or an empty string. Each item with the attribute would be rejected. `key` has the
    /// name and the type of each key attribute.
    #[must_use]
    pub fn index_problems(&self, table: &str, index: &str, key: &[(String, String)]) -> Vec<RuleProblem> {
        let mut problems = Vec::new();
        for (name, kind) in key {
            let stored_name =
                |path: &AttributePath| self.rename.get(path).map_or(path.attribute(), String::as_str) == name;
            let is_key = |path: &AttributePath| path.inner().is_empty() && stored_name(path);
            let of_index = format!("the key attribute {name} ({kind}) of the index {index} of {table}");
            let fix = "exclude or rename the attribute, or create the index for an attribute of the type S";
            for path in self.hash.keys().filter(|path| is_key(path) && kind != "S") {
                let reason = format!("makes a string (S) of {path}, {of_index}: {fix}");
                problems.push(RuleProblem { pointer: pointer("hash", path), reason });
            }
            for (path, characters) in self.truncate.iter().filter(|(path, _)| is_key(path)) {
                let reason = if *characters == 0 {
                    format!(
                        "makes an empty string of {path}, {of_index}: set it to at least 1, or exclude the attribute"
                    )
                } else if kind != "S" && !self.hash.contains_key(path) {
                    format!("cuts only a string (S), but {path} is {of_index}: {fix}")
                } else {
                    continue;
                };
                problems.push(RuleProblem { pointer: pointer("truncate", path), reason });
            }
        }
        problems
    }
}

/// Compiled rules: a tree of the steps of all paths.
#[derive(Debug, Clone, Default)]
pub(crate) struct AttributeRules(RuleNode);

/// The rules for a place in an item, and for the places inside it.
#[derive(Debug, Clone, Default)]
struct RuleNode {
    /// Whether a value passes that no rule names.
    passes: bool,
    is_dropped: bool,
    hash: Option<HashKey>,
    truncate: Option<usize>,
    rename: Option<String>,
    members: HashMap<String, RuleNode>,
    elements: BTreeMap<usize, RuleNode>,
    /// The new names of members.
    new_names: BTreeSet<String>,
    /// Whether a value inside is removed or masked.
    masks_inside: bool,
}

impl AttributeRules {
    /// Compiles settings without contradictions. `keys` has the key of each hash; returns the name of one that is
    /// missing otherwise.
    pub(crate) fn new(settings: &AttributeSettings, keys: &BTreeMap<String, HashKey>) -> Result<Self, String> {
        let mut root = RuleNode { passes: settings.include.is_none(), ..RuleNode::default() };
        for path in settings.include.iter().flatten() {
            root.at(path).passes = true;
        }
        for path in settings.exclude.iter().flatten() {
            root.at(path).is_dropped = true;
        }
        for (path, name) in &settings.hash {
            root.at(path).hash = Some(keys.get(name).ok_or_else(|| name.clone())?.clone());
        }
        for (path, characters) in &settings.truncate {
            root.at(path).truncate = Some(*characters);
        }
        for (path, name) in &settings.rename {
            root.at(path).rename = Some(name.clone());
        }
        root.finish();
        Ok(Self(root))
    }

    /// Returns the attributes that pass, as they pass. Those with one of the names `key_names` pass unchanged.
    pub(crate) fn apply(&self, key_names: &[String], image: &str) -> Result<String, TransformError> {
        let mut text = String::with_capacity(image.len() + 64);
        if let Some(scanned) = scan_map(MapWriter::new(&self.0, key_names, &mut text), image) {
            return scanned.map(|_| text);
        }
        // An unusual or malformed image, whose error states the position.
        text.clear();
        let mut json = serde_json::Deserializer::from_str(image);
        let writer = MapWriter::new(&self.0, key_names, &mut text);
        writer.deserialize(&mut json).map_err(TransformError::from_json)??;
        Ok(text)
    }
}

impl RuleNode {
    /// Returns the node of a path, which inherits from the value around it whether it passes.
    fn at(&mut self, path: &AttributePath) -> &mut Self {
        let passes = self.passes;
        let child = || Self { passes, ..Self::default() };
        let mut node = self.members.entry(path.attribute().to_owned()).or_insert_with(child);
        for step in path.inner() {
            let passes = node.passes;
            let child = || Self { passes, ..Self::default() };
            node = match step {
                PathStep::Member(name) => node.members.entry(name.clone()).or_insert_with(child),
                PathStep::Element(index) => node.elements.entry(*index).or_insert_with(child),
            };
        }
        node
    }

    /// Derives what depends on all paths. Returns whether the value or a part of it is removed or masked.
    fn finish(&mut self) -> bool {
        self.new_names = self.members.values().filter_map(|member| member.rename.clone()).collect();
        let inside: Vec<bool> = self.members.values_mut().chain(self.elements.values_mut()).map(Self::finish).collect();
        self.masks_inside = inside.contains(&true);
        self.masks_inside || self.is_dropped || self.hash.is_some() || self.truncate.is_some()
    }

    /// Appends a value. Returns whether anything of it passes.
    fn write(&self, name: &str, value: &str, text: &mut String) -> Result<bool, TransformError> {
        if self.is_dropped {
            return Ok(false);
        }
        if let Some(key) = &self.hash {
            let mut hash = key.hash(value).map_err(|_| TransformError::Unhashable(name.to_owned()))?;
            // A hash has only ASCII characters.
            hash.truncate(self.truncate.unwrap_or(usize::MAX));
            text.extend([r#"{"S":""#, &hash, "\"}"]);
            return Ok(true);
        }
        if let Some(characters) = self.truncate {
            text.push_str(&truncated(value, characters).ok_or_else(|| TransformError::NotAString(name.to_owned()))?);
            return Ok(true);
        }
        if self.members.is_empty() && self.elements.is_empty() {
            if self.passes {
                text.push_str(value);
            }
            return Ok(self.passes);
        }
        self.write_inside(name, value, text)
    }

    /// Appends the parts of a map or list that pass. Returns whether there are any.
    fn write_inside(&self, name: &str, value: &str, text: &mut String) -> Result<bool, TransformError> {
        let TypedValue { kind, content } = serde_json::from_str(value).map_err(TransformError::from_json)?;
        let start = text.len();
        let mut json = serde_json::Deserializer::from_str(content.get());
        let any = match &*kind {
            "M" if !self.members.is_empty() => {
                text.push_str(r#"{"M":"#);
                let writer = MapWriter::new(self, &[], text);
                writer.deserialize(&mut json).map_err(TransformError::from_json)??
            }
            "L" if !self.elements.is_empty() => {
                text.push_str(r#"{"L":"#);
                let writer = ListWriter { node: self, name, text };
                writer.deserialize(&mut json).map_err(TransformError::from_json)??
            }
            // There is nothing in it that a rule could name.
            "NULL" if self.passes => {
                text.push_str(value);
                return Ok(true);
            }
            _ if self.passes && self.masks_inside => return Err(TransformError::Unexpected(name.to_owned())),
            _ if self.passes => {
                text.push_str(value);
                return Ok(true);
            }
            _ => return Ok(false),
        };
        if any || self.passes {
            text.push('}');
            return Ok(true);
        }
        text.truncate(start);
        Ok(false)
    }
}

/// Returns a string value with at most this number of characters; `None` if it is not a string.
fn truncated(value: &str, characters: usize) -> Option<Cow<'_, str>> {
    let typed: TypedValue<'_> = serde_json::from_str(value).ok()?;
    match &*typed.kind {
        "NULL" => Some(value.into()),
        "S" => {
            let AttributeName(content) = serde_json::from_str(typed.content.get()).ok()?;
            match content.char_indices().nth(characters) {
                None => Some(value.into()),
                Some((end, _)) => Some(format!(r#"{{"S":{}}}"#, serde_json::Value::from(&content[..end])).into()),
            }
        }
        _ => None,
    }
}

/// The type of a value, and its content.
struct TypedValue<'a> {
    kind: Cow<'a, str>,
    content: &'a RawValue,
}

impl<'de> Deserialize<'de> for TypedValue<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneMember;
        impl<'de> Visitor<'de> for OneMember {
            type Value = TypedValue<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value with its type")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let first = map.next_entry::<AttributeName<'de>, &'de RawValue>()?;
                let (AttributeName(kind), content) = first.ok_or_else(|| M::Error::custom("no type"))?;
                match map.next_key::<AttributeName<'de>>()? {
                    None => Ok(TypedValue { kind, content }),
                    Some(_) => Err(M::Error::custom("two types")),
                }
            }
        }
        deserializer.deserialize_map(OneMember)
    }
}

/// Writes the members of a map that pass, in braces. The result says whether there are any.
struct MapWriter<'n, 't> {
    node: &'n RuleNode,
    /// The attributes that pass unchanged.
    key_names: &'n [String],
    text: &'t mut String,
    any: bool,
    /// The members so far that have the new name of another one.
    taken: Vec<String>,
}

impl<'n, 't> MapWriter<'n, 't> {
    fn new(node: &'n RuleNode, key_names: &'n [String], text: &'t mut String) -> Self {
        text.push('{');
        Self { node, key_names, text, any: false, taken: Vec::new() }
    }

    /// Writes a member if it passes.
    fn push(&mut self, name: &str, value: &str) -> Result<(), TransformError> {
        let node = self.node;
        let is_key = self.key_names.iter().any(|key| key == name);
        let rules = if is_key { None } else { node.members.get(name) };
        if !is_key && !node.passes && rules.is_none() {
            return Ok(());
        }
        let new_name = rules.and_then(|rules| rules.rename.as_deref()).unwrap_or(name);
        let before = self.text.len();
        if self.any {
            self.text.push(',');
        }
        if needs_escape(new_name) {
            self.text.push_str(&serde_json::Value::from(new_name).to_string());
        } else {
            self.text.extend(["\"", new_name, "\""]);
        }
        self.text.push(':');
        let passes = match rules {
            None => {
                self.text.push_str(value);
                true
            }
            Some(rules) => rules.write(name, value, self.text)?,
        };
        if !passes {
            self.text.truncate(before);
            return Ok(());
        }
        self.any = true;
        // Two members with one name would be one value in some parsers, and the other in others.
        if !node.new_names.is_empty() && node.new_names.contains(new_name) {
            if self.taken.iter().any(|taken| taken == new_name) {
                return Err(TransformError::Collision(new_name.to_owned()));
            }
            self.taken.push(new_name.to_owned());
        }
        Ok(())
    }

    fn finish(self) -> bool {
        self.text.push('}');
        self.any
    }
}

/// Writes the members of a map by a scan of its text. Returns `None` if it has to be parsed: it is malformed, or a name
/// has escape sequences.
fn scan_map(mut writer: MapWriter<'_, '_>, map: &str) -> Option<Result<bool, TransformError>> {
    let mut scanner = JsonScanner::new(map);
    let mut members = scanner.object()?;
    while let Some(name) = scanner.plain_member(&mut members)? {
        if let Err(error) = writer.push(name, scanner.value()?.get()) {
            return Some(Err(error));
        }
    }
    scanner.is_at_end().then(|| Ok(writer.finish()))
}

impl<'de> DeserializeSeed<'de> for MapWriter<'_, '_> {
    type Value = Result<bool, TransformError>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MapWriter<'_, '_> {
    type Value = Result<bool, TransformError>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of attributes")
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<Self::Value, M::Error> {
        while let Some((AttributeName(name), value)) = map.next_entry::<AttributeName<'de>, &'de RawValue>()? {
            if let Err(error) = self.push(&name, value.get()) {
                // Otherwise the deserializer reports the members that are left instead of this error.
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return Ok(Err(error));
            }
        }
        Ok(Ok(self.finish()))
    }
}

/// Writes the elements of a list that pass, in brackets. The result says whether there are any.
struct ListWriter<'n, 't> {
    node: &'n RuleNode,
    name: &'n str,
    text: &'t mut String,
}

impl<'de> DeserializeSeed<'de> for ListWriter<'_, '_> {
    type Value = Result<bool, TransformError>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ListWriter<'_, '_> {
    type Value = Result<bool, TransformError>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of values")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut elements: S) -> Result<Self::Value, S::Error> {
        let Self { node, name, text } = self;
        text.push('[');
        let (mut any, mut index) = (false, 0);
        while let Some(value) = elements.next_element::<&'de RawValue>()? {
            let before = text.len();
            if any {
                text.push(',');
            }
            let passes = match node.elements.get(&index) {
                None if node.passes => {
                    text.push_str(value.get());
                    true
                }
                None => false,
                Some(rules) => match rules.write(name, value.get(), text) {
                    Ok(passes) => passes,
                    Err(error) => {
                        while elements.next_element::<IgnoredAny>()?.is_some() {}
                        return Ok(Err(error));
                    }
                },
            };
            if passes {
                any = true;
            } else {
                text.truncate(before);
            }
            index += 1;
        }
        text.push(']');
        Ok(Ok(any))
    }
}

fn needs_escape(name: &str) -> bool {
    name.bytes().any(|byte| matches!(byte, b'"' | b'\\' | ..b' '))
}
