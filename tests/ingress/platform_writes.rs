//! A write through the embedded platform is seen by the very next request.

use crate::harness::backend::ok;
use crate::harness::{Caller, TestBackend, TestIngress, eventually};

/// More than one worker, since each has to see what came through another.
fn platform() -> TestIngress {
    TestIngress::embedded_with(|config| config.listen.workers = 2)
}

/// Asks over connections enough to reach every worker, and gives what they all said.
#[track_caller]
fn ask_all(callers: &mut [Caller], host: &str) -> Result<String, u16> {
    let mut answers = callers.iter_mut().map(|caller| {
        let reply = caller.get(host, "/");
        match reply.status() {
            200 => Ok(reply.text()),
            status => Err(status),
        }
    });
    let first = answers.next().unwrap();
    for other in answers {
        assert_eq!(other, first);
    }
    first
}

fn callers(ingress: &TestIngress) -> Vec<Caller> {
    (0..8).map(|_| ingress.caller()).collect()
}

#[test]
fn an_app_that_is_run_updated_deleted_and_run_again_follows_each_time() {
    let one = TestBackend::answering(ok("one"));
    let two = TestBackend::answering(ok("two"));
    let ingress = platform();
    let mut callers = callers(&ingress);
    let host = "blog.m3o.app";
    let call = |endpoint: &str, backend: Option<&TestBackend>| {
        let mut json = serde_json::json!({ "name": "blog" });
        if let Some(backend) = backend {
            json["backend"] = backend.url().into();
        }
        ingress.post_json(endpoint, &json.to_string()).expect(200);
    };
    for _ in 0..5 {
        assert_eq!(ask_all(&mut callers, host), Err(404));
        call("app/Run", Some(&one));
        assert_eq!(ask_all(&mut callers, host), Ok("one".to_owned()));
        call("app/Update", Some(&two));
        assert_eq!(ask_all(&mut callers, host), Ok("two".to_owned()));
        call("app/Delete", None);
        assert_eq!(ask_all(&mut callers, host), Err(404));
        call("app/Run", Some(&two));
        assert_eq!(ask_all(&mut callers, host), Ok("two".to_owned()));
        call("app/Delete", None);
    }
}

#[test]
fn a_short_link_that_is_changed_leads_elsewhere_at_once_and_no_hit_is_lost() {
    let ingress = platform();
    let mut callers = callers(&ingress);
    let mut follow = |to: Option<&str>| {
        // Twice, since what was followed once may be remembered.
        for caller in &mut callers {
            for _ in 0..2 {
                let reply = caller.get("m3o.one", "/u/abc");
                assert_eq!(reply.status(), if to.is_some() { 302 } else { 404 });
                assert_eq!(reply.field("Location"), to);
            }
        }
    };
    let call = |endpoint: &str, to: &str| {
        let json = serde_json::json!({ "id": "abc", "destinationURL": to });
        ingress.post_json(endpoint, &json.to_string()).expect(200);
    };
    for _ in 0..5 {
        follow(None);
        call("url/Create", "https://one.example/");
        follow(Some("https://one.example/"));
        call("url/Update", "https://two.example/");
        follow(Some("https://two.example/"));
        let listed = ingress.post_json("url/List", "{}").expect(200).json();
        assert_eq!(listed["urlPairs"][0]["hitCount"], "32");
        call("url/Delete", "");
    }
    follow(None);
}

#[test]
fn a_function_that_is_deployed_and_deleted_follows_each_time() {
    let backend = TestBackend::answering(ok("result"));
    let ingress = platform();
    let mut callers = callers(&ingress);
    let host = "hello.m3o.sh";
    for _ in 0..5 {
        assert_eq!(ask_all(&mut callers, host), Err(404));
        let json = serde_json::json!({ "name": "hello", "backend": backend.url() });
        ingress
            .post_json("function/Deploy", &json.to_string())
            .expect(200);
        assert_eq!(ask_all(&mut callers, host), Ok("result".to_owned()));
        ingress
            .post_json("function/Delete", r#"{"name":"hello"}"#)
            .expect(200);
    }
}

#[test]
fn a_short_link_that_is_written_follows_each_time() {
    let ingress = platform();
    let lead = |endpoint: &str, to: &str| {
        let json = serde_json::json!({ "id": "ab", "destinationURL": to });
        ingress.post_json(endpoint, &json.to_string()).expect(200);
    };
    let leads_to = || {
        let reply = ingress.get("m3o.one", "/u/ab");
        reply.field("Location").map(str::to_owned)
    };
    assert_eq!(leads_to(), None);
    lead("url/Create", "https://one.example/");
    assert_eq!(leads_to().as_deref(), Some("https://one.example/"));
    ingress
        .post_json("url/Delete", r#"{"id":"ab"}"#)
        .expect(200);
    assert_eq!(leads_to(), None);
}

#[test]
fn a_write_to_one_app_does_not_disturb_another_under_load() {
    let backend = TestBackend::answering(ok("steady"));
    let ingress = platform();
    ingress.run_app("steady", &backend.url());
    let done = crate::harness::Gate::default();
    let finished = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for index in 0..30 {
                ingress.run_app(&format!("other{index}"), &backend.url());
            }
            finished.store(true, std::sync::atomic::Ordering::SeqCst);
            done.open();
        });
        let mut caller = ingress.caller();
        eventually("all writes are done", || {
            caller.get("steady.m3o.app", "/").expect(200);
            finished.load(std::sync::atomic::Ordering::SeqCst)
        });
        done.wait();
    });
}
