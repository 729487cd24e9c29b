use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use http::{Method, StatusCode, header};
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::lane::PATIENCE;
use super::stream::Stream;
use super::*;
use crate::wire::{Body, Request};

/// A pool that keeps so many connections in all and of one origin.
fn pool(connections: usize, per_backend: usize) -> Rc<Pool> {
    let limits = PoolLimits {
        connections,
        per_backend,
        idle: Duration::from_secs(60),
    };
    Pool::for_tests_with(limits)
}

fn origin(url: &str) -> Origin {
    Origin::of(&url::Url::parse(url).unwrap(), Reach::Workload).unwrap()
}

/// A connection of ours, and what is at its other end.
fn connection(seat: Seat, pool: &Rc<Pool>) -> (Box<Connection>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (theirs, _) = listener.accept().unwrap();
    theirs
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    ours.set_nonblocking(true).unwrap();
    let stream = Stream::Plain(tokio::net::TcpStream::from_std(ours).unwrap());
    (Connection::new(stream, seat, pool), theirs)
}

/// One to `origin` that is done, and what is at its other end.
fn give_one_back(pool: &Rc<Pool>, origin: &Origin) -> TcpStream {
    let seat = pool.lane(origin).seat();
    let (connection, theirs) = connection(seat, pool);
    connection.give_back();
    theirs
}

fn poll<T>(future: &mut Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

fn connection_of(turn: Poll<Given>) -> Box<Connection> {
    match turn {
        Poll::Ready(Given::Connection(connection)) => connection,
        other => panic!("{other:?}"),
    }
}

/// Runs the body in time that stands still unless everybody waits.
macro_rules! in_stopped_time {
    ($($name:ident $body:block)*) => {$(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            LocalSet::new().run_until(async $body).await;
        }
    )*};
}

in_stopped_time! {
    beyond_the_cap_in_all_the_one_that_was_unused_for_longest_is_closed_whosever_it_is {
        let pool = pool(2, 8);
        let [a, b, c] = ["http://a.test", "http://b.test", "http://c.test"].map(origin);
        let mut first = give_one_back(&pool, &a);
        let _second = give_one_back(&pool, &b);
        let _third = give_one_back(&pool, &c);
        assert_eq!(first.read(&mut [0]).unwrap(), 0, "it is closed");
        assert!(pool.take_idle(&a).is_none());
        // One that was used again is not the oldest any more.
        pool.take_idle(&b).unwrap().give_back();
        let _fourth = give_one_back(&pool, &a);
        assert!(pool.take_idle(&c).is_none());
        assert!(pool.take_idle(&a).is_some());
        assert!(pool.take_idle(&b).is_some());
        assert_eq!(pool.metrics.pool_idle.get(), 0);
        assert!(pool.lane(&c).is_unused());
    }

    who_waits_first_is_served_first {
        let pool = pool(8, 1);
        let lane = pool.lane(&origin("http://a.test"));
        let (first, _theirs) = connection(lane.seat(), &pool);
        let (mut one, mut two) = (pin!(lane.turn()), pin!(lane.turn()));
        assert!(poll(&mut one).is_pending() && poll(&mut two).is_pending());
        first.give_back();
        assert!(poll(&mut two).is_pending());
        connection_of(poll(&mut one)).give_back();
        connection_of(poll(&mut two)).give_back();
        assert_eq!(pool.metrics.pool_idle.get(), 1);
    }

    what_was_handed_to_somebody_who_is_gone_goes_to_the_next_or_back {
        let pool = pool(8, 1);
        let a = origin("http://a.test");
        let lane = pool.lane(&a);
        let (first, _theirs) = connection(lane.seat(), &pool);
        let mut one = Box::pin(lane.turn());
        let mut two = Box::pin(lane.turn());
        let mut three = Box::pin(lane.turn());
        for waiting in [&mut one, &mut two, &mut three] {
            assert!(poll(&mut waiting.as_mut()).is_pending());
        }
        // One goes while it waits, one with the connection in its hands.
        drop(one);
        first.give_back();
        drop(two);
        let first = connection_of(poll(&mut three.as_mut()));
        let mut four = Box::pin(lane.turn());
        assert!(poll(&mut four.as_mut()).is_pending());
        first.give_back();
        drop(four);
        assert!(pool.take_idle(&a).is_some());
    }

    nobody_waits_for_longer_than_a_moment {
        let pool = pool(8, 1);
        let a = origin("http://a.test");
        let lane = pool.lane(&a);
        let (busy, _theirs) = connection(lane.seat(), &pool);
        let start = Instant::now();
        let Given::Room(seat) = lane.turn().await else { panic!("nothing was given back") };
        assert!(start.elapsed() >= PATIENCE && start.elapsed() < 2 * PATIENCE);
        let (extra, _theirs) = connection(seat, &pool);
        // The other one may stream for hours: requests go over this one meanwhile, without a wait.
        extra.give_back();
        assert!(pool.take_idle(&a).is_some());
        drop(busy);
    }

    no_more_are_kept_idle_than_the_cap {
        let pool = pool(8, 1);
        let a = origin("http://a.test");
        let lane = pool.lane(&a);
        let (one, _one) = connection(lane.seat(), &pool);
        let (two, _two) = connection(lane.seat(), &pool);
        one.give_back();
        two.give_back();
        assert!(pool.take_idle(&a).is_some());
        assert!(pool.take_idle(&a).is_none());
    }

    room_is_given_to_who_waits_when_a_connection_breaks_or_becomes_a_tunnel {
        let pool = pool(8, 1);
        let lane = pool.lane(&origin("http://a.test"));
        let (broken, _theirs) = connection(lane.seat(), &pool);
        let (mut one, mut two) = (pin!(lane.turn()), pin!(lane.turn()));
        assert!(poll(&mut one).is_pending() && poll(&mut two).is_pending());
        drop(broken);
        let Poll::Ready(Given::Room(seat)) = poll(&mut one) else { panic!("there is room") };
        let (switching, _theirs) = connection(seat, &pool);
        let mut head = http::Response::new(());
        *head.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let _tunnel = switching.answer(head);
        assert!(matches!(poll(&mut two), Poll::Ready(Given::Room(_))));
    }
}

#[tokio::test]
async fn what_is_idle_at_an_address_that_is_left_out_is_not_used_again() {
    LocalSet::new()
        .run_until(async {
            let config = outliers::Config {
                failures: 1,
                ..outliers::Config::default()
            };
            let outliers = outliers::Outliers::new(config, Metrics::new());
            let addresses = ["192.0.2.1:80", "192.0.2.2:80"].map(|text| text.parse().unwrap());
            let a = origin("http://a.test");
            let chosen = outliers.choose(&a, addresses.into());
            let [first, second] = [0, 1].map(|index| chosen[index].member.clone());
            let pool = pool(8, 8);
            let give_back = |member: &Option<outliers::Member>| {
                let (connection, theirs) = connection(pool.lane(&a).seat(), &pool);
                connection.at(member.clone()).give_back();
                theirs
            };
            let _kept = give_back(&second);
            let mut closed = [give_back(&first), give_back(&first)];
            first.unwrap().failed();
            assert!(pool.take_idle(&a).is_some());
            assert!(pool.take_idle(&a).is_none());
            for theirs in &mut closed {
                assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
            }
        })
        .await;
}

#[tokio::test]
async fn a_connection_that_was_unused_for_its_time_is_closed() {
    LocalSet::new()
        .run_until(async {
            let limits = PoolLimits {
                connections: 8,
                per_backend: 8,
                idle: Duration::from_millis(20),
            };
            let pool = Pool::for_tests_with(limits);
            let mut theirs = give_one_back(&pool, &origin("http://a.test"));
            let start = Instant::now();
            while pool.metrics.pool_idle.get() > 0 {
                assert!(start.elapsed() < Duration::from_secs(10));
                tokio::task::yield_now().await;
            }
            assert!(start.elapsed() >= limits.idle);
            assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
        })
        .await;
}

#[tokio::test]
async fn what_the_other_side_closed_is_dropped_by_the_next_sweep() {
    LocalSet::new()
        .run_until(async {
            let pool = pool(8, 8);
            let a = origin("http://a.test");
            let _stays = give_one_back(&pool, &a);
            drop(give_one_back(&pool, &a));
            let start = Instant::now();
            while pool.metrics.pool_idle.get() != 1 {
                assert!(start.elapsed() < Duration::from_secs(10));
                tokio::task::yield_now().await;
                pool.drop_old();
            }
            assert!(pool.take_idle(&a).is_some());
            pool.drop_old();
            assert!(pool.lanes.borrow().is_empty());
        })
        .await;
}

#[tokio::test]
async fn a_post_of_which_nothing_could_be_written_goes_once_over_a_fresh_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = origin(&format!("http://{}", listener.local_addr().unwrap()));
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut seen = Vec::new();
        let mut piece = [0; 1024];
        while !seen.ends_with(b"precious") {
            let length = stream.read(&mut piece).unwrap();
            seen.extend_from_slice(&piece[..length]);
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        String::from_utf8(seen).unwrap()
    });
    LocalSet::new()
        .run_until(async {
            let pool = pool(8, 8);
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (theirs, _) = listener.accept().unwrap();
            let ours_too = ours.try_clone().unwrap();
            ours.set_nonblocking(true).unwrap();
            let stream = Stream::Plain(tokio::net::TcpStream::from_std(ours).unwrap());
            Connection::new(stream, pool.lane(&a).seat(), &pool).give_back();
            // Nothing can be written any more, and nothing says so yet.
            ours_too.shutdown(std::net::Shutdown::Write).unwrap();
            drop(theirs);

            let mut request = Request::new(Body::from("precious".to_owned()));
            *request.method_mut() = Method::POST;
            let host = a.authority().clone();
            request.headers_mut().insert(header::HOST, host);
            let response = pool.send(&a, request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            let text = String::from_utf8(pool.metrics.to_text()).unwrap();
            let counted = r#"m3o_ingress_backend_retries_total{reason="unsent"} 1"#;
            assert!(text.contains(counted), "{text}");
        })
        .await;
    let seen = server.join().unwrap();
    assert_eq!(seen.matches("POST").count(), 1, "{seen}");
}
