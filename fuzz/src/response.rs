//! Responses, as they arrive on a connection: heads, lengths, chunks, and when it is free again.

use http::Method;

use super::wire::pieces::Cut;
use super::wire::{Reading, compare, ours, theirs};

/// What is asked on one connection, one after the other.
const ASKED: [Method; 3] = [Method::GET, Method::HEAD, Method::GET];

/// The first response is the same however the bytes are cut, and hyper reads what we read.
pub fn check(input: &[u8]) {
    for methods in [&ASKED[..], &ASKED[1..]] {
        let mut first: Option<Reading> = None;
        for cut in super::request::cuts(input).into_iter().chain([Cut::Whole]) {
            let pieces = cut.apply(input);
            let reading = ours::responses(&pieces, methods);
            let theirs = theirs::responses(&pieces, methods);
            if let Err(what) = compare(&reading, &theirs) {
                panic!("{what}, cut {cut:?}\nours: {reading:#?}\ntheirs: {theirs:#?}");
            }
            // Where the first one ends in the middle of a piece, there is no second.
            let known = first.get_or_insert_with(|| reading.clone());
            assert_eq!(
                reading.messages.first(),
                known.messages.first(),
                "cut {cut:?}"
            );
        }
    }
}
