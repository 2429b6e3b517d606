//! Process of a function, with the resource usage that the kernel reports for it.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use axum::body::Bytes;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::runtime_api::RuntimeApi;

type BenchError = Box<dyn std::error::Error>;

/// A running function; it is stopped when this is dropped.
pub(crate) struct FunctionProcess {
    api: RuntimeApi,
    child: Child,
    started: Instant,
}

impl FunctionProcess {
    /// Starts the binary with the environment that Lambda and the template provide.
    pub(crate) async fn start(binary: &Path, endpoint: &str) -> Result<Self, BenchError> {
        Self::start_with(binary, endpoint, &[]).await
    }

    /// Starts the binary with additional environment variables.
    pub(crate) async fn start_with(
        binary: &Path,
        endpoint: &str,
        variables: &[(&str, &str)],
    ) -> Result<Self, BenchError> {
        let api = RuntimeApi::serve().await?;
        let mut command = Command::new(binary);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        for (name, value) in [
            ("AWS_LAMBDA_RUNTIME_API", api.address.as_str()),
            ("AWS_LAMBDA_FUNCTION_NAME", "bench"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/bench"),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "bench"),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_ACCESS_KEY_ID", "bench"),
            ("AWS_SECRET_ACCESS_KEY", "bench"),
            ("AWS_ENDPOINT_URL", endpoint),
            ("USERS_TABLE", "Users"),
            ("EMAIL_INDEX", "EmailIndex"),
            ("AUTH", "none"),
            ("CURSOR_KEYS", "bench:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
            ("REPLICA_TABLE", "UsersReplica"),
            ("FAILURE_BUCKET", "failures"),
        ] {
            command.env(name, value);
        }
        // The replicator would archive, too.
        if binary.ends_with("archiver") {
            command.env("ARCHIVE_BUCKET", "archive");
        }
        command.envs(variables.iter().copied());
        let started = Instant::now();
        Ok(Self { api, child: command.spawn()?, started })
    }

    /// Invokes the function once; fails unless the invocation succeeds.
    pub(crate) async fn invoke(&mut self, event: Bytes) -> Result<Bytes, BenchError> {
        tokio::select! {
            response = self.api.invoke(event) => Ok(response?),
            ended = self.child.wait() => Err(format!("the function ended: {}", ended?).into()),
        }
    }

    /// Returns the time since the start of the process.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns the CPU time of all threads of the process.
    pub(crate) fn cpu(&self) -> Result<Duration, BenchError> {
        let mut nanos = 0;
        for task in fs::read_dir(self.proc("task")?)? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            nanos += text.split_whitespace().next().ok_or("schedstat is empty")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Returns the peak memory of the process in bytes.
    pub(crate) fn peak_bytes(&self) -> Result<u64, BenchError> {
        let status = fs::read_to_string(self.proc("status")?)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM in status")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }

    fn proc(&self, file: &str) -> Result<String, BenchError> {
        let id = self.child.id().ok_or("the function has ended")?;
        Ok(format!("/proc/{id}/{file}"))
    }
}
