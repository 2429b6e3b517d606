//! A mapping of the template whose functions are resolved, read key by key, with faults that name the whole path.

use std::ops::RangeInclusive;

use super::Fault;
use super::node::{Node, Value};
use super::resolve::Scope;

/// A resolved mapping and where it stands.
#[derive(Debug)]
pub(super) struct Place {
    node: Node,
    path: String,
}

impl Place {
    /// Resolves of the mapping `node` the keys in `read`; those in `passed` mean nothing on this machine and are left
    /// alone; any other is refused. A node that is not there, or null, is an empty mapping.
    pub(super) fn resolve(
        scope: &Scope<'_>,
        node: Option<&Node>,
        path: &str,
        read: &[&str],
        passed: &[&str],
    ) -> Result<Self, Fault> {
        let Some(node) = node else {
            return Ok(Self { node: Node { line: 0, value: Value::Map(Vec::new()) }, path: path.to_owned() });
        };
        let mut entries = Vec::new();
        let own = Node { line: node.line, value: Value::Map(Vec::new()) };
        let place = Self { node: own, path: path.to_owned() };
        let mapping = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            _ => return Err(place.fault("wants a mapping")),
        };
        for (name, entry) in mapping {
            if read.contains(&name.as_str()) {
                if let Some(entry) = scope.resolve(entry, &format!("{path}.{name}"))? {
                    entries.push((name.clone(), entry));
                }
            } else if !passed.contains(&name.as_str()) {
                let known = read.join(", ");
                return Err(entry.fault(format!("{path}.{name}: local does not do this; it knows {known}")));
            }
        }
        Ok(Self { node: Node { line: node.line, value: Value::Map(entries) }, ..place })
    }

    /// The same, of a mapping in a resolved one: all its keys must be known.
    pub(super) fn within(&self, name: &str, known: &[&str]) -> Result<Option<Self>, Fault> {
        self.node.get(name).map(|node| Self::known(node.clone(), self.path_of(name), known)).transpose()
    }

    /// The mappings of a list; an absent list is empty.
    pub(super) fn each(&self, name: &str, known: &[&str]) -> Result<Vec<Self>, Fault> {
        let Some(list) = self.node.get(name) else { return Ok(Vec::new()) };
        let Value::List(items) = &list.value else { return Err(self.wants(name, "a list")) };
        let at = |at: usize| format!("{}[{at}]", self.path_of(name));
        items.iter().enumerate().map(|(place, item)| Self::known(item.clone(), at(place), known)).collect()
    }

    fn known(node: Node, path: String, known: &[&str]) -> Result<Self, Fault> {
        let place = Self { node, path };
        match &place.node.value {
            Value::Map(entries) => match entries.iter().find(|(name, _)| !known.contains(&name.as_str())) {
                Some((name, _)) => Err(place.wants(name, &format!("to be one of {}", known.join(", ")))),
                None => Ok(place),
            },
            _ => Err(place.fault("wants a mapping")),
        }
    }

    /// The texts of a list; an absent list is empty.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, Fault> {
        let Some(list) = self.node.get(name) else { return Ok(Vec::new()) };
        let Value::List(items) = &list.value else { return Err(self.wants(name, "a list")) };
        let texts: Option<Vec<String>> = items.iter().map(|item| item.text().map(str::to_owned)).collect();
        texts.ok_or_else(|| self.wants(name, "a list of texts"))
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Fault> {
        let Some(node) = self.node.get(name) else { return Ok(None) };
        node.text().map(|text| Some(text.to_owned())).ok_or_else(|| self.wants(name, "a text"))
    }

    pub(super) fn required(&self, name: &str) -> Result<String, Fault> {
        self.text(name)?.ok_or_else(|| self.wants(name, "to be set"))
    }

    /// One of a few words.
    pub(super) fn word(&self, name: &str, words: &[&str]) -> Result<String, Fault> {
        let word = self.required(name)?;
        if words.contains(&word.as_str()) {
            Ok(word)
        } else {
            Err(self.wants(name, &format!("one of {}", words.join(", "))))
        }
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, Fault> {
        match self.text(name)?.as_deref() {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(self.wants(name, "true or false")),
        }
    }

    pub(super) fn number<T>(&self, name: &str, within: RangeInclusive<T>, default: T) -> Result<T, Fault>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(text) = self.text(name)? else { return Ok(default) };
        let wanted = || self.wants(name, &format!("a number from {} to {}", within.start(), within.end()));
        text.parse().ok().filter(|number| within.contains(number)).ok_or_else(wanted)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        self.node.get(name)
    }

    /// The fault that a key is not as it must be.
    pub(super) fn wants(&self, name: &str, what: &str) -> Fault {
        let at = self.node.get(name).unwrap_or(&self.node);
        at.fault(format!("{}: wants {what}", self.path_of(name)))
    }

    pub(super) fn fault(&self, problem: &str) -> Fault {
        self.node.fault(format!("{}: {problem}", self.path))
    }

    fn path_of(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }
}
