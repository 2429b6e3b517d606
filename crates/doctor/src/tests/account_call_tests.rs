//! The calls of a diagnosis: their turns, their permissions, and responses that are refused or malformed.

use std::collections::BTreeSet;

use proptest::prelude::{Just, any, prop, prop_oneof, proptest};
use proptest::sample::Index;
use serde_json::{Value, json};

use super::account_fixture::{
    KEY, QUEUE, ScriptedResponses, TOPIC, changed, recording, refused, rules_of, stack, to_message_destination, valid,
};
use super::fuzz_tests::{odd_value, pointers};
use crate::account_call::{CallResponse, OPERATIONS, policy};
use crate::account_reader::read;
use crate::account_recording::{AccountRecording, AccountTarget};
use crate::diagnosis::diagnose;

/// The valid account, and the same with a queue and with a topic as the destination; each with its findings.
fn recordings() -> Vec<(ScriptedResponses, &'static [&'static str])> {
    let policy = json!(r#"{"Statement": []}"#);
    let mut recordings: Vec<(ScriptedResponses, &[&str])> = vec![(valid(), &[])];
    for arn in [QUEUE, TOPIC] {
        recordings.push((changed(&to_message_destination(arn, &policy, &json!(KEY))), &["metadata-only-destination"]));
    }
    recordings
}

/// Returns whether the response to a call is used.
fn is_asked(recording: &AccountRecording, call: &str) -> bool {
    read(&recording.without(call)).is_ok_and(|reading| !reading.missing.is_empty())
}

#[test]
fn a_refused_call_makes_the_rules_that_need_it_not_checked_and_never_finds_anything() {
    let of_destination = recordings().into_iter().flat_map(|(responses, findings)| {
        let calls: Vec<String> = responses.keys().cloned().collect();
        calls.into_iter().map(move |call| (call, responses.clone(), findings))
    });
    for (call, responses, findings) in of_destination.filter(|(call, ..)| !call.starts_with("ListStackResources")) {
        let call = &call;
        let mut recording = recording(stack(), &responses);
        if !is_asked(&recording, call) {
            continue;
        }
        recording.add(call, refused("AccessDeniedException"));
        let mut reading = read(&recording).unwrap();
        // A refused call leaves others unasked, never asks for more.
        assert!(reading.missing.is_empty(), "{call}: {:?}", reading.missing);
        let diagnosis = diagnose(&reading.reading.deployment);
        let found = rules_of(&diagnosis);
        assert!(found.iter().all(|rule| findings.contains(rule)), "{call}: {:#?}", diagnosis.findings);
        let mut reasons: Vec<String> = diagnosis.unchecked.iter().map(|it| it.reason.clone()).collect();
        reasons.extend(diagnosis.unread.iter().map(|(_, reason)| reason.clone()));
        reasons.append(&mut reading.reading.problems);
        let (name, _) = call.split_once(' ').unwrap_or((call, ""));
        let action = OPERATIONS.iter().find(|operation| operation.name == name).unwrap().action;
        let message = format!("{name} was denied: allow {action}");
        assert!(reasons.iter().any(|reason| reason.contains(&message)), "{call}: {reasons:#?}");
    }
}

#[test]
fn the_calls_are_made_in_turns_until_none_is_missing() {
    let responses = valid();
    let mut recording = recording(stack(), &ScriptedResponses::new());
    let mut turns = 0;
    loop {
        let missing = read(&recording).unwrap().missing;
        if missing.is_empty() {
            break;
        }
        turns += 1;
        for call in missing {
            let response = responses.get(&call.to_string()).unwrap_or_else(|| panic!("the recording has no {call}"));
            let code = response["refused"].as_str();
            recording.add(&call, code.map_or_else(|| CallResponse::Response(response.clone()), refused));
        }
    }
    assert_eq!((recording.count(), turns), (responses.len(), 5), "each response is needed");
}

#[test]
fn the_policy_allows_each_operation_and_nothing_that_writes() {
    let policy: Value = serde_json::from_str(&policy()).unwrap();
    let statements = policy["Statement"].as_array().unwrap();
    let actions: BTreeSet<&str> = statements
        .iter()
        .flat_map(|statement| statement["Action"].as_array().unwrap())
        .map(|action| action.as_str().unwrap())
        .collect();
    assert_eq!(actions, OPERATIONS.iter().map(|operation| operation.action).collect());
    let reads = ["Describe", "Get", "List", "Scan", "Simulate", "GET"];
    for action in actions {
        let (_, verb) = action.split_once(':').unwrap();
        assert!(reads.iter().any(|read| verb.starts_with(read)), "{action}");
    }
    let names: BTreeSet<&str> = OPERATIONS.iter().map(|operation| operation.name).collect();
    let recorded = recordings();
    let calls = recorded.iter().flat_map(|(responses, _)| responses.keys());
    let called: BTreeSet<&str> = calls.map(|call| call.split(' ').next().unwrap()).collect();
    assert_eq!(called, names, "the recording calls each operation");
}

proptest! {
    #[test]
    fn no_answer_makes_the_reader_panic(
        changes in prop::collection::vec((any::<Index>(), any::<Index>(), odd_value()), 1..5),
        target in prop_oneof![
            Just(stack()),
            Just(AccountTarget::Function("copier".to_owned())),
            Just(AccountTarget::Table("Users".to_owned())),
        ],
    ) {
        let mut responses = valid();
        for (call, at, value) in changes {
            let calls: Vec<String> = responses.keys().cloned().collect();
            let call: &String = call.get(&calls);
            let response = responses.get_mut(call).unwrap();
            let mut found = Vec::new();
            pointers(response, "", &mut found);
            let pointer: &String = at.get(&found);
            *response.pointer_mut(pointer).unwrap() = value;
        }
        match read(&recording(target, &responses)) {
            Ok(reading) => {
                let _ = diagnose(&reading.reading.deployment);
            }
            Err(line) => assert!(!line.contains('\n'), "{line}"),
        }
    }
}
