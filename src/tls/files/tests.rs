use std::os::unix::fs::symlink;

use super::*;
use crate::wire::Covers as _;

/// A folder with files that are long settled, so that only what changes them shows.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).unwrap();
    }

    fn pair(&self, label: &str, host: &str) {
        let (chain, key) = pair(host);
        self.write(&format!("{label}.crt"), &chain);
        self.write(&format!("{label}.key"), &key);
    }

    fn folder(&self) -> Folder {
        Folder::new(self.0.path())
    }
}

fn pair(host: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new([host.to_owned()]).unwrap();
    let chain = parameters.self_signed(&key).unwrap().pem();
    (chain, key.serialize_pem())
}

#[track_caller]
fn check(folder: &Folder, hosts: &[&str]) {
    let certificates = folder.certificates();
    assert_eq!(certificates.len(), hosts.len(), "{folder:?}");
    for host in hosts {
        assert!(certificates.iter().any(|good| good.covers(host)), "{host}");
    }
}

#[test]
fn pairs_come_change_and_go() {
    let place = Place::new();
    let mut folder = place.folder();
    assert!(!folder.watch());
    place.pair("a", "a.test");
    place.pair("b", "b.test");
    place.write(".hidden.crt", "");
    place.write("README.md", "");
    assert!(folder.watch());
    check(&folder, &["a.test", "b.test"]);
    assert!(!folder.watch(), "nothing has changed");
    place.pair("a", "new.test");
    assert!(folder.watch());
    check(&folder, &["new.test", "b.test"]);

    for file in ["a.crt", "a.key"] {
        fs::remove_file(place.file(file)).unwrap();
    }
    assert!(!folder.watch(), "they may come back");
    check(&folder, &["new.test", "b.test"]);
    assert!(folder.watch());
    check(&folder, &["b.test"]);
    assert_eq!(folder.problems().count(), 0);
}

#[test]
fn files_that_were_missed_once_and_are_back_were_never_gone() {
    let place = Place::new();
    place.pair("a", "a.test");
    let mut folder = place.folder();
    folder.watch();
    for _ in 0..3 {
        for file in ["a.crt", "a.key"] {
            fs::rename(place.file(file), place.file(&format!("{file}.away"))).unwrap();
        }
        assert!(!folder.watch());
        for file in ["a.crt", "a.key"] {
            fs::rename(place.file(&format!("{file}.away")), place.file(file)).unwrap();
        }
        assert!(!folder.watch());
        check(&folder, &["a.test"]);
    }
}

#[test]
fn what_is_no_pair_leaves_the_last_good_one() {
    let place = Place::new();
    place.pair("a", "a.test");
    let mut folder = place.folder();
    folder.watch();
    let (chain, key) = (place.file("a.crt"), place.file("a.key"));
    let (good_chain, good_key) = (fs::read(&chain).unwrap(), fs::read(&key).unwrap());
    let (other_chain, other_key) = pair("other.test");
    let broken: [(&[u8], &[u8]); 5] = [
        (b"", &good_key),
        (&good_chain, b""),
        (&good_chain[..good_chain.len() / 2], &good_key),
        (other_chain.as_bytes(), &good_key),
        (&good_chain, other_key.as_bytes()),
    ];
    for (bad_chain, bad_key) in broken {
        fs::write(&chain, bad_chain).unwrap();
        fs::write(&key, bad_key).unwrap();
        assert!(!folder.watch());
        assert_eq!(folder.problems().count(), 1);
        check(&folder, &["a.test"]);
    }
    // One that vanished is no better than one that is broken, however long it is away.
    fs::remove_file(&key).unwrap();
    for _ in 0..3 {
        assert!(!folder.watch());
        let (label, bad) = folder.problems().next().unwrap();
        assert_eq!(label, "a");
        assert!(bad.to_string().contains("a.key"), "{bad}");
        check(&folder, &["a.test"]);
    }
    fs::write(&chain, other_chain).unwrap();
    fs::write(&key, other_key).unwrap();
    assert!(folder.watch());
    check(&folder, &["other.test"]);
    assert_eq!(folder.problems().count(), 0);
}

#[test]
fn a_link_that_leads_elsewhere_is_a_change() {
    // As a mounted ConfigMap or Secret changes: one link is swapped, and all files are others.
    let place = Place::new();
    for (version, host) in [("one", "one.test"), ("two", "two.test")] {
        fs::create_dir(place.file(version)).unwrap();
        place.pair(&format!("{version}/tls"), host);
    }
    symlink("one", place.file("..data")).unwrap();
    for file in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{file}"), place.file(file)).unwrap();
    }
    let mut folder = place.folder();
    assert!(folder.watch());
    check(&folder, &["one.test"]);
    symlink("two", place.file("..new")).unwrap();
    fs::rename(place.file("..new"), place.file("..data")).unwrap();
    assert!(folder.watch());
    check(&folder, &["two.test"]);
}

#[test]
fn a_folder_that_vanishes_takes_nothing_away() {
    let place = Place::new();
    fs::create_dir(place.file("certs")).unwrap();
    place.pair("certs/a", "a.test");
    let mut folder = Folder::new(&place.file("certs"));
    folder.watch();
    fs::rename(place.file("certs"), place.file("away")).unwrap();
    for _ in 0..3 {
        assert!(!folder.watch());
        check(&folder, &["a.test"]);
    }
    assert!(folder.scan(Depth::Names).is_err());
}

#[test]
fn a_pair_that_was_taken_for_its_names_is_checked_later() {
    let place = Place::new();
    place.pair("good", "good.test");
    let (chain, _) = pair("bad.test");
    let (_, key) = pair("bad.test");
    place.write("bad.crt", &chain);
    place.write("bad.key", &key);
    let mut folder = place.folder();
    assert!(folder.scan(Depth::Names).unwrap());
    check(&folder, &["good.test", "bad.test"]);
    assert!(folder.watch());
    check(&folder, &["good.test"]);
    let (label, bad) = folder.problems().next().unwrap();
    assert_eq!((label, bad), ("bad", &BadFiles::Pair(BadPair::Mismatch)));
}

#[test]
fn a_pipe_is_no_pair_and_keeps_nobody_waiting() {
    let place = Place::new();
    place.pair("a", "a.test");
    let (_, key) = pair("b.test");
    place.write("b.key", &key);
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, place.file("b.crt"), mode).unwrap();
    let mut folder = place.folder();
    assert!(folder.watch());
    check(&folder, &["a.test"]);
    let (label, bad) = folder.problems().next().unwrap();
    assert_eq!(label, "b");
    assert!(bad.to_string().contains("it is no file"), "{bad}");
}

#[test]
fn a_folder_that_never_was_there_is_no_trouble_and_one_that_is_gone_is() {
    let place = Place::new();
    let path = place.file("later");
    let mut folder = Folder::new(&path);
    assert!(!folder.watch());
    assert_eq!(folder.unlisted, None);
    fs::create_dir(&path).unwrap();
    let (chain, key) = pair("a.test");
    place.write("later/a.crt", &chain);
    place.write("later/a.key", &key);
    assert!(folder.watch());
    fs::remove_dir_all(&path).unwrap();
    assert!(!folder.watch());
    assert!(folder.unlisted.is_some());
    check(&folder, &["a.test"]);
}

/// Makes the files of a pair look as if nobody had written to them of late.
fn settle(place: &Place, label: &str) {
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for ending in ["crt", "key"] {
        let file = File::options()
            .write(true)
            .open(place.file(&format!("{label}.{ending}")));
        file.unwrap().set_modified(long_ago).unwrap();
    }
}

#[test]
fn a_key_that_nobody_asked_for_is_read_by_the_watch() {
    let place = Place::new();
    for label in ["old", "new"] {
        place.pair(label, &format!("{label}.test"));
    }
    settle(&place, "old");
    let mut folder = place.folder();
    folder.scan(Depth::Names).unwrap();
    let certificates = folder.certificates();
    assert!(
        certificates
            .iter()
            .all(|certificate| !certificate.is_read())
    );
    assert!(!folder.watch(), "they are what they were");
    for certificate in certificates {
        assert!(certificate.is_read() && certificate.key().is_ok());
    }
}

#[test]
fn a_pair_that_changes_before_its_key_was_read_is_read_anew() {
    let place = Place::new();
    let mut folder = place.folder();
    let index = |folder: &mut Folder| {
        place.pair("a", "a.test");
        settle(&place, "a");
        folder.scan(Depth::Names).unwrap();
        check(folder, &["a.test"]);
    };
    index(&mut folder);
    place.pair("a", "new.test");
    assert!(folder.watch());
    check(&folder, &["new.test"]);

    // What is gone before anybody read it is no last good one.
    let mut folder = place.folder();
    index(&mut folder);
    let key = fs::read(place.file("a.key")).unwrap();
    place.write("a.key", "");
    assert!(folder.watch());
    check(&folder, &[]);
    assert_eq!(folder.problems().count(), 1);
    fs::write(place.file("a.key"), key).unwrap();
    assert!(folder.watch());
    check(&folder, &["a.test"]);
    assert_eq!(folder.problems().count(), 0);
}

#[test]
fn one_can_be_served_when_its_key_is_good() {
    let place = Place::new();
    let mut folder = place.folder();
    assert!(!folder.can_serve());
    let (chain, _) = pair("bad.test");
    let (_, key) = pair("bad.test");
    for label in ["awful", "bad"] {
        place.write(&format!("{label}.crt"), &chain);
        place.write(&format!("{label}.key"), &key);
    }
    folder.scan(Depth::Names).unwrap();
    assert!(!folder.can_serve());
    assert_eq!(folder.problems().count(), 2);
    place.pair("good", "good.test");
    folder.scan(Depth::Names).unwrap();
    assert!(folder.can_serve() && folder.can_serve_as("good"));
    assert!(!folder.can_serve_as("bad") && !folder.can_serve_as("nobody"));
    check(&folder, &["good.test"]);
}
