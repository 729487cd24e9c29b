//! Messages that proptest makes up, as bytes: valid ones, and ones with a few faults.

use std::fmt::Write as _;

use proptest::prelude::*;

/// How the body of a message is framed.
#[derive(Debug, Clone)]
pub(crate) enum Framed {
    /// There is none.
    None,
    /// By its length.
    Length(Vec<u8>),
    /// In chunks, each with its extension, and trailers.
    Chunks(Vec<(Vec<u8>, String)>, Vec<(String, String)>),
}

/// One valid message.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    first_line: String,
    fields: Vec<(String, String)>,
    framed: Framed,
}

impl Made {
    /// Its bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{}\r\n", self.first_line);
        for (name, value) in &self.fields {
            write!(head, "{name}:{value}\r\n").unwrap();
        }
        match &self.framed {
            Framed::None => {}
            Framed::Length(body) => write!(head, "Content-Length: {}\r\n", body.len()).unwrap(),
            Framed::Chunks(..) => head.push_str("Transfer-Encoding: chunked\r\n"),
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        match &self.framed {
            Framed::None => {}
            Framed::Length(body) => bytes.extend_from_slice(body),
            Framed::Chunks(chunks, trailers) => {
                for (data, extension) in chunks {
                    bytes.extend_from_slice(format!("{:x}{extension}\r\n", data.len()).as_bytes());
                    bytes.extend_from_slice(data);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n");
                for (name, value) in trailers {
                    bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
                }
                bytes.extend_from_slice(b"\r\n");
            }
        }
        bytes
    }

    /// Its body.
    pub(crate) fn body(&self) -> Vec<u8> {
        match &self.framed {
            Framed::None => Vec::new(),
            Framed::Length(body) => body.clone(),
            Framed::Chunks(chunks, _) => chunks.iter().flat_map(|(data, _)| data.clone()).collect(),
        }
    }

    /// Its trailers.
    pub(crate) fn trailers(&self) -> &[(String, String)] {
        match &self.framed {
            Framed::Chunks(_, trailers) => trailers,
            Framed::None | Framed::Length(_) => &[],
        }
    }
}

/// A request.
pub(crate) fn request() -> impl Strategy<Value = Made> {
    let method = prop_oneof!["GET", "HEAD", "POST", "DELETE", "OPTIONS", "[A-Z!#-]{1,8}"]
        .prop_filter("a tunnel has targets of its own", |method| {
            method != "CONNECT"
        });
    let target =
        "(http://[a-z.]{1,9}(:[0-9]{1,4})?)?/[!-~&&[^#\"<>\\\\^`{|}?]]{0,20}(\\?[a-z=&%/?]{0,9})?";
    let first_line =
        (method, target).prop_map(|(method, target)| format!("{method} {target} HTTP/1.1"));
    (first_line, fields(), framed()).prop_map(|(first_line, fields, framed)| Made {
        first_line,
        fields,
        framed,
    })
}

/// A response that has a body, and says where it ends.
pub(crate) fn response() -> impl Strategy<Value = Made> {
    let status = prop_oneof![Just(200_u16), Just(404), 205..303_u16, 305..600_u16];
    let first_line = (status, "( [ -~]{0,9})?")
        .prop_map(|(status, reason)| format!("HTTP/1.1 {status}{reason}"));
    let framed = framed().prop_map(|framed| match framed {
        Framed::None => Framed::Length(Vec::new()),
        framed => framed,
    });
    (first_line, fields(), framed).prop_map(|(first_line, fields, framed)| Made {
        first_line,
        fields,
        framed,
    })
}

fn fields() -> impl Strategy<Value = Vec<(String, String)>> {
    let own = (
        "[Xx]-[A-Za-z0-9_!.~-]{1,9}",
        "[ \t]{0,2}([!-~é]([ \t]?[!-~é]){0,9})?[ \t]{0,2}",
    );
    let known = prop_oneof![
        Just(("Host", " a.example")),
        Just(("Connection", " keep-alive")),
        Just(("Connection", "x , y")),
        Just(("Expect", " 100-continue")),
        Just(("Upgrade", "websocket")),
        Just(("TE", "trailers")),
    ];
    let known = known.prop_map(|(name, value)| (name.to_owned(), value.to_owned()));
    proptest::collection::vec(prop_oneof![3 => own, 1 => known], 0..6)
}

fn framed() -> impl Strategy<Value = Framed> {
    let data = |sizes| proptest::collection::vec(any::<u8>(), sizes);
    let extension = "([ \t]{0,2};[a-z=\"; ]{0,9})?";
    let chunks = proptest::collection::vec((data(1..40), extension), 0..4);
    let trailers = proptest::collection::vec(("x-[a-z]{1,5}", "[!-~]{0,5}"), 0..3);
    prop_oneof![
        Just(Framed::None),
        data(0..60).prop_map(Framed::Length),
        (chunks, trailers).prop_map(|(chunks, trailers)| Framed::Chunks(chunks, trailers)),
    ]
}

/// What is put somewhere into bytes, in place of some of them.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    at: proptest::sample::Index,
    removed: usize,
    put: Vec<u8>,
}

impl Fault {
    /// Makes it.
    pub(crate) fn make(&self, bytes: &mut Vec<u8>) {
        let at = self.at.index(bytes.len() + 1);
        let end = (at + self.removed).min(bytes.len());
        bytes.splice(at..end, self.put.iter().copied());
    }
}

/// Bytes that readers have disagreed about.
const TRICKS: [&str; 32] = [
    "\r",
    "\n",
    "\r\n",
    "\r\n\r\n",
    "\n\n",
    "\0",
    "\t",
    " ",
    ":",
    ";",
    ",",
    "\u{e9}",
    "\x7f",
    "0",
    "1",
    "a",
    "Content-Length: 3\r\n",
    "content-length:+3\r\n",
    "Content-Length: 3, 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding:\tchunked \r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Connection: close\r\n",
    "Connection: Keep-Alive\r\n",
    " folded\r\n",
    "HTTP/1.0",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "GET /x HTTP/1.1\r\n\r\n",
    "0\r\n\r\n",
    "ffffffffffffffff",
];

/// A fault.
pub(crate) fn fault() -> impl Strategy<Value = Fault> {
    let put = prop_oneof![
        4 => proptest::sample::select(&TRICKS[..]).prop_map(|trick| trick.as_bytes().to_vec()),
        1 => Just(Vec::new()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ];
    let removed = prop_oneof![3 => Just(0_usize), 2 => Just(1), 1 => 0..9_usize];
    (any::<proptest::sample::Index>(), removed, put).prop_map(|(at, removed, put)| Fault {
        at,
        removed,
        put,
    })
}
