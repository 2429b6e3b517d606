//! The pages in docs/doctor/ are made from the table of rules; the example `doctor_pages` writes them.

use std::path::Path;

use crate::account_call::policy;
use crate::explanation::{page, table};
use crate::rule_table::RULES;

#[test]
fn the_pages_are_those_of_the_rules() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/doctor");
    let overview = std::fs::read_to_string(folder.join("README.md")).unwrap();
    assert!(overview.contains(&table()), "docs/doctor/README.md must contain this table:\n{}", table());
    assert!(overview.contains(&policy()), "docs/doctor/README.md must contain this policy:\n{}", policy());
    for rule in RULES {
        let path = folder.join(format!("{}.md", rule.id));
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == page(rule), "{} must be:\n{}", path.display(), page(rule));
    }
    let pages = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(pages, RULES.len() + 1, "a page without a rule in {}", folder.display());
}
