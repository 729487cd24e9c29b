//! Requests, as they arrive on a connection: heads, lengths, chunks, and where the next one starts.

use super::wire::ours::Bodies;
use super::wire::pieces::Cut;
use super::wire::{Reading, compare, ours, theirs};

/// The same bytes are the same requests however they are cut, and hyper reads what we read.
pub fn check(input: &[u8]) {
    let reading = reading(input);
    let theirs = theirs::requests(&[input]);
    if let Err(what) = compare(&reading, &theirs) {
        panic!("{what}\nours: {reading:#?}\ntheirs: {theirs:#?}");
    }
}

/// What we read, after it was held against other cuts of the same bytes.
#[must_use]
pub fn reading(input: &[u8]) -> Reading {
    let reading = ours::requests(&[input], Bodies::Read);
    for cut in cuts(input) {
        let again = ours::requests(&cut.apply(input), Bodies::Read);
        assert!(
            again.agrees_with(&reading),
            "cut {cut:?}\nwhole: {reading:#?}\ncut: {again:#?}"
        );
    }
    // A body that nobody reads must not become the next request.
    for cut in [Cut::Whole].into_iter().chain(cuts(input)) {
        let unread = ours::requests(&cut.apply(input), Bodies::Dropped);
        for (index, message) in unread.messages.iter().enumerate() {
            let known = reading.messages.get(index);
            assert!(
                known.is_some_and(
                    |known| known.line == message.line && known.fields == message.fields
                ),
                "cut {cut:?}, message {index}\nread: {reading:#?}\nunread: {unread:#?}"
            );
        }
    }
    reading
}

/// Cuts that only the input decides on, so that a failure comes again.
pub(super) fn cuts(input: &[u8]) -> [Cut; 3] {
    let sum = |seed: u64| {
        input.iter().fold(seed, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
    };
    [Cut::Bytes, Cut::Sown(sum(1)), Cut::Sown(sum(2))]
}
