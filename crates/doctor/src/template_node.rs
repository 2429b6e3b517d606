//! A template as a tree with line numbers, in which both forms of an intrinsic function are the same node:
//! [`TemplateNode`].
//!
//! Only this file uses the YAML parser. It reads the parser's events, so that a document that is nested too deeply is
//! rejected before a tree of it exists. Scalars are text, since `CloudFormation` treats `30` and `"30"` as equal.

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::Value;

use crate::template_error::TemplateError;

/// The maximum depth of a template; `CloudFormation`'s own limit is lower.
const MAX_NODE_DEPTH: usize = 128;
/// The maximum number of nodes of a template.
const MAX_NODES: usize = 1_000_000;
/// The tags that `CloudFormation` defines, apart from `!Ref` and `!Condition`: each is `Fn::` and the tag's name.
const FUNCTIONS: [&str; 18] = [
    "And",
    "Base64",
    "Cidr",
    "Contains",
    "EachMemberEquals",
    "EachMemberIn",
    "Equals",
    "FindInMap",
    "GetAtt",
    "GetAZs",
    "If",
    "ImportValue",
    "Join",
    "Not",
    "Or",
    "Select",
    "Split",
    "Sub",
];
/// Functions that are tags as well and occur less often.
const MORE_FUNCTIONS: [&str; 6] = ["Transform", "Length", "ToJsonString", "RefAll", "ValueOf", "ValueOfAll"];

/// A node of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateNode {
    /// The line number, starting at 1; 0 if it is not known.
    pub line: usize,
    /// The value.
    pub value: NodeValue,
}

/// The value of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeValue {
    /// `null`, or nothing.
    Null,
    /// A scalar.
    Text(String),
    /// A list.
    List(Vec<TemplateNode>),
    /// A mapping, in its order.
    Map(Vec<(String, TemplateNode)>),
    /// An intrinsic function: `!Sub x`, `{Fn::Sub: x}`, `!Ref x`, `{Ref: x}`. The name is without `Fn::`.
    Call(String, Box<TemplateNode>),
}

impl TemplateNode {
    /// Parses a text with one document in YAML or JSON.
    ///
    /// # Errors
    /// A [`TemplateError`] with the line, if the text is neither, has an unknown tag or an alias, or is nested too
    /// deeply.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        match TreeBuilder::default().build(text) {
            // Escapes and tabs that only JSON allows.
            Err(error) if text.trim_start().starts_with('{') => match serde_json::from_str::<Value>(text) {
                Ok(value) => Ok(Self::from_json(&value)),
                Err(_) => Err(error),
            },
            result => result,
        }
    }

    /// Converts a JSON value; lines are not known.
    #[must_use]
    pub fn from_json(value: &Value) -> Self {
        let value = match value {
            Value::Null => NodeValue::Null,
            Value::Bool(truth) => NodeValue::Text(truth.to_string()),
            Value::Number(number) => NodeValue::Text(number.to_string()),
            Value::String(text) => NodeValue::Text(text.clone()),
            Value::Array(items) => NodeValue::List(items.iter().map(Self::from_json).collect()),
            Value::Object(entries) => {
                call_or_map(entries.iter().map(|(name, value)| (name.clone(), Self::from_json(value))).collect())
            }
        };
        Self { line: 0, value }
    }

    /// Returns the value of a key in a mapping; `None` if the key is absent or its value is null.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        let (_, node) = self.entries().iter().find(|(key, _)| key == name)?;
        (node.value != NodeValue::Null).then_some(node)
    }

    /// Returns the entries of a mapping; empty if the node is not a mapping.
    #[must_use]
    pub fn entries(&self) -> &[(String, Self)] {
        if let NodeValue::Map(entries) = &self.value { entries } else { &[] }
    }

    /// Returns the items of a list; empty if the node is not a list.
    #[must_use]
    pub fn items(&self) -> &[Self] {
        if let NodeValue::List(items) = &self.value { items } else { &[] }
    }

    /// Returns the text of a scalar.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        if let NodeValue::Text(text) = &self.value { Some(text) } else { None }
    }
}

/// A collection whose end was not read yet.
struct OpenNode {
    line: usize,
    tag: Option<String>,
    /// The entries of a mapping, or `None` for a list.
    entries: Option<Vec<(String, TemplateNode)>>,
    items: Vec<TemplateNode>,
    /// The key of a mapping whose value follows.
    key: Option<String>,
}

/// Builds a tree from the events of the YAML parser.
#[derive(Default)]
struct TreeBuilder {
    open: Vec<OpenNode>,
    root: Option<TemplateNode>,
    count: usize,
}

impl TreeBuilder {
    fn build(mut self, text: &str) -> Result<TemplateNode, TemplateError> {
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| {
                TemplateError::new(error.marker().line(), format!("invalid YAML: {}", error.info()))
            })?;
            self.event(event, span)?;
        }
        self.root.ok_or_else(|| TemplateError::new(1, "the file contains no template".to_owned()))
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), TemplateError> {
        let line = span.start.line();
        match event {
            Event::Scalar(text, style, _, tag) => {
                let tag = tag_name(tag.as_deref(), line)?;
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let is_null = plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if is_null { NodeValue::Null } else { NodeValue::Text(text.into_owned()) };
                self.add(TemplateNode { line, value }, tag)
            }
            Event::SequenceStart(_, tag) => self.start(line, tag.as_deref(), None),
            Event::MappingStart(_, tag) => self.start(line, tag.as_deref(), Some(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(OpenNode { line, tag, entries, items, .. }) => {
                    let value = entries.map_or(NodeValue::List(items), call_or_map);
                    self.add(TemplateNode { line, value }, tag)
                }
                None => Ok(()),
            },
            Event::Alias(_) => Err(TemplateError::new(
                line,
                "YAML alias: CloudFormation accepts none, write the value here".to_owned(),
            )),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(TemplateError::new(line, "a second YAML document: expected one template in a file".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn start(
        &mut self,
        line: usize,
        tag: Option<&Tag>,
        entries: Option<Vec<(String, TemplateNode)>>,
    ) -> Result<(), TemplateError> {
        if self.open.len() == MAX_NODE_DEPTH {
            return Err(TemplateError::new(
                line,
                format!("nested too deeply: at most {MAX_NODE_DEPTH} levels are read"),
            ));
        }
        let tag = tag_name(tag, line)?;
        self.open.push(OpenNode { line, tag, entries, items: Vec::new(), key: None });
        Ok(())
    }

    fn add(&mut self, node: TemplateNode, tag: Option<String>) -> Result<(), TemplateError> {
        let line = node.line;
        self.count += 1;
        if self.count > MAX_NODES {
            return Err(TemplateError::new(line, format!("more than {MAX_NODES} values: is this a template?")));
        }
        let node = match tag {
            Some(name) => TemplateNode { line, value: NodeValue::Call(name, Box::new(node)) },
            None => node,
        };
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        let Some(entries) = &mut parent.entries else {
            parent.items.push(node);
            return Ok(());
        };
        match (parent.key.take(), node.value) {
            (Some(key), value) => entries.push((key, TemplateNode { line, value })),
            (None, NodeValue::Text(key)) if entries.iter().any(|(name, _)| *name == key) => {
                return Err(TemplateError::new(line, format!("duplicate key {key:?}: remove one of the two")));
            }
            (None, NodeValue::Text(key)) => parent.key = Some(key),
            (None, _) => return Err(TemplateError::new(line, "the mapping key is not a string".to_owned())),
        }
        Ok(())
    }
}

/// Returns the function of a tag; tags of YAML itself, such as `!!str`, are none.
fn tag_name(tag: Option<&Tag>, line: usize) -> Result<Option<String>, TemplateError> {
    let Some(tag) = tag else { return Ok(None) };
    let name = tag.suffix.as_str();
    let is_function =
        name == "Ref" || name == "Condition" || FUNCTIONS.contains(&name) || MORE_FUNCTIONS.contains(&name);
    if tag.handle == "!" && is_function {
        Ok(Some(name.to_owned()))
    } else if tag.is_yaml_core_schema() {
        Ok(None)
    } else {
        let handle = &tag.handle;
        Err(TemplateError::new(line, format!("unknown tag {handle}{name}: expected a tag of CloudFormation, as !Ref")))
    }
}

fn call_or_map(mut entries: Vec<(String, TemplateNode)>) -> NodeValue {
    let function = match entries.as_slice() {
        [(name, _)] if name == "Ref" => Some(name.clone()),
        [(name, _)] => name.strip_prefix("Fn::").map(str::to_owned),
        _ => None,
    };
    match (function, entries.pop()) {
        (Some(function), Some((_, argument))) => NodeValue::Call(function, Box::new(argument)),
        (_, last) => {
            entries.extend(last);
            NodeValue::Map(entries)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: usize, text: &str) -> TemplateNode {
        TemplateNode { line, value: NodeValue::Text(text.to_owned()) }
    }

    #[test]
    fn both_forms_of_a_function_are_one_node() {
        let list = TemplateNode::parse("- !GetAtt A.B\n- Fn::GetAtt: A.B\n- !Ref C\n- Ref: C\n").unwrap();
        let call = |line, name: &str, of: &str| NodeValue::Call(name.to_owned(), Box::new(text(line, of)));
        let expected = [call(1, "GetAtt", "A.B"), call(2, "GetAtt", "A.B"), call(3, "Ref", "C"), call(4, "Ref", "C")];
        assert_eq!(list.items().iter().map(|node| node.value.clone()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn json_is_read_with_lines_and_with_escapes_that_only_json_has() {
        let json = "{\n\t\"a\": {\n\t\t\"Fn::Sub\": \"x\\/y\"\n\t}\n}";
        let node = TemplateNode::parse(json).unwrap();
        let NodeValue::Call(name, argument) = &node.get("a").unwrap().value else { panic!("a call") };
        assert_eq!((name.as_str(), argument.text()), ("Sub", Some("x/y")));
        assert_eq!(TemplateNode::parse("{\n \"a\": \"b\"\n}").unwrap().get("a").unwrap().line, 2);
    }

    #[test]
    fn scalars_are_text_and_nothing_is_null() {
        let node = TemplateNode::parse("a: 30\nb: \"30\"\nc: ~\nd:\ne: \"\"\nf: true\n").unwrap();
        assert_eq!(node.get("a").unwrap().text(), node.get("b").unwrap().text());
        assert_eq!((node.get("c"), node.get("d")), (None, None));
        assert_eq!(node.get("e").unwrap().text(), Some(""));
        assert_eq!(node.get("f").unwrap().text(), Some("true"));
    }

    #[test]
    fn invalid_documents_are_rejected_with_their_line() {
        for (text, line, problem) in [
            ("a: 1\nb: ]\n", 2, "invalid YAML"),
            ("a: 1\na: 2\n", 2, "duplicate key \"a\""),
            ("a: 1\n---\nb: 2\n", 2, "a second YAML document"),
            ("", 1, "contains no template"),
            ("a: &x 1\nb: *x\n", 2, "YAML alias"),
            ("a: 1\nb: !Rf c\n", 2, "unknown tag !Rf"),
            ("a: !<tag:example.com,2000:x> c\n", 1, "unknown tag"),
            ("? [a]\n: b\n", 1, "not a string"),
        ] {
            let error = TemplateNode::parse(text).unwrap_err();
            assert!(error.to_string().contains(problem), "{text:?}: {error}");
            assert_eq!(error.line(), line, "{text:?}");
        }
    }

    #[test]
    fn deep_documents_are_rejected_and_do_not_exhaust_the_stack() {
        for unit in ["[", "- ", "{a: ", "? "] {
            let error = TemplateNode::parse(&unit.repeat(200_000)).unwrap_err();
            assert!(!error.to_string().contains('\n'), "{unit}: {error}");
        }
    }
}
