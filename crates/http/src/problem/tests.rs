use std::collections::BTreeSet;

use millrace_shared::item::ItemParseError;

use super::*;

#[test]
fn every_problem_has_a_type_of_its_own_and_keeps_its_cause_to_itself() {
    let mut types = BTreeSet::new();
    for problem in all_variants() {
        let body = problem.body("the-request");
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert!(types.insert(json["type"].to_string()), "{body}");
        assert_eq!(json["status"].as_u64().unwrap(), u64::from(problem.parts().0.as_u16()));
        assert_eq!(json["instance"], "the-request");
        assert!(!json["title"].as_str().unwrap().is_empty() && !json["detail"].as_str().unwrap().is_empty());
        assert!(!body.contains("the cause"), "{body}");
        let says_all = matches!(problem, Problem::TooManyExpired);
        assert_eq!(problem.cause().is_some(), problem.parts().0.is_server_error() && !says_all);
    }
}

#[test]
fn every_type_has_its_section_in_the_docs_and_every_section_its_type() {
    let page = include_str!("../../../../docs/problems.md");
    let sections: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let types: BTreeSet<String> = all_variants()
        .iter()
        .map(|problem| {
            let (status, kind, title, _) = problem.parts();
            format!("{} {title}: `urn:millrace:problem:{kind}`", status.as_u16())
        })
        .collect();
    assert_eq!(sections, types.iter().map(String::as_str).collect());
}

#[test]
fn table_error_maps_to_the_problem_status_of_its_kind() {
    let status = |fault: TableError| Problem::from(fault).parts().0.as_u16();
    assert_eq!(status(TableError::Throttled("x".into())), 503);
    assert_eq!(status(TableError::Unavailable("x".into())), 503);
    assert_eq!(status(TableError::TooLarge("x".into())), 413);
    assert_eq!(status(TableError::Refused("x".into())), 500);
    assert_eq!(status(TableError::Unreadable(ItemParseError { attribute: "name", reason: "missing".into() })), 500);
    for (error, status) in [
        (WriteError::NotFound, 404),
        (WriteError::Exists, 409),
        (WriteError::EmailTaken, 409),
        (WriteError::PreconditionFailed, 412),
        (WriteError::Contended, 503),
    ] {
        assert_eq!(Problem::from(error).parts().0.as_u16(), status);
    }
}

#[test]
fn the_log_gets_a_fault_with_its_causes() {
    let problem = Problem::from(TableError::Unavailable("connection refused".into()));
    assert_eq!(problem.cause(), Some("the table is unavailable: connection refused"));
}
