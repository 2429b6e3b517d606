//! Expands `Fn::ForEach` of the transform `AWS::LanguageExtensions`: [`expand`].
//!
//! A loop over a list that the text or a parameter determines is replaced by its elements. Another loop is left where it
//! is, and the reader reports it as not read.

use std::collections::BTreeMap;

use crate::template_node::{NodeValue, TemplateNode};

/// The name of a loop, before the colons and its own name.
const FOR_EACH: &str = "Fn::ForEach::";
/// The maximum number of elements that all loops of a template produce; `CloudFormation` accepts 500 resources.
const MAX_ELEMENTS: usize = 2_000;
/// The maximum depth of loops; `CloudFormation` accepts 5.
const MAX_LOOP_DEPTH: usize = 5;

/// Returns whether the name of a resource is that of a loop.
pub(crate) fn is_loop(name: &str) -> bool {
    name.starts_with(FOR_EACH)
}

/// Expands the loops of a template's resources. `parameters` are the values that replace the defaults; without them,
/// loops over parameters are left.
pub(crate) fn expand(template: &mut TemplateNode, parameters: Option<&BTreeMap<String, String>>) {
    let lists = LoopLists { template: template.clone(), parameters };
    let NodeValue::Map(sections) = &mut template.value else { return };
    let Some((_, resources)) = sections.iter_mut().find(|(name, _)| name == "Resources") else { return };
    // The only member of a mapping with the name of a function is read as a call.
    if let NodeValue::Call(name, argument) = &mut resources.value {
        let name = format!("Fn::{name}");
        if is_loop(&name) {
            let value = std::mem::replace(&mut argument.value, NodeValue::Null);
            let line = argument.line;
            resources.value = NodeValue::Map(vec![(name, TemplateNode { line, value })]);
        }
    }
    let NodeValue::Map(entries) = &mut resources.value else { return };
    if entries.iter().any(|(name, _)| is_loop(name)) {
        let mut count = 0;
        let before = std::mem::take(entries);
        *entries = lists.expanded(before, 0, &mut count);
    }
}

/// The resources of a template, or the elements of a loop, by name.
type NamedNodes = Vec<(String, TemplateNode)>;

/// A loop: the variable, its values, and the elements.
struct LoopBody {
    variable: String,
    values: Vec<String>,
    elements: NamedNodes,
}

struct LoopLists<'p> {
    template: TemplateNode,
    parameters: Option<&'p BTreeMap<String, String>>,
}

impl LoopLists<'_> {
    fn expanded(&self, entries: NamedNodes, depth: usize, count: &mut usize) -> NamedNodes {
        let mut result = NamedNodes::new();
        for (name, node) in entries {
            let is_within = is_loop(&name) && depth < MAX_LOOP_DEPTH;
            let body = if is_within { self.body(&node) } else { None };
            let Some(LoopBody { variable, values, elements: body }) = body else {
                result.push((name, node));
                continue;
            };
            for value in values {
                *count += body.len();
                if *count > MAX_ELEMENTS {
                    // The remaining elements are reported as not read.
                    result.push((name, node));
                    return result;
                }
                let element = |(name, node): &(String, TemplateNode)| {
                    (replaced(name, &variable, &value), with_value(node, &variable, &value))
                };
                let elements = body.iter().map(element).collect();
                for (name, node) in self.expanded(elements, depth + 1, count) {
                    if !result.iter().any(|(other, _)| *other == name) {
                        result.push((name, node));
                    }
                }
            }
        }
        result
    }

    /// Returns a loop, if its list is resolved.
    fn body(&self, node: &TemplateNode) -> Option<LoopBody> {
        let [variable, collection, body] = node.items() else { return None };
        let elements = match &body.value {
            NodeValue::Map(elements) => elements.clone(),
            // A loop in the loop, which is its only element.
            NodeValue::Call(name, argument) => vec![(format!("Fn::{name}"), (**argument).clone())],
            _ => return None,
        };
        Some(LoopBody { variable: variable.text()?.to_owned(), values: self.values(collection)?, elements })
    }

    fn values(&self, collection: &TemplateNode) -> Option<Vec<String>> {
        match &collection.value {
            NodeValue::List(items) => items.iter().map(|item| item.text().map(str::to_owned)).collect(),
            NodeValue::Call(name, argument) if name == "Ref" => {
                let parameter = argument.text()?;
                let default = || {
                    let declared = self.template.get("Parameters")?.get(parameter)?;
                    declared.get("Default")?.text().map(str::to_owned)
                };
                let text = self.parameters?.get(parameter).cloned().or_else(default)?;
                Some(text.split(',').map(|part| part.trim().to_owned()).collect())
            }
            _ => None,
        }
    }
}

/// Replaces the variable in a text; `&{Name}` is its value without characters that a logical ID cannot have.
fn replaced(text: &str, variable: &str, value: &str) -> String {
    let plain: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
    text.replace(&format!("${{{variable}}}"), value).replace(&format!("&{{{variable}}}"), &plain)
}

fn with_value(node: &TemplateNode, variable: &str, value: &str) -> TemplateNode {
    let of = |node: &TemplateNode| with_value(node, variable, value);
    let replacement = match &node.value {
        NodeValue::Null => NodeValue::Null,
        NodeValue::Text(text) => NodeValue::Text(replaced(text, variable, value)),
        NodeValue::List(items) => NodeValue::List(items.iter().map(of).collect()),
        NodeValue::Map(entries) => {
            NodeValue::Map(entries.iter().map(|(name, node)| (replaced(name, variable, value), of(node))).collect())
        }
        NodeValue::Call(name, argument) if name == "Ref" && argument.text() == Some(variable) => {
            NodeValue::Text(value.to_owned())
        }
        NodeValue::Call(name, argument) => NodeValue::Call(name.clone(), Box::new(of(argument))),
    };
    TemplateNode { line: node.line, value: replacement }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(template: &str, parameters: &[(&str, &str)]) -> Vec<String> {
        let mut node = TemplateNode::parse(template).unwrap();
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        expand(&mut node, Some(&parameters));
        node.get("Resources").unwrap().entries().iter().map(|(name, _)| name.clone()).collect()
    }

    #[test]
    fn a_loop_becomes_its_elements() {
        let listed = "Resources:\n  Fn::ForEach::Tables:\n    - Name\n    - [A, b-1]\n    - \"T&{Name}\": {Type: \
                      x}\n      \"${Name}Log\": {Type: y}\n";
        assert_eq!(names(listed, &[]), ["TA", "ALog", "Tb1", "b-1Log"]);
        let of_parameter = "Parameters: {Names: {Type: CommaDelimitedList, Default: \"A,B\"}}\nResources:\n  \
                            Other: {Type: z}\n  Fn::ForEach::Tables: [Name, !Ref Names, {\"T${Name}\": {Type: x}}]\n";
        assert_eq!(names(of_parameter, &[]), ["Other", "TA", "TB"]);
        assert_eq!(names(of_parameter, &[("Names", "C")]), ["Other", "TC"]);
        let nested = "Resources:\n  Fn::ForEach::Outer: [X, [1, 2], {\"Fn::ForEach::Inner${X}\": [Y, [a, b], \
                      {\"R${X}${Y}\": {Type: x}}]}]\n";
        assert_eq!(names(nested, &[]), ["R1a", "R1b", "R2a", "R2b"]);
    }

    #[test]
    fn a_loop_over_what_is_not_known_is_left() {
        for collection in ["!Ref Names", "!ImportValue x", "[!ImportValue x]", "text"] {
            let template = format!("Resources:\n  Fn::ForEach::T: [X, {collection}, {{\"T${{X}}\": {{Type: x}}}}]\n");
            assert_eq!(names(&template, &[]), ["Fn::ForEach::T"], "{collection}");
        }
    }

    #[test]
    fn loops_that_multiply_end() {
        let values = vec!["x"; 40].join(", ");
        let mut body = "{\"R${A}\": {Type: x}}".to_owned();
        for depth in 0..5 {
            body = format!("{{\"Fn::ForEach::L{depth}\": [A, [{values}], {body}]}}");
        }
        let names = names(&format!("Resources: {body}\n"), &[]);
        assert!(names.len() <= MAX_ELEMENTS && names.iter().any(|name| is_loop(name)), "{}", names.len());
    }
}
