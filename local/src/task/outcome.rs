//! What came of a task, in words and as an exit code.

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use maintenance::progress::Progress;

/// The counts of what a task was to do and did not, and of what it could not read.
const UNDONE: [&str; 5] = [".left", ".kept", ".refused", ".damaged", ".foreign"];

/// What came of a task.
#[derive(Debug)]
pub struct Outcome {
    /// Its name.
    pub task: &'static str,
    /// The run's name.
    pub run: String,
    /// All that was counted, in all segments.
    pub progress: Progress,
    /// The sinks that it worked on.
    pub sinks: Vec<String>,
    /// What a `verify` or an `audit` found.
    pub differences: u64,
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
        self.differences == 0 && UNDONE.iter().all(|ending| self.progress.sum(ending) == 0)
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
        if !self.sinks.is_empty() {
            writeln!(f, "sinks {}", self.sinks.join(", "))?;
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
