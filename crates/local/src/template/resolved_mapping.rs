//! A YAML mapping of the template with its intrinsic functions resolved; errors name the full path of a key.

use std::ops::RangeInclusive;

use super::PropertyError;
use super::node::{NodeValue, TemplateNode};
use super::resolve::ResolveScope;

/// A resolved mapping and its path.
#[derive(Debug)]
pub(super) struct ResolvedMapping {
    node: TemplateNode,
    path: String,
}

impl ResolvedMapping {
    /// Resolves the keys of the mapping `node` that are in `read`. Keys in `passed` have no effect on this machine and
    /// are ignored; any other key is an error. An absent or null node is an empty mapping.
    pub(super) fn resolve(
        scope: &ResolveScope<'_>,
        node: Option<&TemplateNode>,
        path: &str,
        read: &[&str],
        passed: &[&str],
    ) -> Result<Self, PropertyError> {
        let Some(node) = node else {
            return Ok(Self {
                node: TemplateNode { line: 0, value: NodeValue::Map(Vec::new()) },
                path: path.to_owned(),
            });
        };
        let mut entries = Vec::new();
        let own = TemplateNode { line: node.line, value: NodeValue::Map(Vec::new()) };
        let resolved = Self { node: own, path: path.to_owned() };
        let mapping = match &node.value {
            NodeValue::Map(entries) => entries.as_slice(),
            NodeValue::Null => &[],
            _ => return Err(resolved.fault("expected a mapping")),
        };
        for (name, entry) in mapping {
            if read.contains(&name.as_str()) {
                if let Some(entry) = scope.resolve(entry, &format!("{path}.{name}"))? {
                    entries.push((name.clone(), entry));
                }
            } else if !passed.contains(&name.as_str()) {
                let known = read.join(", ");
                return Err(entry.fault(format!("{path}.{name}: not supported by millrace: expected one of {known}")));
            }
        }
        Ok(Self { node: TemplateNode { line: node.line, value: NodeValue::Map(entries) }, ..resolved })
    }

    /// Returns a mapping within this one; all of its keys must be in `known`.
    pub(super) fn within(&self, name: &str, known: &[&str]) -> Result<Option<Self>, PropertyError> {
        self.node.get(name).map(|node| Self::known(node.clone(), self.path_of(name), known)).transpose()
    }

    /// Returns the mappings in a list; an absent list is empty.
    pub(super) fn each(&self, name: &str, known: &[&str]) -> Result<Vec<Self>, PropertyError> {
        let Some(list) = self.node.get(name) else { return Ok(Vec::new()) };
        let NodeValue::List(items) = &list.value else { return Err(self.property_error(name, "a list")) };
        let at = |at: usize| format!("{}[{at}]", self.path_of(name));
        items.iter().enumerate().map(|(index, item)| Self::known(item.clone(), at(index), known)).collect()
    }

    fn known(node: TemplateNode, path: String, known: &[&str]) -> Result<Self, PropertyError> {
        let mapping = Self { node, path };
        match &mapping.node.value {
            NodeValue::Map(entries) => match entries.iter().find(|(name, _)| !known.contains(&name.as_str())) {
                Some((name, _)) => Err(mapping.property_error(name, &format!("one of {}", known.join(", ")))),
                None => Ok(mapping),
            },
            _ => Err(mapping.fault("expected a mapping")),
        }
    }

    /// Returns the texts in a list; an absent list is empty.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, PropertyError> {
        let Some(list) = self.node.get(name) else { return Ok(Vec::new()) };
        let NodeValue::List(items) = &list.value else { return Err(self.property_error(name, "a list")) };
        let texts: Option<Vec<String>> = items.iter().map(|item| item.text().map(str::to_owned)).collect();
        texts.ok_or_else(|| self.property_error(name, "a list of strings"))
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<String>, PropertyError> {
        let Some(node) = self.node.get(name) else { return Ok(None) };
        node.text().map(|text| Some(text.to_owned())).ok_or_else(|| self.property_error(name, "a string"))
    }

    pub(super) fn required(&self, name: &str) -> Result<String, PropertyError> {
        self.text(name)?.ok_or_else(|| self.property_error(name, "a value"))
    }

    /// Returns the value of a key, which must be one of `words`.
    pub(super) fn word(&self, name: &str, words: &[&str]) -> Result<String, PropertyError> {
        let word = self.required(name)?;
        if words.contains(&word.as_str()) {
            Ok(word)
        } else {
            Err(self.property_error(name, &format!("one of {}", words.join(", "))))
        }
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, PropertyError> {
        match self.text(name)?.as_deref() {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(self.property_error(name, "true or false")),
        }
    }

    pub(super) fn number<T>(&self, name: &str, within: RangeInclusive<T>, default: T) -> Result<T, PropertyError>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(text) = self.text(name)? else { return Ok(default) };
        let wanted = || self.property_error(name, &format!("a number from {} to {}", within.start(), within.end()));
        text.parse().ok().filter(|number| within.contains(number)).ok_or_else(wanted)
    }

    pub(super) fn get(&self, name: &str) -> Option<&TemplateNode> {
        self.node.get(name)
    }

    /// Returns the error of a key whose value is absent or invalid.
    pub(super) fn property_error(&self, name: &str, what: &str) -> PropertyError {
        let at = self.node.get(name).unwrap_or(&self.node);
        at.fault(format!("{}: expected {what}", self.path_of(name)))
    }

    pub(super) fn fault(&self, problem: &str) -> PropertyError {
        self.node.fault(format!("{}: {problem}", self.path))
    }

    fn path_of(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }
}
