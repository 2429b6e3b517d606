//! Resolves the intrinsic functions of `CloudFormation` that may occur in the parts of the template that `millrace` reads.
//!
//! A parameter has its default value, since nothing is deployed, unless this machine overrides it; a parameter of a
//! nested application has the value that its resource gives it. A resource resolves to its local name, an output of a
//! nested application to its value, and an output of a nested stack to the override for it. `Ref`, `GetAtt` of `Arn` and
//! `StreamArn`, `Sub`, `Join`, `Split`, `Select` and `If` are resolved, and conditions with `Equals`, `Not`, `And`, `Or`
//! and `Condition`. Any other function is an error that names it, because with a guessed value the stack could differ
//! from the deployed one.

use std::collections::BTreeMap;

use fancy_regex::Regex;

use super::document::{APPLICATION, TemplateDocument};
use super::names::LocalNames;
use super::node::{NodeValue, TemplateNode};
use super::source_table::key_parameters;
use super::{ParameterOverrides, PropertyError, TableResource};
use crate::clients;
use crate::dynamodb::table_arn;
use crate::lambda::function_arn;

/// The fix of an option for something that the template does not have.
const NO_SUCH: &str = "omit the option, or choose another template with --template";
/// The parameters of the tiers.
const TIERS: [&str; 2] = ["RelationalTier", "CacheTier"];
/// The parameter with the roles of the replicas of a document.
const ROLES: &str = "ReplicaRoleArns";
/// The maximum depth of a condition; a deeper one refers to itself.
const MAX_CONDITION_DEPTH: usize = 50;

/// The value of a parameter that a nested application is given; an error is returned only when the value is used, since
/// this machine does not have everything that a deployment has.
type GivenValue = Result<NodeValue, PropertyError>;

/// Checks a value of a parameter as a deployment does: with one that `CloudFormation` rejects, the stack here would differ
/// from every deployed one.
fn check_value(name: &str, parameter: &TemplateNode, value: &str) -> Result<(), PropertyError> {
    let fault = |expected: String| Err(parameter.fault(format!("Parameters.{name}: {value:?}: expected {expected}")));
    if let Some(NodeValue::List(allowed)) = parameter.get("AllowedValues").map(|node| &node.value) {
        let allowed: Vec<&str> = allowed.iter().filter_map(TemplateNode::text).collect();
        if !allowed.contains(&value) {
            return fault(allowed.join(", "));
        }
    }
    if parameter.get("Type").and_then(TemplateNode::text) == Some("Number") {
        let limit = |bound: &str| parameter.get(bound).and_then(TemplateNode::text)?.parse::<f64>().ok();
        let (least, most) = (limit("MinValue"), limit("MaxValue"));
        let is_within = value.parse::<f64>().is_ok_and(|number| {
            number.is_finite() && least.is_none_or(|least| least <= number) && most.is_none_or(|most| number <= most)
        });
        if !is_within {
            return fault(match (least, most) {
                (Some(least), Some(most)) => format!("a number from {least} to {most}"),
                (Some(least), None) => format!("a number from {least}"),
                (None, Some(most)) => format!("a number up to {most}"),
                (None, None) => "a number".to_owned(),
            });
        }
    }
    let number = |limit: &str| parameter.get(limit).and_then(TemplateNode::text)?.parse::<usize>().ok();
    let (least, most) = (number("MinLength"), number("MaxLength"));
    let length = value.chars().count();
    let has_length = least.is_none_or(|least| least <= length) && most.is_none_or(|most| length <= most);
    let pattern = parameter.get("AllowedPattern").and_then(TemplateNode::text);
    let is_match = pattern.map_or(Ok(true), |pattern| {
        // CloudFormation matches the whole value.
        let regex = Regex::new(&format!(r"\A(?:{pattern})\z"));
        regex.and_then(|regex| regex.is_match(value)).map_err(|error| {
            parameter.fault(format!("Parameters.{name}: cannot evaluate the AllowedPattern {pattern:?}: {error}"))
        })
    })?;
    if has_length && is_match {
        return Ok(());
    }
    if let Some(description) = parameter.get("ConstraintDescription").and_then(TemplateNode::text) {
        return Err(parameter.fault(format!("Parameters.{name}: {value:?}: {description}")));
    }
    fault(match (has_length, pattern) {
        (true, Some(pattern)) => format!("a value that matches {pattern}"),
        _ => match (least, most) {
            (Some(least), Some(most)) => format!("{least} to {most} characters"),
            (Some(least), None) => format!("at least {least} characters"),
            (None, most) => format!("at most {} characters", most.unwrap_or_default()),
        },
    })
}

/// The definitions that names in a template refer to.
pub(super) struct ResolveScope<'a> {
    choices: &'a ParameterOverrides,
    names: LocalNames,
    file: &'a str,
    given: BTreeMap<String, GivenValue>,
    parameters: BTreeMap<&'a str, &'a TemplateNode>,
    conditions: BTreeMap<&'a str, &'a TemplateNode>,
    resources: BTreeMap<&'a str, &'a TemplateNode>,
    outputs: BTreeMap<&'a str, &'a TemplateNode>,
    applications: BTreeMap<&'a str, Self>,
}

impl<'a> ResolveScope<'a> {
    /// Returns the scope of a template with the overrides of this machine, and with the source table that it creates for
    /// the template, if any.
    ///
    /// # Errors
    /// Fails if an override sets a parameter or an output of a nested stack that the template does not have, or if a
    /// nested application is given a parameter that it does not have.
    pub(super) fn new(
        template: &'a TemplateDocument,
        choices: &'a ParameterOverrides,
        source: Option<&TableResource>,
    ) -> Result<Self, PropertyError> {
        let chosen = choices.parameters.iter();
        let mut given: BTreeMap<String, GivenValue> =
            chosen.map(|(name, value)| (name.clone(), Ok(NodeValue::Text(value.clone())))).collect();
        if let Some(table) = source {
            let name = &table.name;
            given.insert("SourceTableName".to_owned(), Ok(NodeValue::Text(name.clone())));
            given.insert("SourceTableArn".to_owned(), Ok(NodeValue::Text(table_arn(name))));
            given.insert("SourceStreamArn".to_owned(), Ok(NodeValue::Stream(name.clone())));
            given
                .extend(key_parameters(table).map(|(parameter, key)| (parameter.to_owned(), Ok(NodeValue::Text(key)))));
        }
        let missing = |name: &str| {
            template.node.fault(format!("Parameters.{name}: the template has no such parameter: {NO_SUCH}"))
        };
        let names = source.map_or_else(LocalNames::default, |table| LocalNames::from_source(&table.name));
        let scope = Self::with(template, choices, names, given, &missing)?;
        // The values of this machine, such as the URL of its own database, follow no pattern of a deployment.
        let own: Vec<(&String, &String)> = choices.stack_parameters.values().flatten().collect();
        for (name, value) in choices.parameters.iter().filter(|chosen| !own.contains(chosen)) {
            check_value(name, scope.parameters[name.as_str()], value)?;
        }
        scope.check_rules(template.node.get("Rules").map_or(&[][..], TemplateNode::entries))?;
        let stacks = choices.outputs.keys().filter_map(|output| output.split_once('.'));
        if let Some((stack, _)) = stacks.into_iter().find(|(stack, _)| !scope.resources.contains_key(stack)) {
            let option = if stack == "CacheStack" { "--cache" } else { "--postgres" };
            return Err(template.node.fault(format!(
                "{option}: the template has no {stack} that the option could replace: only the users service has this \
                 tier, omit {option}"
            )));
        }
        Ok(scope)
    }

    /// Checks the rules about several parameters as a deployment does. A rule whose condition refers to a tier is not
    /// checked: this machine replaces the tier's network and servers by its own. Neither is an assertion about the roles
    /// of replicas: this machine has no roles.
    fn check_rules(&self, rules: &[(String, TemplateNode)]) -> Result<(), PropertyError> {
        for (name, rule) in rules {
            let condition = rule.get("RuleCondition");
            let is_checked = match condition {
                Some(condition) if TIERS.iter().any(|tier| refers_to(condition, tier)) => false,
                Some(condition) => self.condition(condition, 0)?,
                None => true,
            };
            let Some(NodeValue::List(assertions)) = rule.get("Assertions").map(|assertions| &assertions.value) else {
                return Err(rule.fault(format!("Rules.{name}: Assertions are missing")));
            };
            for assertion in assertions.iter().filter(|_| is_checked) {
                let assert = assertion.get("Assert");
                let assert = assert.ok_or_else(|| assertion.fault(format!("Rules.{name}: Assert is missing")))?;
                if !refers_to(assert, ROLES) && !self.condition(assert, 0)? {
                    let description = assertion.get("AssertDescription").and_then(TemplateNode::text);
                    let description = description.unwrap_or("the parameters contradict each other").trim();
                    return Err(assertion.fault(format!("Rules.{name}: {description}")));
                }
            }
        }
        Ok(())
    }

    fn with(
        template: &'a TemplateDocument,
        choices: &'a ParameterOverrides,
        names: LocalNames,
        given: BTreeMap<String, GivenValue>,
        missing: &dyn Fn(&str) -> PropertyError,
    ) -> Result<Self, PropertyError> {
        let section = |name: &str| -> BTreeMap<&'a str, &'a TemplateNode> {
            let section = template.node.get(name).map_or(&[][..], TemplateNode::entries);
            section.iter().map(|(name, node)| (name.as_str(), node)).collect()
        };
        let parameters = section("Parameters");
        if let Some(unknown) = given.keys().find(|name| !parameters.contains_key(name.as_str())) {
            return Err(missing(unknown));
        }
        let mut scope = Self {
            choices,
            names,
            file: &template.file,
            given,
            parameters,
            conditions: section("Conditions"),
            resources: section("Resources"),
            outputs: section("Outputs"),
            applications: BTreeMap::new(),
        };
        for (id, nested) in &template.applications {
            let resource = scope.resources[id.as_str()];
            if scope.condition_holds(resource)? {
                let application = scope.application(id, resource, nested)?;
                scope.applications.insert(id, application);
            }
        }
        Ok(scope)
    }

    /// Returns the scope of a nested application with the parameters that its resource gives it.
    fn application(
        &self,
        id: &str,
        resource: &TemplateNode,
        nested: &'a TemplateDocument,
    ) -> Result<Self, PropertyError> {
        let path = format!("Resources.{id}.Properties.Parameters");
        let parameters = resource.get("Properties").and_then(|properties| properties.get("Parameters"));
        let mut given = BTreeMap::new();
        for (name, node) in parameters.map_or(&[][..], TemplateNode::entries) {
            match self.resolve(node, &format!("{path}.{name}")) {
                Ok(Some(value)) => drop(given.insert(name.clone(), Ok(value.value))),
                // The parameter's default.
                Ok(None) => {}
                Err(error) => drop(given.insert(name.clone(), Err(error.in_file(self.file)))),
            }
        }
        let file = &nested.file;
        let missing = |name: &str| {
            let at = parameters.unwrap_or(resource);
            at.fault(format!("{path}.{name}: {file} has no parameter {name}")).in_file(self.file)
        };
        Self::with(nested, self.choices, self.names.clone(), given, &missing).map_err(|error| error.in_file(file))
    }

    /// Returns the scope of a nested application; `None` if its condition is false.
    pub(super) fn nested(&self, id: &str) -> Option<&Self> {
        self.applications.get(id)
    }

    /// Returns the local names of tables and buckets.
    pub(super) fn names(&self) -> &LocalNames {
        &self.names
    }

    /// Returns the value of an output.
    fn output(&self, name: &str) -> Option<Result<NodeValue, PropertyError>> {
        let output = self.outputs.get(name)?;
        let value = output.get("Value")?;
        let resolved = self.resolve(value, &format!("Outputs.{name}.Value")).map_err(|error| error.in_file(self.file));
        resolved.map(|value| value.map(|value| value.value)).transpose()
    }

    /// Returns whether a resource is created: it has no condition, or its condition is true.
    pub(super) fn condition_holds(&self, resource: &TemplateNode) -> Result<bool, PropertyError> {
        resource.get("Condition").map_or(Ok(true), |name| self.condition(name, 0))
    }

    /// Returns the node with its intrinsic functions resolved; `None` if it is `AWS::NoValue`. `path` is the node's
    /// path in error messages.
    pub(super) fn resolve(&self, node: &TemplateNode, path: &str) -> Result<Option<TemplateNode>, PropertyError> {
        let value = match &node.value {
            NodeValue::Call(function, argument) => return self.call(function, argument, path),
            NodeValue::List(items) => NodeValue::List(self.resolve_list(items, path)?),
            NodeValue::Map(entries) => {
                let mut resolved = Vec::with_capacity(entries.len());
                for (name, entry) in entries {
                    if let Some(entry) = self.resolve(entry, &format!("{path}.{name}"))? {
                        resolved.push((name.clone(), entry));
                    }
                }
                NodeValue::Map(resolved)
            }
            plain => plain.clone(),
        };
        Ok(Some(TemplateNode { line: node.line, value }))
    }

    fn resolve_list(&self, items: &[TemplateNode], path: &str) -> Result<Vec<TemplateNode>, PropertyError> {
        let resolved =
            items.iter().enumerate().map(|(at, item)| self.resolve(item, &format!("{path}[{at}]")).transpose());
        resolved.flatten().collect()
    }

    fn call(&self, function: &str, argument: &TemplateNode, path: &str) -> Result<Option<TemplateNode>, PropertyError> {
        let text = |text: String| Ok(Some(TemplateNode { line: argument.line, value: NodeValue::Text(text) }));
        match (function, &argument.value) {
            ("Ref", NodeValue::Text(name)) if name == "AWS::NoValue" => Ok(None),
            ("Ref", NodeValue::Text(name)) => {
                let value = self.reference(name, argument, path)?;
                Ok(Some(TemplateNode { line: argument.line, value }))
            }
            ("GetAtt", _) => {
                let (name, attribute) = attribute(argument, path)?;
                let value = self.attribute(&name, &attribute, argument, path)?;
                Ok(Some(TemplateNode { line: argument.line, value }))
            }
            ("Sub", NodeValue::Text(pattern)) => text(self.substitute(pattern, &[], argument, path)?),
            ("Sub", NodeValue::List(items)) if items.len() == 2 => match items[0].text() {
                Some(pattern) => text(self.substitute(pattern, items[1].entries(), argument, path)?),
                None => Err(shape(argument, path, "Sub", "a string, or a string and a mapping")),
            },
            ("Join", NodeValue::List(items)) if items.len() == 2 => {
                let wanted = || shape(argument, path, "Join", "a separator and a list");
                let separator = items[0].text().ok_or_else(wanted)?;
                let parts = self.resolve(&items[1], path)?.map(|parts| parts.value);
                let Some(NodeValue::List(parts)) = parts else { return Err(wanted()) };
                let parts: Option<Vec<&str>> = parts.iter().map(TemplateNode::text).collect();
                text(parts.ok_or_else(wanted)?.join(separator))
            }
            ("Split", NodeValue::List(items)) if items.len() == 2 => {
                let wanted = || shape(argument, path, "Split", "a separator and a string");
                let separator = items[0].text().filter(|separator| !separator.is_empty()).ok_or_else(wanted)?;
                let whole = self.resolve(&items[1], path)?.map(|whole| whole.value);
                let part = |part: &str| TemplateNode { line: argument.line, value: NodeValue::Text(part.to_owned()) };
                let Some(NodeValue::Text(whole)) = whole else { return Err(wanted()) };
                let value = NodeValue::List(whole.split(separator).map(part).collect());
                Ok(Some(TemplateNode { line: argument.line, value }))
            }
            ("Select", NodeValue::List(items)) if items.len() == 2 => {
                let wanted = || shape(argument, path, "Select", "an index within a list, and the list");
                let index: usize = items[0].text().and_then(|index| index.parse().ok()).ok_or_else(wanted)?;
                match self.resolve(&items[1], path)?.map(|list| list.value) {
                    Some(NodeValue::List(mut list)) if index < list.len() => Ok(Some(list.swap_remove(index))),
                    _ => Err(wanted()),
                }
            }
            ("If", NodeValue::List(items)) if items.len() == 3 => {
                let chosen = if self.condition(&items[0], 0)? { &items[1] } else { &items[2] };
                self.resolve(chosen, path)
            }
            ("Ref" | "Sub" | "Join" | "Split" | "Select" | "If", _) => {
                Err(shape(argument, path, function, "its documented argument"))
            }
            _ => Err(argument.fault(format!(
                "{path}: millrace does not resolve {function}: use Ref, GetAtt Arn or StreamArn, Sub, Join, Split, \
                 Select or If here"
            ))),
        }
    }

    fn reference(&self, name: &str, at: &TemplateNode, path: &str) -> Result<NodeValue, PropertyError> {
        match self.given.get(name) {
            Some(given) => given.clone(),
            None => self.name(name, at, path).map(NodeValue::Text),
        }
    }

    /// Returns the value of a name that is not a given parameter.
    fn name(&self, name: &str, at: &TemplateNode, path: &str) -> Result<String, PropertyError> {
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
        if let Some(parameter) = self.parameters.get(name) {
            let default = parameter.get("Default").and_then(TemplateNode::text);
            let missing = || at.fault(format!("{path}: parameter {name} has no default: millrace requires one"));
            return default.map(str::to_owned).ok_or_else(missing);
        }
        match self.kind(name, at, path)? {
            ("AWS::DynamoDB::Table", _) => Ok(self.names.table(name)),
            ("AWS::S3::Bucket", _) => Ok(self.names.bucket(name)),
            // The name is sufficient for these types: `stack` replaces every value that comes from a secret, and
            // `resources` reads the parts of the API that the names refer to.
            ("AWS::SecretsManager::Secret" | "AWS::ApiGatewayV2::Authorizer" | "AWS::ApiGatewayV2::Integration", _) => {
                Ok(name.to_owned())
            }
            ("AWS::Serverless::Function", resource) => binary(name, resource, at, path),
            (kind, _) => Err(at.fault(format!("{path}: millrace has no {kind}, so {name} has no value here"))),
        }
    }

    fn attribute(
        &self,
        name: &str,
        attribute: &str,
        at: &TemplateNode,
        path: &str,
    ) -> Result<NodeValue, PropertyError> {
        let (kind, resource) = self.kind(name, at, path)?;
        match (kind, attribute) {
            ("AWS::Serverless::Function", "Arn") => {
                binary(name, resource, at, path).map(|binary| NodeValue::Text(function_arn(&binary)))
            }
            ("AWS::DynamoDB::Table", "Arn") => Ok(NodeValue::Text(table_arn(&self.names.table(name)))),
            ("AWS::DynamoDB::Table", "StreamArn") => Ok(NodeValue::Stream(self.names.table(name))),
            ("AWS::S3::Bucket", "Arn") => Ok(NodeValue::Text(format!("arn:aws:s3:::{}", self.names.bucket(name)))),
            // Nothing is encrypted on this machine: the ARN says only that the template has a key.
            ("AWS::KMS::Key", "Arn") => {
                Ok(NodeValue::Text(format!("arn:aws:kms:{}:000000000000:key/{name}", clients::REGION)))
            }
            (APPLICATION, output) => {
                let nested = self.applications.get(name).zip(output.strip_prefix("Outputs."));
                let value = nested.and_then(|(nested, output)| nested.output(output));
                value.unwrap_or_else(|| Err(at.fault(format!("{path}: {name} has no output for {name}.{output}"))))
            }
            ("AWS::CloudFormation::Stack", output) => {
                let known = self.choices.outputs.get(&format!("{name}.{output}")).cloned();
                let unknown = || at.fault(format!("{path}: millrace does not provide {name}.{output}"));
                known.map(NodeValue::Text).ok_or_else(unknown)
            }
            (kind, _) => Err(
                at.fault(format!("{path}: unsupported attribute {attribute} of {name} ({kind}): use Arn or StreamArn"))
            ),
        }
    }

    fn kind(&self, name: &str, at: &TemplateNode, path: &str) -> Result<(&'a str, &'a TemplateNode), PropertyError> {
        let unknown = || at.fault(format!("{path}: {name} is not a parameter or resource of this template"));
        let resource = self.resources.get(name).ok_or_else(unknown)?;
        let kind = resource.get("Type").and_then(TemplateNode::text).ok_or_else(unknown)?;
        if self.condition_holds(resource)? {
            Ok((kind, resource))
        } else {
            Err(at.fault(format!("{path}: {name} is not created: its condition is false")))
        }
    }

    fn substitute(
        &self,
        pattern: &str,
        own: &[(String, TemplateNode)],
        at: &TemplateNode,
        path: &str,
    ) -> Result<String, PropertyError> {
        let mut text = String::with_capacity(pattern.len());
        let mut rest = pattern;
        while let Some(start) = rest.find("${") {
            text.push_str(&rest[..start]);
            let inner = &rest[start + 2..];
            let open = || at.fault(format!("{path}: unclosed ${{ in {pattern:?}"));
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

    fn variable(
        &self,
        name: &str,
        own: &[(String, TemplateNode)],
        at: &TemplateNode,
        path: &str,
    ) -> Result<String, PropertyError> {
        let plain = |value: &NodeValue| match value {
            NodeValue::Text(text) => Ok(text.clone()),
            _ => Err(at.fault(format!("{path}: ${{{name}}} is not a string here"))),
        };
        if let Some((_, node)) = own.iter().find(|(key, _)| key == name) {
            return self.resolve(node, path)?.map_or_else(|| Ok(String::new()), |node| plain(&node.value));
        }
        match name.split_once('.') {
            Some((resource, attribute)) => plain(&self.attribute(resource, attribute, at, path)?),
            None => plain(&self.reference(name, at, path)?),
        }
    }

    fn condition(&self, node: &TemplateNode, depth: usize) -> Result<bool, PropertyError> {
        if depth > MAX_CONDITION_DEPTH {
            return Err(node.fault("Conditions: a condition depends on itself"));
        }
        let many = |argument: &TemplateNode, function: &str| match &argument.value {
            NodeValue::List(items) if !items.is_empty() => {
                items.iter().map(|item| self.condition(item, depth + 1)).collect::<Result<Vec<bool>, PropertyError>>()
            }
            _ => Err(shape(argument, "Conditions", function, "a list of conditions")),
        };
        match &node.value {
            NodeValue::Text(name) => {
                let unknown = || node.fault(format!("Conditions: {name} is not a condition of this template"));
                self.condition(self.conditions.get(name.as_str()).ok_or_else(unknown)?, depth + 1)
            }
            NodeValue::Map(entries) => match entries.as_slice() {
                [(key, name)] if key == "Condition" => self.condition(name, depth + 1),
                _ => Err(node.fault("Conditions: expected a condition, found a mapping")),
            },
            NodeValue::Call(function, argument) => match (function.as_str(), &argument.value) {
                ("Condition", _) => self.condition(argument, depth + 1),
                ("Equals", NodeValue::List(sides)) if sides.len() == 2 => {
                    let side =
                        |side: &TemplateNode| self.resolve(side, "Conditions").map(|side| side.map(|side| side.value));
                    Ok(side(&sides[0])? == side(&sides[1])?)
                }
                ("Not", _) => match many(argument, "Not")?.as_slice() {
                    [one] => Ok(!one),
                    _ => Err(shape(argument, "Conditions", "Not", "one condition")),
                },
                ("And", _) => Ok(many(argument, "And")?.into_iter().all(|holds| holds)),
                ("Or", _) => Ok(many(argument, "Or")?.into_iter().any(|holds| holds)),
                _ => Err(node.fault(format!(
                    "Conditions: millrace does not evaluate {function}: use Equals, Not, And, Or or Condition"
                ))),
            },
            _ => Err(node.fault("Conditions: not a condition")),
        }
    }
}

/// Returns whether a condition contains a `Ref` of a parameter.
fn refers_to(node: &TemplateNode, parameter: &str) -> bool {
    match &node.value {
        NodeValue::Call(function, argument) if function == "Ref" => argument.text() == Some(parameter),
        NodeValue::Call(_, argument) => refers_to(argument, parameter),
        NodeValue::List(items) => items.iter().any(|item| refers_to(item, parameter)),
        NodeValue::Map(entries) => entries.iter().any(|(_, entry)| refers_to(entry, parameter)),
        NodeValue::Null | NodeValue::Text(_) | NodeValue::Stream(_) => false,
    }
}

/// Returns the local name of a function.
fn binary(name: &str, resource: &TemplateNode, at: &TemplateNode, path: &str) -> Result<String, PropertyError> {
    let binary = resource.get("Metadata").and_then(|metadata| metadata.get("BuildProperties"));
    let binary = binary.and_then(|properties| properties.get("Binary")).and_then(TemplateNode::text);
    binary.map(str::to_owned).ok_or_else(|| at.fault(format!("{path}: function {name} has no Binary")))
}

/// Parses the argument of `GetAtt`, `A.B` or `[A, B]`.
fn attribute(argument: &TemplateNode, path: &str) -> Result<(String, String), PropertyError> {
    let pair = match &argument.value {
        NodeValue::Text(text) => text.split_once('.'),
        NodeValue::List(items) => match items.as_slice() {
            [name, attribute] => name.text().zip(attribute.text()),
            _ => None,
        },
        _ => None,
    };
    let (name, attribute) = pair.ok_or_else(|| shape(argument, path, "GetAtt", "a resource and an attribute"))?;
    Ok((name.to_owned(), attribute.to_owned()))
}

fn shape(argument: &TemplateNode, path: &str, function: &str, wanted: &str) -> PropertyError {
    argument.fault(format!("{path}: {function} expects {wanted}"))
}
