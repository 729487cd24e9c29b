//! What `encode` writes, `framing` reads: the same message, and not one byte of what comes after it.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue};
use m3o_ingress::wire::encode::Encoder;
use m3o_ingress::wire::framing::{Decoder, Found, Length};
use m3o_ingress::wire::head::HeadLimits;
use m3o_ingress::wire::link::Link;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::checks::wire::pieces::Cut;

const LIMITS: HeadLimits = HeadLimits {
    bytes: 8 << 10,
    fields: 64,
};

proptest! {
    #[test]
    fn every_framing_gives_the_body_back_however_it_is_cut(
        frames in vec(vec(any::<u8>(), 0..5000), 0..5),
        trailers in vec(("x-[a-z]{1,5}", "[!-~]{0,5}"), 0..3),
        next in vec(any::<u8>(), 0..40),
        cut in any::<u64>(),
    ) {
        let body = frames.concat();
        let mut fields = HeaderMap::new();
        for (name, value) in &trailers {
            let name: HeaderName = name.parse().unwrap();
            fields.append(name, HeaderValue::from_str(value).unwrap());
        }
        for length in [Length::Exact(body.len() as u64), Length::Chunked, Length::UntilClose] {
            let written = written(length, &frames, &fields);
            let follows = if length == Length::UntilClose { &[] } else { &next[..] };
            let bytes = [&written[..], follows].concat();
            for cut in [Cut::Whole, Cut::Bytes, Cut::Sown(cut)] {
                let read = read(length, &cut.apply(&bytes));
                prop_assert_eq!(&read.body, &body);
                let expected = if length == Length::Chunked { fields.clone() } else { HeaderMap::new() };
                prop_assert_eq!(&read.trailers, &expected);
                prop_assert_eq!(&read.left[..], follows);
            }
        }
    }
}

/// The bytes of a body of `length`.
fn written(length: Length, frames: &[Vec<u8>], trailers: &HeaderMap) -> Vec<u8> {
    let (near, far) = tokio::io::duplex(1 << 20);
    let mut link = Link::new(near);
    let mut encoder = Encoder::new(length);
    let flush = |link: &mut Link<_>| {
        let flushed = poll_fn(|context| link.poll_flush(context)).now_or_never();
        flushed.expect("there is room").unwrap();
    };
    for frame in frames {
        let frame = hyper::body::Frame::data(Bytes::from(frame.clone()));
        encoder.frame(frame, &mut link.output).unwrap();
        flush(&mut link);
    }
    if !trailers.is_empty() {
        let frame = hyper::body::Frame::trailers(trailers.clone());
        encoder.frame(frame, &mut link.output).unwrap();
    }
    encoder.end(&mut link.output).unwrap();
    assert!(encoder.is_ended());
    flush(&mut link);
    drop(link);
    let mut reader = far;
    let mut bytes = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut bytes).now_or_never();
    read.expect("it is all there").unwrap();
    bytes
}

struct Read {
    body: Vec<u8>,
    trailers: HeaderMap,
    left: Vec<u8>,
}

/// Reads a body of `length` from `pieces`, and gives what is left of them.
fn read(length: Length, pieces: &[&[u8]]) -> Read {
    let mut decoder = Decoder::new(length, LIMITS);
    let mut input = BytesMut::new();
    let mut pieces = pieces.iter();
    let mut read = Read {
        body: Vec::new(),
        trailers: HeaderMap::new(),
        left: Vec::new(),
    };
    loop {
        match decoder.decode(&mut input).unwrap() {
            Found::Data(data) => read.body.extend_from_slice(&data),
            Found::Trailers(fields) => read.trailers = fields,
            Found::End => break,
            Found::More => match pieces.next() {
                Some(piece) => input.extend_from_slice(piece),
                None => {
                    assert!(decoder.close(), "the body has no end");
                    break;
                }
            },
        }
    }
    read.left = input.to_vec();
    read.left.extend(pieces.flat_map(|piece| piece.iter()));
    read
}
