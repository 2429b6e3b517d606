//! The loop that reads an account: [`read_in_turns`].

use time::OffsetDateTime;

use crate::account_call::{AccountCall, CallResponse};
use crate::account_reader;
use crate::account_recording::{AccountRecording, AccountTarget};
use crate::template_reader::DeploymentReading;

/// The maximum number of turns. Each turn makes the calls that the responses of the previous turn require.
const MAX_TURNS: usize = 20;

/// Reads a deployment with a function that makes a call, one after the other, until no response is missing.
///
/// # Errors
/// A line that names the call and its error, if the target cannot be read.
pub async fn read_in_turns<F: Future<Output = CallResponse>>(
    target: AccountTarget,
    read_at: OffsetDateTime,
    mut make_call: impl FnMut(AccountCall) -> F,
) -> Result<DeploymentReading, String> {
    let mut recording = AccountRecording::new(target, read_at);
    for _ in 0..MAX_TURNS {
        let reading = account_reader::read(&recording)?;
        if reading.missing.is_empty() {
            return Ok(reading.reading);
        }
        for call in reading.missing {
            let response = make_call(call.clone()).await;
            recording.add(&call, response);
        }
    }
    Err(format!("{} needs more than {MAX_TURNS} turns of calls: is it nested too deeply?", recording.target))
}
