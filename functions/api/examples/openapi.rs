//! Writes the API's contract as the code has it: `cargo run -p api --example openapi >functions/api/openapi.json`.

fn main() -> Result<(), serde_json::Error> {
    print!("{}", api::contract::openapi()?);
    Ok(())
}
