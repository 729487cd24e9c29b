//! The same bytes, read by us and by hyper, are the same messages.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::checks::wire::ours::Bodies;
use crate::checks::wire::pieces::Cut;
use crate::checks::wire::{End, Message, compare, ours, theirs};
use crate::checks::{request, response};
use crate::messages::{self, Made};

proptest! {
    #[test]
    fn valid_requests_are_read_as_they_were_written(
        made in vec(messages::request(), 1..4),
        cut in any::<u64>(),
    ) {
        let bytes: Vec<u8> = made.iter().flat_map(Made::bytes).collect();
        let reading = ours::requests(&Cut::Sown(cut).apply(&bytes), Bodies::Read);
        prop_assert_eq!(&reading.end, &End::Bytes);
        are_as_made(&reading.messages, &made)?;
        request::check(&bytes);
    }

    #[test]
    fn faulty_requests_are_refused_or_read_as_hyper_reads_them(
        made in vec(messages::request(), 1..4),
        faults in vec(messages::fault(), 1..4),
    ) {
        let mut bytes: Vec<u8> = made.iter().flat_map(Made::bytes).collect();
        for fault in &faults {
            fault.make(&mut bytes);
        }
        request::check(&bytes);
    }

    #[test]
    fn valid_responses_are_read_as_they_were_written(
        made in vec(messages::response(), 1..4),
        cut in any::<u64>(),
    ) {
        // A response comes after its request, so no piece holds the end of one and the start of the next.
        let each: Vec<Vec<u8>> = made.iter().map(Made::bytes).collect();
        let pieces: Vec<&[u8]> = each.iter().flat_map(|bytes| Cut::Sown(cut).apply(bytes)).collect();
        let methods = vec![Method::GET; made.len()];
        let ours = ours::responses(&pieces, &methods);
        prop_assert_eq!(&ours.end, &End::Connection);
        are_as_made(&ours.messages, &made)?;
        let theirs = theirs::responses(&pieces, &methods);
        prop_assert_eq!(compare(&ours, &theirs), Ok(()));
    }

    #[test]
    fn faulty_responses_are_refused_or_read_as_hyper_reads_them(
        made in vec(messages::response(), 1..3),
        faults in vec(messages::fault(), 1..4),
    ) {
        let mut bytes: Vec<u8> = made.iter().flat_map(Made::bytes).collect();
        for fault in &faults {
            fault.make(&mut bytes);
        }
        response::check(&bytes);
    }
}

fn are_as_made(read: &[Message], made: &[Made]) -> Result<(), TestCaseError> {
    prop_assert_eq!(read.len(), made.len());
    for (read, made) in read.iter().zip(made) {
        prop_assert!(read.whole);
        prop_assert_eq!(&read.body, &made.body());
        let mut trailers = HeaderMap::new();
        for (name, value) in made.trailers() {
            let name: HeaderName = name.parse().unwrap();
            trailers.append(name, HeaderValue::from_str(value).unwrap());
        }
        prop_assert_eq!(&read.trailers, &trailers);
    }
    Ok(())
}
