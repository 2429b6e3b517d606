//! `cargo run -p local`: Millrace on one machine.

use std::process::ExitCode;
use std::time::Duration;

use shared::environment::Environment;

/// As the functions have it (docs/benchmarks.md): they run here.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return ExitCode::from(local::options::REFUSED);
        }
    };
    let code = runtime.block_on(local::options::run(std::env::args_os(), &Environment::from_env()));
    // An invocation that outlived the stop has a thread of its own: it is not waited for.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}
