//! Command line of the local stack: [`run`].
//!
//! Every rejected argument, option or file is reported in one line on standard error, which names the option or file to
//! change; the exit code is then 2.

use std::convert::Infallible;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;
use millrace_maintenance::task::TASK_NAMES;
use millrace_shared::clock::Clock;
use millrace_shared::environment::Environment;
use millrace_shared::http::caller::ScopeMapping;
use millrace_shared::telemetry;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::demo::DuckDb;
use millrace_local::env_file;
use millrace_local::stack::{LocalStack, StackOptions};
use millrace_local::task::{self, StackPorts, TaskTarget};
use millrace_local::tier::{TierServer, TierUrls};
use millrace_local::token::LocalAuth;

use crate::{banner, demo};

/// The exit code if the program rejects its arguments or cannot start.
pub const REFUSED: u8 = 2;
/// The default port of the API.
pub const PORT: u16 = 8080;
/// The default port of DynamoDB.
pub const DYNAMODB_PORT: u16 = 8000;
/// The default port of S3.
pub const S3_PORT: u16 = 8001;

/// Millrace on one machine: tables, buckets, the API, the streams and their functions, in one process.
#[derive(Debug, Parser)]
#[command(name = "millrace", args_conflicts_with_subcommands = true)]
struct CommandLine {
    /// Store data in this folder (default: in memory)
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Port of the API; 0 selects a free port
    #[arg(long, default_value_t = PORT)]
    port: u16,
    /// Port of DynamoDB; 0 selects a free port
    #[arg(long, value_name = "PORT", default_value_t = DYNAMODB_PORT)]
    dynamodb_port: u16,
    /// Port of S3; 0 selects a free port
    #[arg(long, value_name = "PORT", default_value_t = S3_PORT)]
    s3_port: u16,
    /// Invoke the functions, the API included, that cargo lambda watch serves at this URL (its default is port 9000 of
    /// 127.0.0.1)
    #[arg(long, value_name = "URL")]
    lambda_endpoint: Option<String>,
    /// Interval at which expired items are removed
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    ttl_interval: u64,
    /// Use the batch windows of the template instead of at most 1 s
    #[arg(long)]
    full_batch_windows: bool,
    /// Deployment template of the stack (default: template.yaml in this or the nearest parent folder, else the
    /// workspace's)
    #[arg(long, value_name = "PATH")]
    template: Option<PathBuf>,
    /// Write the functions' environment to this file, for: cargo lambda watch -A 127.0.0.1 --env-file PATH
    #[arg(long, value_name = "PATH")]
    env_file: Option<PathBuf>,
    /// Authentication mode of the API: none, or jwt to verify the signatures of bearer tokens
    #[arg(long, value_enum, default_value_t = RunMode::None)]
    auth: RunMode,
    /// JSON Web Key Set that verifies tokens (default: a key generated at the start, with printed tokens)
    #[arg(long, value_name = "PATH")]
    jwks: Option<PathBuf>,
    /// Claims of a token that list its scopes, separated by commas (default: the template's)
    #[arg(long, value_name = "NAMES", value_parser = scope_claim)]
    scope_claim: Option<String>,
    /// Prefix of each scope in the tokens of the issuer, such as millrace/ (default: the template's)
    #[arg(long, value_name = "TEXT", value_parser = ScopeMapping::parse_prefix)]
    scope_prefix: Option<String>,
    /// PostgreSQL of the relational tier: auto starts the installed one as a throwaway server, a URL uses that server,
    /// off disables the tier (default: off)
    #[arg(long, value_name = "auto|URL|off", value_parser = TierServer::parse, default_value = "off", hide_default_value = true)]
    postgres: TierServer,
    /// Server of the cache tier: auto starts the installed Valkey or Redis as a throwaway server, a URL uses that
    /// server, off disables the tier (default: off)
    #[arg(long, value_name = "auto|URL|off", value_parser = TierServer::parse, default_value = "off", hide_default_value = true)]
    cache: TierServer,
    #[command(subcommand)]
    command: Option<MillraceCommand>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum RunMode {
    None,
    Jwt,
}

#[derive(Debug, clap::Subcommand)]
enum MillraceCommand {
    /// Run a self-checking demo on fresh engines: create, update, delete and expire users, quarantine a poison record,
    /// then redrive it and rebuild a lost replica
    Demo(DemoArguments),
    #[command(about = task_help())]
    Task(TaskArguments),
}

#[derive(Debug, clap::Args)]
struct DemoArguments {
    /// Same as without `demo` (default: off)
    #[arg(long, value_name = "auto|URL|off", value_parser = TierServer::parse, default_value = "off", hide_default_value = true)]
    postgres: TierServer,
    /// Same as without `demo` (default: off)
    #[arg(long, value_name = "auto|URL|off", value_parser = TierServer::parse, default_value = "off", hide_default_value = true)]
    cache: TierServer,
    /// DuckDB that queries the archive: auto uses an installed one (`duckdb`, or `python3` with its module), a path or
    /// name uses that shell or Python, off skips the queries
    #[arg(long, value_name = "auto|PROGRAM|off", value_parser = duckdb, default_value = "auto")]
    duckdb: DuckDb,
}

fn task_help() -> String {
    // `summary` runs automatically after the segments.
    let names: Vec<&str> = TASK_NAMES.into_iter().filter(|name| *name != "summary").collect();
    format!("Run a maintenance task to completion against a running `millrace`: {}", names.join(", "))
}

#[expect(clippy::unnecessary_wraps, reason = "clap's signature")]
fn duckdb(text: &str) -> Result<DuckDb, Infallible> {
    Ok(text.into())
}

#[derive(Debug, clap::Args)]
struct TaskArguments {
    /// Task request in JSON, e.g. '{"task":"verify"}'; all of its segments are run
    #[arg(value_name = "REQUEST")]
    order: String,
    /// Port of the API
    #[arg(long, default_value_t = PORT)]
    port: u16,
    /// Port of DynamoDB
    #[arg(long, value_name = "PORT", default_value_t = DYNAMODB_PORT)]
    dynamodb_port: u16,
    /// Port of S3
    #[arg(long, value_name = "PORT", default_value_t = S3_PORT)]
    s3_port: u16,
    /// Run on this data folder instead; no running `millrace` may use it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["port", "dynamodb_port", "s3_port"])]
    data: Option<PathBuf>,
    /// PostgreSQL of the relational tier, if it is on: the URL that `millrace` printed
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// Template with the names of tables and buckets (default: same as without a task)
    #[arg(long, value_name = "PATH")]
    template: Option<PathBuf>,
}

/// Runs the program to completion and returns its exit code.
pub async fn run(arguments: impl IntoIterator<Item = OsString>, environment: &Environment) -> ExitCode {
    let line = match CommandLine::try_parse_from(arguments) {
        Ok(line) => line,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            print!("{error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => return refuse(&format!("{}; --help lists the options", first_line(&error.to_string()))),
    };
    let level = match environment.get(telemetry::LOG_LEVEL).map(telemetry::level).transpose() {
        // The demo contains a poison record on purpose, and its page shows the result.
        Ok(None) if line.command.is_some() => LevelFilter::ERROR,
        Ok(level) => level.unwrap_or(LevelFilter::WARN),
        Err(problem) => return refuse(&format!("{} {problem}", telemetry::LOG_LEVEL)),
    };
    // The one line that a failed task prints describes the error, so the function does not log it as well.
    let is_told =
        matches!(line.command, Some(MillraceCommand::Task(_))) && environment.get(telemetry::LOG_LEVEL).is_none();
    log(level, if is_told { LevelFilter::OFF } else { level });
    match line.command {
        Some(MillraceCommand::Demo(line)) => run_demo(line).await,
        Some(MillraceCommand::Task(line)) => run_task(line).await,
        None => serve(line).await,
    }
}

/// Logs to standard error. The engine logs a warning for every failed condition of a conditional write, which is normal
/// operation here, so only its errors are logged.
fn log(level: LevelFilter, of_maintenance: LevelFilter) {
    let targets = Targets::new().with_default(level).with_target("dynoxide", level.min(LevelFilter::ERROR));
    let targets = targets.with_target("millrace_maintenance", of_maintenance);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    // This fails if the process already has a subscriber, which then receives these events as well.
    let _ = tracing_subscriber::registry().with(lines.with_filter(targets)).try_init();
}

async fn serve(line: CommandLine) -> ExitCode {
    match (line.auth, &line.jwks, &line.lambda_endpoint) {
        (RunMode::None, Some(_), _) => return refuse("--jwks requires --auth jwt"),
        (RunMode::None, ..) if line.scope_claim.is_some() || line.scope_prefix.is_some() => {
            return refuse("--scope-claim and --scope-prefix require --auth jwt");
        }
        (RunMode::Jwt, _, Some(_)) => {
            return refuse(
                "--auth jwt cannot be used with --lambda-endpoint: cargo lambda watch does not pass a token's claims",
            );
        }
        _ => {}
    }
    let env_file = line.env_file.clone();
    let stack = match LocalStack::start(options(line)).await {
        Ok(stack) => stack,
        Err(refusal) => return refuse(&refusal.to_string()),
    };
    if let Some(path) = &env_file
        && let Err(refusal) = env_file::write(path, &stack)
    {
        stack.stop().await;
        return refuse(&refusal.to_string());
    }
    println!("{}", banner::of(&stack, env_file.as_deref()));
    if let Err(error) = tokio::signal::ctrl_c().await {
        return refuse(&format!("cannot listen for Ctrl-C: {error}"));
    }
    println!("stopping: waiting for invocations in flight");
    stack.stop().await;
    ExitCode::SUCCESS
}

async fn run_demo(line: DemoArguments) -> ExitCode {
    let duckdb = match line.duckdb.found() {
        Ok(duckdb) => duckdb,
        Err(problem) => return refuse(&format!("--duckdb {problem}")),
    };
    let options = StackOptions {
        template: template(None),
        postgres: line.postgres,
        cache: line.cache,
        ..StackOptions::default()
    };
    match Box::pin(demo::run(options, &duckdb)).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(refusal) => refuse(&refusal.to_string()),
    }
}

async fn run_task(line: TaskArguments) -> ExitCode {
    let template = template(line.template);
    let place = if line.data.is_some() {
        let postgres = line.postgres.map_or(TierServer::Off, TierServer::At);
        TaskTarget::Own(Box::new(StackOptions { template, data: line.data, postgres, ..StackOptions::default() }))
    } else {
        let ports = StackPorts { api: line.port, dynamodb: line.dynamodb_port, s3: line.s3_port };
        TaskTarget::Running(ports, template, TierUrls { postgres: line.postgres, cache: None })
    };
    match Box::pin(task::run(&line.order, place, &Clock::system())).await {
        Ok(outcome) => {
            print!("{outcome}");
            outcome.code()
        }
        Err(failure) if failure.is_failure() => {
            refuse(&failure.to_string());
            ExitCode::FAILURE
        }
        Err(refusal) => refuse(&refusal.to_string()),
    }
}

/// Returns the template that the option names, else the nearest `template.yaml`, else the workspace's template.
fn template(named: Option<PathBuf>) -> PathBuf {
    named.or_else(nearest_template).unwrap_or(StackOptions::default().template)
}

fn options(line: CommandLine) -> StackOptions {
    StackOptions {
        template: template(line.template),
        data: line.data,
        port: line.port,
        dynamodb_port: line.dynamodb_port,
        s3_port: line.s3_port,
        functions: line.lambda_endpoint,
        ttl_interval: Duration::from_secs(line.ttl_interval),
        full_batch_windows: line.full_batch_windows,
        auth: if line.auth == RunMode::Jwt { LocalAuth::Jwt(line.jwks) } else { LocalAuth::None },
        scope_claim: line.scope_claim,
        scope_prefix: line.scope_prefix,
        postgres: line.postgres,
        cache: line.cache,
    }
}

fn scope_claim(text: &str) -> Result<String, String> {
    ScopeMapping::parse_claims(text).map(|names| names.join(","))
}

/// Returns the `template.yaml` in the current folder or the nearest one above it.
fn nearest_template() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors().map(|folder| folder.join("template.yaml")).find(|path| Path::is_file(path))
}

fn refuse(reason: &str) -> ExitCode {
    let lines: Vec<_> = reason.lines().map(str::trim).collect();
    eprintln!("error: {}", lines.join(" "));
    ExitCode::from(REFUSED)
}

/// Returns clap's error without its hints and usage, joined to one line; an argument that clap prints on a line of its
/// own is included.
fn first_line(text: &str) -> String {
    let text = text.trim_start_matches("error: ");
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<CommandLine, String> {
        let arguments = std::iter::once("millrace").chain(arguments.iter().copied());
        CommandLine::try_parse_from(arguments).map_err(|error| first_line(&error.to_string()))
    }

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn a_refused_option_is_named_in_one_line() {
        for (arguments, name) in [
            (&["--prot", "1"][..], "--prot"),
            (&["--port", "70000"], "--port"),
            (&["--ttl-interval", "0"], "--ttl-interval"),
            (&["--data"], "--data"),
            (&["tuor"], "tuor"),
            (&["--port", "1", "demo"], "demo"),
            (&["--postgres", "on"], "--postgres"),
            (&["--cache", "on"], "--cache"),
            (&["--scope-claim", "scp roles"], "--scope-claim"),
            (&["--scope-prefix", "a b"], "--scope-prefix"),
            (&["task"], "<REQUEST>"),
            (&["task", "{}", "--data", "d", "--s3-port", "1"], "--s3-port"),
            (&["task", "{}", "--ttl-interval", "1"], "--ttl-interval"),
        ] {
            let said = parse(arguments).unwrap_err();
            assert!(said.contains(name) && said.lines().count() == 1, "{said}");
        }
    }

    #[test]
    fn without_options_the_ports_are_fixed() {
        let line = parse(&[]).unwrap();
        assert_eq!((line.port, line.dynamodb_port, line.s3_port, line.ttl_interval), (8080, 8000, 8001, 3));
        assert!(line.data.is_none() && !line.full_batch_windows && line.command.is_none());
    }
}
