//! Writes the contract as the code has it: `cargo run -p millrace-contract --example openapi >functions/api/openapi.json`.

fn main() -> Result<(), serde_json::Error> {
    print!("{}", millrace_contract::openapi()?);
    Ok(())
}
