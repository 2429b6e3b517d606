//! The rotation of the key that seals cursors: a parameter names the secret's version, which changes the text that a
//! deployment resolves, and the previous key is accepted as long as another parameter names it.

use millrace_local::template::FunctionResource;
use millrace_shared::http::cursor_seal::SealKeys;

use super::choices::{INSTANCE_AND_GROUP, with_parameters};
use super::{TEMPLATES, deployed_with, source};

const FIRST: &str = "a1b2c3d4-5678-90ab-cdef-000000000001";
const SECOND: &str = "b1b2c3d4-5678-90ab-cdef-000000000002";
const THIRD: &str = "c1b2c3d4-5678-90ab-cdef-000000000003";
const FUNCTIONS: [&str; 2] = ["api", "search"];

/// A function as deployed with these versions.
fn function(name: &str, version: &str, previous: &str) -> FunctionResource {
    let parameters = [("CursorSecretVersion", version), ("PreviousCursorSecretVersion", previous)];
    let template = with_parameters(INSTANCE_AND_GROUP, &parameters);
    template.functions.into_iter().find(|function| function.name == name).unwrap()
}

/// The keys that the function starts with if the secret's current version is the given one at deployment.
fn keys(function: FunctionResource, current: &str) -> SealKeys {
    let name = function.name.clone();
    let environment = deployed_with(function, current);
    match name.as_str() {
        "api" => millrace_api::config::ApiConfig::parse(&environment).unwrap().cursor_keys,
        _ => millrace_search::config::SearchConfig::parse(&environment).unwrap().cursor_keys,
    }
}

#[test]
fn rotation_changes_the_text_that_a_deployment_resolves() {
    for name in FUNCTIONS {
        let text = |version: &str, previous: &str| function(name, version, previous).environment["CURSOR_KEYS"].clone();
        let steps = [text("none", "none"), text(SECOND, FIRST), text(THIRD, SECOND), text(THIRD, "none")];
        for (position, step) in steps.iter().enumerate() {
            assert!(!steps[..position].contains(step), "{name}: {step} would not be resolved again");
        }
        assert_eq!(text("none", FIRST), text("none", "none"), "{name}: previous to no version");
        assert_eq!(text(THIRD, THIRD), text(THIRD, "none"), "{name}: one key under one id");
    }
}

#[test]
fn cursors_of_the_previous_key_are_accepted_and_older_ones_are_not() {
    for name in FUNCTIONS {
        let first = keys(function(name, "none", "none"), FIRST);
        let second = keys(function(name, SECOND, FIRST), SECOND);
        let third = keys(function(name, THIRD, SECOND), THIRD);
        let last = keys(function(name, THIRD, "none"), THIRD);
        let seal = |keys: &SealKeys| keys.seal(b"a cursor", b"a list", [7; 12]).unwrap();
        let opens = |keys: &SealKeys, sealed: &str| keys.open(sealed, b"a list").as_deref() == Some(b"a cursor");
        assert!(opens(&second, &seal(&first)), "{name}: lists go on over the first rotation");
        assert!(opens(&third, &seal(&second)), "{name}: and over the next one");
        assert!(!opens(&third, &seal(&first)), "{name}: a key is accepted for one rotation");
        assert!(opens(&last, &seal(&third)) && !opens(&last, &seal(&second)), "{name}: and until it is named no more");
        assert!(!opens(&second, &seal(&third)) && !opens(&first, &seal(&second)), "{name}: the new key seals");
    }
}

/// `CloudFormation` resolves a reference again only if its text changes, so a reference to a secret that is rotated
/// must name the version. The password of a database instance is an exception: its rotation changes it in the instance,
/// and nothing here reads it from the template.
#[test]
fn every_reference_to_a_secret_names_a_version_or_needs_none() {
    let nested = ["network", "endpoints", "relational", "cache", "rotation"].map(|name| format!("infra/{name}.yaml"));
    for path in TEMPLATES.into_iter().chain(nested.iter().map(String::as_str)) {
        let text = source(path);
        for rest in text.split("{{resolve:").skip(1) {
            let reference = rest.split_once("}}").unwrap().0;
            let has_version =
                reference.contains("::${CursorSecretVersion") || reference.contains("::${PreviousCursorSecretVersion");
            let is_without = reference == "secretsmanager:${CursorSecret}:SecretString:key";
            let is_rotated_in_place = path == "infra/relational.yaml"
                && reference == "secretsmanager:${MasterSecret}:SecretString:password"
                && source("infra/rotation.yaml").contains("AWS::SecretsManager::RotationSchedule");
            assert!(has_version || is_without || is_rotated_in_place, "{path}: {reference} is never read again");
        }
    }
}
