//! Entry point of `cargo run`, the local stack.

use std::process::ExitCode;
use std::time::Duration;

use shared::environment::Environment;

/// The same allocator as the functions use (docs/benchmarks.md), since they run in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the async runtime: {error}");
            return ExitCode::from(local::options::REFUSED);
        }
    };
    let code = runtime.block_on(local::options::run(std::env::args_os(), &Environment::from_env()));
    // An invocation that is still running after the stop has its own thread: do not wait for it.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}
