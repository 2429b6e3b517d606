use proptest::prelude::*;

use super::*;

fn digits() -> impl Strategy<Value = String> {
    "[1-9][0-9]{20,39}"
}

fn revisions() -> impl Strategy<Value = Revision> {
    (0..1_u64 << 48, digits(), proptest::option::of(any::<u64>())).prop_map(|(millis, text, reconciled)| Revision {
        label: StreamLabel { millis },
        sequence: SequenceNumber::parse(&text).unwrap(),
        reconciled,
    })
}

fn bytes(revision: Revision) -> Vec<u8> {
    revision.encode().as_ref().to_vec()
}

proptest! {
    #[test]
    fn byte_order_is_numeric_order(a in digits(), b in digits()) {
        let label = StreamLabel { millis: 7 };
        let encode = |text: &str| bytes(Revision::new(label, SequenceNumber::parse(text).unwrap()));
        let numeric = a.len().cmp(&b.len()).then_with(|| a.cmp(&b));
        prop_assert_eq!(encode(&a).cmp(&encode(&b)), numeric);
    }

    #[test]
    fn a_later_label_outranks_any_number(a in digits(), b in digits(), millis in 0..1_u64 << 47) {
        let at = |millis, text: &str| Revision::new(StreamLabel { millis }, SequenceNumber::parse(text).unwrap());
        prop_assert!(bytes(at(millis, &a)) < bytes(at(millis + 1, &b)));
    }

    #[test]
    fn byte_order_is_the_order_of_revisions(a in revisions(), b in revisions()) {
        prop_assert_eq!(bytes(a).cmp(&bytes(b)), a.cmp(&b));
    }

    #[test]
    fn a_reconciled_write_lies_between_its_change_and_the_next(revision in revisions()) {
        let above = revision.next_reconciled();
        prop_assert!(revision < above || revision.reconciled == Some(u64::MAX));
        let mut next = revision.sequence.0;
        for byte in next.iter_mut().rev() {
            let (sum, overflow) = byte.overflowing_add(1);
            *byte = sum;
            if !overflow { break; }
        }
        prop_assert!(above < Revision::new(revision.label, SequenceNumber(next)));
    }

    #[test]
    fn a_sequence_number_is_shown_as_it_was_read(text in digits()) {
        prop_assert_eq!(SequenceNumber::parse(&text).unwrap().to_string(), text);
    }

    #[test]
    fn bytes_and_text_are_read_back(revision in revisions()) {
        prop_assert_eq!(Revision::decode(&bytes(revision)).unwrap(), revision);
        prop_assert_eq!(Revision::parse(&revision.to_string()).unwrap(), revision);
    }
}

#[test]
fn the_numbers_of_one_item_grow_from_parent_to_child_shard() {
    // AWS's example of a DescribeStream response.
    let numbers = [
        "20500000000000000910398",
        "820400000000000001192334",
        "1683700000000000001135967",
        "2574600000000000000935255",
    ];
    let parsed: Vec<_> = numbers.iter().map(|text| SequenceNumber::parse(text).unwrap()).collect();
    assert!(parsed.is_sorted());
    assert!(!numbers.is_sorted(), "the sample must not be sorted as text");
}

#[test]
fn the_largest_number_is_held() {
    let largest = "9".repeat(40);
    assert_eq!(SequenceNumber::parse(&largest).unwrap().to_string(), largest);
}

#[test]
fn invalid_sequence_number_is_rejected() {
    for text in ["", "-1", "1.0", "1e3", " 1", "١", &"9".repeat(41)] {
        assert!(SequenceNumber::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn labels_of_aws_and_of_embedded_engines_are_read() {
    let iso = StreamLabel::parse("2015-05-11T21:21:33.291").unwrap();
    assert_eq!(iso.to_string(), "2015-05-11T21:21:33.291");
    assert_eq!(StreamLabel::parse("1431379293.291999").unwrap(), iso);
    assert_eq!(StreamLabel::parse("1431379293").unwrap().to_string(), "2015-05-11T21:21:33.000");
    for text in ["", "yesterday", "-5", "2015-13-11T21:21:33.291", "1.", "99999999999999999999"] {
        assert!(StreamLabel::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn bytes_of_another_length_are_refused() {
    for length in [0, 5, 22, 24, 30, 32] {
        assert_eq!(Revision::decode(&vec![0; length]), Err(RevisionError::Bytes(length)));
    }
}

#[test]
fn a_text_is_parsed_alike_alone_and_after_another() {
    let mut beside = None;
    for text in [
        "2015-05-11T21:21:33.291#1",
        "2015-05-11T21:21:33.291#20500000000000000910398",
        "2015-05-11T21:21:33.291#3+4",
        "2015-05-11T21:21:33.291",
        "2015-05-11T21:21:33.291#x",
        "2016-05-11T21:21:33.291#5",
        "2015-05-11T21:21:33.291#6",
        "1431379293#7",
        "1431379293.5#8",
    ] {
        assert_eq!(Revision::parse_with_label_cache(text, &mut beside), Revision::parse(text), "{text}");
    }
}
