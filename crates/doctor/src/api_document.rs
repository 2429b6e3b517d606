//! The routes of an HTTP API that an OpenAPI document defines: [`routes_of`].

use crate::deployment::{RouteSettings, SourceLocation};
use crate::resource_entry::{PropertyNode as _, ResourceEntry};
use crate::setting::SettingValue;
use crate::template_scope::{ResolvedNode, ResolvedValue};

/// The members of a path that are methods.
const METHODS: [&str; 9] =
    ["delete", "get", "head", "options", "patch", "post", "put", "trace", "x-amazon-apigateway-any-method"];

/// Returns the routes of the OpenAPI document at a path of the properties. `default` is the authorizer that SAM adds to
/// every route without one of its own, except for OPTIONS.
pub(crate) fn routes_of(entry: &ResourceEntry, path: &[&str], default: &SettingValue<String>) -> Vec<RouteSettings> {
    let document = match entry.properties.at(path) {
        SettingValue::Known(document) => document,
        SettingValue::Absent => return Vec::new(),
        SettingValue::Unresolved(reason) => return vec![unread(&entry.location, reason)],
    };
    let paths = match document.at(&["paths"]) {
        SettingValue::Known(paths) => paths,
        SettingValue::Absent => return Vec::new(),
        SettingValue::Unresolved(reason) => return vec![unread(&entry.location, reason)],
    };
    let of_all = document.get("security");
    let mut routes = Vec::new();
    for (route, methods) in paths.entries() {
        if let Some(reason) = methods.unresolved() {
            routes.push(unread(&entry.location, reason.to_owned()));
        }
        for (method, operation) in methods.entries().iter().filter(|(name, _)| METHODS.contains(&name.as_str())) {
            let location = SourceLocation { line: operation.line, ..entry.location.clone() };
            let name = if method.starts_with("x-") { "ANY".to_owned() } else { method.to_ascii_uppercase() };
            let authorized = match own_authorizer(operation, of_all) {
                SettingValue::Absent if method == "options" => SettingValue::Known(false),
                SettingValue::Absent => match default {
                    SettingValue::Known(_) => SettingValue::Known(true),
                    SettingValue::Absent => SettingValue::Known(false),
                    SettingValue::Unresolved(reason) => SettingValue::Unresolved(reason.clone()),
                },
                own => own,
            };
            routes.push(RouteSettings { location, route: format!("{name} {route}"), authorized });
        }
    }
    routes
}

/// Returns whether an operation itself, or else the whole document, names an authorizer; absent if neither does.
fn own_authorizer(operation: &ResolvedNode, of_all: Option<&ResolvedNode>) -> SettingValue<bool> {
    let of_service = operation.at(&["x-amazon-apigateway-auth", "type"]);
    if let SettingValue::Known(kind) = of_service {
        return SettingValue::Known(kind.text() != Some("NONE"));
    }
    match operation.get("security").or(of_all).map(|security| &security.value) {
        None => SettingValue::Absent,
        Some(ResolvedValue::Unresolved(reason)) => SettingValue::Unresolved(reason.clone()),
        // The choice `{}` requires no authorization.
        Some(ResolvedValue::List(choices)) => {
            SettingValue::Known(!choices.is_empty() && choices.iter().all(|choice| !choice.entries().is_empty()))
        }
        Some(_) => SettingValue::Known(false),
    }
}

fn unread(location: &SourceLocation, reason: String) -> RouteSettings {
    let route = "the OpenAPI document".to_owned();
    RouteSettings { location: location.clone(), route, authorized: SettingValue::Unresolved(reason) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::diagnosis::diagnose;
    use crate::template_reader::read;

    const DOCUMENT: &str = "
        openapi: 3.0.1
        paths:
          /iam: {get: {x-amazon-apigateway-auth: {type: AWS_IAM}}}
          /token: {post: {security: [{jwt: []}]}}
          /open: {x-amazon-apigateway-any-method: {responses: {}}, parameters: []}
          /public: {get: {security: []}}
          /either: {get: {security: [{jwt: []}, {}]}}
          /preflight: {options: {responses: {}}}";

    /// Returns the problems of the routes of a template.
    fn problems(resource: &str) -> Vec<String> {
        let template = format!("Transform: AWS::Serverless-2016-10-31\nResources:\n  Api:\n    {resource}");
        let reading = read(&template, "t.yaml", None, &BTreeMap::new()).unwrap();
        let diagnosis = diagnose(&reading.deployment);
        let mut problems: Vec<String> = diagnosis.findings.into_iter().map(|finding| finding.problem).collect();
        let unchecked = diagnosis.unchecked.into_iter().filter(|unchecked| unchecked.rule.id == "open-route");
        problems.extend(unchecked.map(|unchecked| unchecked.reason));
        problems
    }

    #[test]
    fn each_route_of_an_openapi_document_is_judged() {
        let open = ["ANY /open", "GET /public", "GET /either", "OPTIONS /preflight"];
        let expected = open.map(|route| format!("{route} has no authorizer"));
        let of_api = format!("Type: AWS::ApiGatewayV2::Api\n    Properties:\n      Body: {DOCUMENT}\n");
        assert_eq!(problems(&of_api), expected);
        let of_sam = format!("Type: AWS::Serverless::HttpApi\n    Properties:\n      DefinitionBody: {DOCUMENT}\n");
        assert_eq!(problems(&of_sam), expected);
        let with_default =
            of_sam.replace("    Properties:", "    Properties:\n      Auth: {DefaultAuthorizer: AWS_IAM}");
        assert_eq!(problems(&with_default), expected[1..], "SAM leaves OPTIONS out");
        let for_all = of_api.replace("openapi: 3.0.1", "security: [{jwt: []}]");
        assert_eq!(problems(&for_all), expected[1..3]);
    }

    #[test]
    fn a_document_that_is_not_in_the_template_is_not_checked() {
        for (resource, reason) in [
            ("Type: AWS::Serverless::HttpApi\n    Properties: {DefinitionUri: api.yaml}", "in another file"),
            ("Type: AWS::ApiGatewayV2::Api\n    Properties: {BodyS3Location: {Bucket: b, Key: k}}", "in another file"),
            (
                "Type: AWS::Serverless::HttpApi\n    Properties: {DefinitionBody: {Fn::Transform: {Name: \
                 AWS::Include}}}",
                "Transform",
            ),
        ] {
            let found = problems(resource);
            assert!(found.len() == 1 && found[0].contains(reason), "{resource}: {found:?}");
        }
    }
}
