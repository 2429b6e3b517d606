//! The routes of an HTTP API that an OpenAPI document defines: [`routes_of`].

use crate::deployment::{RouteSettings, SourceLocation};
use crate::resource_entry::{ApiDocument, PropertyNode as _, ResourceEntry};
use crate::setting::SettingValue;
use crate::template_scope::{ResolvedNode, ResolvedValue};

/// The members of a path that are methods.
const METHODS: [&str; 9] =
    ["delete", "get", "head", "options", "patch", "post", "put", "trace", "x-amazon-apigateway-any-method"];

/// Returns the routes of the OpenAPI document at a path of the properties. `default` is the authorizer that SAM adds to
/// every route without one of its own, except for OPTIONS.
pub(crate) fn routes_of(entry: &ResourceEntry, path: &[&str], default: &SettingValue<String>) -> Vec<RouteSettings> {
    match entry.properties.at(path) {
        SettingValue::Known(document) => routes_at(&entry.location, document, default),
        SettingValue::Absent => Vec::new(),
        SettingValue::Unresolved(reason) => vec![unread(&entry.location, reason)],
    }
}

/// Returns the routes of a document that is not one of the properties.
pub(crate) fn routes_of_document(
    entry: &ResourceEntry,
    document: &ApiDocument,
    default: &SettingValue<String>,
) -> Vec<RouteSettings> {
    let file = document.file.clone();
    let location =
        SourceLocation { file: file.unwrap_or_else(|| entry.location.file.clone()), line: 0, ..entry.location.clone() };
    let mut routes = routes_at(&location, &document.node, default);
    if document.file.is_none() {
        // Its lines are not those of the file.
        for route in &mut routes {
            route.location.line = 0;
        }
    }
    routes
}

fn routes_at(location: &SourceLocation, document: &ResolvedNode, default: &SettingValue<String>) -> Vec<RouteSettings> {
    let paths = match document.at(&["paths"]) {
        SettingValue::Known(paths) => paths,
        SettingValue::Absent => return Vec::new(),
        SettingValue::Unresolved(reason) => return vec![unread(location, reason)],
    };
    let of_all = document.get("security");
    let mut routes = Vec::new();
    for (route, methods) in paths.entries() {
        if let Some(reason) = methods.unresolved() {
            routes.push(unread(location, reason.to_owned()));
        }
        for (method, operation) in methods.entries().iter().filter(|(name, _)| METHODS.contains(&name.as_str())) {
            let location = SourceLocation { line: operation.line, ..location.clone() };
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

/// Returns the entry for a document that is not read.
pub(crate) fn unread(location: &SourceLocation, reason: String) -> RouteSettings {
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
    fn each_route_of_an_openapi_document_is_evaluated() {
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
    fn a_document_in_a_bucket_is_not_checked_and_named() {
        for (resource, reason) in [
            (
                "Type: AWS::Serverless::HttpApi\n    Properties: {DefinitionUri: api.yaml}",
                "is api.yaml, which is not read",
            ),
            (
                "Type: AWS::Serverless::HttpApi\n    Properties: {DefinitionUri: s3://b/api.yaml}",
                "is s3://b/api.yaml, which is not read",
            ),
            (
                "Type: AWS::ApiGatewayV2::Api\n    Properties: {BodyS3Location: {Bucket: b, Key: k}}",
                "is s3://b/k, which is not read",
            ),
            (
                "Type: AWS::Serverless::HttpApi\n    Properties: {DefinitionBody: {Fn::Transform: {Name: \
                 AWS::Include, Parameters: {Location: s3://b/api.yaml}}}}",
                "is s3://b/api.yaml, which is not read",
            ),
            (
                "Type: AWS::Serverless::HttpApi\n    Properties: {DefinitionBody: {Fn::Transform: {Name: \
                 AWS::Include, Parameters: {Location: !ImportValue x}}}}",
                "the location of its OpenAPI document: ",
            ),
            (
                "Type: AWS::Serverless::HttpApi\n    Properties: {DefinitionBody: {Fn::Transform: {Name: own}}}",
                "Transform",
            ),
        ] {
            let found = problems(resource);
            assert!(found.len() == 1 && found[0].contains(reason), "{resource}: {found:?}");
        }
    }

    #[test]
    fn a_document_in_a_local_file_is_read_and_one_that_cannot_be_is_a_problem() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("api")).unwrap();
        std::fs::write(folder.path().join("api/api.yaml"), DOCUMENT).unwrap();
        std::fs::write(folder.path().join("api/bad.yaml"), "a: ]").unwrap();
        let read = |resource: &str| {
            let file = folder.path().join("t.yaml");
            let text = format!("Transform: AWS::Serverless-2016-10-31\nResources:\n  Api:\n    {resource}");
            std::fs::write(&file, text).unwrap();
            let reading = crate::deployment_file::read_file(&file, &BTreeMap::new()).unwrap();
            let diagnosis = diagnose(&reading.deployment);
            let unchecked = diagnosis.unchecked.into_iter().filter(|unchecked| unchecked.rule.id == "open-route");
            (diagnosis.findings, unchecked.map(|it| it.reason).collect::<Vec<_>>(), reading.problems)
        };
        let forms = |path: &str| {
            [
                format!("Type: AWS::Serverless::HttpApi\n    Properties: {{DefinitionUri: {path}}}"),
                format!("Type: AWS::ApiGatewayV2::Api\n    Properties: {{BodyS3Location: {path}}}"),
                format!(
                    "Type: AWS::Serverless::HttpApi\n    Properties: {{DefinitionBody: {{Fn::Transform: {{Name: \
                     AWS::Include, Parameters: {{Location: {path}}}}}}}}}"
                ),
                format!(
                    "Type: AWS::ApiGatewayV2::Api\n    Properties:\n      Body: !Transform {{Name: AWS::Include, \
                     Parameters: {{Location: {path}}}}}"
                ),
            ]
        };
        for resource in forms("./api/api.yaml") {
            let (findings, unchecked, problems) = read(&resource);
            assert_eq!((findings.len(), unchecked, problems), (4, Vec::new(), Vec::new()), "{resource}");
            let location = &findings[0].location;
            assert!(location.file.ends_with("api.yaml") && location.line == 6, "{location:?}");
            assert_eq!(
                (location.resource.as_str(), findings[0].problem.as_str()),
                ("Api", "ANY /open has no authorizer")
            );
        }
        for (path, problem) in [
            ("api/gone.yaml", "cannot read the file"),
            ("api/bad.yaml", "bad.yaml:1: invalid YAML"),
            ("api", "cannot read the file"),
        ] {
            for resource in forms(path) {
                let (findings, unchecked, problems) = read(&resource);
                assert!(findings.is_empty() && unchecked == [format!("its OpenAPI document {path} cannot be read")]);
                assert!(problems.len() == 1 && problems[0].contains(problem), "{problems:?}");
                assert!(problems[0].contains(": Api: ") && !problems[0].contains('\n'), "{problems:?}");
            }
        }
        // A device without an end.
        #[cfg(unix)]
        assert!(read(&forms("/dev/zero")[0]).2[0].contains("has more than 4000000 bytes"));
    }

    #[test]
    fn an_api_with_a_target_has_an_open_route() {
        let of =
            |properties: &str| problems(&format!("Type: AWS::ApiGatewayV2::Api\n    Properties: {{{properties}}}"));
        assert_eq!(of("ProtocolType: HTTP, Target: arn:f"), ["$default has no authorizer"]);
        assert_eq!(of("ProtocolType: HTTP, Target: arn:f, RouteKey: GET /x"), ["GET /x has no authorizer"]);
        assert_eq!(of("ProtocolType: HTTP"), Vec::<String>::new());
    }

    #[test]
    fn the_body_of_an_api_of_a_plan_is_read() {
        let evaluate = |values: serde_json::Value, expressions: serde_json::Value| {
            let plan = serde_json::json!({
                "planned_values": {"root_module": {"resources": [
                    {"address": "aws_apigatewayv2_api.a", "mode": "managed", "type": "aws_apigatewayv2_api",
                     "values": values},
                    {"address": "aws_apigatewayv2_route.r", "mode": "managed", "type": "aws_apigatewayv2_route",
                     "values": {"route_key": "$connect"}},
                ]}},
                "configuration": {"root_module": {"resources": [
                    {"address": "aws_apigatewayv2_api.a", "expressions": expressions},
                    {"address": "aws_apigatewayv2_route.r", "expressions": {
                        "api_id": {"references": ["aws_apigatewayv2_api.a.id", "aws_apigatewayv2_api.a"]},
                    }},
                ]}},
            });
            let diagnosis = diagnose(&crate::terraform_plan::read(&plan, "plan.json").deployment);
            let unchecked = diagnosis.unchecked.into_iter().filter(|unchecked| unchecked.rule.id == "open-route");
            let findings = diagnosis.findings.into_iter().map(|it| (it.location.line, it.problem)).collect::<Vec<_>>();
            (findings, unchecked.map(|it| it.reason).collect::<Vec<_>>())
        };
        let none = serde_json::json!({});
        let connect = (0, "$connect has no authorizer".to_owned());
        for body in [
            DOCUMENT.to_owned(),
            r#"{"paths": {"/open": {"get": {}}, "/iam": {"get": {"security": [{"a": []}]}}}}"#.to_owned(),
        ] {
            let (findings, unchecked) =
                evaluate(serde_json::json!({"protocol_type": "HTTP", "body": body}), none.clone());
            assert!(unchecked.is_empty() && findings.contains(&connect), "{findings:?} {unchecked:?}");
            let has_open =
                findings.iter().any(|(line, problem)| *line == 0 && problem.ends_with(" /open has no authorizer"));
            assert!(has_open && !findings.iter().any(|(_, problem)| problem.contains("/iam")), "{findings:?}");
        }
        let bad = evaluate(serde_json::json!({"body": "a: ]"}), none.clone());
        assert!(bad.1[0].starts_with("its OpenAPI document cannot be read: line 1: invalid YAML"), "{bad:?}");
        let later = serde_json::json!({"body": {"references": ["aws_lambda_function.f.invoke_arn"]}});
        let unknown = evaluate(none.clone(), later);
        assert_eq!(unknown.1, ["its OpenAPI document is known after the deployment"]);
        // The routes of a WebSocket API share the authorizer of $connect.
        assert_eq!(evaluate(serde_json::json!({"protocol_type": "WEBSOCKET"}), none), (Vec::new(), Vec::new()));
    }
}
