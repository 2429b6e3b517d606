//! The template as a tree with line numbers, in which both forms of an intrinsic function are the same node.
//!
//! Only this file uses saphyr, which preserves the tags of `CloudFormation` (`!Ref`). Scalars are text, since
//! `CloudFormation` itself treats `30` and `"30"` as equal.

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};

use super::PropertyError;

/// A node of the template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TemplateNode {
    /// The line number, starting at 1.
    pub(super) line: usize,
    pub(super) value: NodeValue,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NodeValue {
    Null,
    Text(String),
    List(Vec<TemplateNode>),
    Map(Vec<(String, TemplateNode)>),
    /// An intrinsic function: `!Sub x`, `{Fn::Sub: x}`, `!Ref x`, `{Ref: x}`. The name is without `Fn::`.
    Call(String, Box<TemplateNode>),
    /// The stream of a table, by local name: the value of `GetAtt StreamArn`. Never parsed from a file.
    Stream(String),
}

/// Parses a YAML text with one document.
pub(super) fn document(text: &str) -> Result<TemplateNode, PropertyError> {
    let documents = MarkedYaml::load_from_str(text)
        .map_err(|error| PropertyError::new(error.marker().line(), format!("invalid YAML: {}", error.info())))?;
    match documents.as_slice() {
        [document] => convert(document),
        documents => {
            let problem = format!("{} YAML documents: expected one", documents.len());
            Err(PropertyError::new(documents.get(1).map_or(1, line), problem))
        }
    }
}

fn line(yaml: &MarkedYaml<'_>) -> usize {
    yaml.span.start.line()
}

fn convert(yaml: &MarkedYaml<'_>) -> Result<TemplateNode, PropertyError> {
    let line = line(yaml);
    let value = match &yaml.data {
        YamlData::Value(scalar) => scalar_value(scalar),
        YamlData::Representation(text, ..) => NodeValue::Text(text.to_string()),
        YamlData::Sequence(items) => NodeValue::List(items.iter().map(convert).collect::<Result<_, _>>()?),
        YamlData::Mapping(entries) => {
            let entries = entries.iter().map(|(key, value)| Ok((name(key)?, convert(value)?)));
            call_or_map(entries.collect::<Result<_, PropertyError>>()?)
        }
        YamlData::Tagged(tag, tagged) if tag.handle == "!" => {
            NodeValue::Call(tag.suffix.clone(), Box::new(TemplateNode { line, ..convert(tagged)? }))
        }
        YamlData::Tagged(tag, _) => {
            let problem = format!("YAML tag {}{} is not a CloudFormation tag", tag.handle, tag.suffix);
            return Err(PropertyError::new(line, problem));
        }
        YamlData::Alias(_) | YamlData::BadValue => {
            return Err(PropertyError::new(line, "unsupported YAML value: write it as plain YAML".to_owned()));
        }
    };
    Ok(TemplateNode { line, value })
}

fn scalar_value(scalar: &Scalar<'_>) -> NodeValue {
    match scalar {
        Scalar::Null => NodeValue::Null,
        Scalar::Boolean(truth) => NodeValue::Text(truth.to_string()),
        Scalar::Integer(number) => NodeValue::Text(number.to_string()),
        Scalar::FloatingPoint(number) => NodeValue::Text(number.to_string()),
        Scalar::String(text) => NodeValue::Text(text.to_string()),
    }
}

fn name(key: &MarkedYaml<'_>) -> Result<String, PropertyError> {
    match convert(key)?.value {
        NodeValue::Text(name) => Ok(name),
        _ => Err(PropertyError::new(line(key), "the mapping key is not a string".to_owned())),
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

impl TemplateNode {
    /// Returns the value of a key in a mapping; `None` if the key is absent or its value is null.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        let NodeValue::Map(entries) = &self.value else { return None };
        let (_, node) = entries.iter().find(|(key, _)| key == name)?;
        (node.value != NodeValue::Null).then_some(node)
    }

    /// Returns the entries of a mapping; empty if the node is not a mapping.
    pub(super) fn entries(&self) -> &[(String, Self)] {
        if let NodeValue::Map(entries) = &self.value { entries } else { &[] }
    }

    /// Returns the text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        if let NodeValue::Text(text) = &self.value { Some(text) } else { None }
    }

    pub(super) fn fault(&self, problem: impl Into<String>) -> PropertyError {
        PropertyError::new(self.line, problem.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_function_are_one() {
        let read = document("- !GetAtt A.B\n- Fn::GetAtt: A.B\n- !Ref C\n- Ref: C\n- !If [X, {Ref: C}, ~]\n").unwrap();
        let NodeValue::List(items) = read.value else { panic!("a list") };
        assert_eq!(
            items[0].value,
            NodeValue::Call("GetAtt".into(), Box::new(TemplateNode { line: 1, value: NodeValue::Text("A.B".into()) }))
        );
        let calls: Vec<&str> = items
            .iter()
            .filter_map(|item| if let NodeValue::Call(name, _) = &item.value { Some(name.as_str()) } else { None })
            .collect();
        assert_eq!(calls, ["GetAtt", "GetAtt", "Ref", "Ref", "If"]);
        assert_eq!(items.iter().map(|item| item.line).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn invalid_template_is_rejected_with_its_line() {
        let cases = [("a: 1\nb: ]\n", 2), ("a: 1\na: 2\n", 2), ("a: 1\n---\nb: 2\n", 3), ("", 1), ("a: 1\nb: *x\n", 2)];
        let lines = cases.map(|(text, _)| (text, document(text).unwrap_err().line));
        assert_eq!(lines, cases);
    }
}
