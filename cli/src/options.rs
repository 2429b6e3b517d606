//! Command line of `millrace`: [`run`].
//!
//! Every rejected argument, option or file is reported on standard error, in one line that names the option or file to
//! change, or with one line for each of several problems; the exit code is then 2.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};
use http::Uri;
use millrace_console::ConsoleServer;
use millrace_shared::clock::Clock;
use millrace_shared::environment::Environment;
use millrace_shared::http::caller::ScopeMapping;
use millrace_shared::telemetry;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::demo::DuckDb;
use millrace_local::env_file;
use millrace_local::import::{ImportOutcome, ImportSource};
use millrace_local::stack::{LocalStack, QuarantineReason, QuarantineSummary, StackOptions};
use millrace_local::table_description::TimeToLive;
use millrace_local::tier::TierServer;
use millrace_local::token::LocalAuth;

use crate::athena_command::AthenaCommand;
use crate::attach::AttachCommand;
use crate::console_command::ConsoleCommand;
use crate::doctor::DoctorCommand;
use crate::plan::PlanCommand;
use crate::stack_source::StackSource;
use crate::standard_output::write_output;
use crate::task_command::TaskCommand;
use crate::transform_command::TransformCommand;
use crate::{banner, demo, usage_error};

/// The exit code if the program rejects its arguments or cannot start.
pub const REFUSED: u8 = 2;
/// The default port of the API.
pub const PORT: u16 = 8080;
/// The default port of DynamoDB.
pub const DYNAMODB_PORT: u16 = 8000;
/// The default port of S3.
pub const S3_PORT: u16 = 8001;
/// The default port of the console.
pub const CONSOLE_PORT: u16 = 8090;

/// The parameter of the template that contains the replication document.
const REPLICATION_PARAMETER: &str = "Replication";

/// The time for which the start waits until imported items are replicated.
const REPLICATION_TIMEOUT: Duration = Duration::from_mins(2);

/// The time that requests of the console have to end at a stop.
const CONSOLE_RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// The description of the program in `--help`.
const ABOUT: &str = "Verified replication for DynamoDB tables: the stack on one machine, its demo, its maintenance \
     tasks, and the deployment for a table that exists. \
     Without a command, millrace is the same as millrace up.";

#[derive(Debug, Parser)]
#[command(name = "millrace", version, about = ABOUT, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(flatten)]
    up: UpArguments,
    #[command(subcommand)]
    command: Option<MillraceCommand>,
}

#[derive(Debug, clap::Args)]
struct UpArguments {
    /// Store data in this folder (default: in memory)
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    ports: PortArguments,
    /// Port of the console, the web page that shows every change arrive; 0 selects a free port at the start (default:
    /// 8090, or a free port if it is in use)
    #[arg(long, value_name = "PORT")]
    console_port: Option<u16>,
    /// Invoke the functions, the API included, that cargo lambda watch serves at this URL (its default is port 9000 of
    /// 127.0.0.1)
    #[arg(long, value_name = "URL", value_parser = http_url)]
    lambda_endpoint: Option<String>,
    /// Interval at which expired items are removed
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    ttl_interval: u64,
    /// Use the batch windows of the template instead of at most 1 s
    #[arg(long)]
    full_batch_windows: bool,
    /// Replicate a table of your own: the file that `aws dynamodb describe-table` wrote. The table is created here with
    /// its keys and indexes
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Attribute with the time at which an item of the source table expires, or `none` if TTL is off (default: that of
    /// the description, if it has one); needs --table or another template whose source table is not part of it
    #[arg(long, value_name = "NAME", value_parser = ttl_attribute)]
    ttl_attribute: Option<String>,
    /// Import items into the source table: an export of DynamoDB to S3 in DynamoDB JSON (its folder or a data file), or
    /// a file with one item in DynamoDB JSON on each line
    #[arg(long, value_name = "PATH")]
    import: Option<PathBuf>,
    /// Replication document, which declares the replicas of a table of your own: the parameter Replication, from a file
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
    /// Deployment template of the stack (default: template.yaml in this or the nearest parent folder, else the
    /// workspace's; with --table, infra/replication.yaml)
    #[arg(long, value_name = "PATH")]
    template: Option<PathBuf>,
    /// Parameter of the template with another value than its default; can be repeated
    #[arg(long = "parameter", value_name = "NAME=VALUE", value_parser = parameter)]
    parameters: Vec<(String, String)>,
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
    /// PostgreSQL of the relational tier: auto starts the installed one as a temporary server, a URL uses that server,
    /// off disables the tier (default: off). For a table of your own, --document declares the tables
    #[arg(long, value_name = "auto|URL|off", value_parser = TierServer::parse, default_value = "off", hide_default_value = true)]
    postgres: TierServer,
    /// Server of the cache tier: auto starts the installed Valkey or Redis as a temporary server, a URL uses that
    /// server, off disables the tier (default: off)
    #[arg(long, value_name = "auto|URL|off", value_parser = TierServer::parse, default_value = "off", hide_default_value = true)]
    cache: TierServer,
}

/// The ports of a running stack.
#[derive(Clone, Copy, Debug, clap::Args)]
struct PortArguments {
    /// Port of the API; 0 selects a free port at the start
    #[arg(long, default_value_t = PORT)]
    port: u16,
    /// Port of DynamoDB; 0 selects a free port at the start
    #[arg(long, value_name = "PORT", default_value_t = DYNAMODB_PORT)]
    dynamodb_port: u16,
    /// Port of S3; 0 selects a free port at the start
    #[arg(long, value_name = "PORT", default_value_t = S3_PORT)]
    s3_port: u16,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum RunMode {
    None,
    Jwt,
}

#[derive(Debug, clap::Subcommand)]
enum MillraceCommand {
    /// Start the whole stack in this process: tables, buckets, the API, the streams and their functions
    Up(UpArguments),
    /// Run a self-checking demo on fresh engines: create, update, delete and expire users, quarantine a poison record,
    /// then redrive it and rebuild a lost replica, and replicate a table of another shape and a masked copy of it
    Demo(DemoArguments),
    /// Run a maintenance task to completion against a running `millrace`, or on the data folder of a stopped one
    Task(TaskCommand),
    /// Check whether a DynamoDB table that exists can be replicated, and write the files that deploy it; only reads
    Attach(AttachCommand),
    /// Compute capacity, cost per month and the first limit of the replication of a table from its size and its load
    Plan(PlanCommand),
    /// Report the settings of a deployment that lose the records of a DynamoDB stream, for a function in any language,
    /// in its files or in an account; only reads
    Doctor(DoctorCommand),
    /// Serve web pages about a deployed stack on this machine: its metrics, one key in all stores, quarantined records,
    /// task runs, the archive and the findings of doctor; only reads, unless --allow-tasks is set
    Console(ConsoleCommand),
    /// Show the items that each replica of a replication document would store, for sample items of a file or a table;
    /// only reads
    Transform(TransformCommand),
    /// Print the statement that creates an Athena table over the Parquet files of an archive, with the columns of a
    /// replication document; only reads files
    Athena(AthenaCommand),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: CompletionShell,
    },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum CompletionShell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, clap::Args)]
struct DemoArguments {
    /// Same as for `up` (default: off)
    #[arg(long, value_name = "auto|URL|off", value_parser = TierServer::parse, default_value = "off", hide_default_value = true)]
    postgres: TierServer,
    /// Same as for `up` (default: off)
    #[arg(long, value_name = "auto|URL|off", value_parser = TierServer::parse, default_value = "off", hide_default_value = true)]
    cache: TierServer,
    /// DuckDB that queries the archive: auto uses an installed one (`duckdb`, or `python3` with its module), a path or
    /// name uses that shell or Python, off skips the queries
    #[arg(long, value_name = "auto|PROGRAM|off", value_parser = duckdb, default_value = "auto")]
    duckdb: DuckDb,
}

#[expect(clippy::unnecessary_wraps, reason = "clap's signature")]
fn duckdb(text: &str) -> Result<DuckDb, Infallible> {
    Ok(text.into())
}

/// Runs the program to completion and returns its exit code.
pub async fn run(arguments: impl IntoIterator<Item = OsString>, environment: &Environment) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let CommandLine { up, command } = match CommandLine::try_parse_from(&arguments) {
        Ok(line) => line,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return write_output(error.to_string()).map_or_else(|problem| refuse(&problem), |()| ExitCode::SUCCESS);
        }
        Err(error) => {
            let mut command = CommandLine::command();
            command.build();
            return refuse(&usage_error::describe(&error, &command, &arguments));
        }
    };
    let command = command.unwrap_or(MillraceCommand::Up(up));
    let named = match environment.get(telemetry::LOG_LEVEL).map(telemetry::level).transpose() {
        Ok(level) => level,
        Err(problem) => return refuse(&format!("{} {problem}", telemetry::LOG_LEVEL)),
    };
    // The demo contains a poison record on purpose, and its page shows the result. The one line that a failed task
    // prints describes the error, so the function does not log it as well.
    let (usual, of_maintenance) = match &command {
        MillraceCommand::Up(_) => (LevelFilter::WARN, LevelFilter::WARN),
        MillraceCommand::Task(_) => (LevelFilter::ERROR, LevelFilter::OFF),
        // The report, the one line of an error and the pages contain what the SDK would log.
        MillraceCommand::Attach(_) | MillraceCommand::Doctor(_) | MillraceCommand::Console(_) => {
            (LevelFilter::OFF, LevelFilter::OFF)
        }
        MillraceCommand::Demo(_)
        | MillraceCommand::Plan(_)
        | MillraceCommand::Transform(_)
        | MillraceCommand::Athena(_)
        | MillraceCommand::Completions { .. } => (LevelFilter::ERROR, LevelFilter::ERROR),
    };
    log(named.unwrap_or(usual), named.unwrap_or(of_maintenance));
    match command {
        MillraceCommand::Up(line) => Box::pin(serve(line)).await,
        MillraceCommand::Demo(line) => run_demo(line).await,
        MillraceCommand::Task(line) => line.run().await,
        MillraceCommand::Attach(line) => Box::pin(line.run()).await,
        MillraceCommand::Plan(line) => line.run(),
        MillraceCommand::Doctor(line) => Box::pin(line.run()).await,
        MillraceCommand::Console(line) => Box::pin(line.run()).await,
        MillraceCommand::Transform(line) => Box::pin(line.run()).await,
        MillraceCommand::Athena(line) => line.run(),
        MillraceCommand::Completions { shell } => {
            write_output(completions(shell)).map_or_else(|problem| refuse(&problem), |()| ExitCode::SUCCESS)
        }
    }
}

fn completions(shell: CompletionShell) -> Vec<u8> {
    let shell = match shell {
        CompletionShell::Bash => clap_complete::Shell::Bash,
        CompletionShell::Zsh => clap_complete::Shell::Zsh,
        CompletionShell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "millrace", &mut script);
    script
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

async fn serve(line: UpArguments) -> ExitCode {
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
    let (env_file, console_port) = (line.env_file.clone(), line.console_port);
    let items = match line.import.as_deref().map(ImportSource::open).transpose() {
        Ok(items) => items,
        Err(problem) => return refuse(&format!("--import: {problem}")),
    };
    let (source, options) = match options(line) {
        Ok(options) => options,
        Err(problem) => return refuse(&problem),
    };
    let data = options.data.clone();
    // Bound before the stack starts, like its own ports.
    let console = match console_listener(console_port).await {
        Ok(listener) => listener,
        Err(problem) => return refuse(&problem),
    };
    let stack = match LocalStack::start(options).await {
        Ok(stack) => stack,
        Err(refusal) => return refuse(&refusal.to_string()),
    };
    if let Err(refusal) = source.remember(data.as_deref()) {
        stack.stop().await;
        return refuse(&refusal);
    }
    if let Some(items) = items
        && let Err(refusal) = import(&stack, items).await
    {
        stack.stop().await;
        return refuse(&format!("--import: {refusal}"));
    }
    if let Some(path) = &env_file
        && let Err(refusal) = env_file::write(path, &stack)
    {
        stack.stop().await;
        return refuse(&refusal.to_string());
    }
    let stack = Arc::new(stack);
    let console = match ConsoleServer::start(console, Arc::clone(&stack), Clock::system()) {
        Ok(console) => console,
        Err(error) => return refuse(&format!("--console-port: {error}")),
    };
    for note in source.deployment_notes() {
        println!("{note}");
    }
    println!("{}", banner::start_banner(&stack, console.url(), env_file.as_deref()));
    if let Err(error) = tokio::signal::ctrl_c().await {
        return refuse(&format!("cannot listen for Ctrl-C: {error}"));
    }
    println!("stopping: waiting for invocations in flight");
    console.stop().await;
    stop_shared(stack).await;
    ExitCode::SUCCESS
}

/// Binds the console's port. Without a chosen port, another one is taken if the default is in use.
pub(crate) async fn console_listener(port: Option<u16>) -> Result<TcpListener, String> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let bound = match port {
        Some(port) => bind(port).await,
        None => match bind(CONSOLE_PORT).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bind(0).await,
            bound => bound,
        },
    };
    let port = port.unwrap_or(CONSOLE_PORT);
    bound.map_err(|error| format!("port {port} cannot be used ({error}): choose another with --console-port"))
}

/// Stops a stack as soon as no request of the console uses it any more. A task that still runs keeps it until then, but
/// not longer than [`CONSOLE_RELEASE_TIMEOUT`]: the process ends, and with it the task, which can be repeated.
async fn stop_shared(mut stack: Arc<LocalStack>) {
    let released_by = Instant::now() + CONSOLE_RELEASE_TIMEOUT;
    loop {
        match Arc::try_unwrap(stack) {
            Ok(stack) => return stack.stop().await,
            Err(_) if Instant::now() >= released_by => {
                eprintln!("a task of the console was interrupted: run it again after the next start");
                return;
            }
            Err(shared) => stack = shared,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn run_demo(line: DemoArguments) -> ExitCode {
    let duckdb = match line.duckdb.found() {
        Ok(duckdb) => duckdb,
        Err(problem) => return refuse(&format!("--duckdb {problem}")),
    };
    let options = match StackSource::default().options() {
        Ok(options) => StackOptions { postgres: line.postgres, cache: line.cache, ..options },
        Err(problem) => return refuse(&problem),
    };
    match Box::pin(demo::run(options, &duckdb)).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(refusal) => refuse(&refusal.to_string()),
    }
}

/// Imports the items into the source table, and waits until they are replicated.
async fn import(stack: &LocalStack, items: ImportSource) -> Result<(), String> {
    let table = stack.source_table().ok_or("the template does not say which table is the source table")?;
    // A data folder may have records in quarantine already.
    let known = stack.quarantine_keys().await.map_err(|error| error.to_string())?;
    let ImportOutcome { items, replaced, took } =
        stack.import(items, table).await.map_err(|error| error.to_string())?;
    let replaced = match replaced {
        0 => String::new(),
        count => format!(", {count} of which replaced an earlier item with the same key"),
    };
    let items = counted(items, "item");
    eprintln!("import: {items} in {:.1} s{replaced}; waiting until replicated", took.as_secs_f64());
    if tokio::time::timeout(REPLICATION_TIMEOUT, stack.wait_until_drained()).await.is_err() {
        eprintln!(
            "import: not all items are replicated after {} s; verify reports the others as missing until they are",
            REPLICATION_TIMEOUT.as_secs()
        );
    }
    let quarantined = stack.quarantined_since(&known).await.map_err(|error| error.to_string())?;
    eprint!("{}", quarantine_text(&quarantined));
    Ok(())
}

/// Returns a number with a noun in the singular or the plural.
fn counted(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Returns the report about records of an import that are in quarantine, with one line for each reason; empty if there
/// are none.
fn quarantine_text(summary: &QuarantineSummary) -> String {
    let QuarantineSummary { total, reasons, bucket } = summary;
    if *total == 0 {
        return String::new();
    }
    let (are, records) = (if *total == 1 { "is" } else { "are" }, counted(*total as u64, "record"));
    let mut text = format!("import: {records} {are} in quarantine, and not in the replica:\n");
    for QuarantineReason { reason, count, item_key, object_key } in reasons {
        let of_item = item_key.as_ref().map_or_else(String::new, |key| format!(", such as item {key}"));
        // The reason names the parameter of a deployment.
        let option = if reason.contains("ReservedPrefix") { "; here with --parameter ReservedPrefix=mr_" } else { "" };
        let records = counted(*count as u64, "record");
        let _ = writeln!(text, "  {records}{of_item}: {reason}{option}");
        let _ = writeln!(text, "    s3://{bucket}/{object_key}");
    }
    text
}

/// Reads a replication document.
pub(crate) fn read_document(path: &Path) -> Result<String, String> {
    let fault = |problem: &str, fix: &str| format!("--document: {} {problem}: {fix}", path.display());
    let text = std::fs::read_to_string(path)
        .map_err(|error| fault(&format!("cannot be read: {error}"), "pass a file with a replication document"))?;
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        return Err(fault(&format!("is not JSON ({error})"), "correct it"));
    }
    Ok(text)
}

/// Returns the options of the stack, and those that its data folder remembers.
fn options(line: UpArguments) -> Result<(StackSource, StackOptions), String> {
    let mut parameters: BTreeMap<_, _> = line.parameters.into_iter().collect();
    if let Some(path) = &line.document
        && parameters.insert(REPLICATION_PARAMETER.to_owned(), read_document(path)?).is_some()
    {
        return Err(format!(
            "--document and --parameter {REPLICATION_PARAMETER} cannot be used together: omit one of them"
        ));
    }
    let source =
        StackSource { template: line.template, parameters, table: line.table, ttl_attribute: line.ttl_attribute };
    let source = source.or_remembered(line.data.as_deref())?;
    let options = StackOptions {
        data: line.data,
        port: line.ports.port,
        dynamodb_port: line.ports.dynamodb_port,
        s3_port: line.ports.s3_port,
        functions: line.lambda_endpoint,
        ttl_interval: Duration::from_secs(line.ttl_interval),
        full_batch_windows: line.full_batch_windows,
        auth: if line.auth == RunMode::Jwt { LocalAuth::Jwt(line.jwks) } else { LocalAuth::None },
        scope_claim: line.scope_claim,
        scope_prefix: line.scope_prefix,
        postgres: line.postgres,
        cache: line.cache,
        observe: true,
        ..source.options()?
    };
    Ok((source, options))
}

/// Checks the value of `--ttl-attribute`, which a data folder remembers as it is given.
fn ttl_attribute(text: &str) -> Result<String, String> {
    TimeToLive::from_option(text).map(|_| text.to_owned())
}

pub(crate) fn parameter(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "expected NAME=VALUE, such as PartitionKey=pk:S".to_owned())
}

/// Checks the URL of an endpoint.
pub(crate) fn http_url(text: &str) -> Result<String, String> {
    let url = text.parse::<Uri>().ok().filter(|url| matches!(url.scheme_str(), Some("http" | "https")));
    let authority = url.as_ref().and_then(Uri::authority);
    // A port that is not a number is part of the authority all the same.
    let is_valid = authority.is_some_and(|authority| {
        let host = authority.host();
        let port = authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, rest)| rest);
        !host.is_empty() && (port.len() == host.len() || authority.port_u16().is_some())
    });
    if is_valid {
        Ok(text.to_owned())
    } else {
        Err("expected http://HOST:PORT or https://HOST, such as http://127.0.0.1:8000".to_owned())
    }
}

fn scope_claim(text: &str) -> Result<String, String> {
    ScopeMapping::parse_claims(text).map(|names| names.join(","))
}

/// Prints an error; each further line of it is one of several problems.
pub(crate) fn refuse(reason: &str) -> ExitCode {
    eprintln!("error: {}", one_problem_per_line(reason));
    ExitCode::from(REFUSED)
}

/// Returns the lines of a text without those that are blank, all but the first indented.
fn one_problem_per_line(reason: &str) -> String {
    let lines: Vec<_> = reason.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("\n  ")
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<CommandLine, String> {
        let arguments: Vec<OsString> = ["millrace"].iter().chain(arguments).map(Into::into).collect();
        let mut command = CommandLine::command();
        command.build();
        let parsed = CommandLine::try_parse_from(&arguments);
        parsed.map_err(|error| usage_error::describe(&error, &command, &arguments))
    }

    #[test]
    fn several_problems_are_printed_on_lines_of_their_own() {
        assert_eq!(one_problem_per_line("a: b"), "a: b");
        assert_eq!(
            one_problem_per_line(" there are 2 problems:\n  one\n\n  two\n"),
            "there are 2 problems:\n  one\n  two"
        );
    }

    #[test]
    fn quarantined_records_of_an_import_are_reported_with_reason_and_fix() {
        let reason = |reason: &str, count| QuarantineReason {
            reason: reason.to_owned(),
            count,
            item_key: Some(r#"{"pk":{"S":"a"}}"#.to_owned()),
            object_key: "quarantine/a.json".to_owned(),
        };
        let summary = |total, reasons| QuarantineSummary { total, reasons, bucket: "orders-failures".to_owned() };
        assert_eq!(quarantine_text(&summary(0, Vec::new())), "");
        let one = quarantine_text(&summary(1, vec![reason("_rev is reserved: set ReservedPrefix", 1)]));
        assert_eq!(
            one,
            "import: 1 record is in quarantine, and not in the replica:\n  \
             1 record, such as item {\"pk\":{\"S\":\"a\"}}: _rev is reserved: set ReservedPrefix; \
             here with --parameter ReservedPrefix=mr_\n    \
             s3://orders-failures/quarantine/a.json\n"
        );
        let several = quarantine_text(&summary(3, vec![reason("too large", 2), reason("empty", 1)]));
        assert!(several.starts_with("import: 3 records are in quarantine"), "{several}");
        assert!(several.contains("  2 records, such as item") && !several.contains("--parameter"), "{several}");
    }

    #[test]
    fn endpoint_is_a_url_with_a_host() {
        for url in ["http://127.0.0.1:8000", "https://dynamodb.eu-west-1.amazonaws.com", "http://[::1]:8000/base"] {
            assert_eq!(http_url(url).as_deref(), Ok(url));
        }
        for text in ["foo", "localhost:8000", "http://", "ftp://host", "http://foo:bar", "http://host:99999", ""] {
            let message = parse(&["--lambda-endpoint", text]).unwrap_err();
            assert!(message.contains("--lambda-endpoint") && message.contains("http://HOST:PORT"), "{message}");
        }
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
            (&["--console-port", "70000"], "--console-port"),
            (&["--ttl-interval", "0"], "--ttl-interval"),
            (&["--data"], "--data"),
            (&["tuor"], "tuor"),
            (&["--port", "1", "demo"], "demo"),
            (&["--postgres", "on"], "--postgres"),
            (&["--cache", "on"], "--cache"),
            (&["--ttl-attribute", ""], "--ttl-attribute"),
            (&["--scope-claim", "scp roles"], "--scope-claim"),
            (&["--scope-prefix", "a b"], "--scope-prefix"),
            (&["task"], "--request"),
            (&["task", "{}"], "--request"),
            (&["task", "--request", "{}", "--data", "d", "--s3-port", "1"], "--s3-port"),
            (&["task", "--request", "{}", "--ttl-interval", "1"], "--ttl-interval"),
            (&["task", "verify", "--ttl-interval", "1"], "--ttl-interval"),
        ] {
            let message = parse(arguments).unwrap_err();
            assert!(message.contains(name) && message.lines().count() == 1, "{message}");
        }
    }

    #[test]
    fn unknown_name_is_reported_with_the_most_similar_one_and_the_list() {
        for (arguments, similar, listed) in [
            (&["--prot", "1"][..], "did you mean --port?", "--dynamodb-port"),
            (&["tsak"], "did you mean task?", "demo, task"),
            (&["task", "verif"], "did you mean \"verify\"?", "backfill, verify, repair"),
            (&["task", "verify", "--segmnts", "4"], "did you mean --segments?", "--recheck-after-seconds"),
            (&["task", "redrive", "--appl"], "did you mean --apply?", "--error-contains"),
            (&["task", "verify", "--output", "jsn"], "did you mean json?", "text, json"),
        ] {
            let message = parse(arguments).unwrap_err();
            assert!(
                message.ends_with(similar) && message.contains(listed) && message.lines().count() == 1,
                "{message}"
            );
        }
    }

    #[test]
    fn without_options_the_ports_are_fixed() {
        let line = parse(&[]).unwrap();
        assert!(line.command.is_none());
        let up = line.up;
        let ports = (up.ports.port, up.ports.dynamodb_port, up.ports.s3_port);
        assert_eq!((ports, up.ttl_interval), ((8080, 8000, 8001), 3));
        assert!(up.data.is_none() && !up.full_batch_windows);
    }

    #[test]
    fn up_has_the_options_of_the_program_without_a_command() {
        let options = ["--port", "1", "--ttl-interval", "9", "--postgres", "auto"];
        let bare = parse(&options).unwrap().up;
        let Some(MillraceCommand::Up(named)) = parse(&[&["up"], &options[..]].concat()).unwrap().command else {
            panic!("another command")
        };
        assert_eq!(format!("{bare:?}"), format!("{named:?}"));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_nearest_one_and_the_list() {
        for (arguments, parts) in [
            (&["--prot", "1"][..], ["--prot", "--port", "--s3-port"]),
            (&["demo", "--duckbd", "off"], ["--duckbd", "--duckdb", "--postgres"]),
            (&["dmeo"], ["dmeo", "demo", "completions"]),
            (&["--auth", "jtw"], ["jtw", "jwt", "none"]),
            (&["completions", "fsh"], ["fsh", "fish", "zsh"]),
        ] {
            let message = parse(arguments).unwrap_err();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }

    #[test]
    fn each_shell_gets_its_completions() {
        for shell in CompletionShell::value_variants() {
            let script = String::from_utf8(completions(*shell)).unwrap();
            assert!(script.contains("completions") && script.contains("ttl-interval"), "{shell:?}: {script}");
        }
    }
}
