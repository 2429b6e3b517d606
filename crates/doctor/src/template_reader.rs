//! Reader of templates of `CloudFormation` and SAM, and of the CDK's output: [`read`].

use std::collections::BTreeMap;
use std::path::Path;

use crate::deployment::{SourceLocation, StreamDeployment};
use crate::deployment_builder;
use crate::resource_entry::{ApiDocument, PropertyNode as _, ResourceEntry};
use crate::setting::SettingValue;
use crate::template_document::{self, TemplateDocument};
use crate::template_error::TemplateError;
use crate::template_loop;
use crate::template_node::{NodeValue, TemplateNode};
use crate::template_scope::{ConditionValue, ResolvedNode, ResolvedValue, TemplateScopes};

/// The suffixes of files that a function's handler may be in.
const SOURCE_SUFFIXES: [&str; 6] = ["py", "js", "mjs", "cjs", "ts", "rb"];
/// The maximum size of a source file that is searched.
const MAX_SOURCE_BYTES: u64 = 500_000;
/// The names of the response member, as code writes it.
const FAILURE_MEMBERS: [&str; 3] = ["batchItemFailures", "batch_item_failures", "BatchItemFailures"];

/// A deployment as far as it could be read, and the problems of the parts that could not.
#[derive(Debug, Default)]
pub struct DeploymentReading {
    /// The deployment.
    pub deployment: StreamDeployment,
    /// Problems that make a part unusable, each as one line that names the location.
    pub problems: Vec<String>,
    /// Parameters that were given and that the template does not have.
    pub unknown_parameters: Vec<String>,
}

/// Reads a template from the text of a file. `folder` is the folder of nested templates and of source code; without it,
/// neither is read.
///
/// # Errors
/// A [`TemplateError`], if the text is not a template at all.
pub fn read(
    text: &str,
    file: &str,
    folder: Option<&Path>,
    parameters: &BTreeMap<String, String>,
) -> Result<DeploymentReading, TemplateError> {
    let mut unread = Vec::new();
    let document = TemplateDocument::parse(text, file, folder, parameters, &mut unread)?;
    let mut problems: Vec<String> = unread.iter().map(ToString::to_string).collect();
    let declared = document.node.get("Parameters").map_or(&[][..], TemplateNode::entries);
    let is_unknown = |name: &&String| !declared.iter().any(|(declared, _)| declared == *name);
    let unknown_parameters = parameters.keys().filter(is_unknown).cloned().collect();
    let scopes = TemplateScopes::new(&document, parameters);
    let mut reader =
        TemplateReader { scopes: &scopes, folder, entries: Vec::new(), unread: Vec::new(), problems: Vec::new() };
    for scope in 0..scopes.scopes.len() {
        reader.read_scope(scope);
    }
    let TemplateReader { entries, unread, problems: of_files, .. } = reader;
    problems.extend(of_files);
    problems.extend(scopes.problems());
    let mut deployment = deployment_builder::build(&entries, &mut problems);
    deployment.unread.extend(unread);
    Ok(DeploymentReading { deployment, problems, unknown_parameters })
}

struct TemplateReader<'s, 'a> {
    scopes: &'s TemplateScopes<'a>,
    folder: Option<&'s Path>,
    entries: Vec<ResourceEntry>,
    unread: Vec<(SourceLocation, String)>,
    /// The problems of other files that the templates name.
    problems: Vec<String>,
}

impl<'a> TemplateReader<'_, 'a> {
    fn read_scope(&mut self, scope: usize) {
        let template = &self.scopes.scopes[scope];
        let (document, path) = (template.document, template.path.clone());
        let location = |line: usize, resource: String| SourceLocation { file: document.file.clone(), line, resource };
        let metadata = document.node.get("Metadata").and_then(|metadata| metadata.get("millrace"));
        if let Some(metadata) = metadata.and_then(|metadata| self.scopes.resolve(scope, metadata)) {
            let resource = path.trim_end_matches('.').to_owned();
            self.entries.push(entry(location(metadata.line, resource), "Metadata", Some(metadata)));
        }
        let globals = document.node.get("Globals").and_then(|globals| globals.get("Function"));
        let implicit = document.node.get("Globals").and_then(|globals| globals.get("HttpApi"));
        let globals = globals.and_then(|globals| self.scopes.resolve(scope, globals));
        let implicit = implicit.and_then(|implicit| self.scopes.resolve(scope, implicit));
        for (id, resource) in document.node.get("Resources").map_or(&[][..], TemplateNode::entries) {
            let at = location(resource.line, format!("{path}{id}"));
            let Some(kind) = resource.get("Type").and_then(TemplateNode::text) else {
                let reason = if template_loop::is_loop(id) {
                    format!("{id} is not expanded: its list is not resolved, or too long")
                } else {
                    format!("{id} has no Type that can be read")
                };
                self.unread.push((at, reason));
                continue;
            };
            let created = self.scopes.is_created(scope, resource);
            if created == ConditionValue::False {
                continue;
            }
            if let ConditionValue::Unknown(reason) = &created {
                // Evaluated as if it were created.
                self.unread.push((at.clone(), format!("its condition is not resolved ({reason}): checked as created")));
            }
            let is_nested = matches!(kind, "AWS::Serverless::Application" | "AWS::CloudFormation::Stack");
            if is_nested {
                if !document.applications.contains_key(id) {
                    self.unread.push((at, "a nested template that is not a local file".to_owned()));
                }
                continue;
            }
            let mut entry = entry(at, kind, None);
            let metadata = resource.get("Metadata").and_then(|metadata| metadata.get("millrace"));
            entry.metadata = metadata.and_then(|metadata| self.scopes.resolve(scope, metadata));
            if let Some(properties) = resource.get("Properties") {
                if let Some(properties) = self.scopes.resolve(scope, properties) {
                    entry.properties = properties;
                }
                entry.literal_streams = literal_streams(properties);
                entry.reports_failures = self.reports_failures(&document.file, properties, globals.as_ref());
            }
            if kind == "AWS::Serverless::Function" {
                if let Some(globals) = &globals {
                    entry.properties = merge(globals, entry.properties);
                }
                if let Some(authorizer) =
                    implicit.as_ref().and_then(|api| api.get("Auth")).and_then(|auth| auth.get("DefaultAuthorizer"))
                    && let ResolvedValue::Map(entries) = &mut entry.properties.value
                {
                    entries.push(("ImplicitApiAuthorizer".to_owned(), authorizer.clone()));
                }
            }
            if kind == "AWS::Serverless::HttpApi"
                && let Some(implicit) = &implicit
            {
                entry.properties = merge(implicit, entry.properties);
            }
            if matches!(kind, "AWS::Serverless::HttpApi" | "AWS::ApiGatewayV2::Api") {
                let included = resource.get("Properties").and_then(|properties| self.included(scope, properties));
                entry.api_document = self.api_document(&entry, included);
            }
            (entry.name, entry.arn) = self.scopes.names(scope, id);
            entry.retained = retained(resource);
            self.entries.push(entry);
        }
    }

    /// Returns the location of an `OpenAPI` document that the transform `AWS::Include` inserts.
    fn included(&self, scope: usize, properties: &'a TemplateNode) -> Option<SettingValue<String>> {
        let body = properties.get("DefinitionBody").or_else(|| properties.get("Body"))?;
        let NodeValue::Call(function, argument) = &body.value else { return None };
        let name = argument.get("Name").and_then(TemplateNode::text);
        let location = argument.get("Parameters").and_then(|parameters| parameters.get("Location"))?;
        let location = self.scopes.resolve(scope, location)?;
        let is_include = function == "Transform" && name == Some("AWS::Include");
        is_include.then(|| match location.value {
            ResolvedValue::Text(location) => SettingValue::Known(location),
            ResolvedValue::Unresolved(reason) => SettingValue::Unresolved(reason),
            _ => SettingValue::Unresolved(format!("line {}: expected a string", location.line)),
        })
    }

    /// Reads the `OpenAPI` document of an API that is a file; absent if it is not.
    fn api_document(
        &mut self,
        entry: &ResourceEntry,
        included: Option<SettingValue<String>>,
    ) -> SettingValue<ApiDocument> {
        let in_bucket = |bucket: &str, key: &str| {
            SettingValue::Unresolved(format!("its OpenAPI document is s3://{bucket}/{key}, which is not read"))
        };
        let mut location = included.unwrap_or(SettingValue::Absent);
        for name in ["DefinitionUri", "BodyS3Location"] {
            let part = |part: &str| entry.properties.text_at(&[name, part]).known().cloned();
            if let (Some(bucket), Some(key)) = (part("Bucket"), part("Key")) {
                return in_bucket(&bucket, &key);
            }
            if location.is_absent() {
                location = entry.properties.text_at(&[name]);
            }
        }
        let location = match location {
            SettingValue::Known(location) => location,
            SettingValue::Absent => return SettingValue::Absent,
            SettingValue::Unresolved(reason) => {
                return SettingValue::Unresolved(format!("the location of its OpenAPI document: {reason}"));
            }
        };
        let file = Path::new(&entry.location.file);
        let (false, Some(_)) = (location.contains("://"), self.folder) else {
            return SettingValue::Unresolved(format!("its OpenAPI document is {location}, which is not read"));
        };
        let path = file.parent().unwrap_or(Path::new("")).join(&location);
        let read = template_document::read_text(&path, template_document::MAX_BYTES);
        let read = read
            .and_then(|text| TemplateNode::parse(&text).map_err(|error| error.in_file(&path.display().to_string())));
        match read {
            Ok(node) => {
                let file = Some(path.display().to_string());
                SettingValue::Known(ApiDocument { file, node: ResolvedNode::from_node(&node) })
            }
            Err(error) => {
                let SourceLocation { file, line, resource } = &entry.location;
                self.problems.push(format!("{file}:{line}: {resource}: its OpenAPI document: {error}"));
                SettingValue::Unresolved(format!("its OpenAPI document {location} cannot be read"))
            }
        }
    }

    /// Looks for the response member in inline code, or in the file of the handler.
    fn reports_failures(
        &self,
        file: &str,
        properties: &TemplateNode,
        globals: Option<&ResolvedNode>,
    ) -> SettingValue<bool> {
        if let Some(reports) = inline_code_reports(properties) {
            return SettingValue::Known(reports);
        }
        let own = |name: &str| properties.get(name).and_then(TemplateNode::text);
        let global = |name: &str| globals.and_then(|globals| globals.get(name)).and_then(ResolvedNode::text);
        let setting = |name: &str| own(name).or_else(|| global(name));
        let unknown = || SettingValue::Unresolved("the function's code is not in the template".to_owned());
        let (Some(_), Some(code), Some(handler)) = (self.folder, setting("CodeUri"), setting("Handler")) else {
            return unknown();
        };
        let Some(folder) = Path::new(file).parent() else { return unknown() };
        let Some((module, _)) = handler.rsplit_once('.') else { return unknown() };
        let module = module.replace('.', "/");
        if code.contains("://") || module.split('/').any(|part| part == "..") {
            return unknown();
        }
        let stem = folder.join(code).join(module);
        for suffix in SOURCE_SUFFIXES {
            let path = stem.with_extension(suffix);
            if path.is_file()
                && let Ok(code) = crate::template_document::read_text(&path, MAX_SOURCE_BYTES)
            {
                return SettingValue::Known(code_reports(&code));
            }
        }
        unknown()
    }
}

fn code_reports(code: &str) -> bool {
    FAILURE_MEMBERS.iter().any(|name| code.contains(name))
}

/// Returns whether the inline code of a function names the response member; `None` without inline code.
pub(crate) fn inline_code_reports(properties: &TemplateNode) -> Option<bool> {
    let inline = properties.get("InlineCode").or_else(|| properties.get("Code")?.get("ZipFile"))?;
    inline.text().map(code_reports)
}

fn entry(location: SourceLocation, kind: &str, metadata: Option<ResolvedNode>) -> ResourceEntry {
    let line = location.line;
    ResourceEntry {
        location,
        kind: kind.to_owned(),
        name: String::new(),
        arn: String::new(),
        properties: ResolvedNode { line, value: ResolvedValue::Map(Vec::new()) },
        metadata,
        retained: SettingValue::Absent,
        literal_streams: Vec::new(),
        reports_failures: SettingValue::Unresolved("the function's code is not in the template".to_owned()),
        api_document: SettingValue::Absent,
    }
}

/// Returns whether a resource stays when its deployment no longer contains it.
pub(crate) fn retained(resource: &TemplateNode) -> SettingValue<bool> {
    match resource.get("DeletionPolicy").map(|policy| &policy.value) {
        None => SettingValue::Absent,
        Some(NodeValue::Text(policy)) => SettingValue::Known(policy.starts_with("Retain")),
        Some(_) => SettingValue::Unresolved("DeletionPolicy is not a string".to_owned()),
    }
}

/// Returns the events whose stream is spelled out; an empty name for the mapping's own.
fn literal_streams(properties: &TemplateNode) -> Vec<String> {
    let is_literal = |node: Option<&TemplateNode>| {
        node.and_then(TemplateNode::text).is_some_and(|text| text.starts_with("arn:") && text.contains("/stream/"))
    };
    let mut literal = Vec::new();
    if is_literal(properties.get("EventSourceArn")) {
        literal.push(String::new());
    }
    for (name, event) in properties.get("Events").map_or(&[][..], TemplateNode::entries) {
        if is_literal(event.get("Properties").and_then(|properties| properties.get("Stream"))) {
            literal.push(name.clone());
        }
    }
    literal
}

/// Adds SAM's `Globals` to the properties of a resource, whose own values take precedence.
fn merge(globals: &ResolvedNode, own: ResolvedNode) -> ResolvedNode {
    let line = own.line;
    match (&globals.value, own.value) {
        (ResolvedValue::Map(globals), ResolvedValue::Map(mut own)) => {
            for (name, global) in globals {
                match own.iter_mut().find(|(key, _)| key == name) {
                    Some((_, value)) => *value = merge(global, value.clone()),
                    None => own.push((name.clone(), global.clone())),
                }
            }
            ResolvedNode { line, value: ResolvedValue::Map(own) }
        }
        (_, own) => ResolvedNode { line, value: own },
    }
}
