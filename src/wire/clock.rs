//! The time of day as `Date` gives it, written down once a second.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use http::HeaderValue;

thread_local! {
    static LAST: RefCell<Option<(u64, HeaderValue)>> = const { RefCell::new(None) };
}

/// The date as a field value (RFC 9110, 6.6.1).
#[must_use]
pub fn http_date() -> HeaderValue {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    LAST.with_borrow_mut(|last| match last {
        Some((second, date)) if *second == now => date.clone(),
        _ => {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
            let date = HeaderValue::try_from(httpdate::fmt_http_date(time))
                .expect("a date is visible ASCII");
            *last = Some((now, date.clone()));
            date
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_that_of_now() {
        let date = http_date();
        let parsed = httpdate::parse_http_date(date.to_str().unwrap()).unwrap();
        assert!(parsed.elapsed().unwrap() < Duration::from_secs(60));
        assert!(date.to_str().unwrap().ends_with(" GMT"));
    }
}
