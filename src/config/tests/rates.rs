//! `[rates]` and `[outliers]`: what may stand there, and what is said of what may not.

use super::{check, check_variable};

#[test]
fn a_rate_that_is_none_says_what_would_be_one() {
    check(
        "[rates]\npeer = '100/s burst 200'\nkey = '600/m'\napp = '5/d'",
        &[],
    );
    check(
        "[rates]\npeer = '100'",
        &[
            "f:5:8: rates.peer: `100` is no rate: write it like \"100/s\", \"600/m\", or \"50/s burst 200\"",
        ],
    );
    check(
        "[rates]\npeer = 100",
        &[
            "f:5:8: rates.peer: `100` stands where a text belongs: write it like `peer = \"100/s burst 200\"`",
        ],
    );
    check(
        "[rates]\nkey = '0/s'\napp = '1/d burst 99'",
        &[
            "f:5:7: rates.key: `0/s` is out of range: its numbers are 1 to 1000000",
            "f:6:7: rates.app: `1/d burst 99` allows a whole burst again after more than 31 days: lower the burst",
        ],
    );
    check(
        "[rates]\nper_peer = '1/s'",
        &[
            "f:5:1: unknown key `per_peer`; what may stand here is `peer`, `key`, `app`, `capacity`, `exempt` or `apps`",
        ],
    );
}

#[test]
fn an_app_has_a_rate_by_its_name() {
    check("[rates.apps]\nhelloworld = '50/s'", &[]);
    check(
        "[rates.apps]\nhelloworld = 'fast'",
        &[
            "f:5:14: rates.apps.helloworld: `fast` is no rate: write it like \"100/s\", \"600/m\", or \"50/s burst 200\"",
        ],
    );
    check(
        "[rates.apps]\n'Hello.World' = '50/s'",
        &[
            "f:5:1: rates.apps: `Hello.World` is no name of an app: it has 1 to 63 of a-z, 0-9 and -, with no hyphen at either end",
        ],
    );
    check(
        "[rates]\napps = 3",
        &[
            "f:5:8: rates.apps: `3` stands where a section belongs: write `[rates.apps]` above its keys",
        ],
    );
    check_variable("M3O_INGRESS_RATES__PEER", "10/s", &[]);
    check_variable("M3O_INGRESS_RATES__APPS__BLOG", "10/s", &[]);
}

#[test]
fn there_is_room_for_somebody_and_not_for_everybody() {
    check(
        "[rates]\ncapacity = 0",
        &["f:5:12: rates.capacity: `0` lets nothing through: it is at least 1"],
    );
    check(
        "[rates]\ncapacity = 99_999_999",
        &["f:5:12: rates.capacity: `99999999` is too many: it is at most 16777216"],
    );
    check(
        "[rates]\nexempt = ['10.0.0.1/99']",
        &[
            "f:5:11: rates.exempt: `10.0.0.1/99` is no network: write it like \"10.0.0.0/8\" or \"fd00::/8\"",
        ],
    );
}

#[test]
fn what_leaves_addresses_out_makes_sense_together() {
    check(
        "[outliers]\nenabled = false\nfailures = 1\nbase = '1s'\nmost = '1s'\nshare = 100",
        &[],
    );
    check(
        "[outliers]\nfailures = 0\nbase = '1m'\nmost = '30s'\nshare = 101",
        &[
            "f:5:12: outliers.failures: `0` failures are none: it is at least 1",
            "f:7:8: outliers.most: `30s` is less than `base`, 1m, which it begins with",
            "f:8:9: outliers.share: `101` is no share in a hundred: it is 1 to 100",
        ],
    );
    check(
        "[outliers]\nbase = '0s'",
        &["f:5:8: outliers.base: `0s` leaves nothing out: write `enabled = false` for that"],
    );
}
