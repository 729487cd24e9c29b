//! Which requests have a line.

use super::*;

fn access(sample: &str) -> Access {
    Access {
        on: true,
        sample: Share::parse(sample).unwrap(),
        slow: Duration::from_secs(1),
    }
}

fn kept(access: Access, status: u16, took: Duration) -> usize {
    DUE.set(0);
    (0..1000)
        .filter(|_| access.keep(status, took) != Keep::No)
        .count()
}

#[test]
fn of_what_went_well_and_fast_a_share_is_kept() {
    let fast = Duration::from_millis(999);
    assert_eq!(kept(access("1"), 200, fast), 1000);
    assert_eq!(kept(access("1/100"), 200, fast), 10);
    assert_eq!(kept(access("30%"), 204, fast), 300);
    assert_eq!(kept(access("0"), 200, fast), 0);
}

#[test]
fn errors_redirects_and_what_is_slow_are_kept_whatever_the_share() {
    for status in [101, 302, 304, 404, 499, 503] {
        assert_eq!(kept(access("0"), status, Duration::ZERO), 1000, "{status}");
    }
    let slow = Duration::from_secs(1);
    assert_eq!(access("0").keep(200, slow), Keep::Always);
}

#[test]
fn a_line_that_stands_for_others_says_for_how_many() {
    DUE.set(0);
    let half = access("0.5");
    let all: Vec<Keep> = (0..4).map(|_| half.keep(200, Duration::ZERO)).collect();
    let sampled = Keep::Sampled(half.sample);
    assert_eq!(all, [Keep::No, sampled, Keep::No, sampled]);
    assert_eq!(access("1").keep(200, Duration::ZERO), Keep::Always);
}

#[test]
fn milliseconds_are_written_to_the_microsecond() {
    let check = |micros: u64, expected: &str| {
        let mut out = Vec::new();
        milliseconds(&mut out, Duration::from_micros(micros));
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    };
    check(0, "0.000");
    check(42, "0.042");
    check(1_002_003, "1002.003");
}

#[test]
fn a_text_is_scrubbed_before_it_is_cut() {
    let long = format!("http://user:canary{}@host", "x".repeat(2 * MAX_LOGGED));
    assert_eq!(foreign(&long), "http://[hidden]");
    let late = format!("{}http://user:canary@host", "x".repeat(MAX_LOGGED - 20));
    assert!(!foreign(&late).contains("canary"));
    for length in 0..2 * MAX_LOGGED {
        let far = format!(
            "{}//u:canary{}@host",
            "x".repeat(MAX_LOGGED - 12),
            "y".repeat(length)
        );
        assert!(!foreign(&far).contains("canary"), "{length}");
    }
    let many = "ö".repeat(MAX_LOGGED);
    assert_eq!(foreign(&many).len(), MAX_LOGGED);
    let odd = format!("a token=canary {many}");
    let kept = foreign(&odd);
    assert!(kept.len() < MAX_LOGGED && kept.starts_with("a token=[hidden] ö"));
}
