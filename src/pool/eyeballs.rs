//! Which of several addresses is connected to: both families take turns, and the first to connect
//! wins (RFC 8305). Knows no names and no sockets.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

/// How long an attempt is alone before the next one starts beside it (RFC 8305, 5).
pub(super) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The addresses of both families in turn, IPv6 first (RFC 8305, 4). Where there is no route for one
/// family, the other follows at once.
pub(super) fn in_turn<A>(v6: Vec<A>, v4: Vec<A>) -> Vec<A> {
    let mut found = Vec::with_capacity(v6.len() + v4.len());
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    loop {
        let before = found.len();
        found.extend(v6.next());
        found.extend(v4.next());
        if found.len() == before {
            return found;
        }
    }
}

/// Connects to `first` or one of `others`: the next attempt starts when the one before fails or has
/// taken a while. The first that connects wins, the rest are dropped.
///
/// # Errors
/// The last failure, where all failed.
pub(super) async fn race<'a, A, T, E, F>(
    first: &'a A,
    others: &'a [A],
    connect: impl Fn(&'a A) -> F,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut others = others.iter();
    let mut attempts = FuturesUnordered::new();
    attempts.push(connect(first));
    loop {
        let ended = attempts.select_next_some();
        let ended = if others.len() == 0 {
            Ok(ended.await)
        } else {
            tokio::time::timeout(ATTEMPT_DELAY, ended).await
        };
        let next = others.next();
        match ended {
            Ok(Ok(won)) => return Ok(won),
            Ok(Err(failure)) if next.is_none() && attempts.is_empty() => return Err(failure),
            Ok(Err(_)) | Err(_) => attempts.extend(next.map(&connect)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::net::{IpAddr, SocketAddr};

    use tokio::time::Instant;

    use super::*;

    /// What becomes of the attempt at each port, and when: after so many milliseconds it connects
    /// (`Ok`) or fails. Gives who won, when, and when each attempt began.
    async fn run(attempts: &[(u64, Result<(), ()>)]) -> (Result<u16, u16>, u64, Vec<u64>) {
        let start = Instant::now();
        let since = || u64::try_from(start.elapsed().as_millis()).unwrap();
        let began = RefCell::default();
        let addresses: Vec<SocketAddr> = (0..attempts.len())
            .map(|port| SocketAddr::from(([192, 0, 2, 1], u16::try_from(port).unwrap())))
            .collect();
        let outcome = race(&addresses[0], &addresses[1..], |address| {
            let port = address.port();
            let (after, outcome) = attempts[usize::from(port)];
            let began: &RefCell<Vec<u64>> = &began;
            began.borrow_mut().push(since());
            async move {
                tokio::time::sleep(Duration::from_millis(after)).await;
                outcome.map(|()| port).map_err(|()| port)
            }
        })
        .await;
        (outcome, since(), began.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_attempt_starts_when_one_takes_long_and_the_first_to_connect_wins() {
        let slow = [(1000, Ok(())), (400, Ok(())), (400, Ok(()))];
        assert_eq!(run(&slow).await, (Ok(1), 650, vec![0, 250, 500]));
        let quick = [(10, Ok(())), (0, Ok(()))];
        assert_eq!(run(&quick).await, (Ok(0), 10, vec![0]));
        // One that is slow may still win.
        let patient = [(300, Ok(())), (1000, Ok(()))];
        assert_eq!(run(&patient).await, (Ok(0), 300, vec![0, 250]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_attempt_starts_at_once_when_one_fails() {
        let refused = [(1, Err(())), (1, Err(())), (5, Ok(()))];
        assert_eq!(run(&refused).await, (Ok(2), 7, vec![0, 1, 2]));
        // Also when it is an earlier one that fails.
        let late = [(300, Err(())), (1000, Err(())), (5, Ok(()))];
        assert_eq!(run(&late).await, (Ok(2), 305, vec![0, 250, 300]));
    }

    #[tokio::test(start_paused = true)]
    async fn all_must_fail_before_it_fails() {
        assert_eq!(run(&[(3, Err(()))]).await, (Err(0), 3, vec![0]));
        let both = [(900, Err(())), (10, Err(()))];
        assert_eq!(run(&both).await, (Err(0), 900, vec![0, 250]));
        let last = [(260, Err(())), (900, Ok(()))];
        assert_eq!(run(&last).await, (Ok(1), 1150, vec![0, 250]));
    }

    #[test]
    fn families_take_turns() {
        let check = |v6: &[&str], v4: &[&str], expected: &[&str]| {
            let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
            let expected: Vec<IpAddr> = parse(expected);
            assert_eq!(in_turn(parse(v6), parse(v4)), expected);
        };
        check(&[], &[], &[]);
        check(
            &[],
            &["192.0.2.1", "192.0.2.2"],
            &["192.0.2.1", "192.0.2.2"],
        );
        check(
            &["2001:db8::1", "2001:db8::2", "2001:db8::3"],
            &["192.0.2.1"],
            &["2001:db8::1", "192.0.2.1", "2001:db8::2", "2001:db8::3"],
        );
    }
}
