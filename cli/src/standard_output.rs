//! Writing to standard output, without the panic of `println!` when the reader ends.

use std::io::{self, ErrorKind, Write as _};

/// Writes bytes to standard output. A reader that ends early, such as `head`, has all that it wanted.
///
/// # Errors
/// Fails if standard output cannot be written, for example to a full disk.
pub(crate) fn write_output(text: impl AsRef<[u8]>) -> Result<(), String> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_ref()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("cannot write to standard output: {error}")),
        _ => Ok(()),
    }
}
