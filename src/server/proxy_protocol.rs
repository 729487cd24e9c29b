//! The header that a load balancer puts before a connection: PROXY protocol, versions 1 and 2. Pure.
//!
//! The rules are those of `proxy-protocol.txt` of 2020, which comes with haproxy: sections 2.1 and 2.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Bytes of the longest header that is taken: a block of 4 KiB holds every extension in use.
pub const LONGEST: usize = FIXED + MOST_DATA;

/// Who a connection is from, by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The client at this address, for whom the proxy made it.
    Client(SocketAddr),
    /// Nobody is named: a check by the proxy itself, or a client that has no address of TCP.
    Unnamed,
}

/// A whole header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// How many bytes it is; what comes after them is the client's.
    pub length: usize,
    /// Who the connection is from.
    pub origin: Origin,
}

/// Bytes that begin no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// Neither version begins like this.
    #[error("it begins like no PROXY header")]
    Beginning,
    /// More than the limit of its version.
    #[error("the PROXY header is too long")]
    TooLong,
    /// Version 1: not the words that belong there.
    #[error("the PROXY line is malformed")]
    Line,
    /// Version 2: a version, command, family or length that there is not.
    #[error("the binary PROXY header is malformed")]
    Block,
}

/// Reads the header that `bytes` begin with; `None` while more of it must come.
///
/// What is said once is not taken back: more bytes change nothing but `None`.
///
/// # Errors
/// As soon as no header can begin so.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, BadHeader> {
    if begins(bytes, &SIGNATURE) {
        block(bytes)
    } else if begins(bytes, WORD) {
        line(bytes)
    } else {
        Err(BadHeader::Beginning)
    }
}

/// Whether `bytes` begin with `start`, as far as they go.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    let common = bytes.len().min(start.len());
    bytes[..common] == start[..common]
}

/// Version 1: one line of text.
fn line(bytes: &[u8]) -> Result<Option<Header>, BadHeader> {
    let seen = &bytes[..bytes.len().min(LONGEST_LINE)];
    let is_text = |byte: &u8| matches!(byte, b' '..=b'~');
    let Some(end) = seen.iter().position(|byte| !is_text(byte)) else {
        return match seen.len() {
            LONGEST_LINE => Err(BadHeader::TooLong),
            _ => Ok(None),
        };
    };
    match &seen[end..] {
        [b'\r', b'\n', ..] => {}
        [b'\r'] if end + 1 < LONGEST_LINE => return Ok(None),
        [b'\r'] => return Err(BadHeader::TooLong),
        _ => return Err(BadHeader::Line),
    }
    let text = std::str::from_utf8(&seen[WORD.len()..end]).map_err(|_| BadHeader::Line)?;
    Ok(Some(Header {
        length: end + 2,
        origin: words(text).ok_or(BadHeader::Line)?,
    }))
}

/// What follows `PROXY ` in the line.
fn words(text: &str) -> Option<Origin> {
    // Whatever a proxy adds to this word is to be ignored.
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Some(Origin::Unnamed);
    }
    let mut words = text.split(' ');
    let family = words.next()?;
    let source = address(family, words.next()?)?;
    let _ours = address(family, words.next()?)?;
    let port = decimal(words.next()?)?;
    let _our_port = decimal(words.next()?)?;
    match words.next() {
        Some(_) => None,
        None => Some(Origin::Client(SocketAddr::new(source, port))),
    }
}

fn address(family: &str, text: &str) -> Option<IpAddr> {
    match family {
        "TCP4" => Ipv4Addr::from_str(text).ok().map(IpAddr::V4),
        "TCP6" => Ipv6Addr::from_str(text).ok().map(IpAddr::V6),
        _ => None,
    }
}

/// A port, without zeros before it.
fn decimal(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    is_plain.then(|| text.parse().ok())?
}

/// Version 2: a block of bytes.
fn block(bytes: &[u8]) -> Result<Option<Header>, BadHeader> {
    let local = match bytes.get(12) {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(BadHeader::Block),
    };
    let Some(&family) = bytes.get(13) else {
        return Ok(None);
    };
    // What a proxy says of its own connections is to be ignored.
    let kind = match (local, family) {
        (true, _) => Kind::Nobody(0),
        (false, 0x11) => Kind::V4,
        (false, 0x21) => Kind::V6,
        (false, 0x00..=0x02) => Kind::Nobody(0),
        // Not over TCP: the client has no address that could have connected to us.
        (false, 0x10 | 0x12) => Kind::Nobody(12),
        (false, 0x20 | 0x22) => Kind::Nobody(36),
        (false, 0x30..=0x32) => Kind::Nobody(216),
        (false, _) => return Err(BadHeader::Block),
    };
    let &[high, low, ..] = &bytes[14..] else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MOST_DATA {
        return Err(BadHeader::TooLong);
    }
    let needed = match kind {
        Kind::V4 => 12,
        Kind::V6 => 36,
        Kind::Nobody(needed) => needed,
    };
    if length < needed {
        return Err(BadHeader::Block);
    }
    let Some(data) = bytes[FIXED..].get(..length) else {
        return Ok(None);
    };
    // Extensions follow the addresses: none of them matters here.
    let origin = match kind {
        Kind::V4 => client::<4>(data),
        Kind::V6 => client::<16>(data),
        Kind::Nobody(_) => Some(Origin::Unnamed),
    };
    Ok(Some(Header {
        length: FIXED + length,
        origin: origin.ok_or(BadHeader::Block)?,
    }))
}

/// What stands in the addresses of a block.
enum Kind {
    V4,
    V6,
    /// Nothing that is read, but of so many bytes at least.
    Nobody(usize),
}

/// Source and destination, then the port of each.
fn client<const N: usize>(data: &[u8]) -> Option<Origin>
where
    IpAddr: From<[u8; N]>,
{
    let source: [u8; N] = data.first_chunk().copied()?;
    let port: [u8; 2] = data.get(2 * N..)?.first_chunk().copied()?;
    let port = u16::from_be_bytes(port);
    Some(Origin::Client(SocketAddr::new(source.into(), port)))
}

/// What a line begins with.
const WORD: &[u8] = b"PROXY ";
/// Bytes of a line, with its end.
const LONGEST_LINE: usize = 107;
/// What a block begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of a block before its addresses.
const FIXED: usize = 16;
/// Bytes of addresses and extensions.
const MOST_DATA: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Result<Option<Origin>, BadHeader> {
        Ok(Some(Origin::Client(text.parse().unwrap())))
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: Result<Option<Origin>, BadHeader>) {
        let found = parse(bytes).map(|header| header.map(|header| header.origin));
        assert_eq!(found, expected, "{}", bytes.escape_ascii());
    }

    fn block(command: u8, family: u8, data: &[u8]) -> Vec<u8> {
        let length = u16::try_from(data.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, data].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0xc3, 0x50, 0, 80];

    #[test]
    fn a_line_names_a_client_or_nobody() {
        let line = |text: &str, expected| check(format!("{text}\r\nGET /").as_bytes(), expected);
        let unnamed = Ok(Some(Origin::Unnamed));
        line(
            "PROXY TCP4 192.0.2.1 198.51.100.1 50000 80",
            client("192.0.2.1:50000"),
        );
        line("PROXY TCP4 0.0.0.0 0.0.0.0 0 65535", client("0.0.0.0:0"));
        line("PROXY TCP6 2001:db8::1 ::1 1 2", client("[2001:db8::1]:1"));
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        line(
            &format!("PROXY TCP6 {longest} {longest} 65535 65535"),
            client(&format!("[{longest}]:65535")),
        );
        line("PROXY UNKNOWN", unnamed);
        line("PROXY UNKNOWN ", unnamed);
        line(
            &format!("PROXY UNKNOWN {longest} {longest} 65535 65535"),
            unnamed,
        );
        line("PROXY UNKNOWN whatever it says", unnamed);
    }

    #[test]
    fn a_line_that_is_not_to_the_letter_is_none() {
        for text in [
            "PROXY ",
            "PROXY TCP4",
            "PROXY  TCP4 192.0.2.1 192.0.2.2 1 2",
            "PROXY tcp4 192.0.2.1 192.0.2.2 1 2",
            "PROXY TCP5 192.0.2.1 192.0.2.2 1 2",
            "PROXY UNKNOWNS",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 ",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1",
            "PROXY TCP4 192.0.2.1  192.0.2.2 1 2",
            "PROXY TCP4 192.0.2.1 192.0.2.2 01 2",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2",
            "PROXY TCP4 192.0.2.1 192.0.2.2  2",
            "PROXY TCP4 192.0.2.01 192.0.2.2 1 2",
            "PROXY TCP4 192.0.2 192.0.2.2 1 2",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2",
            "PROXY TCP4 192.0.2.1 2001:db8::2 1 2",
            "PROXY TCP6 192.0.2.1 192.0.2.2 1 2",
            "PROXY TCP6 fe80::1%eth0 ::1 1 2",
            "PROXY TCP4\t192.0.2.1 192.0.2.2 1 2",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r",
            "PROXY UNKNOWN \n",
            "PROXY UNKNOWN \u{fc}",
        ] {
            let bytes = format!("{text}\r\n");
            check(bytes.as_bytes(), Err(BadHeader::Line));
        }
        for text in ["GET / HTTP/1.1\r\n", "proxy ", "\r\n\r\nG", "\n", "PROXX"] {
            check(text.as_bytes(), Err(BadHeader::Beginning));
        }
        check(b"PROXY UNKNOWN\n", Err(BadHeader::Line));
    }

    #[test]
    fn a_line_has_107_bytes_at_most() {
        let line = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16));
        check(line(107).as_bytes(), Ok(Some(Origin::Unnamed)));
        check(line(108).as_bytes(), Err(BadHeader::TooLong));
        check(line(109).as_bytes(), Err(BadHeader::TooLong));
        check(&line(109).as_bytes()[..107], Err(BadHeader::TooLong));
        check(&line(107).as_bytes()[..106], Ok(None));
    }

    #[test]
    fn a_block_names_a_client_or_nobody() {
        let unnamed = Ok(Some(Origin::Unnamed));
        check(&block(0x21, 0x11, &V4), client("192.0.2.1:50000"));
        let extended = [&V4[..], &[3, 0, 4, 1, 2, 3, 4, 0xff]].concat();
        check(&block(0x21, 0x11, &extended), client("192.0.2.1:50000"));
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        v6[33] = 7;
        check(&block(0x21, 0x21, &v6), client("[2001:db8::1]:7"));
        check(&block(0x21, 0x00, &[]), unnamed);
        check(&block(0x21, 0x00, &V4), unnamed);
        check(&block(0x21, 0x12, &V4), unnamed);
        check(&block(0x21, 0x31, &[0; 216]), unnamed);
        // A check by the proxy itself, whatever it says of its family.
        check(&block(0x20, 0x00, &[]), unnamed);
        check(&block(0x20, 0x11, &V4), unnamed);
        check(&block(0x20, 0xff, &[1]), unnamed);
    }

    #[test]
    fn a_block_that_is_not_to_the_letter_is_none() {
        for (command, family, data) in [
            (0x11, 0x11, &V4[..]),
            (0x31, 0x11, &V4),
            (0x22, 0x11, &V4),
            (0x2f, 0x11, &V4),
            (0x21, 0x41, &V4),
            (0x21, 0x13, &V4),
            (0x21, 0xff, &V4),
            (0x21, 0x11, &V4[..11]),
            (0x21, 0x21, &[0; 35]),
            (0x21, 0x31, &[0; 215]),
        ] {
            check(&block(command, family, data), Err(BadHeader::Block));
        }
        check(&block(0x21, 0x11, &[0; 4096]), client("0.0.0.0:0"));
        check(&block(0x21, 0x11, &[0; 4097]), Err(BadHeader::TooLong));
        check(
            &block(0x20, 0x11, &[0; 4097])[..16],
            Err(BadHeader::TooLong),
        );
    }

    proptest::proptest! {
        #[test]
        fn what_is_said_of_a_beginning_stays_said(
            start in proptest::sample::select(vec![
                &b""[..], b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP4 1.2.3.4 5.6.7.8 ", b"PROXY UNKNOWN",
                b"PROXY TCP6 ::1 ::2 1 2\r", &SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
                b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x01", b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x25",
            ]),
            rest in proptest::collection::vec(
                proptest::prop_oneof![proptest::num::u8::ANY, proptest::sample::select(b" 1:.\r\n".to_vec())],
                0..120,
            ),
        ) {
            let bytes = [start, &rest].concat();
            let whole = parse(&bytes);
            for end in 0..=bytes.len() {
                let part = parse(&bytes[..end]);
                proptest::prop_assert!(part == Ok(None) || part == whole, "{end}: {part:?} {whole:?}");
                if let Ok(Some(header)) = part {
                    proptest::prop_assert!(header.length <= end && end <= bytes.len());
                    proptest::prop_assert_eq!(parse(&bytes[..header.length]), Ok(Some(header)));
                }
            }
            if let Ok(Some(header)) = whole {
                proptest::prop_assert_eq!(parse(&bytes[..header.length - 1]), Ok(None));
            }
        }

        #[test]
        fn the_address_of_every_client_is_read_back(ip: IpAddr, port: u16, after in ".{0,9}") {
            let source = SocketAddr::new(ip, port);
            let family = if ip.is_ipv4() { "TCP4" } else { "TCP6" };
            let text = format!("PROXY {family} {ip} {ip} {port} 80\r\n");
            let whole = text.clone() + &after;
            let expected = Header { length: text.len(), origin: Origin::Client(source) };
            proptest::prop_assert_eq!(parse(whole.as_bytes()), Ok(Some(expected)));
        }
    }
}
