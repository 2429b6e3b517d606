//! The templates of this repository have no finding.

use std::collections::BTreeMap;
use std::path::Path;

use crate::deployment_file::read_file;
use crate::diagnosis::diagnose;

#[test]
fn the_templates_of_this_repository_have_no_finding() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = vec![root.join("template.yaml")];
    files.extend(std::fs::read_dir(root.join("infra")).unwrap().map(|entry| entry.unwrap().path()));
    let tiers: &[&[(&str, &str)]] = &[
        &[],
        &[
            ("RelationalTier", "aurora-serverless"),
            ("CacheTier", "valkey-serverless"),
            ("AlarmTopicArn", "arn:aws:sns:::t"),
        ],
        &[("Archive", "in-replicator")],
        &[("JwtIssuer", "https://issuer"), ("JwtAudience", "users"), ("CorsOrigins", "*")],
    ];
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "yaml")) {
        for parameters in tiers {
            let parameters: BTreeMap<String, String> =
                parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let reading = read_file(file, &parameters).unwrap();
            if !reading.unknown_parameters.is_empty() {
                continue;
            }
            let at = format!("{} with {parameters:?}", file.display());
            assert_eq!(reading.problems, Vec::<String>::new(), "{at}");
            let diagnosis = diagnose(&reading.deployment);
            let findings: Vec<_> =
                diagnosis.findings.iter().map(|it| (it.rule.id, &it.location.resource, &it.problem)).collect();
            assert!(findings.is_empty(), "{at}: {findings:#?}");
            assert!(diagnosis.unused_ignores.is_empty(), "{at}: {:?}", diagnosis.unused_ignores);
            if file.ends_with("template.yaml") {
                let expected = if parameters.contains_key("Archive") { 1 } else { 2 };
                assert_eq!(diagnosis.mappings, expected, "{at}");
            }
        }
    }
}
