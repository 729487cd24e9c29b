//! What a load balancer says before a connection.

use m3o_ingress::server::proxy_protocol::{LONGEST, Origin, parse};

/// A header is decided on by its own bytes, however many are there when it is looked at.
pub fn check(input: &[u8]) {
    let whole = parse(input);
    let mut decided = None;
    for end in 0..=input.len() {
        let part = parse(&input[..end]);
        match (part, decided) {
            (Ok(None), None) => {}
            (part, None) => decided = Some(part),
            (part, Some(known)) => assert_eq!(part, known, "after {end} bytes"),
        }
    }
    assert_eq!(whole, decided.unwrap_or(Ok(None)));
    let Ok(Some(header)) = whole else {
        assert!(whole != Ok(None) || input.len() < LONGEST);
        return;
    };
    assert!((15..=LONGEST.min(input.len())).contains(&header.length));
    assert_eq!(parse(&input[..header.length]), Ok(Some(header)));
    assert_eq!(parse(&input[..header.length - 1]), Ok(None));
    // Whoever is named stands in the header.
    if let (Origin::Client(client), b"PROXY ") = (header.origin, &input[..6]) {
        let line = std::str::from_utf8(&input[..header.length]).expect("a line is text");
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        assert_eq!(words[2].parse(), Ok(client.ip()));
        assert_eq!(words[4], client.port().to_string());
    }
}
