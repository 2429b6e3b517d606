//! Resolves the intrinsic functions of a template as far as its text allows: [`TemplateScopes`].
//!
//! A resource has no physical name before it is deployed, so `Ref` and `GetAtt` resolve to an ARN in canonical form
//! whose unknown parts are tokens: `arn:aws:s3:::${FailureBucket}`. Equal tokens are equal values, and so an ARN that a
//! `Sub` spells out is equal to the one of a `GetAtt`. Tokens contain no colon and no slash, so `Split` works on them.
//! A value that the text does not determine is unresolved, with the reason; a condition can then be neither true nor
//! false.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use crate::template_document::TemplateDocument;
use crate::template_error::TemplateError;
use crate::template_node::{NodeValue, TemplateNode};

/// The maximum number of nodes that are resolved, so that values that double from name to name end.
const MAX_STEPS: u32 = 1_000_000;
/// The maximum depth of references between parameters, outputs and conditions; a deeper one refers to itself.
const MAX_REFERENCE_DEPTH: usize = 60;
/// The sections whose entries are referred to by their names.
const SECTIONS: [&str; 5] = ["Conditions", "Mappings", "Outputs", "Parameters", "Resources"];
/// The maximum length of a resolved text.
const MAX_TEXT_LENGTH: usize = 100_000;

/// A value without intrinsic functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolvedValue {
    /// `null`.
    Null,
    /// A scalar; tokens such as `${UsersTable}` take the place of names that a deployment assigns.
    Text(String),
    /// A list.
    List(Vec<ResolvedNode>),
    /// A mapping.
    Map(Vec<(String, ResolvedNode)>),
    /// The value is not determined, for this reason.
    Unresolved(String),
}

/// A node without intrinsic functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedNode {
    /// The line number, starting at 1; 0 if it is not known.
    pub line: usize,
    /// The value.
    pub value: ResolvedValue,
}

impl ResolvedNode {
    /// Returns the value of a key in a mapping; `None` if the key is absent or its value is null.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        let (_, node) = self.entries().iter().find(|(key, _)| key == name)?;
        (node.value != ResolvedValue::Null).then_some(node)
    }

    /// Returns the entries of a mapping; empty if the node is not a mapping.
    #[must_use]
    pub fn entries(&self) -> &[(String, Self)] {
        if let ResolvedValue::Map(entries) = &self.value { entries } else { &[] }
    }

    /// Returns the text of a scalar.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        if let ResolvedValue::Text(text) = &self.value { Some(text) } else { None }
    }

    /// Returns the reason why the node has no value, if it has none.
    #[must_use]
    pub fn unresolved(&self) -> Option<&str> {
        if let ResolvedValue::Unresolved(reason) = &self.value { Some(reason) } else { None }
    }

    /// Returns the items of a list, or the node itself as the only one: many properties accept both.
    #[must_use]
    pub fn one_or_many(&self) -> Vec<&Self> {
        if let ResolvedValue::List(items) = &self.value { items.iter().collect() } else { vec![self] }
    }

    /// Converts a node that is not part of a template: intrinsic functions are not resolved.
    #[must_use]
    pub fn from_node(node: &TemplateNode) -> Self {
        let value = match &node.value {
            NodeValue::Null => ResolvedValue::Null,
            NodeValue::Text(text) => ResolvedValue::Text(text.clone()),
            NodeValue::List(items) => ResolvedValue::List(items.iter().map(Self::from_node).collect()),
            NodeValue::Map(entries) => {
                ResolvedValue::Map(entries.iter().map(|(name, node)| (name.clone(), Self::from_node(node))).collect())
            }
            NodeValue::Call(name, _) => ResolvedValue::Unresolved(format!("line {}: {name}", node.line)),
        };
        Self { line: node.line, value }
    }

    /// Returns a text at a line.
    #[must_use]
    pub fn from_text(line: usize, text: impl Into<String>) -> Self {
        Self { line, value: ResolvedValue::Text(text.into()) }
    }
}

/// The value of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConditionValue {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// The text does not determine the condition, for this reason.
    Unknown(String),
}

impl ConditionValue {
    fn not(self) -> Self {
        match self {
            Self::True => Self::False,
            Self::False => Self::True,
            unknown @ Self::Unknown(_) => unknown,
        }
    }
}

/// The template of one file.
#[derive(Debug)]
pub struct TemplateScope<'a> {
    /// The template.
    pub document: &'a TemplateDocument,
    /// The logical IDs of the applications around it, each followed by a dot.
    pub path: String,
    parent: Option<(usize, &'a TemplateNode)>,
    nested: BTreeMap<&'a str, usize>,
    /// The entries of the sections that names refer to, by section and name.
    named: BTreeMap<(&'a str, &'a str), (&'a str, &'a TemplateNode)>,
}

impl<'a> TemplateScope<'a> {
    fn new(document: &'a TemplateDocument, path: String, parent: Option<(usize, &'a TemplateNode)>) -> Self {
        let mut named = BTreeMap::new();
        for section in SECTIONS {
            for (name, node) in document.node.get(section).map_or(&[][..], TemplateNode::entries) {
                named.entry((section, name.as_str())).or_insert((name.as_str(), node));
            }
        }
        Self { document, path, parent, nested: BTreeMap::new(), named }
    }

    /// Returns an entry of a section, with its name.
    fn entry(&self, section: &str, name: &str) -> Option<(&'a str, &'a TemplateNode)> {
        self.named.get(&(section, name)).copied()
    }
}

/// A template and its nested applications, with the values of the parameters.
#[derive(Debug)]
pub struct TemplateScopes<'a> {
    /// The template, then its nested applications.
    pub scopes: Vec<TemplateScope<'a>>,
    parameters: &'a BTreeMap<String, String>,
    conditions: RefCell<BTreeMap<(usize, &'a str), ConditionValue>>,
    problems: RefCell<BTreeSet<String>>,
    steps: Cell<u32>,
}

impl<'a> TemplateScopes<'a> {
    /// Returns the scopes of a template with parameters that replace the defaults.
    #[must_use]
    pub fn new(document: &'a TemplateDocument, parameters: &'a BTreeMap<String, String>) -> Self {
        let mut scopes = Self {
            scopes: Vec::new(),
            parameters,
            conditions: RefCell::default(),
            problems: RefCell::default(),
            steps: Cell::new(0),
        };
        scopes.add(document, "", None);
        scopes
    }

    fn add(&mut self, document: &'a TemplateDocument, path: &str, parent: Option<(usize, &'a TemplateNode)>) -> usize {
        let index = self.scopes.len();
        self.scopes.push(TemplateScope::new(document, path.to_owned(), parent));
        for (id, nested) in &document.applications {
            if let Some(resource) = document.node.get("Resources").and_then(|resources| resources.get(id)) {
                let child = self.add(nested, &format!("{path}{id}."), Some((index, resource)));
                self.scopes[index].nested.insert(id, child);
            }
        }
        index
    }

    /// Returns the problems that were found so far, each as one line.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.problems.borrow().iter().cloned().collect()
    }

    fn problem(&self, scope: usize, line: usize, problem: &str) -> String {
        let error = TemplateError::new(line, problem.to_owned()).in_file(&self.scopes[scope].document.file);
        self.problems.borrow_mut().insert(error.to_string());
        problem.to_owned()
    }

    /// Reports a value that depends on itself, once: each of the values on the cycle depends on itself.
    fn value_cycle(&self, scope: usize, line: usize) -> String {
        let reason = "a value depends on itself";
        if self.problems.borrow().iter().any(|problem| problem.ends_with(reason)) {
            return reason.to_owned();
        }
        self.problem(scope, line, reason)
    }

    /// Returns file and line, for the reason of an unresolved value, which may be used in another file.
    fn file_and_line(&self, scope: usize, line: usize) -> String {
        match line {
            0 => self.scopes[scope].document.file.clone(),
            line => format!("{}:{line}", self.scopes[scope].document.file),
        }
    }

    fn section(&self, scope: usize, section: &str, name: &str) -> Option<&'a TemplateNode> {
        self.scopes[scope].entry(section, name).map(|(_, node)| node).filter(|node| node.value != NodeValue::Null)
    }

    /// Returns whether a resource is created; a nested one only if its application is.
    #[must_use]
    pub fn is_created(&self, scope: usize, resource: &'a TemplateNode) -> ConditionValue {
        self.created(scope, resource, 0)
    }

    fn created(&self, scope: usize, resource: &'a TemplateNode, depth: usize) -> ConditionValue {
        let own = match resource.get("Condition") {
            Some(condition) => self.condition(scope, condition, depth),
            None => ConditionValue::True,
        };
        match (own, self.scopes[scope].parent) {
            (ConditionValue::False, _) => ConditionValue::False,
            (own, Some((parent, application))) => match self.created(parent, application, depth + 1) {
                ConditionValue::True => own,
                other => other,
            },
            (own, None) => own,
        }
    }

    /// Returns the values of `Ref` and of the attribute `Arn` of a resource.
    #[must_use]
    pub fn names(&self, scope: usize, id: &str) -> (String, String) {
        let text = |value: ResolvedValue| match value {
            ResolvedValue::Text(text) => text,
            _ => String::new(),
        };
        (text(self.reference(scope, id, 0)), text(self.attribute(scope, id, "Arn", 0)))
    }

    /// Resolves a node. Returns `None` for `AWS::NoValue`, which removes the property.
    #[must_use]
    pub fn resolve(&self, scope: usize, node: &'a TemplateNode) -> Option<ResolvedNode> {
        self.value(scope, node, 0)
    }

    fn value(&self, scope: usize, node: &'a TemplateNode, depth: usize) -> Option<ResolvedNode> {
        let line = node.line;
        self.steps.set(self.steps.get().saturating_add(1));
        if self.steps.get() > MAX_STEPS {
            let reason = self.problem(scope, 0, "too many values to resolve: names refer to each other too often");
            return Some(ResolvedNode { line, value: ResolvedValue::Unresolved(reason) });
        }
        let value = match &node.value {
            NodeValue::Null => ResolvedValue::Null,
            NodeValue::Text(text) => ResolvedValue::Text(text.clone()),
            NodeValue::List(items) => {
                ResolvedValue::List(items.iter().filter_map(|item| self.value(scope, item, depth)).collect())
            }
            NodeValue::Map(entries) => {
                let entry =
                    |(name, node): &'a (String, TemplateNode)| Some((name.clone(), self.value(scope, node, depth)?));
                ResolvedValue::Map(entries.iter().filter_map(entry).collect())
            }
            NodeValue::Call(function, argument) => {
                return self.call(scope, function, argument, line, depth).map(|value| ResolvedNode { line, value });
            }
        };
        Some(ResolvedNode { line, value })
    }

    /// Resolves to a text, or returns the reason why there is none.
    fn text(&self, scope: usize, node: &'a TemplateNode, depth: usize) -> Result<String, String> {
        match self.value(scope, node, depth).map(|node| node.value) {
            Some(ResolvedValue::Text(text)) => Ok(text),
            Some(ResolvedValue::Unresolved(reason)) => Err(reason),
            _ => Err(format!("{}: expected a string", self.file_and_line(scope, node.line))),
        }
    }

    fn list(&self, scope: usize, node: &'a TemplateNode, depth: usize) -> Result<Vec<ResolvedNode>, String> {
        match self.value(scope, node, depth).map(|node| node.value) {
            Some(ResolvedValue::List(items)) => Ok(items),
            Some(ResolvedValue::Unresolved(reason)) => Err(reason),
            _ => Err(format!("{}: expected a list", self.file_and_line(scope, node.line))),
        }
    }

    fn call(
        &self,
        scope: usize,
        function: &str,
        argument: &'a TemplateNode,
        line: usize,
        depth: usize,
    ) -> Option<ResolvedValue> {
        if depth > MAX_REFERENCE_DEPTH {
            let reason = self.value_cycle(scope, line);
            return Some(ResolvedValue::Unresolved(reason));
        }
        let depth = depth + 1;
        let result = match function {
            "Ref" => match argument.text() {
                Some("AWS::NoValue") => return None,
                Some(name) => Ok(self.reference(scope, name, depth)),
                None => Err(format!("{}: Ref expects a name", self.file_and_line(scope, line))),
            },
            "GetAtt" => match attribute_of(argument) {
                Some((name, attribute)) => Ok(self.attribute(scope, name, &attribute, depth)),
                None => Err(format!("{}: GetAtt expects a resource and an attribute", self.file_and_line(scope, line))),
            },
            "If" => match argument.items() {
                [condition, yes, no] => match self.condition(scope, condition, depth) {
                    ConditionValue::True => return self.value(scope, yes, depth).map(|node| node.value),
                    ConditionValue::False => return self.value(scope, no, depth).map(|node| node.value),
                    ConditionValue::Unknown(reason) => {
                        let (yes, no) = (self.value(scope, yes, depth), self.value(scope, no, depth));
                        let (yes, no) = (yes.map(|node| node.value), no.map(|node| node.value));
                        if yes == no {
                            return yes;
                        }
                        Err(reason)
                    }
                },
                _ => Err(format!("{}: If expects a condition and two values", self.file_and_line(scope, line))),
            },
            "Sub" => self.substitute(scope, argument, depth).map(ResolvedValue::Text),
            "Join" => self.join(scope, argument, depth).map(ResolvedValue::Text),
            "Split" => match argument.items() {
                [separator, whole] => self.text(scope, separator, depth).and_then(|separator| {
                    let whole = self.text(scope, whole, depth)?;
                    if separator.is_empty() {
                        return Err(format!("{}: Split expects a separator", self.file_and_line(scope, line)));
                    }
                    let part = |part: &str| ResolvedNode::from_text(line, part);
                    Ok(ResolvedValue::List(whole.split(&separator).map(part).collect()))
                }),
                _ => Err(format!("{}: Split expects a separator and a string", self.file_and_line(scope, line))),
            },
            "Select" => match argument.items() {
                [index, list] => self.text(scope, index, depth).and_then(|index| {
                    let mut list = self.list(scope, list, depth)?;
                    match index.parse::<usize>() {
                        Ok(index) if index < list.len() => Ok(list.swap_remove(index).value),
                        _ => Err(format!("{}: Select: there is no element {index}", self.file_and_line(scope, line))),
                    }
                }),
                _ => Err(format!("{}: Select expects an index and a list", self.file_and_line(scope, line))),
            },
            "FindInMap" => self.find_in_map(scope, argument, line, depth),
            "ImportValue" => Err(format!("{}: imported from another stack", self.file_and_line(scope, line))),
            other => Err(format!("{}: {other} is not resolved", self.file_and_line(scope, line))),
        };
        Some(result.unwrap_or_else(ResolvedValue::Unresolved))
    }

    fn join(&self, scope: usize, argument: &'a TemplateNode, depth: usize) -> Result<String, String> {
        let [separator, list] = argument.items() else {
            return Err(format!("{}: Join expects a separator and a list", self.file_and_line(scope, argument.line)));
        };
        let separator = self.text(scope, separator, depth)?;
        let mut text = String::new();
        for (index, item) in self.list(scope, list, depth)?.into_iter().enumerate() {
            match item.value {
                ResolvedValue::Text(part) => {
                    text.push_str(if index == 0 { "" } else { &separator });
                    text.push_str(&part);
                }
                ResolvedValue::Unresolved(reason) => return Err(reason),
                _ => return Err(format!("{}: Join expects strings", self.file_and_line(scope, argument.line))),
            }
            check_length(&text)?;
        }
        Ok(text)
    }

    fn find_in_map(
        &self,
        scope: usize,
        argument: &'a TemplateNode,
        line: usize,
        depth: usize,
    ) -> Result<ResolvedValue, String> {
        let [map, first, second, ..] = argument.items() else {
            return Err(format!("{}: FindInMap expects a mapping and two keys", self.file_and_line(scope, line)));
        };
        let (map, first) = (self.text(scope, map, depth)?, self.text(scope, first, depth)?);
        let second = self.text(scope, second, depth)?;
        let found =
            self.section(scope, "Mappings", &map).and_then(|map| map.get(&first)).and_then(|keys| keys.get(&second));
        let found = found.and_then(|node| self.value(scope, node, depth)).map(|node| node.value);
        found.ok_or_else(|| {
            format!("{}: Mappings.{map} has no {first}.{second} before the deployment", self.file_and_line(scope, line))
        })
    }

    fn substitute(&self, scope: usize, argument: &'a TemplateNode, depth: usize) -> Result<String, String> {
        let (pattern, own) = match (&argument.value, argument.items()) {
            (NodeValue::Text(pattern), _) => (pattern.as_str(), &[][..]),
            (_, [pattern, own]) => (pattern.text().unwrap_or_default(), own.entries()),
            _ => return Err(format!("{}: Sub expects a string", self.file_and_line(scope, argument.line))),
        };
        let mut text = String::new();
        let mut rest = pattern;
        while let Some(start) = rest.find("${") {
            text.push_str(&rest[..start]);
            let Some(end) = rest[start..].find('}') else {
                return Err(format!("{}: Sub: ${{ without }}", self.file_and_line(scope, argument.line)));
            };
            let name = rest[start + 2..start + end].trim();
            rest = &rest[start + end + 1..];
            if let Some(literal) = name.strip_prefix('!') {
                text.push_str("${");
                text.push_str(literal);
                text.push('}');
                continue;
            }
            let value = if let Some((_, node)) = own.iter().find(|(key, _)| key == name) {
                self.value(scope, node, depth).map(|node| node.value)
            } else if let Some((resource, attribute)) = name.split_once('.') {
                Some(self.attribute(scope, resource, attribute, depth))
            } else {
                Some(self.reference(scope, name, depth))
            };
            match value {
                Some(ResolvedValue::Text(value)) => text.push_str(&value),
                Some(ResolvedValue::Unresolved(reason)) => return Err(reason),
                None => {}
                Some(_) => {
                    return Err(format!("{}: Sub: {name} is not a string", self.file_and_line(scope, argument.line)));
                }
            }
            check_length(&text)?;
        }
        text.push_str(rest);
        Ok(text)
    }

    fn reference(&self, scope: usize, name: &str, depth: usize) -> ResolvedValue {
        let text = |text: &str| ResolvedValue::Text(text.to_owned());
        match name {
            "AWS::Partition" => return text("aws"),
            "AWS::URLSuffix" => return text("amazonaws.com"),
            _ => {}
        }
        if let Some(pseudo) = name.strip_prefix("AWS::") {
            return ResolvedValue::Text(format!("${{AWS.{pseudo}}}"));
        }
        if let Some(parameter) = self.section(scope, "Parameters", name) {
            return self.parameter(scope, name, parameter, depth);
        }
        let path = &self.scopes[scope].path;
        let resource = self.section(scope, "Resources", name);
        let kind = resource.and_then(|resource| resource.get("Type")).and_then(TemplateNode::text);
        match kind {
            Some("AWS::SNS::Topic") => self.attribute(scope, name, "Arn", depth),
            Some("AWS::DynamoDB::Table" | "AWS::DynamoDB::GlobalTable") => {
                self.physical(scope, name, "TableName", depth)
            }
            Some("AWS::Serverless::SimpleTable") => self.physical(scope, name, "TableName", depth),
            Some("AWS::S3::Bucket") => self.physical(scope, name, "BucketName", depth),
            // Its URL, which ends with the name.
            Some("AWS::SQS::Queue") => self.physical(scope, name, "QueueName", depth),
            Some("AWS::Serverless::Function" | "AWS::Lambda::Function") => {
                self.physical(scope, name, "FunctionName", depth)
            }
            // A resource, or one that the SAM transform generates.
            _ => ResolvedValue::Text(format!("${{{path}{name}}}")),
        }
    }

    /// Returns the name that a template gives a resource, or a token for the one that the deployment gives.
    fn physical(&self, scope: usize, name: &str, property: &str, depth: usize) -> ResolvedValue {
        let resource = self.section(scope, "Resources", name);
        let given = resource.and_then(|resource| resource.get("Properties")).and_then(|node| node.get(property));
        let given = given.filter(|_| depth <= MAX_REFERENCE_DEPTH).and_then(|node| self.value(scope, node, depth + 1));
        match given.map(|node| node.value) {
            Some(ResolvedValue::Text(text)) if !text.contains(':') && !text.contains('/') => ResolvedValue::Text(text),
            _ => ResolvedValue::Text(format!("${{{}{name}}}", self.scopes[scope].path)),
        }
    }

    fn parameter(&self, scope: usize, name: &str, parameter: &'a TemplateNode, depth: usize) -> ResolvedValue {
        let line = parameter.line;
        let kind = parameter.get("Type").and_then(TemplateNode::text).unwrap_or_default();
        if let Some((parent, application)) = self.scopes[scope].parent {
            let given = application.get("Properties").and_then(|properties| properties.get("Parameters"));
            if let Some(given) = given.and_then(|given| given.get(name)) {
                if depth > MAX_REFERENCE_DEPTH {
                    return ResolvedValue::Unresolved(self.value_cycle(parent, given.line));
                }
                if let Some(value) = self.value(parent, given, depth + 1) {
                    return split_list(kind, value.value, line);
                }
            }
        } else if let Some(given) = self.parameters.get(name) {
            return split_list(kind, ResolvedValue::Text(given.clone()), line);
        }
        if kind.starts_with("AWS::SSM::Parameter::Value") {
            return ResolvedValue::Unresolved(format!("parameter {name} is read from Systems Manager"));
        }
        match parameter.get("Default").and_then(TemplateNode::text) {
            Some(default) => split_list(kind, ResolvedValue::Text(default.to_owned()), line),
            None => ResolvedValue::Unresolved(format!("parameter {name} has no default: set --parameter {name}=VALUE")),
        }
    }

    fn attribute(&self, scope: usize, name: &str, attribute: &str, depth: usize) -> ResolvedValue {
        let path = &self.scopes[scope].path;
        let resource = self.section(scope, "Resources", name);
        if let Some(output) = attribute.strip_prefix("Outputs.") {
            return self.output(scope, name, output, depth);
        }
        let kind = resource.and_then(|resource| resource.get("Type")).and_then(TemplateNode::text).unwrap_or_default();
        let named = |property: &str| match self.physical(scope, name, property, depth) {
            ResolvedValue::Text(text) => text,
            _ => String::new(),
        };
        let here = "${AWS.Region}:${AWS.AccountId}";
        let text = match (kind, attribute) {
            ("AWS::DynamoDB::Table" | "AWS::DynamoDB::GlobalTable" | "AWS::Serverless::SimpleTable", "Arn") => {
                format!("arn:aws:dynamodb:{here}:table/{}", named("TableName"))
            }
            ("AWS::DynamoDB::Table" | "AWS::DynamoDB::GlobalTable", "StreamArn") => {
                format!("arn:aws:dynamodb:{here}:table/{}/stream/${{{path}{name}.StreamLabel}}", named("TableName"))
            }
            ("AWS::S3::Bucket", "Arn") => format!("arn:aws:s3:::{}", named("BucketName")),
            ("AWS::SQS::Queue", "QueueName") => named("QueueName"),
            ("AWS::SNS::Topic", "TopicName") => named("TopicName"),
            ("AWS::SQS::Queue", "Arn") => format!("arn:aws:sqs:{here}:{}", named("QueueName")),
            ("AWS::SNS::Topic", "Arn" | "TopicArn") => format!("arn:aws:sns:{here}:{}", named("TopicName")),
            // The value of Ref, too.
            ("AWS::EC2::SecurityGroup", "GroupId") => format!("${{{path}{name}}}"),
            ("AWS::KMS::Key", "Arn") => format!("arn:aws:kms:{here}:key/${{{path}{name}}}"),
            ("AWS::IAM::Role", "Arn") => format!("arn:aws:iam::${{AWS.AccountId}}:role/{}", named("RoleName")),
            ("AWS::Serverless::Function" | "AWS::Lambda::Function", "Arn") => {
                format!("arn:aws:lambda:{here}:function:{}", named("FunctionName"))
            }
            _ => format!("${{{path}{name}.{attribute}}}"),
        };
        ResolvedValue::Text(text)
    }

    fn output(&self, scope: usize, name: &str, output: &str, depth: usize) -> ResolvedValue {
        let unread = || ResolvedValue::Unresolved(format!("output {output} of {name}, whose template is not read"));
        let Some(&nested) = self.scopes[scope].nested.get(name) else { return unread() };
        let Some(node) = self.section(nested, "Outputs", output).and_then(|output| output.get("Value")) else {
            return unread();
        };
        if depth > MAX_REFERENCE_DEPTH {
            return ResolvedValue::Unresolved(self.value_cycle(nested, node.line));
        }
        self.value(nested, node, depth + 1).map_or_else(unread, |node| node.value)
    }

    fn condition(&self, scope: usize, node: &'a TemplateNode, depth: usize) -> ConditionValue {
        if depth > MAX_REFERENCE_DEPTH {
            return ConditionValue::Unknown(self.problem(scope, node.line, "a condition depends on itself"));
        }
        let depth = depth + 1;
        let invalid = |problem: String| ConditionValue::Unknown(self.problem(scope, node.line, &problem));
        match &node.value {
            NodeValue::Text(name) => self.named_condition(scope, name, node, depth),
            NodeValue::Map(entries) => match entries.as_slice() {
                [(key, name)] if key == "Condition" => self.condition(scope, name, depth),
                _ => invalid("expected a condition, found a mapping".to_owned()),
            },
            NodeValue::Call(function, argument) => match (function.as_str(), argument.items()) {
                ("Condition", _) => self.condition(scope, argument, depth),
                ("Equals", [left, right]) => {
                    let value = |side| self.value(scope, side, depth).map(|node| node.value);
                    equal(value(left), value(right), &self.file_and_line(scope, node.line))
                }
                ("Not", [one]) => self.condition(scope, one, depth).not(),
                ("And", many) => self.all(scope, many, depth),
                // By De Morgan's laws.
                ("Or", many) => self.none(scope, many, depth).not(),
                _ => invalid(format!("{function} is not a condition: expected Equals, Not, And, Or or Condition")),
            },
            _ => invalid("expected a condition".to_owned()),
        }
    }

    fn named_condition(&self, scope: usize, name: &str, at: &'a TemplateNode, depth: usize) -> ConditionValue {
        let Some((name, node)) = self.scopes[scope].entry("Conditions", name) else {
            let problem = format!("condition {name} is not defined");
            return ConditionValue::Unknown(self.problem(scope, at.line, &problem));
        };
        let key = (scope, name);
        if let Some(known) = self.conditions.borrow().get(&key) {
            return known.clone();
        }
        // Found again while it is evaluated, the condition refers to itself.
        let cycle = format!("condition {name} depends on itself");
        self.conditions.borrow_mut().insert(key, ConditionValue::Unknown(cycle.clone()));
        let value = self.condition(scope, node, depth);
        if matches!(&value, ConditionValue::Unknown(reason) if *reason == cycle) {
            self.problem(scope, node.line, &cycle);
        }
        self.conditions.borrow_mut().insert(key, value.clone());
        value
    }

    fn all(&self, scope: usize, many: &'a [TemplateNode], depth: usize) -> ConditionValue {
        let mut result = ConditionValue::True;
        for condition in many {
            match self.condition(scope, condition, depth) {
                ConditionValue::True => {}
                ConditionValue::False => return ConditionValue::False,
                unknown @ ConditionValue::Unknown(_) => result = unknown,
            }
        }
        result
    }

    fn none(&self, scope: usize, many: &'a [TemplateNode], depth: usize) -> ConditionValue {
        let mut result = ConditionValue::True;
        for condition in many {
            match self.condition(scope, condition, depth) {
                ConditionValue::False => {}
                ConditionValue::True => return ConditionValue::False,
                unknown @ ConditionValue::Unknown(_) => result = unknown,
            }
        }
        result
    }
}

/// Compares the sides of `Equals`. Texts with different tokens may be equal after the deployment.
fn equal(left: Option<ResolvedValue>, right: Option<ResolvedValue>, location: &str) -> ConditionValue {
    match (left, right) {
        (Some(ResolvedValue::Unresolved(reason)), _) | (_, Some(ResolvedValue::Unresolved(reason))) => {
            ConditionValue::Unknown(reason)
        }
        (left, right) if left == right => ConditionValue::True,
        (Some(ResolvedValue::Text(left)), Some(ResolvedValue::Text(right)))
            if left.contains("${AWS.") || right.contains("${AWS.") =>
        {
            ConditionValue::Unknown(format!("{location}: known only after the deployment"))
        }
        _ => ConditionValue::False,
    }
}

fn split_list(kind: &str, value: ResolvedValue, line: usize) -> ResolvedValue {
    match value {
        ResolvedValue::Text(text) if kind == "CommaDelimitedList" || kind.starts_with("List<") => {
            ResolvedValue::List(text.split(',').map(|part| ResolvedNode::from_text(line, part.trim())).collect())
        }
        value => value,
    }
}

fn check_length(text: &str) -> Result<(), String> {
    if text.len() > MAX_TEXT_LENGTH { Err(format!("longer than {MAX_TEXT_LENGTH} bytes")) } else { Ok(()) }
}

/// Parses the argument of `GetAtt`, `A.B` or `[A, B]`.
fn attribute_of(argument: &TemplateNode) -> Option<(&str, String)> {
    match (argument.text(), argument.items()) {
        (Some(text), _) => text.split_once('.').map(|(name, attribute)| (name, attribute.to_owned())),
        (None, [name, attribute]) => Some((name.text()?, attribute.text()?.to_owned())),
        _ => None,
    }
}
