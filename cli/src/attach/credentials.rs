//! Credentials of the account that is read: [`find`].
//!
//! The SDK's sources come first. The AWS CLI knows more of them, such as IAM Identity Center (`aws sso login`) and
//! processes, so it is asked next: `aws configure export-credentials` prints what the CLI itself would use.

use std::process::Command;

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use millrace_local::child_program::{ProgramError, run_program};
use millrace_shared::error_chain::error_chain;
use serde::Deserialize;

/// A part of the SDK's error about a profile that no configuration file contains, if there are such files.
const UNKNOWN_PROFILE: &str = "was not defined";

/// The output of `aws configure export-credentials`. It is never shown.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ExportedCredentials {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

/// No credentials are found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialsError {
    /// Of the profile that was named.
    #[error(
        "--profile {profile}: no AWS credentials, since {reason}{cli}: {login}name one that aws configure \
         list-profiles prints, or add it with aws configure --profile {profile}"
    )]
    Profile { profile: String, reason: &'static str, login: String, cli: String },
    /// Without a named profile.
    #[error(
        "no AWS credentials ({reason}{cli}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in with aws sso \
         login"
    )]
    Missing { reason: String, cli: String },
}

/// Returns the credentials of the configuration, or those that the AWS CLI exports for the profile.
///
/// # Errors
/// [`CredentialsError`], if there are none.
pub(super) async fn find(sdk: &SdkConfig, profile: Option<&str>) -> Result<Credentials, CredentialsError> {
    let of_sdk = match sdk.credentials_provider() {
        Some(provider) => {
            provider.provide_credentials().await.map_err(|error| (error.to_string(), error_chain(&error)))
        }
        None => Err(("none are configured".to_owned(), String::new())),
    };
    let (problem, causes) = match of_sdk {
        Ok(credentials) => return Ok(credentials),
        Err(problem) => problem,
    };
    let named = profile.map(str::to_owned);
    let exported = tokio::task::spawn_blocking(move || exported(named.as_deref())).await;
    // The reason of the AWS CLI, such as a login that has expired.
    let cli = match exported {
        Ok(Ok(credentials)) => return Ok(credentials),
        Ok(Err(error)) if !error.is_not_installed() => format!("; {}", error.to_string().replace("\n ", "")),
        _ => String::new(),
    };
    let Some(profile) = profile.map(str::to_owned) else {
        return Err(CredentialsError::Missing { reason: problem, cli });
    };
    let (reason, login) = if causes.contains(UNKNOWN_PROFILE) {
        ("the AWS configuration files have no such profile", String::new())
    } else {
        let login = format!("log in with aws sso login --profile {profile}, ");
        ("no AWS configuration file has this profile with credentials", login)
    };
    Err(CredentialsError::Profile { profile, reason, login, cli })
}

/// Returns the credentials that the AWS CLI exports.
fn exported(profile: Option<&str>) -> Result<Credentials, ProgramError> {
    const PROGRAM: &str = "aws configure export-credentials";
    let mut command = Command::new("aws");
    command.args(["configure", "export-credentials", "--format", "process"]);
    command.args(profile.iter().flat_map(|profile| ["--profile", profile]));
    let output = run_program(PROGRAM, &mut command)?;
    let ExportedCredentials { access_key_id, secret_access_key, session_token } =
        serde_json::from_slice(&output.stdout).map_err(|error| ProgramError::not_run(PROGRAM, error.into()))?;
    Ok(Credentials::new(access_key_id, secret_access_key, session_token, None, PROGRAM))
}
