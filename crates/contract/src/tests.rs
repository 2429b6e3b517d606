use std::collections::BTreeSet;

use millrace_api::openapi::OPENAPI_JSON;
use millrace_http::problem::all_variants;
use serde_json::Value;

use super::problems::problems_of;
use super::*;

fn document() -> Value {
    serde_json::from_str(OPENAPI_JSON).unwrap()
}

/// Returns every operation with its method and path.
fn operations() -> Vec<(String, String, Value)> {
    let mut operations = Vec::new();
    for (path, methods) in document()["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations.push((method.to_uppercase(), path.clone(), operation.clone()));
        }
    }
    operations
}

#[test]
fn the_document_in_the_repository_is_what_the_handlers_say() {
    assert_eq!(
        OPENAPI_JSON,
        openapi().unwrap(),
        "the contract has changed: cargo run -p millrace-contract --example openapi >functions/api/openapi.json"
    );
    assert!(document()["openapi"].as_str().unwrap().starts_with("3.1"));
}

#[test]
fn every_problem_type_is_documented_for_its_operations() {
    // Problems of paths or methods that the document does not contain.
    let everywhere = ["unknown-route", "relational-tier-off", "method-not-allowed"];
    let mut found = BTreeSet::new();
    for (method, path, operation) in operations() {
        for problem in problems_of(operation["operationId"].as_str().unwrap()) {
            let response = &operation["responses"][problem.status().to_string()];
            let description = response["description"].as_str().unwrap_or_default();
            assert!(description.contains(&problem.type_uri()), "{method} {path}: {description}");
            assert!(response["content"].get("application/problem+json").is_some(), "{method} {path}");
            found.insert(problem.type_uri());
        }
    }
    for problem in all_variants() {
        let kind = problem.type_uri();
        let is_everywhere = everywhere.iter().any(|name| kind.ends_with(name));
        assert_eq!(found.contains(&kind), !is_everywhere, "{kind}");
    }
}

#[test]
fn every_operation_has_a_name_a_success_and_its_scopes() {
    let mut names = BTreeSet::new();
    for (method, path, operation) in operations() {
        assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{method} {path}");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{method} {path}");
        let is_open = ["/health", "/openapi.json"].contains(&path.as_str());
        assert_eq!(operation.get("security").is_some(), !is_open, "{method} {path}");
    }
    assert_eq!(names.len(), 14);
}
