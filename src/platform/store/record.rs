//! How a record stands in an engine: its checksum, then its JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::engine::Table;

/// A value whose bytes are not those that were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged;

/// The bytes to keep for `value`.
pub(super) fn seal(table: Table, key: &str, value: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![0; CHECKSUM];
    serde_json::to_writer(&mut bytes, value).expect("our records are plain data with text keys");
    let checksum = checksum(table, key, &bytes[CHECKSUM..]);
    bytes[..CHECKSUM].copy_from_slice(&checksum);
    bytes
}

/// The value in bytes that [`seal`] made for the same place.
pub(super) fn open<T: DeserializeOwned>(
    table: Table,
    key: &str,
    bytes: &[u8],
) -> Result<T, Damaged> {
    let (kept, json) = bytes.split_at_checked(CHECKSUM).ok_or(Damaged)?;
    if kept != checksum(table, key, json) {
        return Err(Damaged);
    }
    serde_json::from_slice(json).map_err(|_| Damaged)
}

/// Over the place too: a record that turns up under another key is damage as well.
fn checksum(table: Table, key: &str, json: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = crc32fast::Hasher::new();
    for part in [table.name().as_bytes(), b"/", key.as_bytes(), b"=", json] {
        hasher.update(part);
    }
    hasher.finalize().to_le_bytes()
}

const CHECKSUM: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_only_where_and_as_it_was_written() {
        let bytes = seal(Table::Apps, "a", &"value");
        let read = |table, key, bytes: &[u8]| open::<String>(table, key, bytes);
        assert_eq!(read(Table::Apps, "a", &bytes).unwrap(), "value");
        assert_eq!(read(Table::Apps, "b", &bytes), Err(Damaged));
        assert_eq!(read(Table::Links, "a", &bytes), Err(Damaged));
        assert_eq!(read(Table::Apps, "a", &[]), Err(Damaged));
        for position in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[position] ^= 1;
            assert_eq!(read(Table::Apps, "a", &flipped), Err(Damaged), "{position}");
        }
    }
}
