//! A rate as the configuration writes it: `"100/s"`, `"50/s burst 200"`.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// So many requests in a unit of time, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    count: NonZeroU32,
    unit: Unit,
    burst: NonZeroU32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
}

/// More than any machine answers.
const MOST: u32 = 1_000_000;

/// A burst that would take longer to be allowed again is a slip of the pen.
const LONGEST: Duration = Duration::from_secs(31 * 86_400);

impl Rate {
    /// Requests that may come at once.
    pub(super) fn burst(self) -> NonZeroU32 {
        self.burst
    }

    /// After this long one more may come.
    pub(super) fn period(self) -> Duration {
        self.unit.length() / self.count.get()
    }

    /// After this long a whole burst may come again.
    pub(super) fn window(self) -> Duration {
        self.period() * self.burst.get()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no rate: write it like \"100/s\", \"600/m\", or \"50/s burst 200\""
            )
        };
        let mut words = text.split_whitespace();
        let (count, unit) = words
            .next()
            .and_then(|rate| rate.split_once('/'))
            .ok_or_else(wrong)?;
        let count = number(count).ok_or_else(wrong)?;
        let unit = Unit::parse(unit).ok_or_else(wrong)?;
        let burst = match (words.next(), words.next(), words.next()) {
            (None, None, None) => count,
            (Some("burst"), Some(burst), None) => number(burst).ok_or_else(wrong)?,
            (_, _, _) => return Err(wrong()),
        };
        let within = |number: u32| {
            let number = NonZeroU32::new(number).filter(|number| number.get() <= MOST);
            number.ok_or_else(|| format!("`{text}` is out of range: its numbers are 1 to {MOST}"))
        };
        let rate = Self {
            count: within(count)?,
            unit,
            burst: within(burst)?,
        };
        if rate.window() > LONGEST {
            return Err(format!(
                "`{text}` allows a whole burst again after more than 31 days: lower the burst"
            ));
        }
        Ok(rate)
    }
}

/// Digits alone; too many of them are more than any limit.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u32::MAX))
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.count, self.unit.as_str())?;
        match self.burst == self.count {
            true => Ok(()),
            false => write!(out, " burst {}", self.burst),
        }
    }
}

impl Unit {
    const ALL: [Self; 4] = [Self::Second, Self::Minute, Self::Hour, Self::Day];

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.as_str() == text)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
            Self::Day => "d",
        }
    }

    fn length(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 86_400,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_a_unit_and_maybe_a_burst() {
        let check = |text: &str, period_ms, burst, written: &str| {
            let rate = Rate::parse(text).unwrap();
            assert_eq!(rate.period(), Duration::from_millis(period_ms), "{text}");
            assert_eq!(rate.burst().get(), burst, "{text}");
            assert_eq!(rate.to_string(), written);
            assert_eq!(Rate::parse(written), Ok(rate));
        };
        check("100/s", 10, 100, "100/s");
        check("600/m", 100, 600, "600/m");
        check("1/h", 3_600_000, 1, "1/h");
        check("10/d", 8_640_000, 10, "10/d");
        check("50/s burst 200", 20, 200, "50/s burst 200");
        check(" 50/s  burst 50 ", 20, 50, "50/s");
    }

    #[test]
    fn what_is_no_rate_says_what_would_be_one() {
        for text in [
            "",
            "100",
            "100/",
            "/s",
            "100/w",
            "100 /s",
            "-1/s",
            "1.5/s",
            "1/10s",
            "100/s burst",
            "100/s 200",
            "100/s burst x",
            "100/s burst 1 2",
            "100/S",
            "+1/s",
        ] {
            let error = Rate::parse(text).unwrap_err();
            assert!(error.contains("write it like"), "{error}");
        }
        for text in [
            "0/s",
            "1/s burst 0",
            "1000001/s",
            "1/s burst 99999999999999999999",
        ] {
            let error = Rate::parse(text).unwrap_err();
            assert!(error.contains("1 to 1000000"), "{error}");
        }
        let error = Rate::parse("1/d burst 32").unwrap_err();
        assert!(error.contains("lower the burst"), "{error}");
        assert!(Rate::parse("1/d burst 31").is_ok());
    }
}
