//! What came of a task, in words and as an exit code.

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use maintenance::progress::Progress;

/// The counts of real differences.
const DIFFERENCES: [&str; 5] = [".missing", ".different", ".resurrected", ".extra", ".quarantined"];
/// The counts of what a task was to do and did not, and of what it could not read.
const UNDONE: [&str; 6] = [".left", ".kept", ".refused", ".damaged", ".foreign", "audit.missing"];

/// What came of a task.
#[derive(Debug)]
pub struct Outcome {
    /// Its name.
    pub task: &'static str,
    /// The run's name.
    pub run: String,
    /// All that was counted, in all segments.
    pub progress: Progress,
    /// The report: `s3://bucket/key` each.
    pub reports: Vec<String>,
    /// What an export is imported with.
    pub command: Option<String>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// Whether nothing is left to be looked at: a comparison found no difference, and no task left anything undone.
    #[must_use]
    pub fn is_well(&self) -> bool {
        let none = |endings: &[&str]| endings.iter().all(|ending| self.progress.sum(ending) == 0);
        none(&UNDONE) && (self.task != "verify" || none(&DIFFERENCES))
    }

    /// 0 if all is well, 1 if something is to be looked at.
    #[must_use]
    pub fn code(&self) -> ExitCode {
        if self.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} took {:.1} s", self.task, self.run, self.took.as_secs_f64())?;
        if self.progress == Progress::default() {
            writeln!(f, "  there was nothing to count")?;
        }
        for count in self.progress.to_string().split(", ") {
            if let Some((name, number)) = count.rsplit_once(' ') {
                writeln!(f, "  {name:<24} {number:>12}")?;
            }
        }
        for report in &self.reports {
            writeln!(f, "report {report}")?;
        }
        if let Some(command) = &self.command {
            write!(f, "import it with:\n\n{command}")?;
        }
        Ok(())
    }
}
