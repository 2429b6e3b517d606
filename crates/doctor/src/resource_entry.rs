//! A resource with resolved properties, in the form of `CloudFormation`: [`ResourceEntry`], which every reader produces
//! and [`crate::deployment_builder`] interprets.

use serde_json::{Value, json};

use crate::deployment::SourceLocation;
use crate::setting::SettingValue;
use crate::template_node::TemplateNode;
use crate::template_scope::{ResolvedNode, ResolvedValue};

/// The member of a JSON value that marks one that is not resolved.
const UNRESOLVED: &str = "millrace:unresolved";

/// The `OpenAPI` document of an API that is not one of its properties.
#[derive(Debug, Clone)]
pub struct ApiDocument {
    /// Its file, if it is one of its own.
    pub file: Option<String>,
    /// Its content.
    pub node: ResolvedNode,
}

/// A resource of a deployment.
#[derive(Debug, Clone)]
pub struct ResourceEntry {
    /// Where it is defined.
    pub location: SourceLocation,
    /// The type of `CloudFormation`, such as `AWS::DynamoDB::Table`.
    pub kind: String,
    /// The value of `Ref`, mostly its name.
    pub name: String,
    /// The ARN.
    pub arn: String,
    /// The properties.
    pub properties: ResolvedNode,
    /// The member `millrace` of its metadata.
    pub metadata: Option<ResolvedNode>,
    /// Whether it stays when the deployment no longer contains it.
    pub retained: SettingValue<bool>,
    /// Whether the property that names the stream spells out an ARN.
    pub literal_streams: Vec<String>,
    /// Whether the code of the function names `batchItemFailures`.
    pub reports_failures: SettingValue<bool>,
    /// The document of an API outside of its properties; unresolved if there is one that is not read.
    pub api_document: SettingValue<ApiDocument>,
}

/// Access to the properties of a resource as settings.
pub trait PropertyNode {
    /// Returns the node at a path of names.
    fn at(&self, path: &[&str]) -> SettingValue<&ResolvedNode>;

    /// Returns the text at a path.
    fn text_at(&self, path: &[&str]) -> SettingValue<String> {
        self.at(path).and_then(|node| match &node.value {
            // A dynamic reference is resolved by the deployment.
            ResolvedValue::Text(text) if text.contains("{{resolve:") => {
                SettingValue::Unresolved(format!("line {}: a dynamic reference", node.line))
            }
            ResolvedValue::Text(text) => SettingValue::Known(text.clone()),
            ResolvedValue::Unresolved(reason) => SettingValue::Unresolved(reason.clone()),
            _ => SettingValue::Unresolved(format!("line {}: expected a string", node.line)),
        })
    }

    /// Returns the integer at a path.
    fn number_at(&self, path: &[&str]) -> SettingValue<i64> {
        self.text_at(path).and_then(|text| match text.trim().parse() {
            Ok(number) => SettingValue::Known(number),
            Err(_) => SettingValue::Unresolved(format!("{} is {text:?}, not an integer", path.join("."))),
        })
    }

    /// Returns the truth value at a path.
    fn boolean_at(&self, path: &[&str]) -> SettingValue<bool> {
        self.text_at(path).and_then(|text| match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => SettingValue::Known(true),
            "false" | "no" | "off" => SettingValue::Known(false),
            _ => SettingValue::Unresolved(format!("{} is {text:?}, not true or false", path.join("."))),
        })
    }

    /// Returns the texts of the list at a path.
    fn texts_at(&self, path: &[&str]) -> SettingValue<Vec<String>> {
        self.at(path).and_then(|node| {
            let mut texts = Vec::new();
            for item in node.one_or_many() {
                match &item.value {
                    ResolvedValue::Text(text) => texts.push(text.clone()),
                    ResolvedValue::Unresolved(reason) => return SettingValue::Unresolved(reason.clone()),
                    _ => return SettingValue::Unresolved(format!("line {}: expected a string", item.line)),
                }
            }
            SettingValue::Known(texts)
        })
    }

    /// Returns the nodes of the list at a path.
    fn nodes_at(&self, path: &[&str]) -> SettingValue<Vec<&ResolvedNode>> {
        self.at(path).and_then(|node| match &node.value {
            ResolvedValue::Unresolved(reason) => SettingValue::Unresolved(reason.clone()),
            _ => SettingValue::Known(node.one_or_many()),
        })
    }
}

impl PropertyNode for ResolvedNode {
    fn at(&self, path: &[&str]) -> SettingValue<&ResolvedNode> {
        let mut node = self;
        for name in path {
            if let Some(reason) = node.unresolved() {
                return SettingValue::Unresolved(reason.to_owned());
            }
            match node.get(name) {
                Some(child) => node = child,
                None => return SettingValue::Absent,
            }
        }
        match node.unresolved() {
            Some(reason) => SettingValue::Unresolved(reason.to_owned()),
            None => SettingValue::Known(node),
        }
    }
}

/// Returns a JSON value that [`resolved_json`] converts to one that is not resolved, for this reason.
#[must_use]
pub fn unresolved(reason: &str) -> Value {
    json!({UNRESOLVED: reason})
}

/// Converts properties in JSON, in which a value of [`unresolved`] is not resolved.
#[must_use]
pub fn resolved_json(properties: &Value) -> ResolvedNode {
    let mut resolved = ResolvedNode::from_node(&TemplateNode::from_json(properties));
    mark_unresolved(&mut resolved);
    resolved
}

fn mark_unresolved(node: &mut ResolvedNode) {
    if let Some(reason) = node.get(UNRESOLVED).and_then(ResolvedNode::text) {
        node.value = ResolvedValue::Unresolved(reason.to_owned());
    }
    match &mut node.value {
        ResolvedValue::List(items) => items.iter_mut().for_each(mark_unresolved),
        ResolvedValue::Map(entries) => entries.iter_mut().for_each(|(_, node)| mark_unresolved(node)),
        _ => {}
    }
}
