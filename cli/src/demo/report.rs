//! The page that the demo prints: headings, exhibits and checks.

use std::fmt::Write as _;

/// The longest exhibit that is printed in full; the checks use the complete text.
const WIDEST: usize = 120;

#[derive(Default)]
pub(super) struct DemoReport {
    text: String,
    passed: usize,
    failed: usize,
}

impl DemoReport {
    pub(super) fn new() -> Self {
        let mut report = Self::default();
        report.line("\nMillrace demo: users, a poison record, a lost replica and a stale redrive, from API to archive; then orders");
        report
    }

    fn line(&mut self, line: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }

    pub(super) fn heading(&mut self, heading: &str) {
        self.line(&format!("\n{heading}"));
    }

    pub(super) fn show(&mut self, store: &str, what: &str) {
        let mut shown: String = what.chars().take(WIDEST).collect();
        if shown.len() < what.len() {
            shown.push('…');
        }
        self.line(&format!("    {store:<34}  {shown}"));
    }

    pub(super) fn check(&mut self, promise: &str, kept: bool) {
        let mark = if kept { '✓' } else { '✗' };
        *(if kept { &mut self.passed } else { &mut self.failed }) += 1;
        self.line(&format!("  {mark} {promise}"));
    }

    pub(super) fn failed(&self) -> usize {
        self.failed
    }

    pub(super) fn text(&self) -> String {
        format!("{}\ndemo: {} checks passed, {} failed", self.text, self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts_the_checks() {
        let mut report = DemoReport::new();
        report.show("source", &"é".repeat(400));
        report.check("kept", true);
        report.check("broken", false);
        let text = report.text();
        assert_eq!(text.lines().last(), Some("demo: 1 checks passed, 1 failed"));
        assert!(text.contains("✓ kept") && text.contains("✗ broken") && text.contains("é…"));
        assert_eq!(report.failed(), 1);
    }
}
