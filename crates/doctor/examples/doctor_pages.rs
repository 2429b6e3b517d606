//! Writes the pages of the rules, and prints the table of docs/doctor/README.md:
//! `cargo run -p millrace-doctor --example doctor_pages docs/doctor`.

use std::path::Path;

use millrace_doctor::explanation::{page, table};
use millrace_doctor::rule_table::RULES;

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "docs/doctor".to_owned());
    for rule in RULES {
        std::fs::write(Path::new(&folder).join(format!("{}.md", rule.id)), page(rule))?;
    }
    print!("{}", table());
    Ok(())
}
