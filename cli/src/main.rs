//! The program `millrace`.

use std::process::ExitCode;
use std::time::Duration;

use millrace_shared::environment::Environment;

/// The same allocator as the functions use (docs/benchmarks.md), since they run in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the async runtime: {error}");
            return ExitCode::from(millrace::options::REFUSED);
        }
    };
    let code = runtime.block_on(millrace::options::run(std::env::args_os(), &Environment::from_env()));
    // An invocation that is still running after the stop has its own thread: do not wait for it.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}
