//! Environment file of the functions for `cargo lambda watch --env-file`: [`write()`].
//!
//! One file serves all functions, so a variable must have the same value in each of them. A file that this program did
//! not write is not changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use millrace_shared::file::{regular_file, replace_file};
use millrace_sinks::document::REPLICATION;

use crate::clients;
use crate::stack::{CURSOR_KEYS, LocalStack};

/// The first line of every file that this program writes; it identifies such a file.
const HEADER: &str =
    "# Written by `millrace --env-file` for `cargo lambda watch --env-file`; it is overwritten at each start.";

/// The variable with the ARN of the source table.
const SOURCE_TABLE_ARN: &str = "SOURCE_TABLE_ARN";

/// An environment file that was not written.
#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    /// Two functions require different values of one variable.
    #[error("the functions have different values of {0}: a single --env-file cannot contain both")]
    Disagreement(String),
    /// The existing file was not written by this program.
    #[error("{} was not written by millrace and is not overwritten: choose another with --env-file", .0.display())]
    Foreign(PathBuf),
    /// The file cannot be read or written.
    #[error("{}: {source}: choose another with --env-file", path.display())]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
}

/// Writes the file, or replaces one that this program wrote.
///
/// # Errors
/// [`EnvFileError`]; the file is then unchanged.
pub fn write(path: &Path, stack: &LocalStack) -> Result<(), EnvFileError> {
    let mut variables: BTreeMap<String, String> = [
        ("AWS_ACCESS_KEY_ID", clients::ACCESS_KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", clients::SECRET_ACCESS_KEY),
        ("AWS_REGION", clients::REGION),
        ("AWS_ENDPOINT_URL_DYNAMODB", stack.dynamodb_url()),
        // The maintenance function reads its event source mappings from Lambda: see `crate::lambda`.
        ("AWS_ENDPOINT_URL_LAMBDA", stack.api_url()),
        ("AWS_ENDPOINT_URL_S3", stack.s3_url()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    for function in &stack.template().functions {
        for (name, value) in &function.environment {
            // With the source's ARN, the replicator and the archiver refuse the events of `events/`, whose table is one
            // of an account.
            if name == SOURCE_TABLE_ARN {
                continue;
            }
            // On this machine there are neither IAM signatures nor a secret store.
            let value = match name.as_str() {
                "AUTH" => "none",
                "CURSOR_KEYS" => CURSOR_KEYS,
                "POSTGRES_AUTH" | "CACHE_AUTH" => "password",
                _ => value,
            };
            // A value is the rest of a line. In JSON, a line ends only between two tokens.
            let value = if name == REPLICATION { value.replace(['\r', '\n'], " ") } else { value.to_owned() };
            let former = variables.insert(name.clone(), value.clone());
            if former.is_some_and(|former| former != value) {
                return Err(EnvFileError::Disagreement(name.clone()));
            }
        }
    }
    let lines: Vec<_> = variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    replace(path, &format!("{HEADER}\n{}", lines.concat()))
}

fn replace(path: &Path, text: &str) -> Result<(), EnvFileError> {
    let failed = |source| EnvFileError::Io { path: path.to_owned(), source };
    match regular_file(path).and_then(std::fs::read) {
        Ok(former) if !former.starts_with(HEADER.as_bytes()) => return Err(EnvFileError::Foreign(path.to_owned())),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    replace_file(path, text.as_bytes()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_of_ours_has_what_cargo_lambda_does_not_read() {
        assert!(!CURSOR_KEYS.contains(['=', ' ', '"', '#']));
        millrace_shared::http::cursor_seal::SealKeys::parse(CURSOR_KEYS).unwrap();
    }

    #[test]
    fn only_a_file_of_ours_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        replace(&path, &format!("{HEADER}\nA=1\n")).unwrap();
        replace(&path, &format!("{HEADER}\nA=2\n")).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("A=2\n"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the temporary file is gone");
        std::fs::write(&path, "SECRET=mine\n").unwrap();
        assert!(replace(&path, HEADER).unwrap_err().to_string().contains("--env-file"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "SECRET=mine\n");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        for (path, part) in [(folder.path(), "is a folder"), (&link, "is a device")] {
            let refused = replace(path, HEADER).unwrap_err().to_string();
            let expected = format!("{}: {part}", path.display());
            assert!(refused.starts_with(&expected) && refused.contains("--env-file"), "{refused}");
        }
    }
}
