use http::StatusCode;

use super::*;
use crate::pool::Reach;

fn origin(url: &str) -> Origin {
    Origin::of(&url::Url::parse(url).unwrap(), Reach::Workload).unwrap()
}

fn sockets(texts: &[&str]) -> Vec<SocketAddr> {
    let socket = |text: &&str| SocketAddr::new(text.parse().unwrap(), 80);
    texts.iter().map(socket).collect()
}

/// What is known of the addresses of one name.
struct Known {
    outliers: Arc<Outliers>,
    addresses: Vec<SocketAddr>,
}

impl Known {
    fn of(addresses: &[&str], adjust: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        adjust(&mut config);
        Self {
            outliers: Outliers::new(config, Metrics::new()),
            addresses: sockets(addresses),
        }
    }

    fn choose(&self) -> Vec<Target> {
        let name = origin("http://backend.example");
        self.outliers.choose(&name, self.addresses.clone())
    }

    /// The addresses that are tried first, and those that are left out.
    fn order(&self) -> [Vec<String>; 2] {
        let all = self.choose();
        let at = all.iter().take_while(|target| !target.is_out()).count();
        let (first, last) = all.split_at(at);
        assert!(last.iter().all(Target::is_out), "they come last");
        let ip = |target: &Target| target.address.ip().to_string();
        [first, last].map(|targets| targets.iter().map(ip).collect())
    }

    fn member(&self, address: &str) -> Member {
        let mut all = self.choose().into_iter();
        let found = all.find(|target| target.address.ip().to_string() == address);
        found.unwrap().member.unwrap()
    }

    fn fail(&self, address: &str, times: u32) {
        let member = self.member(address);
        (0..times).for_each(|_| member.failed());
    }

    fn out(&self) -> Vec<String> {
        let [_, mut last] = self.order();
        last.sort();
        last
    }

    fn shows(&self, line: &str) -> bool {
        let text = String::from_utf8(self.outliers.metrics.to_text()).unwrap();
        text.contains(&format!("\n{line}\n"))
    }
}

#[tokio::test(start_paused = true)]
async fn each_connection_begins_with_another_address_of_the_family_that_comes_first() {
    let all = [
        "2001:db8::1",
        "192.0.2.1",
        "2001:db8::2",
        "192.0.2.2",
        "192.0.2.3",
    ];
    let known = Known::of(&all, |_| {});
    let order = || known.order()[0].join(" ");
    assert_eq!(order(), all.join(" "));
    assert_eq!(
        order(),
        "2001:db8::2 192.0.2.2 2001:db8::1 192.0.2.3 192.0.2.1"
    );
    assert_eq!(
        order(),
        "2001:db8::1 192.0.2.3 2001:db8::2 192.0.2.1 192.0.2.2"
    );
}

#[tokio::test(start_paused = true)]
async fn an_address_that_fails_so_often_in_a_row_is_left_out_for_its_time() {
    let known = Known::of(&["192.0.2.1", "192.0.2.2"], |_| {});
    known.fail("192.0.2.1", 4);
    known.member("192.0.2.1").answered(StatusCode::BAD_GATEWAY);
    known.fail("192.0.2.1", 4);
    assert!(known.out().is_empty(), "an answer of the app itself is one");
    known.fail("192.0.2.1", 1);
    assert_eq!(known.out(), ["192.0.2.1"]);
    assert!(known.member("192.0.2.1").is_out());
    assert!(known.shows("m3o_ingress_backend_ejections_total 1"));
    assert!(known.shows("m3o_ingress_backend_ejected 1"));

    tokio::time::advance(Duration::from_millis(29_999)).await;
    assert_eq!(known.out(), ["192.0.2.1"]);
    tokio::time::advance(Duration::from_millis(1)).await;
    known.outliers.sweep();
    assert!(known.shows("m3o_ingress_backend_ejected 0"));
    assert!(known.out().is_empty());
    // It is given as many chances as before.
    known.fail("192.0.2.1", 4);
    assert!(known.out().is_empty());
}

#[tokio::test(start_paused = true)]
async fn each_time_it_is_twice_as_long_until_there_was_a_long_calm() {
    let known = Known::of(&["192.0.2.1", "192.0.2.2"], |config| config.failures = 1);
    let mut spans = Vec::new();
    for _ in 0..6 {
        known.fail("192.0.2.1", 1);
        let began = Instant::now();
        while !known.out().is_empty() {
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        spans.push(began.elapsed().as_secs());
    }
    assert_eq!(spans, [30, 60, 120, 240, 300, 300]);
    tokio::time::advance(Duration::from_secs(300)).await;
    known.fail("192.0.2.1", 1);
    tokio::time::advance(Duration::from_secs(30)).await;
    assert!(known.out().is_empty());
}

#[tokio::test(start_paused = true)]
async fn no_more_than_their_share_is_left_out_and_never_all() {
    let check = |count: u8, share: u32, expected: usize| {
        let all: Vec<String> = (1..=count).map(|last| format!("192.0.2.{last}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let known = Known::of(&all, |config| config.share = share);
        for address in &all {
            known.fail(address, 5);
        }
        assert_eq!(known.out().len(), expected, "{share} % of {count}");
        assert_eq!(known.order()[0].len(), all.len() - expected);
    };
    check(2, 50, 1);
    check(3, 50, 1);
    check(4, 50, 2);
    check(4, 75, 3);
    check(4, 100, 3);
    check(2, 100, 1);
    check(2, 49, 0);
}

#[tokio::test(start_paused = true)]
async fn one_address_is_never_left_out_and_several_are_not_where_that_is_off() {
    let alone = Known::of(&["192.0.2.1"], |_| {});
    let chosen = alone.choose();
    assert!(chosen.len() == 1 && chosen[0].member.is_none());
    let off = Known::of(&["192.0.2.1", "192.0.2.2"], |config| config.enabled = false);
    off.fail("192.0.2.1", 50);
    assert!(off.out().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_500_and_above_is_a_failure_where_that_is_asked_for() {
    let known = Known::of(&["192.0.2.1", "192.0.2.2"], |config| config.status = true);
    let member = known.member("192.0.2.1");
    for status in [500, 502, 503, 504, 200, 500, 502, 503, 504] {
        member.answered(StatusCode::from_u16(status).unwrap());
    }
    assert!(known.out().is_empty());
    member.answered(StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(known.out(), ["192.0.2.1"]);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_its_name_does_not_have_any_more_is_forgotten() {
    let mut known = Known::of(&["192.0.2.1", "192.0.2.2", "192.0.2.3"], |_| {});
    let member = known.member("192.0.2.1");
    known.fail("192.0.2.1", 5);
    assert!(known.shows("m3o_ingress_backend_ejected 1"));
    known.addresses = sockets(&["192.0.2.2", "192.0.2.3"]);
    assert!(known.out().is_empty());
    assert!(known.shows("m3o_ingress_backend_ejected 0"));
    // What is still under way there changes nothing.
    (0..9).for_each(|_| member.failed());
    assert!(known.shows("m3o_ingress_backend_ejected 0"));
}

/// Two addresses, of which one is left out once it has failed.
struct Blaming {
    known: Known,
    timeout: Duration,
}

impl Blaming {
    fn within(milliseconds: u64) -> Self {
        Self {
            known: Known::of(&["192.0.2.1", "192.0.2.2"], |config| config.failures = 1),
            timeout: Duration::from_millis(milliseconds),
        }
    }

    /// A dial, and its attempt at the first address.
    fn dial(&self) -> (Dial, Attempt) {
        let dial = Dial::within(self.timeout);
        let attempt = dial.attempt(Some(self.known.member("192.0.2.1")));
        (dial, attempt)
    }

    fn blames_nobody(&self) -> bool {
        self.known.out().is_empty()
    }
}

async fn pass(milliseconds: u64) {
    tokio::time::advance(Duration::from_millis(milliseconds)).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_while_we_connect_blames_nobody() {
    let blaming = Blaming::within(5000);
    let (_dial, attempt) = blaming.dial();
    pass(4999).await;
    drop(attempt);
    // Neither while TLS is agreed on.
    let (_dial, attempt) = blaming.dial();
    let attempt = attempt.connected();
    pass(4999).await;
    drop(attempt);
    assert!(blaming.blames_nobody());
}

#[tokio::test(start_paused = true)]
async fn an_attempt_has_failed_that_is_given_up_when_the_time_is_over() {
    for timeout in [5000, 100] {
        let blaming = Blaming::within(timeout);
        let (_dial, attempt) = blaming.dial();
        pass(timeout).await;
        drop(attempt);
        assert_eq!(blaming.known.out(), ["192.0.2.1"], "{timeout}");
        let blaming = Blaming::within(timeout);
        let (_dial, attempt) = blaming.dial();
        let attempt = attempt.connected();
        pass(timeout).await;
        drop(attempt);
        assert_eq!(blaming.known.out(), ["192.0.2.1"], "{timeout}, in TLS");
    }
    // One that began shortly before had no chance.
    let blaming = Blaming::within(5000);
    let (dial, first) = blaming.dial();
    drop(first);
    pass(4900).await;
    let second = dial.attempt(Some(blaming.known.member("192.0.2.2")));
    pass(100).await;
    drop(second);
    assert!(blaming.blames_nobody());
}

#[tokio::test(start_paused = true)]
async fn an_attempt_has_failed_that_another_one_overtakes() {
    let blaming = Blaming::within(5000);
    let overtaken = async |after| {
        let (dial, first) = blaming.dial();
        pass(after).await;
        let second = dial.attempt(Some(blaming.known.member("192.0.2.2")));
        let second = second.connected();
        drop(first);
        assert!(second.succeeded().is_some());
    };
    overtaken(249).await;
    assert!(blaming.blames_nobody(), "it was hardly waited for");
    overtaken(250).await;
    assert_eq!(blaming.known.out(), ["192.0.2.1"]);
}

#[tokio::test(start_paused = true)]
async fn what_fails_on_our_side_says_nothing_of_the_address() {
    let blaming = Blaming::within(5000);
    let (_dial, attempt) = blaming.dial();
    pass(5000).await;
    attempt.unknown();
    assert!(blaming.blames_nobody());
    let (_dial, attempt) = blaming.dial();
    attempt.failed();
    assert_eq!(blaming.known.out(), ["192.0.2.1"]);
}

#[tokio::test(start_paused = true)]
async fn names_are_watched_in_a_number_and_forgotten_when_nobody_asks() {
    let known = Known::of(&["192.0.2.1", "192.0.2.2"], |_| {});
    let names = |count: usize| (0..count).map(|name| origin(&format!("http://{name}.example")));
    let watched = |name: &Origin| {
        let chosen = known.outliers.choose(name, known.addresses.clone());
        chosen[0].member.is_some()
    };
    let all: Vec<Origin> = names(MOST_GROUPS + 2).collect();
    assert_eq!(all.iter().filter(|name| watched(name)).count(), MOST_GROUPS);
    assert!(known.outliers.said_full.load(Ordering::Relaxed));
    // What is not watched is dialled in turn too.
    let first = || {
        let beyond = &all[MOST_GROUPS + 1];
        known.outliers.choose(beyond, known.addresses.clone())[0].address
    };
    assert_ne!(first(), first());
    let held = known.outliers.choose(&all[0], known.addresses.clone());
    tokio::time::advance(Duration::from_secs(300)).await;
    known.outliers.sweep();
    assert_eq!(
        locked(&known.outliers.groups).len(),
        1,
        "a connection holds it"
    );
    drop(held);
    known.outliers.sweep();
    assert!(locked(&known.outliers.groups).is_empty());
    assert!(!known.outliers.said_full.load(Ordering::Relaxed));
    assert!(watched(&all[MOST_GROUPS + 1]));
}

#[tokio::test(start_paused = true)]
async fn lines_about_it_are_few() {
    let mut said = Said::default();
    let lines = (0..100).filter(|_| said.one_more()).count();
    assert_eq!(lines, 20);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(said.one_more());
}

#[tokio::test(start_paused = true)]
async fn addresses_that_are_out_when_all_is_forgotten_are_not_counted_any_more() {
    let known = Known::of(&["192.0.2.1", "192.0.2.2"], |_| {});
    known.fail("192.0.2.1", 5);
    assert!(known.shows("m3o_ingress_backend_ejected 1"));
    let Known { outliers, .. } = known;
    let metrics = Arc::clone(&outliers.metrics);
    drop(outliers);
    let text = String::from_utf8(metrics.to_text()).unwrap();
    assert!(text.contains("\nm3o_ingress_backend_ejected 0\n"), "{text}");
}
