//! The intrinsic functions of `CloudFormation`, as far as the parts that `local` reads may use them.
//!
//! Parameters have their defaults, since nobody deploys here, unless this machine chooses; a resource is its local name,
//! an output of a nested stack what this machine has in its place. `Ref`, `GetAtt` of `Arn`
//! and `StreamArn`, `Sub`, `Join` and `If` are resolved, conditions by `Equals`, `Not`, `And`, `Or` and `Condition`.
//! Every other function is refused by name: a guess would run something else than what deploys.

use std::collections::BTreeMap;

use super::node::{Node, Value};
use super::{Choices, Fault, names};
use crate::clients;
use crate::lambda::function_arn;

/// The account and region that the DynamoDB engine writes into its ARNs.
const ENGINE: &str = "arn:aws:dynamodb:dynoxide:000000000000";
/// A condition that needs more steps than this to decide names itself.
const DEEPEST_CONDITION: usize = 50;

/// What names in a template stand for.
pub(super) struct Scope<'a> {
    choices: &'a Choices,
    parameters: BTreeMap<&'a str, &'a Node>,
    conditions: BTreeMap<&'a str, &'a Node>,
    resources: BTreeMap<&'a str, &'a Node>,
}

impl<'a> Scope<'a> {
    /// # Errors
    /// A parameter is chosen that the template does not have.
    pub(super) fn of(template: &'a Node, choices: &'a Choices) -> Result<Self, Fault> {
        let section = |name: &str| -> BTreeMap<&'a str, &'a Node> {
            let section = template.get(name).map_or(&[][..], Node::entries);
            section.iter().map(|(name, node)| (name.as_str(), node)).collect()
        };
        let parameters = section("Parameters");
        if let Some(chosen) = choices.parameters.keys().find(|chosen| !parameters.contains_key(chosen.as_str())) {
            return Err(
                template.fault(format!("Parameters.{chosen}: wants to be there, for an option chooses its value"))
            );
        }
        Ok(Self { choices, parameters, conditions: section("Conditions"), resources: section("Resources") })
    }

    /// Whether a resource is made: it has no condition, or one that holds.
    pub(super) fn is_made(&self, resource: &Node) -> Result<bool, Fault> {
        resource.get("Condition").map_or(Ok(true), |name| self.condition(name, 0))
    }

    /// The node without functions; none if it is `AWS::NoValue`. `path` says where, for a fault.
    pub(super) fn resolve(&self, node: &Node, path: &str) -> Result<Option<Node>, Fault> {
        let value = match &node.value {
            Value::Call(function, argument) => return self.call(function, argument, path),
            Value::List(items) => Value::List(self.resolve_list(items, path)?),
            Value::Map(entries) => {
                let mut resolved = Vec::with_capacity(entries.len());
                for (name, entry) in entries {
                    if let Some(entry) = self.resolve(entry, &format!("{path}.{name}"))? {
                        resolved.push((name.clone(), entry));
                    }
                }
                Value::Map(resolved)
            }
            plain => plain.clone(),
        };
        Ok(Some(Node { line: node.line, value }))
    }

    fn resolve_list(&self, items: &[Node], path: &str) -> Result<Vec<Node>, Fault> {
        let resolved =
            items.iter().enumerate().map(|(at, item)| self.resolve(item, &format!("{path}[{at}]")).transpose());
        resolved.flatten().collect()
    }

    fn call(&self, function: &str, argument: &Node, path: &str) -> Result<Option<Node>, Fault> {
        let text = |text: String| Ok(Some(Node { line: argument.line, value: Value::Text(text) }));
        match (function, &argument.value) {
            ("Ref", Value::Text(name)) if name == "AWS::NoValue" => Ok(None),
            ("Ref", Value::Text(name)) => text(self.reference(name, argument, path)?),
            ("GetAtt", _) => {
                let (name, attribute) = attribute(argument, path)?;
                let value = self.attribute(&name, &attribute, argument, path)?;
                Ok(Some(Node { line: argument.line, value }))
            }
            ("Sub", Value::Text(pattern)) => text(self.substitute(pattern, &[], argument, path)?),
            ("Sub", Value::List(items)) if items.len() == 2 => match items[0].text() {
                Some(pattern) => text(self.substitute(pattern, items[1].entries(), argument, path)?),
                None => Err(shape(argument, path, "Sub", "a text, or a text and a mapping")),
            },
            ("Join", Value::List(items)) if items.len() == 2 => {
                let wanted = || shape(argument, path, "Join", "a separator and a list");
                let separator = items[0].text().ok_or_else(wanted)?;
                let Value::List(parts) = &items[1].value else { return Err(wanted()) };
                let parts = self.resolve_list(parts, path)?;
                let parts: Option<Vec<&str>> = parts.iter().map(Node::text).collect();
                text(parts.ok_or_else(wanted)?.join(separator))
            }
            ("If", Value::List(items)) if items.len() == 3 => {
                let chosen = if self.condition(&items[0], 0)? { &items[1] } else { &items[2] };
                self.resolve(chosen, path)
            }
            ("Ref" | "Sub" | "Join" | "If", _) => Err(shape(argument, path, function, "its documented argument")),
            _ => Err(argument.fault(format!(
                "{path}: local does not resolve {function}: use Ref, GetAtt Arn or StreamArn, Sub, Join or If here"
            ))),
        }
    }

    fn reference(&self, name: &str, at: &Node, path: &str) -> Result<String, Fault> {
        let pseudo = match name {
            "AWS::AccountId" => Some("000000000000"),
            "AWS::Partition" => Some("aws"),
            "AWS::Region" => Some(clients::REGION),
            "AWS::StackName" => Some(clients::STACK_NAME),
            "AWS::URLSuffix" => Some("amazonaws.com"),
            _ => None,
        };
        if let Some(pseudo) = pseudo {
            return Ok(pseudo.to_owned());
        }
        if let Some(chosen) = self.choices.parameters.get(name) {
            return Ok(chosen.clone());
        }
        if let Some(parameter) = self.parameters.get(name) {
            let default = parameter.get("Default").and_then(Node::text);
            let missing =
                || at.fault(format!("{path}: parameter {name} has no default: give it one, local asks nobody"));
            return default.map(str::to_owned).ok_or_else(missing);
        }
        match self.kind(name, at, path)? {
            ("AWS::DynamoDB::Table", _) => Ok(names::table(name)),
            ("AWS::S3::Bucket", _) => Ok(names::bucket(name)),
            // Nothing is looked up in it here: `stack` has its own in place of whatever a secret would give, and of the
            // API's parts `resources` reads what their names lead to.
            ("AWS::SecretsManager::Secret" | "AWS::ApiGatewayV2::Authorizer" | "AWS::ApiGatewayV2::Integration", _) => {
                Ok(name.to_owned())
            }
            ("AWS::Serverless::Function", resource) => binary(name, resource, at, path),
            (kind, _) => Err(at.fault(format!("{path}: local has no {kind}, so {name} has no value here"))),
        }
    }

    fn attribute(&self, name: &str, attribute: &str, at: &Node, path: &str) -> Result<Value, Fault> {
        let (kind, resource) = self.kind(name, at, path)?;
        match (kind, attribute) {
            ("AWS::Serverless::Function", "Arn") => {
                binary(name, resource, at, path).map(|binary| Value::Text(function_arn(&binary)))
            }
            ("AWS::DynamoDB::Table", "Arn") => Ok(Value::Text(format!("{ENGINE}:table/{}", names::table(name)))),
            ("AWS::DynamoDB::Table", "StreamArn") => Ok(Value::Stream(names::table(name))),
            ("AWS::S3::Bucket", "Arn") => Ok(Value::Text(format!("arn:aws:s3:::{}", names::bucket(name)))),
            ("AWS::CloudFormation::Stack", output) => {
                let known = self.choices.outputs.get(&format!("{name}.{output}")).cloned();
                let unknown = || at.fault(format!("{path}: local has nothing in place of {name}.{output}"));
                known.map(Value::Text).ok_or_else(unknown)
            }
            (kind, _) => Err(at
                .fault(format!("{path}: local knows no {attribute} of {name}, which is {kind}: use Arn or StreamArn"))),
        }
    }

    fn kind(&self, name: &str, at: &Node, path: &str) -> Result<(&'a str, &'a Node), Fault> {
        let unknown = || at.fault(format!("{path}: {name} is no parameter and no resource of this template"));
        let resource = self.resources.get(name).ok_or_else(unknown)?;
        let kind = resource.get("Type").and_then(Node::text).ok_or_else(unknown)?;
        if self.is_made(resource)? {
            Ok((kind, resource))
        } else {
            Err(at.fault(format!("{path}: {name} is not made, since its condition does not hold")))
        }
    }

    fn substitute(&self, pattern: &str, own: &[(String, Node)], at: &Node, path: &str) -> Result<String, Fault> {
        let mut text = String::with_capacity(pattern.len());
        let mut rest = pattern;
        while let Some(start) = rest.find("${") {
            text.push_str(&rest[..start]);
            let inner = &rest[start + 2..];
            let open = || at.fault(format!("{path}: a ${{ without its }} in {pattern:?}"));
            let end = inner.find('}').ok_or_else(open)?;
            let (name, after) = (inner[..end].trim(), &inner[end + 1..]);
            if let Some(literal) = name.strip_prefix('!') {
                text.push_str("${");
                text.push_str(literal);
                text.push('}');
            } else {
                text.push_str(&self.variable(name, own, at, path)?);
            }
            rest = after;
        }
        text.push_str(rest);
        Ok(text)
    }

    fn variable(&self, name: &str, own: &[(String, Node)], at: &Node, path: &str) -> Result<String, Fault> {
        let plain = |value: &Value| match value {
            Value::Text(text) => Ok(text.clone()),
            _ => Err(at.fault(format!("{path}: ${{{name}}} is not text here"))),
        };
        if let Some((_, node)) = own.iter().find(|(key, _)| key == name) {
            return self.resolve(node, path)?.map_or_else(|| Ok(String::new()), |node| plain(&node.value));
        }
        match name.split_once('.') {
            Some((resource, attribute)) => plain(&self.attribute(resource, attribute, at, path)?),
            None => self.reference(name, at, path),
        }
    }

    fn condition(&self, node: &Node, depth: usize) -> Result<bool, Fault> {
        if depth > DEEPEST_CONDITION {
            return Err(node.fault("Conditions: a condition that depends on itself"));
        }
        let many = |argument: &Node, function: &str| match &argument.value {
            Value::List(items) if !items.is_empty() => {
                items.iter().map(|item| self.condition(item, depth + 1)).collect::<Result<Vec<bool>, Fault>>()
            }
            _ => Err(shape(argument, "Conditions", function, "a list of conditions")),
        };
        match &node.value {
            Value::Text(name) => {
                let unknown = || node.fault(format!("Conditions: {name} is not a condition of this template"));
                self.condition(self.conditions.get(name.as_str()).ok_or_else(unknown)?, depth + 1)
            }
            Value::Map(entries) => match entries.as_slice() {
                [(key, name)] if key == "Condition" => self.condition(name, depth + 1),
                _ => Err(node.fault("Conditions: a mapping that is no condition")),
            },
            Value::Call(function, argument) => match (function.as_str(), &argument.value) {
                ("Condition", _) => self.condition(argument, depth + 1),
                ("Equals", Value::List(sides)) if sides.len() == 2 => {
                    let side = |side: &Node| self.resolve(side, "Conditions").map(|side| side.map(|side| side.value));
                    Ok(side(&sides[0])? == side(&sides[1])?)
                }
                ("Not", _) => match many(argument, "Not")?.as_slice() {
                    [one] => Ok(!one),
                    _ => Err(shape(argument, "Conditions", "Not", "one condition")),
                },
                ("And", _) => Ok(many(argument, "And")?.into_iter().all(|holds| holds)),
                ("Or", _) => Ok(many(argument, "Or")?.into_iter().any(|holds| holds)),
                _ => Err(node.fault(format!(
                    "Conditions: local does not decide {function}: use Equals, Not, And, Or or Condition"
                ))),
            },
            _ => Err(node.fault("Conditions: not a condition")),
        }
    }
}

/// The local name of a function.
fn binary(name: &str, resource: &Node, at: &Node, path: &str) -> Result<String, Fault> {
    let binary = resource.get("Metadata").and_then(|metadata| metadata.get("BuildProperties"));
    let binary = binary.and_then(|properties| properties.get("Binary")).and_then(Node::text);
    binary.map(str::to_owned).ok_or_else(|| at.fault(format!("{path}: function {name} names no Binary")))
}

/// `A.B`, or `[A, B]`.
fn attribute(argument: &Node, path: &str) -> Result<(String, String), Fault> {
    let pair = match &argument.value {
        Value::Text(text) => text.split_once('.'),
        Value::List(items) => match items.as_slice() {
            [name, attribute] => name.text().zip(attribute.text()),
            _ => None,
        },
        _ => None,
    };
    let (name, attribute) = pair.ok_or_else(|| shape(argument, path, "GetAtt", "a resource and an attribute"))?;
    Ok((name.to_owned(), attribute.to_owned()))
}

fn shape(argument: &Node, path: &str, function: &str, wanted: &str) -> Fault {
    argument.fault(format!("{path}: {function} takes {wanted}"))
}
