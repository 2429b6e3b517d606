//! `millrace console`: the console of a deployed stack ([`ConsoleCommand`]).
//!
//! The crate `millrace-console` has the pages; this module opens the account for them, with the credentials that are
//! valid when a page is opened.

use std::process::ExitCode;
use std::sync::Arc;

use aws_sdk_s3::config::Builder;
use millrace_console::ConsoleServer;
use millrace_console::deployed_stack::{AccountOpener, DeployedStack, StackAccount};
use millrace_console::stack_calls::console_policy;
use millrace_maintenance::config::MaintenanceConfig;
use millrace_maintenance::lambda_client::LambdaClient;
use millrace_maintenance::{AwsClients, MaintenanceHandler};
use millrace_shared::aws;
use millrace_shared::clock::Clock;
use millrace_shared::environment::{Environment, EnvironmentError};
use millrace_shared::iam_token::TokenSigner;
use millrace_shared::secrets::SecretsClient;
use millrace_sinks::config::load_document;
use millrace_sinks::hash_keys::load_hash_keys;

use crate::attach::account::{AccountConnection, AccountOptions};
use crate::doctor::account_client::AccountClient;
use crate::doctor::stack;
use crate::options::{console_listener, http_url, refuse};
use crate::standard_output::write_output;

/// The arguments of `millrace console`.
#[derive(Debug, clap::Args)]
pub(crate) struct ConsoleCommand {
    /// The stack of CloudFormation, by its name or ARN
    #[arg(long, value_name = "NAME", required_unless_present = "print_policy", value_parser = stack)]
    stack: Option<String>,
    /// Allow the pages to start maintenance tasks, with the state machine of the stack
    #[arg(long)]
    allow_tasks: bool,
    /// Print the IAM policy that allows the calls of the pages; with --allow-tasks, also the start of tasks
    #[arg(long, conflicts_with = "stack")]
    print_policy: bool,
    /// Port of the console, on 127.0.0.1; 0 selects a free port at the start (default: 8090, or a free port if it is in
    /// use)
    #[arg(long, value_name = "PORT", conflicts_with = "print_policy")]
    console_port: Option<u16>,
    /// Send all requests to this URL, such as that of an emulator
    #[arg(long, value_name = "URL", value_parser = http_url, conflicts_with = "print_policy")]
    endpoint_url: Option<String>,
    /// Profile of the AWS configuration files (default: as for the AWS CLI)
    #[arg(long, value_name = "NAME", conflicts_with = "print_policy")]
    profile: Option<String>,
    /// Region (default: that of an ARN, or as for the AWS CLI)
    #[arg(long, value_name = "NAME", conflicts_with = "print_policy")]
    region: Option<String>,
}

impl ConsoleCommand {
    /// Serves the console until Ctrl-C. The exit code is 2 if the port cannot be used. The account is called only when
    /// a page is opened, which then shows what fails.
    pub(crate) async fn run(self) -> ExitCode {
        let Some(stack) = self.stack else {
            let policy = format!("{}\n", console_policy(self.allow_tasks));
            return write_output(policy).map_or_else(|problem| refuse(&problem), |()| ExitCode::SUCCESS);
        };
        let of_arn = if stack.starts_with("arn:") { stack.split(':').nth(3).map(str::to_owned) } else { None };
        if let (Some(of_arn), Some(region)) = (&of_arn, &self.region)
            && of_arn != region
        {
            return refuse(&format!("--region {region} is not the Region of {stack}: omit --region"));
        }
        let region = of_arn.or(self.region);
        let options = AccountOptions { region, profile: self.profile, endpoint_url: self.endpoint_url };
        let listener = match console_listener(self.console_port).await {
            Ok(listener) => listener,
            Err(problem) => return refuse(&problem),
        };
        let access = if self.allow_tasks { "tasks can be started" } else { "read-only" };
        let shown = format!("the stack {stack} ({access})");
        let open: AccountOpener = Box::new(move || Box::pin(open(options.clone())));
        let deployed = DeployedStack::new(stack, self.allow_tasks, open);
        let console = match ConsoleServer::start_deployed(listener, deployed, Clock::system()) {
            Ok(console) => console,
            Err(error) => return refuse(&format!("--console-port: {error}")),
        };
        println!("console of {shown}: {}\nCtrl-C stops it.", console.url());
        if let Err(error) = tokio::signal::ctrl_c().await {
            return refuse(&format!("cannot listen for Ctrl-C: {error}"));
        }
        console.stop().await;
        ExitCode::SUCCESS
    }
}

/// Opens the account.
async fn open(options: AccountOptions) -> Result<StackAccount, String> {
    let connection = AccountConnection::open(options).await.map_err(|error| error.to_string())?;
    let (client, connection) = (Arc::new(AccountClient::new(&connection)?), Arc::new(connection));
    let region = connection.region.clone();
    Ok(StackAccount {
        region,
        caller: Box::new(move |call| {
            let client = Arc::clone(&client);
            Box::pin(async move { client.call(&call).await })
        }),
        connector: Box::new(move |environment| {
            let connection = Arc::clone(&connection);
            Box::pin(async move { connect(&connection, environment).await.map_err(|error| error.to_string()) })
        }),
    })
}

/// Connects the maintenance function with this environment, with the credentials of the account.
async fn connect(
    connection: &AccountConnection,
    environment: Environment,
) -> Result<MaintenanceHandler, EnvironmentError> {
    let sdk = &connection.sdk;
    // An emulator has no host name for each bucket.
    let s3 = Builder::from(sdk).force_path_style(connection.endpoint_url.is_some()).build();
    let s3 = aws_sdk_s3::Client::from_conf(s3);
    let environment = load_document(environment, &s3).await?;
    let environment = load_hash_keys(environment, &SecretsClient::new(sdk)).await?;
    let config = MaintenanceConfig::parse(&environment)?;
    let clients = AwsClients {
        source: match config.source_region() {
            Some(region) => aws::dynamodb_in(sdk, region),
            None => aws::dynamodb(sdk),
        },
        replicas: Box::pin(config.sinks().replica_clients(sdk)).await,
        signer: Some(TokenSigner::new(sdk, Clock::system())),
        s3,
        lambda: LambdaClient::new(sdk),
    };
    Ok(millrace_maintenance::connect(&config, clients))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct TestCommand {
        #[command(flatten)]
        console: ConsoleCommand,
    }

    #[test]
    fn a_stack_or_the_policy_is_required() {
        for (arguments, accepted) in [
            (&["--stack", "users"][..], true),
            (&["--stack", "users", "--allow-tasks", "--console-port", "0", "--region", "eu-west-1"], true),
            (&["--stack", "arn:aws:cloudformation:eu-west-1:123456789012:stack/users/1"], true),
            (&["--print-policy", "--allow-tasks"], true),
            (&["--stack", "users/1"], false),
            (&["--stack", "users", "--endpoint-url", "emulator"], false),
            (&["--stack", "users", "--print-policy"], false),
            (&["--profile", "admin", "--print-policy"], false),
            (&[], false),
        ] {
            let line = std::iter::once(&"console").chain(arguments);
            assert_eq!(TestCommand::try_parse_from(line).is_ok(), accepted, "{arguments:?}");
        }
    }

    #[tokio::test]
    async fn region_of_the_arn_is_the_only_one() {
        let arn = "arn:aws:cloudformation:eu-west-1:123456789012:stack/users/1";
        let line = ["console", "--stack", arn, "--region", "us-east-1"];
        let command = TestCommand::try_parse_from(line).unwrap().console;
        assert_eq!(command.run().await, ExitCode::from(crate::options::REFUSED));
    }
}
