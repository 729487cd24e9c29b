//! Durations and sizes as the configuration writes them: `"250ms"`, `"64KiB"`.

/// `"250ms"`, `"30s"`, `"10m"`, `"24h"`, `"7d"`; for `#[serde(with = "units::duration")]`.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Units, the largest first, in milliseconds.
    const UNITS: [(&str, u64); 5] = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    /// Longer than this is a slip of the pen, and would overflow a clock somewhere.
    const LONGEST: u64 = 10 * 365 * 86_400_000;

    /// Reads one number and one unit.
    ///
    /// # Errors
    /// A text that says what would be right.
    pub fn parse(text: &str) -> Result<Duration, String> {
        let wrong = || {
            format!("`{text}` is no duration: write it like \"250ms\", \"30s\", \"10m\" or \"24h\"")
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let (_, scale) = UNITS
            .into_iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?;
        number
            .checked_mul(scale)
            .filter(|millis| *millis <= LONGEST)
            .map(Duration::from_millis)
            .ok_or_else(|| format!("`{text}` is longer than ten years"))
    }

    /// Writes it in the largest unit that keeps it whole.
    #[must_use]
    pub fn format(duration: Duration) -> String {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return "0s".to_owned();
        }
        let (unit, scale) = UNITS
            .into_iter()
            .find(|(_, scale)| millis.is_multiple_of(*scale))
            .expect("every number is a multiple of one millisecond");
        format!("{}{unit}", millis / scale)
    }

    /// # Errors
    /// The serializer's own.
    pub fn serialize<S: Serializer>(duration: &Duration, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&format(*duration))
    }

    /// # Errors
    /// When it is no text, or no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
        parse(&String::deserialize(input)?).map_err(D::Error::custom)
    }
}

/// A duration that may be left out; for `#[serde(with = "units::maybe_duration")]`.
pub mod maybe_duration {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    use super::duration;

    /// # Errors
    /// The serializer's own.
    pub fn serialize<S: Serializer>(value: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => duration::serialize(value, out),
            None => out.serialize_none(),
        }
    }

    /// # Errors
    /// When it is there and no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
        duration::deserialize(input).map(Some)
    }
}

/// `"64KiB"`, `"10MiB"` or a number of bytes; for `#[serde(with = "units::size")]`.
pub mod size {
    use std::fmt;

    use serde::de::{Error, Unexpected, Visitor};
    use serde::{Deserializer, Serializer};

    /// Larger than this is a slip of the pen.
    const LARGEST: u64 = (u32::MAX as u64) << 20;
    /// Units, the largest first, in bytes. `KB` is a thousand, `KiB` is 1024 (IEC 80000-13).
    const UNITS: [(&str, u64); 7] = [
        ("GiB", 1 << 30),
        ("GB", 1_000_000_000),
        ("MiB", 1 << 20),
        ("MB", 1_000_000),
        ("KiB", 1 << 10),
        ("KB", 1_000),
        ("B", 1),
    ];

    /// Reads one number and one unit.
    ///
    /// # Errors
    /// A text that says what would be right.
    pub fn parse(text: &str) -> Result<u64, String> {
        let wrong = || {
            format!("`{text}` is no size: write it like \"64KiB\", \"10MiB\", or a number of bytes")
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let scale = match unit {
            "" => 1,
            unit => {
                UNITS
                    .into_iter()
                    .find(|(name, _)| *name == unit)
                    .ok_or_else(wrong)?
                    .1
            }
        };
        number
            .checked_mul(scale)
            .filter(|bytes| *bytes <= LARGEST)
            .ok_or_else(|| format!("`{text}` is larger than any limit can be"))
    }

    /// Writes it in the largest binary unit that keeps it whole.
    #[must_use]
    pub fn format(bytes: u64) -> String {
        let (unit, scale) = UNITS
            .into_iter()
            .filter(|(unit, _)| unit.ends_with("iB") || *unit == "B")
            .find(|(_, scale)| bytes.is_multiple_of(*scale) && bytes > 0)
            .unwrap_or(("B", 1));
        format!("{}{unit}", bytes / scale)
    }

    /// # Errors
    /// The serializer's own.
    pub fn serialize<S: Serializer>(bytes: &u64, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&format(*bytes))
    }

    /// # Errors
    /// When it is neither a size nor a number of bytes.
    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
        input.deserialize_any(Size)
    }

    struct Size;

    impl Visitor<'_> for Size {
        type Value = u64;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("a size like \"64KiB\", \"10MiB\", or a number of bytes")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
            parse(text).map_err(E::custom)
        }

        fn visit_i64<E: Error>(self, bytes: i64) -> Result<u64, E> {
            match u64::try_from(bytes) {
                Ok(bytes) => self.visit_u64(bytes),
                Err(_) => Err(E::invalid_value(Unexpected::Signed(bytes), &self)),
            }
        }

        fn visit_u64<E: Error>(self, bytes: u64) -> Result<u64, E> {
            parse(&bytes.to_string()).map_err(E::custom)
        }
    }
}

/// A share of something: `0.05`, `"5%"` or `"1/20"`. Kept in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Everything.
    pub const ALL: Self = Self(MILLION);

    /// Of a million, how many.
    #[must_use]
    pub fn millionths(self) -> u32 {
        self.0
    }

    /// Reads a number from 0 to 1, a percentage or a fraction.
    ///
    /// # Errors
    /// A text that says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no share: write it like 0.05, \"5%\" or \"1/20\"");
        let number = |text: &str| text.trim().parse::<f64>().map_err(|_| wrong());
        let share = match (text.split_once('/'), text.strip_suffix('%')) {
            (Some((part, whole)), _) => number(part)? / number(whole)?,
            (None, Some(percent)) => number(percent)? / 100.0,
            (None, None) => number(text)?,
        };
        Self::from_ratio(share).ok_or_else(wrong)
    }

    fn from_ratio(share: f64) -> Option<Self> {
        // Not a number is in no range. Between 0 and a million nothing is cut off.
        (0.0..=1.0)
            .contains(&share)
            .then(|| Self((share * f64::from(MILLION)).round() as u32))
    }
}

const MILLION: u32 = 1_000_000;

impl std::fmt::Display for Share {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (f64::from(self.0) / f64::from(MILLION)).fmt(out)
    }
}

impl serde::Serialize for Share {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_f64(f64::from(self.0) / f64::from(MILLION))
    }
}

impl<'de> serde::Deserialize<'de> for Share {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Read;

        impl serde::de::Visitor<'_> for Read {
            type Value = Share;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("a share like 0.05, \"5%\" or \"1/20\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Share, E> {
                Share::parse(text).map_err(E::custom)
            }

            fn visit_f64<E: serde::de::Error>(self, share: f64) -> Result<Share, E> {
                Share::parse(&share.to_string()).map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, share: i64) -> Result<Share, E> {
                Share::parse(&share.to_string()).map_err(E::custom)
            }
        }

        input.deserialize_any(Read)
    }
}

/// One text or a list of them; for `#[serde(with = "units::one_or_many")]`.
pub mod one_or_many {
    use std::fmt;
    use std::marker::PhantomData;

    use serde::de::value::StrDeserializer;
    use serde::de::{DeserializeOwned, Error, SeqAccess, Visitor};
    use serde::{Deserializer, Serialize, Serializer};

    /// # Errors
    /// The serializer's own.
    pub fn serialize<T: Serialize, S: Serializer>(values: &[T], out: S) -> Result<S::Ok, S::Error> {
        values.serialize(out)
    }

    /// # Errors
    /// When it is neither.
    pub fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
        input: D,
    ) -> Result<Vec<T>, D::Error> {
        input.deserialize_any(OneOrMany(PhantomData))
    }

    struct OneOrMany<T>(PhantomData<T>);

    impl<'de, T: DeserializeOwned> Visitor<'de> for OneOrMany<T> {
        type Value = Vec<T>;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("a text or a list of texts")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
            Ok(vec![T::deserialize(StrDeserializer::new(text))?])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut values = Vec::new();
            while let Some(value) = list.next_element()? {
                values.push(value);
            }
            Ok(values)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Share, duration, size};

    #[test]
    fn a_duration_is_one_number_and_one_unit() {
        let check = |text, millis| {
            assert_eq!(
                duration::parse(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        };
        check("250ms", 250);
        check("30s", 30_000);
        check("10m", 600_000);
        check("24h", 86_400_000);
        check("7d", 604_800_000);
        check("0s", 0);
        for text in [
            "",
            "s",
            "10",
            "-1s",
            "1.5s",
            "10 s",
            "10sec",
            "99999999999d",
            "4000d",
        ] {
            assert!(duration::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_is_a_number_with_or_without_unit() {
        let check = |text, bytes| assert_eq!(size::parse(text), Ok(bytes), "{text}");
        check("0", 0);
        check("4096", 4096);
        check("64KiB", 65_536);
        check("10MiB", 10 << 20);
        check("1GiB", 1 << 30);
        check("5MB", 5_000_000);
        for text in [
            "",
            "KiB",
            "-1",
            "1.5KiB",
            "10 MiB",
            "10mib",
            "99999999999GiB",
        ] {
            assert!(size::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_a_number_a_percentage_or_a_fraction() {
        let check = |text, millionths| {
            assert_eq!(Share::parse(text).map(Share::millionths), Ok(millionths));
        };
        check("1", 1_000_000);
        check("1.0", 1_000_000);
        check("0", 0);
        check("0.05", 50_000);
        check("5%", 50_000);
        check("1/100", 10_000);
        check("1/3", 333_333);
        for text in [
            "", "-0.1", "1.1", "101%", "1/0", "0/0", "2/1", "NaN", "a", "1/2/3",
        ] {
            assert!(Share::parse(text).is_err(), "{text}");
        }
        assert_eq!(Share::parse("1/100").unwrap().to_string(), "0.01");
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        for millis in [0, 1, 250, 1000, 90_000, 86_400_000] {
            let span = Duration::from_millis(millis);
            assert_eq!(duration::parse(&duration::format(span)), Ok(span));
        }
        for bytes in [0, 1, 1000, 1024, 10 << 20, (1 << 30) + 1] {
            assert_eq!(size::parse(&size::format(bytes)), Ok(bytes));
        }
    }
}
