//! The checkpoint of a batch: from the failed records to the position from which Lambda has to redeliver.
//!
//! Lambda takes the lowest returned sequence number as the checkpoint: that record and all after it are redelivered,
//! applied or not (<https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html>). Therefore
//! one position is returned, the lowest, compared as numbers. Returning a higher one would acknowledge a change that is
//! in no replica.

use crate::stream::{BatchResponse, StreamRecord};

/// Failed records without a position to redeliver from: neither they nor any record before them has a sequence number.
/// The invocation must fail, so that the whole batch is redelivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record {index} of the batch failed, and no record up to it has a sequence number to redeliver from")]
pub struct MissingSequenceNumberError {
    /// The record's index in the batch.
    pub index: usize,
}

/// Returns the response to a batch of which the records at the indexes `failing` may not have been applied; indexes
/// beyond the batch are ignored.
///
/// A record without a sequence number is reported by the nearest earlier record that has one.
///
/// # Errors
/// [`MissingSequenceNumberError`] if a failing record has no such earlier record.
pub fn batch_response(
    records: &[StreamRecord<'_>],
    failing: impl IntoIterator<Item = usize>,
) -> Result<BatchResponse, MissingSequenceNumberError> {
    let mut lowest: Option<(&str, crate::revision::SequenceNumber)> = None;
    for index in failing {
        let Some(up_to) = records.get(..=index) else { continue };
        let position = up_to.iter().rev().find_map(|record| Some((record.sequence.as_deref()?, record.number?)));
        let (text, number) = position.ok_or(MissingSequenceNumberError { index })?;
        if lowest.is_none_or(|(_, low)| number < low) {
            lowest = Some((text, number));
        }
    }
    Ok(lowest.map_or_else(BatchResponse::success, |(text, _)| BatchResponse::retry_from(text)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;
    use crate::stream;

    fn payload(numbers: &[Option<String>]) -> Box<RawValue> {
        let records: Vec<_> =
            numbers.iter().map(|number| serde_json::json!({"dynamodb": {"SequenceNumber": number}})).collect();
        RawValue::from_string(serde_json::json!({ "Records": records }).to_string()).unwrap()
    }

    fn answered(numbers: &[Option<&str>], failing: &[usize]) -> Result<Option<String>, MissingSequenceNumberError> {
        let numbers: Vec<_> = numbers.iter().map(|number| number.map(str::to_owned)).collect();
        let payload = payload(&numbers);
        let batch = stream::read(&payload).unwrap();
        batch_response(&batch.records, failing.iter().copied()).map(|response| response.identifier().map(str::to_owned))
    }

    #[test]
    fn nothing_failed_is_everything_done() {
        assert_eq!(answered(&[Some("1"), None], &[]), Ok(None));
    }

    #[test]
    fn the_lowest_number_is_answered_and_not_the_lowest_text() {
        let numbers =
            [Some("20500000000000000910398"), Some("820400000000000001192334"), Some("1683700000000000001135967")];
        assert_eq!(answered(&numbers, &[2, 1]), Ok(Some("820400000000000001192334".into())));
    }

    #[test]
    fn a_record_without_a_number_is_reported_by_the_nearest_earlier_one() {
        assert_eq!(answered(&[Some("1"), Some("2"), None, Some("4")], &[2]), Ok(Some("2".into())));
        assert_eq!(answered(&[None, Some("2")], &[0, 1]), Err(MissingSequenceNumberError { index: 0 }));
    }

    proptest! {
        /// Every failing record is at or after the returned position, so it is redelivered.
        #[test]
        fn no_failing_record_is_acknowledged(
            gaps in proptest::collection::vec((1_u64..1000, any::<bool>()), 1..20),
            failing in proptest::collection::vec(any::<proptest::sample::Index>(), 1..6),
        ) {
            let mut at = 99_999_999_999_999_999_990_u128;
            let numbers: Vec<Option<String>> = gaps
                .iter()
                .map(|(gap, numbered)| {
                    at += u128::from(*gap);
                    numbered.then(|| at.to_string())
                })
                .collect();
            let failing: Vec<usize> = failing.iter().map(|index| index.index(numbers.len())).collect();
            let payload = payload(&numbers);
            let batch = stream::read(&payload).unwrap();
            match batch_response(&batch.records, failing.iter().copied()) {
                Ok(response) => {
                    let from = numbers.iter().position(|number| number.as_deref() == response.identifier()).unwrap();
                    prop_assert!(failing.iter().all(|index| from <= *index));
                    let first = *failing.iter().min().unwrap();
                    prop_assert!(numbers[from + 1..=first].iter().all(Option::is_none), "no needless redelivery");
                }
                Err(MissingSequenceNumberError { index }) => {
                    prop_assert!(failing.contains(&index));
                    prop_assert!(numbers[..=index].iter().all(Option::is_none));
                }
            }
        }
    }
}
