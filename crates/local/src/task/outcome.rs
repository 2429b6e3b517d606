//! Outcome of a task, as text and as an exit code.

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use millrace_maintenance::progress::TaskProgress;
use serde_json::json;

/// The width of the names of counters, unless a longer one makes it wider.
const NAME_WIDTH: usize = 24;

/// The outcome of a task.
#[derive(Debug)]
pub struct TaskOutcome {
    /// The name of the task.
    pub task: &'static str,
    /// The run ID.
    pub run: String,
    /// The counters, summed over all segments.
    pub progress: TaskProgress,
    /// The sinks that the task worked on.
    pub sinks: Vec<String>,
    /// The number of differences that the task found and did not repair.
    pub differences: u64,
    /// The number of these differences, and of items and objects that it did not process.
    pub problems: u64,
    /// The reports of the run, as `s3://bucket/key`.
    pub reports: Vec<String>,
    /// The command that imports an export.
    pub command: Option<String>,
    /// The duration of the task.
    pub took: Duration,
}

impl TaskOutcome {
    /// Returns whether the task found no differences and processed every item.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.problems == 0
    }

    /// Returns the outcome as a JSON document of one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        let Self { task, run, progress, sinks, differences, problems, reports, command, took } = self;
        let mut document = json!({
            "task": task, "run_id": run, "progress": progress, "sinks": sinks, "differences": differences,
            "problems": problems, "reports": reports, "took_seconds": took.as_secs_f64(),
        });
        if let Some(command) = command {
            document["command"] = json!(command);
        }
        document.to_string()
    }

    /// Returns 0 if the task succeeded, 1 if it has problems to report.
    #[must_use]
    pub fn code(&self) -> ExitCode {
        if self.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

impl fmt::Display for TaskOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} took {:.1} s", self.task, self.run, self.took.as_secs_f64())?;
        if self.progress == TaskProgress::default() {
            writeln!(f, "  no items processed")?;
        }
        let counts = self.progress.to_string();
        let counts: Vec<(&str, &str)> = counts.split(", ").filter_map(|count| count.rsplit_once(' ')).collect();
        let width = counts.iter().map(|(name, _)| name.len()).fold(NAME_WIDTH, usize::max);
        for (name, number) in counts {
            writeln!(f, "  {name:<width$} {number:>12}")?;
        }
        if self.problems > 0 {
            writeln!(f, "problems {}", self.problems)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_aligned_with_names_of_any_length() {
        let mut progress = TaskProgress::default();
        progress.count("export-import-table.objects", 1);
        progress.count("source.items", 2);
        let outcome = TaskOutcome {
            task: "export-import-table",
            run: "a".to_owned(),
            progress,
            sinks: Vec::new(),
            differences: 0,
            problems: 0,
            reports: Vec::new(),
            command: None,
            took: Duration::ZERO,
        };
        let text = outcome.to_string();
        let widths: Vec<usize> = text.lines().filter(|line| line.starts_with("  ")).map(str::len).collect();
        assert_eq!(widths, [2 + 27 + 1 + 12; 2], "{text}");
    }
}
