//! Programs that this process runs, such as `initdb`: [`ProgramError`] and [`run_program`].
//!
//! An error names the program, how it ended, the fix if one is known, and the last lines of its standard error: the
//! reason that a program gives is often not its last line.

use std::fmt::{self, Display};
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

/// The maximum number of lines that an error shows.
const SHOWN_LINES: usize = 8;
/// The maximum number of bytes that an error shows.
const SHOWN_BYTES: usize = 2_000;
const NULL_DEVICE: &str = "/dev/null";

/// Parts of messages whose fix is known, each with the fix.
const FIXES: [(&str, &str); 5] = [
    ("cannot be run as root", "run millrace as another user than root"),
    ("could not access directory", "set TMPDIR to a folder that every user may enter"),
    ("invalid locale", "install the locale C.UTF-8"),
    ("No space left on device", "free space on the disk that contains the folder of TMPDIR, or set TMPDIR to another"),
    ("already in use", "stop the other program, or start again"),
];

/// A program that did not start, failed, or did not become ready.
#[derive(Debug, thiserror::Error)]
pub struct ProgramError {
    program: String,
    end: ProgramEnd,
    fix: Option<String>,
    /// The last lines of standard error.
    printed: Vec<String>,
}

/// The way in which a program failed.
#[derive(Debug)]
enum ProgramEnd {
    NotRun(io::Error),
    Exited(ExitStatus),
    NotReady(Duration, String),
}

impl ProgramError {
    /// The program could not be started.
    #[must_use]
    pub fn not_run(program: &str, error: io::Error) -> Self {
        Self::new(program, ProgramEnd::NotRun(error), &[])
    }

    /// The program ended with this status after it had printed this to standard error.
    #[must_use]
    pub fn exited(program: &str, status: ExitStatus, stderr: &[u8]) -> Self {
        Self::new(program, ProgramEnd::Exited(status), stderr)
    }

    /// The program runs, but did not become ready in time; `reason` is the error of the last attempt to reach it.
    #[must_use]
    pub fn not_ready(program: &str, within: Duration, reason: &dyn Display, stderr: &[u8]) -> Self {
        Self::new(program, ProgramEnd::NotReady(within, reason.to_string()), stderr)
    }

    /// Returns whether the program does not exist.
    #[must_use]
    pub fn is_not_installed(&self) -> bool {
        matches!(&self.end, ProgramEnd::NotRun(error) if error.kind() == io::ErrorKind::NotFound)
    }

    fn new(program: &str, end: ProgramEnd, stderr: &[u8]) -> Self {
        let fix = if matches!(end, ProgramEnd::NotRun(_)) { None } else { known_fix(stderr, Path::new(NULL_DEVICE)) };
        Self { program: program.to_owned(), end, fix, printed: last_lines(stderr) }
    }
}

impl Display for ProgramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = &self.program;
        match &self.end {
            ProgramEnd::NotRun(error) => write!(f, "cannot run {program}: {error}")?,
            ProgramEnd::Exited(status) => write!(f, "{program} failed ({status})")?,
            ProgramEnd::NotReady(within, reason) => {
                write!(f, "{program} is not ready after {} s: {reason}", within.as_secs())?;
            }
        }
        if let Some(fix) = &self.fix {
            write!(f, ": {fix}")?;
        }
        match (&self.end, self.printed.as_slice()) {
            (ProgramEnd::NotRun(_), _) => Ok(()),
            (_, []) => f.write_str("; it printed no error"),
            (_, lines) => {
                f.write_str("; it printed:")?;
                lines.iter().try_for_each(|line| write!(f, "\n  {line}"))
            }
        }
    }
}

/// Runs a program to its end, without input.
///
/// # Errors
/// [`ProgramError`] if it cannot be run, or if its exit status is not 0.
pub fn run_program(program: &str, command: &mut Command) -> Result<Output, ProgramError> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| ProgramError::not_run(program, error))?;
    if output.status.success() { Ok(output) } else { Err(ProgramError::exited(program, output.status, &output.stderr)) }
}

/// Returns the last lines, without empty ones.
fn last_lines(stderr: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(&stderr[stderr.len().saturating_sub(SHOWN_BYTES)..]);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].iter().map(|line| (*line).to_owned()).collect()
}

/// Returns the fix of a failure, if it is known.
fn known_fix(stderr: &[u8], null_device: &Path) -> Option<String> {
    let path = null_device.display();
    match fs::metadata(null_device) {
        // A program that replaces its output file, run by root, replaces the device.
        Ok(metadata) if !metadata.file_type().is_char_device() => {
            return Some(format!("{path} is not a device: as root, run rm -f {path} && mknod -m 666 {path} c 1 3"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Some(format!("{path} does not exist: as root, run mknod -m 666 {path} c 1 3"));
        }
        _ => {}
    }
    let text = String::from_utf8_lossy(stderr);
    FIXES.iter().find(|(part, _)| text.contains(part)).map(|(_, fix)| (*fix).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(script: &str) -> String {
        run_program("setup", Command::new("sh").args(["-c", script])).unwrap_err().to_string()
    }

    #[test]
    fn failure_has_program_status_and_last_lines() {
        assert_eq!(failure("exit 3"), "setup failed (exit status: 3); it printed no error");
        let message = failure("for n in 1 2 3 4 5 6 7 8 9; do echo line $n >&2; echo; echo >&2; done; exit 2");
        assert!(message.starts_with("setup failed (exit status: 2); it printed:\n  line 2\n  line 3\n"), "{message}");
        assert!(message.ends_with("  line 9"), "{message}");
        assert!(failure("kill -9 $$").starts_with("setup failed (signal: 9"));
        let long = failure("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1");
        assert!(long.len() < 2 * SHOWN_BYTES, "{}", long.len());
    }

    #[test]
    fn program_that_is_not_installed_is_named() {
        let error = run_program("/nowhere/initdb", &mut Command::new("/nowhere/initdb")).unwrap_err();
        assert!(error.is_not_installed());
        assert!(error.to_string().starts_with("cannot run /nowhere/initdb: No such file"), "{error}");
    }

    #[test]
    fn known_reason_has_a_fix() {
        let message = failure("echo 'initdb: error: cannot be run as root' >&2; echo 'Try again.' >&2; exit 1");
        assert!(
            message.starts_with("setup failed (exit status: 1): run millrace as another user than root; it"),
            "{message}"
        );
        let folder = tempfile::tempdir().unwrap();
        let null = folder.path().join("null");
        assert!(known_fix(b"", &null).unwrap().contains("does not exist: as root, run mknod -m 666"));
        fs::write(&null, "").unwrap();
        let fix = known_fix(b"sh: 1: cannot create /dev/null: Permission denied", &null).unwrap();
        assert!(fix.contains(&format!("{} is not a device: as root, run rm -f", null.display())), "{fix}");
        assert_eq!(known_fix(b"out of memory", Path::new(NULL_DEVICE)), None);
    }

    #[test]
    fn program_that_is_not_ready_shows_its_lines() {
        let error = ProgramError::not_ready("server", Duration::from_secs(7), &"refused", b"loading\n");
        assert_eq!(error.to_string(), "server is not ready after 7 s: refused; it printed:\n  loading");
    }
}
