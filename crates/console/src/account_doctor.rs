//! The diagnosis of a deployed stack: [`AccountDoctor`].
//!
//! A diagnosis makes up to several hundred calls. It therefore runs in the background, and its result is retained until
//! the user requests another one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millrace_doctor::account_recording::AccountTarget;
use millrace_doctor::account_turns::read_in_turns;
use millrace_doctor::diagnosis::{DeploymentDiagnosis, diagnose};
use time::OffsetDateTime;

use crate::deployed_stack::DeployedStack;

/// The time limit of a reading.
const READ_TIMEOUT: Duration = Duration::from_mins(5);

/// A diagnosis, and the parts that could not be read.
pub(crate) struct StackDiagnosis {
    pub(crate) diagnosis: DeploymentDiagnosis,
    pub(crate) problems: Vec<String>,
    pub(crate) read_at: OffsetDateTime,
}

/// The state of the diagnosis.
#[derive(Clone, Default)]
pub(crate) enum DiagnosisState {
    #[default]
    None,
    /// The account is being read; the number of the calls so far.
    Reading(Arc<AtomicUsize>),
    Done(Arc<Result<StackDiagnosis, String>>),
}

/// The last diagnosis of a stack.
#[derive(Default)]
pub(crate) struct AccountDoctor(Mutex<DiagnosisState>);

impl AccountDoctor {
    fn state(&self) -> MutexGuard<'_, DiagnosisState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the state, and starts a reading if there is none; with `again`, also if one has ended.
    pub(crate) fn get(stack: &Arc<DeployedStack>, again: bool, now: OffsetDateTime) -> DiagnosisState {
        let mut state = stack.doctor.state();
        let is_needed = match &*state {
            DiagnosisState::None => true,
            DiagnosisState::Reading(_) => false,
            DiagnosisState::Done(_) => again,
        };
        if is_needed {
            let calls = Arc::new(AtomicUsize::new(0));
            *state = DiagnosisState::Reading(Arc::clone(&calls));
            let stack = Arc::clone(stack);
            tokio::spawn(async move {
                let read = tokio::time::timeout(READ_TIMEOUT, read(&stack, &calls, now)).await;
                let minutes = READ_TIMEOUT.as_secs() / 60;
                let read = read.unwrap_or_else(|_| Err(format!("the account was not read within {minutes} minutes")));
                *stack.doctor.state() = DiagnosisState::Done(Arc::new(read));
            });
        }
        state.clone()
    }
}

async fn read(stack: &DeployedStack, calls: &AtomicUsize, now: OffsetDateTime) -> Result<StackDiagnosis, String> {
    let account = stack.open().await?;
    let target = AccountTarget::Stack(stack.name().to_owned());
    let reading = read_in_turns(target, now, |call| {
        calls.fetch_add(1, Ordering::Relaxed);
        (account.caller)(call)
    });
    let reading = reading.await?;
    Ok(StackDiagnosis { diagnosis: diagnose(&reading.deployment), problems: reading.problems, read_at: now })
}
