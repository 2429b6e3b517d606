//! Recorded responses of an account: [`AccountRecording`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use time::OffsetDateTime;

use crate::account_call::{AccountCall, AccountOperation, CallResponse};
use crate::setting::SettingValue;

/// The part of an account that is evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountTarget {
    /// The mappings, tables and routes of a stack of `CloudFormation`, with its nested stacks.
    Stack(String),
    /// The mappings of a function.
    Function(String),
    /// The mappings of a table's streams.
    Table(String),
}

/// The location of a finding: `stack/users`.
impl fmt::Display for AccountTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stack(name) => write!(f, "stack/{name}"),
            Self::Function(name) => write!(f, "function/{name}"),
            Self::Table(name) => write!(f, "table/{name}"),
        }
    }
}

/// The responses to the calls that were made so far.
#[derive(Debug, Clone)]
pub struct AccountRecording {
    /// The part of the account that is evaluated.
    pub target: AccountTarget,
    /// The time of the recording, from which ages are calculated.
    pub read_at: OffsetDateTime,
    responses: BTreeMap<String, CallResponse>,
}

impl AccountRecording {
    /// Returns a recording without responses.
    #[must_use]
    pub fn new(target: AccountTarget, read_at: OffsetDateTime) -> Self {
        Self { target, read_at, responses: BTreeMap::new() }
    }

    /// Adds the response to a call, by the name that [`AccountCall`] displays.
    pub fn add(&mut self, call: impl fmt::Display, response: CallResponse) {
        self.responses.insert(call.to_string(), response);
    }

    /// Returns the recording without the response to a call.
    #[must_use]
    pub fn without(&self, call: &str) -> Self {
        let mut recording = self.clone();
        recording.responses.remove(call);
        recording
    }

    /// Returns the number of responses.
    #[must_use]
    pub fn count(&self) -> usize {
        self.responses.len()
    }
}

/// Looks up responses and collects the calls that have none yet.
pub(crate) struct ResponseBook<'r> {
    pub(crate) recording: &'r AccountRecording,
    missing: RefCell<Vec<AccountCall>>,
}

impl<'r> ResponseBook<'r> {
    pub(crate) fn new(recording: &'r AccountRecording) -> Self {
        Self { recording, missing: RefCell::default() }
    }

    /// Returns the response to a call: absent if the service says that there is none, unresolved with the reason if the
    /// call was refused, or is still to be made.
    pub(crate) fn response(
        &self,
        operation: &'static AccountOperation,
        parameters: &[(&'static str, &str)],
    ) -> SettingValue<&'r Value> {
        let call = AccountCall::new(operation, parameters);
        match self.recording.responses.get(&call.to_string()) {
            Some(CallResponse::Response(response)) => SettingValue::Known(response),
            Some(CallResponse::Refused(refusal))
                if refusal.code.as_deref().is_some_and(|code| operation.absent.contains(&code)) =>
            {
                SettingValue::Absent
            }
            Some(CallResponse::Refused(refusal)) => SettingValue::Unresolved(refusal.reason(operation)),
            None => {
                let mut missing = self.missing.borrow_mut();
                if !missing.contains(&call) {
                    missing.push(call);
                }
                SettingValue::Unresolved(format!("{} was not called", operation.name))
            }
        }
    }

    pub(crate) fn into_missing(self) -> Vec<AccountCall> {
        self.missing.into_inner()
    }
}
