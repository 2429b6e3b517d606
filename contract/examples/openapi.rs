//! Writes the contract as the code has it: `cargo run -p contract --example openapi >functions/api/openapi.json`.

fn main() -> Result<(), serde_json::Error> {
    print!("{}", contract::openapi()?);
    Ok(())
}
