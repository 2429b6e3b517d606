//! Start-up banner: URLs, settings and first commands ([`start_banner`]).

use std::path::Path;

use crate::options::{DYNAMODB_PORT, PORT, S3_PORT};
use millrace_local::clients;
use millrace_local::lambda::without_password;
use millrace_local::stack::{LocalStack, MAX_BATCH_WINDOW, ReplicaStore};
use millrace_local::template::TableResource;
use millrace_local::token::LocalAuth;
use millrace_shared::shell;
use millrace_sinks::document::{PostgresTable, ReplicaEntry, ReplicationDocument, SinkSettings};
use serde_json::{Value, json};

/// Returns the banner of a stack that has started, with the URL of its console.
#[must_use]
pub fn start_banner(stack: &LocalStack, console: &str, env_file: Option<&Path>) -> String {
    let (api, dynamodb, s3) = (stack.api_url(), stack.dynamodb_url(), stack.s3_url());
    let options = stack.options();
    let data = options.data.as_ref().map_or_else(
        || "in memory, lost on exit (--data DIR stores it)".to_owned(),
        |folder| folder.display().to_string(),
    );
    let auth = match &options.auth {
        LocalAuth::None if options.functions.is_some() => "as set in the functions' environment".to_owned(),
        LocalAuth::None => "none: every caller has full access (--auth jwt requires tokens)".to_owned(),
        LocalAuth::Jwt(None) => "jwt, with a key generated at the start".to_owned(),
        LocalAuth::Jwt(Some(path)) => format!("jwt, with the keys in {}", path.display()),
    };
    let tokens = tokens(stack);
    let bearer = if tokens.is_empty() { "" } else { " -H \"authorization: Bearer $ADA\"" };
    let all = if tokens.is_empty() { "" } else { " -H \"authorization: Bearer $ADMIN\"" };
    let windows = if options.full_batch_windows {
        "as in the template".to_owned()
    } else {
        format!("at most {} s, shorter than on AWS (--full-batch-windows disables this)", MAX_BATCH_WINDOW.as_secs())
    };
    let functions =
        options.functions.as_ref().map_or_else(|| "in this process".to_owned(), |url| format!("at {url}, the API too"));
    let watch = env_file.map_or_else(String::new, |path| {
        format!("  serve with  cargo lambda watch -A 127.0.0.1 --env-file {}\n", path.display())
    });
    let replica = stack.replicas().iter().find_map(|replica| match &replica.store {
        ReplicaStore::DynamoDb(table) => Some(table.as_str()),
        ReplicaStore::Postgres(_) => None,
    });
    let declared = replicas(stack);
    let port = |option: &str, url: &str, usual: u16| {
        let port = url.rsplit_once(':').map_or("", |(_, port)| port);
        if port == usual.to_string() { String::new() } else { format!(" {option} {port}") }
    };
    let ports = [("--port", api, PORT), ("--dynamodb-port", dynamodb, DYNAMODB_PORT), ("--s3-port", s3, S3_PORT)];
    let ports = ports.map(|(option, url, usual)| port(option, url, usual)).concat();
    // The URL of a server that the user named may contain a password, so it is not printed; the user knows it.
    let tier = |name: &str, url: Option<&str>, named: Option<&str>, says: &str| {
        let shown = url.map(|url| named.map_or(url, |_| says));
        shown.map_or_else(String::new, |shown| format!("  {name:<10}  {shown}\n"))
    };
    // Without the URL of a tier that is on, a task is rejected or skips the items that concern the tier.
    let task_options = stack
        .postgres_url()
        .map_or_else(String::new, |url| format!(" --postgres {}", shell::quote(&without_password(url))));
    let postgres = tier("PostgreSQL", stack.postgres_url(), options.postgres.url(), "the server set with --postgres");
    let tiers = postgres + &tier("cache", stack.cache_url(), options.cache.url(), "the server set with --cache");
    let has_api = !stack.template().routes.is_empty();
    let (name, contract) =
        if has_api { ("API   ", format!("  contract    {api}/docs\n")) } else { ("Lambda", String::new()) };
    let auth = if has_api { format!("  AUTH        {auth}\n") } else { String::new() };
    let table = stack.source_table();
    let stores = if has_api { String::new() } else { table.map_or_else(String::new, |table| stores(stack, table)) };
    let query = declared.iter().find_map(ReplicaEntry::postgres_table).map(|table| postgres_example(stack, table));
    let expiry = match table {
        Some(table) if table.ttl_attribute.is_none() => {
            format!("off: table {} has no TTL attribute (--ttl-attribute NAME sets it)", table.name)
        }
        _ => format!("every {} s (AWS: within hours)", options.ttl_interval.as_secs()),
    };
    let cli = AwsCommand { dynamodb };
    let examples = match table {
        Some(table) if !has_api => table_examples(&cli, table, replica) + &query.unwrap_or_default(),
        _ => format!(
            "{}\nRead it from the replica (any credentials are accepted):\n\n{}",
            users_examples(api, bearer, all),
            cli.command("scan", replica.unwrap_or_default(), "")
        ),
    };
    let task = if stack.replicas().is_empty() {
        format!(
            "{NO_REPLICA}\nRestore archived items to the table:\n\n  cargo run -- task restore --never-expires{ports}"
        )
    } else {
        format!(
            "Compare the replica with the table (tasks: backfill, verify, repair, redrive):\n\n  \
             cargo run -- task verify{ports}{task_options}"
        )
    };
    format!(
        "\nMillrace is ready.

  console     {console}
  {name}      {api}
  DynamoDB    {dynamodb}
  S3          {s3}
{contract}  metrics     {api}/metrics
  data        {data}
  functions   {functions}
{watch}{auth}{tiers}  windows     {windows}
  expiry      {expiry}
{stores}
{tokens}{examples}
{task}

Ctrl-C stops.
"
    )
}

/// The note about a stack without a replica.
const NO_REPLICA: &str =
    "Note: the replication document declares no replica to compare, so verify, repair, backfill and audit are refused.
Add a replica whose sink is dynamodb or postgres to compare it.
";

/// Returns the names of the tables and buckets of a stack without the API, in the format of the settings.
fn stores(stack: &LocalStack, table: &TableResource) -> String {
    let keys: Vec<String> = table.keys.iter().map(|key| format!("{} ({})", key.name, kind(table, &key.name))).collect();
    let buckets: Vec<&str> = stack.template().buckets.iter().map(|bucket| bucket.name.as_str()).collect();
    let line = |text: String| format!("  replica     {text}\n");
    let declared = replicas(stack).iter().filter_map(|ReplicaEntry { name, sink, .. }| match sink {
        SinkSettings::DynamoDb(settings) => Some(line(format!("{name}: table {}", settings.table.name()))),
        SinkSettings::Postgres(table) => {
            let (table, view) = (table.table.quoted(), table.view().quoted());
            Some(line(format!("{name}: PostgreSQL table {table}, and the view {view} without deleted items")))
        }
        SinkSettings::Archive { .. } => None,
    });
    let own = stack.replicas().iter().map(|replica| match &replica.store {
        ReplicaStore::DynamoDb(table) => line(format!("table {table}")),
        ReplicaStore::Postgres(table) => line(format!("table {table} of PostgreSQL")),
    });
    let replicas: String = if stack.replication_document().is_some() { declared.collect() } else { own.collect() };
    let replicas = if replicas.is_empty() { line("none".to_owned()) } else { replicas };
    format!(
        "  source      table {}, key {}\n{replicas}  buckets     {}\n",
        table.name,
        keys.join(", "),
        buckets.join(", ")
    )
}

/// Returns the replicas that the replication document declares.
fn replicas(stack: &LocalStack) -> &[ReplicaEntry] {
    stack.replication_document().map_or(&[], ReplicationDocument::replicas)
}

/// Returns the first query of a table in PostgreSQL.
fn postgres_example(stack: &LocalStack, table: &PostgresTable) -> String {
    let url = shell::quote(&without_password(stack.postgres_url().unwrap_or_default()));
    let query = shell::quote(&format!("select * from {}", table.view().quoted()));
    format!("\nQuery the table in PostgreSQL:\n\n  psql {url} -c {query}\n")
}

fn kind<'t>(table: &'t TableResource, name: &str) -> &'t str {
    table.attributes.iter().find(|attribute| attribute.name == name).map_or("S", |attribute| attribute.kind.as_str())
}

/// Commands of the AWS CLI for DynamoDB on this machine.
struct AwsCommand<'a> {
    dynamodb: &'a str,
}

impl AwsCommand<'_> {
    /// Returns an indented command; `more` is its last part.
    fn command(&self, operation: &str, table: &str, more: &str) -> String {
        let (id, secret, region) = (clients::ACCESS_KEY_ID, clients::SECRET_ACCESS_KEY, clients::REGION);
        format!(
            "  AWS_ACCESS_KEY_ID={id} AWS_SECRET_ACCESS_KEY={secret} aws dynamodb {operation} --table-name {table} \\
    --endpoint-url {} --region {region}{more}\n",
            self.dynamodb
        )
    }
}

fn users_examples(api: &str, bearer: &str, all: &str) -> String {
    format!(
        "Create a user, read it, list all:

  curl -X POST {api}/users -H 'content-type: application/json'{bearer} \\
    -d '{{\"user_id\":\"ada\",\"name\":\"Ada Lovelace\",\"email\":\"ada@example.com\"}}'
  curl {api}/users/ada{bearer}
  curl {api}/users{all}
"
    )
}

/// Returns the first commands of a stack without the API, whose table is written with the AWS CLI or an SDK.
fn table_examples(cli: &AwsCommand<'_>, table: &TableResource, replica: Option<&str>) -> String {
    let key: serde_json::Map<String, Value> = table
        .keys
        .iter()
        .map(|key| {
            let kind = kind(table, &key.name);
            let value = match kind {
                "N" => "1",
                // Base64 of one letter.
                "B" => "YQ==",
                _ => "a",
            };
            (key.name.clone(), json!({kind: value}))
        })
        .collect();
    let key = Value::Object(key).to_string();
    let key = shell::quote(&key);
    let (put, get) = (format!(" --item {key}"), format!(" --key {key}"));
    let (write, put) =
        ("Write an item to the table (any credentials are accepted)", cli.command("put-item", &table.name, &put));
    match replica {
        Some(replica) => {
            format!("{write}, and read it from the replica:\n\n{put}{}", cli.command("get-item", replica, &get))
        }
        None => format!("{write}:\n\n{put}"),
    }
}

/// Returns the shell assignments of the tokens that the example calls use, if this program signs tokens.
fn tokens(stack: &LocalStack) -> String {
    let own = stack.token("ada", "users:read users:write").map(|token| format!("  ADA={token}\n"));
    let admin = stack.token("operator", "users:admin").map(|token| format!("  ADMIN={token}\n"));
    match own.zip(admin) {
        Some((own, admin)) => format!("Tokens, valid for 12 hours:\n\n{own}{admin}\n"),
        None => String::new(),
    }
}
