//! The files of a deployment: samconfig.toml, replication.json, policies.json and README.md ([`AttachFiles`]).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use millrace_local::table_description::{TableArn, TableCapacity, TableDescription};
use millrace_shared::file::{regular_file, replace_file};
use millrace_shared::shell;
use serde_json::{Value, json};

use super::findings::{ArchiveMode, AttachChoices, AttachPlan, backfill_read_units, key_parameter};
use super::observation::TableObservation;
use super::policies::{ACCOUNT_PLACEHOLDER, policies};

/// The value of a template parameter that is not set.
const UNSET: &str = "none";

/// Files that were not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttachFilesError {
    /// Files exist with other contents.
    #[error("{} exists with other contents: add --force to overwrite it, or change --out", names.join(", "))]
    Changed {
        /// The paths of the files.
        names: Vec<String>,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}: change --out", path.display())]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
}

/// The files of a deployment, in the folder of the table, and the commands to type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AttachFiles {
    folder: PathBuf,
    files: Vec<(&'static str, String)>,
    commands: AttachCommands,
    parameters: Vec<(&'static str, String)>,
}

/// The commands that build, deploy and fill the replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AttachCommands {
    build: String,
    deploy: String,
    backfill: String,
    verify: String,
}

impl AttachCommands {
    fn new(folder: &Path, table: &TableDescription, stack_name: &str) -> Self {
        let config = format!("--config-file {}", config_path(folder));
        let region = &table.arn.region;
        let machine = format!(
            "--state-machine-arn \"$(aws cloudformation describe-stacks --region {region} --stack-name \
             {stack_name} \\\n    --output text --query \
             \"Stacks[0].Outputs[?OutputKey=='MaintenanceStateMachineArn'].OutputValue\")\""
        );
        let task = |input: &Value| {
            format!("aws stepfunctions start-execution --region {region} --input '{input}' \\\n  {machine}")
        };
        let mut backfill = json!({"task": "backfill", "segments": 8});
        if let TableCapacity::Provisioned { read_units, .. } = table.capacity {
            backfill["max_read_capacity_units"] = backfill_read_units(read_units).into();
        }
        Self {
            build: format!("sam build --template infra/replication.yaml {config}"),
            deploy: format!("sam deploy {config}"),
            backfill: task(&backfill),
            verify: task(&json!({"task": "verify", "segments": 8})),
        }
    }

    /// Returns the three commands.
    pub(super) fn all(&self) -> [&str; 3] {
        [&self.build, &self.deploy, &self.backfill]
    }
}

impl AttachFiles {
    /// Makes the files for a table that nothing prevents from being attached.
    pub(super) fn new(out: &Path, observation: &TableObservation, plan: &AttachPlan, choices: &AttachChoices) -> Self {
        let table = &observation.table;
        let folder = out.join(&table.name);
        let commands = AttachCommands::new(&folder, table, &choices.stack_name);
        let parameters = parameters(observation, plan, choices);
        let files = vec![
            ("samconfig.toml", samconfig(table, &parameters, &choices.stack_name)),
            ("replication.json", pretty(&replication(observation, plan, choices))),
            ("policies.json", pretty(&policies(observation, plan, choices))),
            ("README.md", readme(&folder, observation, plan, choices, &commands)),
        ];
        Self { folder, files, commands, parameters }
    }

    /// Returns the commands to type.
    pub(super) fn commands(&self) -> &AttachCommands {
        &self.commands
    }

    /// Returns the parameters of the template.
    pub(super) fn parameters(&self) -> &[(&'static str, String)] {
        &self.parameters
    }

    /// Returns the paths of the files.
    pub(super) fn paths(&self) -> Vec<String> {
        self.files.iter().map(|(name, _)| self.folder.join(name).display().to_string()).collect()
    }

    /// Writes the files. Without `force`, none is written if one exists with other contents.
    ///
    /// # Errors
    /// [`AttachFilesError`] if files have other contents, or one cannot be read or written.
    pub(super) fn write(&self, force: bool) -> Result<(), AttachFilesError> {
        let mut changed = Vec::new();
        for (name, text) in &self.files {
            let path = self.folder.join(name);
            match regular_file(&path).and_then(std::fs::read) {
                Ok(former) if former != text.as_bytes() => changed.push(path.display().to_string()),
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(AttachFilesError::Io { path, source });
                }
                _ => {}
            }
        }
        if !changed.is_empty() && !force {
            return Err(AttachFilesError::Changed { names: changed });
        }
        let failed = |source| AttachFilesError::Io { path: self.folder.clone(), source };
        std::fs::create_dir_all(&self.folder).map_err(failed)?;
        for (name, text) in &self.files {
            let path = self.folder.join(name);
            replace_file(&path, text.as_bytes()).map_err(|source| AttachFilesError::Io { path, source })?;
        }
        Ok(())
    }
}

fn pretty(document: &Value) -> String {
    format!("{document:#}\n")
}

/// Returns the path of samconfig.toml as an argument of a shell command. SAM CLI looks for a relative path in the
/// folder of the template.
fn config_path(folder: &Path) -> String {
    let path = folder.join("samconfig.toml").display().to_string();
    let base = if folder.is_absolute() { "" } else { "$PWD/" };
    let is_plain = |letter: char| letter.is_alphanumeric() || "/_.:- ".contains(letter);
    match base {
        _ if path.chars().all(is_plain) => format!("\"{base}{path}\""),
        "" => shell::quote(&path),
        _ => format!("\"$PWD\"/{}", shell::quote(&path)),
    }
}

/// Returns the parameters of infra/replication.yaml, as SAM CLI reads them.
fn parameters(
    observation: &TableObservation,
    plan: &AttachPlan,
    choices: &AttachChoices,
) -> Vec<(&'static str, String)> {
    let table = &observation.table;
    let unset = || UNSET.to_owned();
    let key = |key| key_parameter(key).unwrap_or_default();
    let replica = observation.replica.as_ref().map(|replica| &replica.arn);
    let other_region = replica.filter(|arn| arn.region != table.arn.region).map(|arn| arn.region.clone());
    vec![
        ("SourceTableName", table.name.clone()),
        ("SourceTableArn", table.arn.to_string()),
        ("SourceStreamArn", table.stream.as_ref().map(|stream| stream.arn.clone()).unwrap_or_default()),
        ("SourceKeyArn", plan.source_key_arn.clone().unwrap_or_else(unset)),
        ("PartitionKey", key(&table.partition_key)),
        ("SortKey", table.sort_key.as_ref().map_or_else(unset, key)),
        ("Archive", plan.archive.as_str().to_owned()),
        ("ReplicaTableArn", replica.map_or_else(unset, ToString::to_string)),
        ("ReplicaKeyArn", plan.replica_key_arn.clone().unwrap_or_else(unset)),
        ("ReplicaRegion", other_region.unwrap_or_else(unset)),
        ("ReplicaRoleArn", choices.replica_role.as_ref().map_or_else(unset, |role| role.as_str().to_owned())),
        ("ReservedPrefix", choices.reserved_prefix.clone()),
        ("AlarmTopicArn", unset()),
        ("Architecture", "arm64".to_owned()),
    ]
}

fn samconfig(table: &TableDescription, parameters: &[(&'static str, String)], stack_name: &str) -> String {
    let mut text = format!(
        "# Deployment of infra/replication.yaml for the table {name}, written by `millrace attach`. README.md in this\n\
         # folder has the commands.\n\
         version = 0.1\n\n\
         [default.global.parameters]\n\
         stack_name = {stack}\n\
         region = {region}\n\n\
         [default.build.parameters]\n\
         # SAM counts building Rust with cargo-lambda among its beta features.\n\
         beta_features = true\n\n\
         [default.deploy.parameters]\n\
         capabilities = \"CAPABILITY_IAM\"\n\
         confirm_changeset = true\n\
         resolve_s3 = true\n\
         s3_prefix = {stack}\n\
         # `none` means that a parameter is unset. docs/configuration.md describes all parameters. SAM CLI drops\n\
         # everything after a space unless the value is in quotes of its own.\n\
         parameter_overrides = [\n",
        name = table.name,
        stack = toml_string(stack_name),
        region = toml_string(&table.arn.region),
    );
    for (name, value) in parameters {
        let _ = writeln!(text, "    {},", toml_string(&format!("{name}={value}")));
    }
    text.push_str("]\n");
    text
}

/// Returns a basic string of TOML, in which quotation marks, backslashes and control characters are escaped.
fn toml_string(text: &str) -> String {
    let mut string = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => string.extend(['\\', letter]),
            _ if letter.is_control() => {
                let _ = write!(string, "\\u{:04X}", u32::from(letter));
            }
            _ => string.push(letter),
        }
    }
    string.push('"');
    string
}

/// Returns the replication document of the deployment.
fn replication(observation: &TableObservation, plan: &AttachPlan, choices: &AttachChoices) -> Value {
    let table = &observation.table;
    let replica = observation.replica.as_ref().map(|replica| replica.arn.clone());
    let replica = replica.unwrap_or_else(|| {
        let mut arn = table.arn.clone();
        arn.table.push_str("-replica");
        arn
    });
    let mut replicas = vec![json!({
        "name": "dynamodb",
        "sink": "dynamodb",
        "table": replica.to_string(),
        "region": replica.region,
    })];
    if let Some(role) = &choices.replica_role {
        replicas[0]["role_arn"] = role.as_str().into();
    }
    if plan.archive == ArchiveMode::InReplicator {
        replicas.push(json!({"name": "archive", "sink": "archive", "records": "expired"}));
    }
    json!({"version": 1, "replicas": replicas})
}

fn readme(
    folder: &Path,
    observation: &TableObservation,
    plan: &AttachPlan,
    choices: &AttachChoices,
    commands: &AttachCommands,
) -> String {
    let AttachCommands { build, deploy, backfill, verify } = commands;
    let table = &observation.table;
    let (name, stack) = (&table.name, &choices.stack_name);
    let mut text = format!(
        "# Replication of {name}\n\n\
         Written by `millrace attach`. The stack `{stack}` replicates `{}`.\n\
         Nothing in these files changes the table.\n\n",
        table.arn
    );
    if choices.is_cross_account(table) {
        text.push_str("Before the first command, the owner of the table adds the policies below.\n\n");
    }
    let _ = write!(
        text,
        "Type the commands in the root of the Millrace repository, with credentials of the stack's account:\n\n\
         ```sh\n\
         # 1. Build the functions, for the Architecture in samconfig.toml. This requires Rust and cargo-lambda.\n\
         {build}\n\n\
         # 2. Deploy: shows the changes, and asks.\n\
         {deploy}\n\n\
         # 3. Copy the items that the table has already.\n\
         {backfill}\n\
         ```\n\n\
         Without a Rust toolchain, deploy a release (docs/operations.md): its functions are zips in a bucket, which \
         the parameters `CodeBucket` and `CodePrefix` of its `replication-packaged.yaml` name.\n\n\
         Then compare both tables. The execution fails with `DifferencesFound` if they differ:\n\n\
         ```sh\n{verify}\n```\n\n\
         ## Files\n\n\
         | File | Content |\n\
         | --- | --- |\n\
         | `samconfig.toml` | the parameters of `infra/replication.yaml` for this table |\n\
         | `policies.json` | the resource policies for a stack in another account |\n\
         | `replication.json` | the replication document, for more than one replica |\n\n\
         `replication.json` is not used unless the parameter `Replication` names it. To replicate to several \
         tables, list them in it (tables that exist, with the same key), upload it, and set \
         `Replication=s3://BUCKET/KEY` and the ARNs of the tables as `ReplicaTableArns` in `samconfig.toml`, with \
         `ReplicaTableArn=none`.\n\n"
    );
    text.push_str(&policies_section(folder, table, plan, choices));
    if let Some(replica) = &observation.replica {
        text.push_str(&replica_section(folder, &replica.arn, table, choices));
    }
    text.push_str("The parameters are described in docs/configuration.md, the tasks in docs/maintenance.md.\n");
    text
}

fn policies_section(folder: &Path, table: &TableDescription, plan: &AttachPlan, choices: &AttachChoices) -> String {
    let account = &table.arn.account;
    let Some(stack_account) = &choices.stack_account else {
        return format!(
            "## If the stack is in another account\n\nA stack in the account of the table, {account}, needs no \
             resource policy. For a stack in another account, run `millrace attach` again with `--stack-account \
             NUMBER --force`: that replaces `{ACCOUNT_PLACEHOLDER}` in `policies.json`, and adds the commands of \
             the table's owner here.\n\n"
        );
    };
    if !choices.is_cross_account(table) {
        return String::new();
    }
    let policies = folder.join("policies.json");
    let policies = shell::quote(&policies.display().to_string());
    let mut text = format!(
        "## Policies\n\nThe table is in account {account}, the stack in {stack_account}. The owner of the table \
         adds two resource policies. `put-resource-policy` replaces a policy that exists: `aws dynamodb \
         get-resource-policy` prints it, add the statement there.\n\n```sh\n"
    );
    for (part, arn) in [
        ("stream", table.stream.as_ref().map(|stream| stream.arn.clone()).unwrap_or_default()),
        ("table", table.arn.to_string()),
    ] {
        let _ = writeln!(
            text,
            "aws dynamodb put-resource-policy --region {} --resource-arn '{arn}' \\\n  \
             --policy \"$(jq -c .{part}.policy {policies})\"",
            table.arn.region
        );
    }
    text.push_str(
        "```\n\nThe task `restore` also needs `dynamodb:PutItem` on the table; no other task writes to it. The \
         policies allow the roles of the stack by the beginning of their names, since a role must exist before a \
         policy can name it.\n\n",
    );
    if let Some(key_arn) = &plan.source_key_arn {
        let _ = write!(
            text,
            "The table is encrypted with `{key_arn}`: the owner of the key adds `key.statement` to its policy.\n\n"
        );
    }
    text
}

/// Returns what the owner of the existing replica, or of its role, adds before the deployment.
fn replica_section(folder: &Path, replica: &TableArn, table: &TableDescription, choices: &AttachChoices) -> String {
    let policies = folder.join("policies.json");
    let policies = shell::quote(&policies.display().to_string());
    let stack_account = choices.account_of_stack(table);
    if let Some(role) = &choices.replica_role {
        let name = role.as_str().rsplit('/').next().unwrap_or_default();
        return format!(
            "## The role of the replica\n\nThe functions write to `{replica}` as `{role}`, in account {account}. Its \
             owner adds the statement of the trust policy to the one that the role has, since \
             `update-assume-role-policy` replaces it, and the policy:\n\n```sh\n\
             aws iam update-assume-role-policy --role-name {name} \\\n  \
             --policy-document \"$(jq -c .replica_role.trust_policy {policies})\"\n\
             aws iam put-role-policy --role-name {name} --policy-name millrace-replica \\\n  \
             --policy-document \"$(jq -c .replica_role.policy {policies})\"\n```\n\n\
             If the replica is encrypted with a key of its owner, the role must be allowed to use it, too.\n\n",
            role = role.as_str(),
            account = role.account(),
        );
    }
    if replica.account == stack_account {
        return String::new();
    }
    format!(
        "## The policy of the replica\n\n`{replica}` is in another account than the stack, {stack_account}. Its owner \
         adds a resource policy; `put-resource-policy` replaces one that exists:\n\n```sh\n\
         aws dynamodb put-resource-policy --region {} --resource-arn '{replica}' \\\n  \
         --policy \"$(jq -c .replica.policy {policies})\"\n```\n\n",
        replica.region
    )
}
