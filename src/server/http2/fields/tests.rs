use proptest::prelude::*;

use super::*;

const COMPRESSION: Result<(), Reason> = Err(Reason::COMPRESSION_ERROR);
const PROTOCOL: Result<(), Reason> = Err(Reason::PROTOCOL_ERROR);

fn read(fields: &mut Fields, are_trailers: bool, block: &[u8]) -> Result<(), Reason> {
    fields.begin(false, false, are_trailers);
    fields.read(block, block.len(), true)
}

fn trailers(block: &[u8]) -> Result<(), Reason> {
    read(&mut Fields::new(), true, block)
}

#[test]
fn a_pseudo_field_in_trailers_is_found_however_it_is_written() {
    let long = [&[0x10, 0x7f, 0x01][..], &[b'a'; 128], &[0]].concat();
    for before in [
        &[][..],
        &[0x3f, 0x21],
        &[0x10, 1, b'x', 2, b':', b'b'],
        &[0x40, 1, b'x', 0, 0xbe],
        &long,
    ] {
        for pseudo in [
            &[0x83][..],
            &[0x8e],
            &[0x44, 1, b'/'],
            &[0x04, 1, b'/'],
            &[0x14, 1, b'/'],
            &[0x10, 2, b':', b'x', 0],
            &[0x40, 2, b':', b'x', 0],
            &[0x00, 0x82, 0xb9, 0xff, 0],
        ] {
            let block = [before, pseudo].concat();
            assert_eq!(trailers(&block), PROTOCOL, "{block:?}");
            assert_eq!(read(&mut Fields::new(), false, &block), Ok(()), "{block:?}");
        }
    }
}

#[test]
fn a_pseudo_field_in_trailers_is_found_in_the_table_too() {
    let mut fields = Fields::new();
    // Two of them with another between, and one by the name of the first.
    let head = [
        0x44, 1, b'/', 0x40, 1, b'x', 1, b'y', 0x40, 2, b':', b'z', 0, 0x7f, 0x01, 0,
    ];
    assert_eq!(read(&mut fields, false, &head), Ok(()));
    for (index, outcome) in [
        (0xbe, PROTOCOL),
        (0xbf, PROTOCOL),
        (0xc0, Ok(())),
        (0xc1, PROTOCOL),
        (0xc2, COMPRESSION),
    ] {
        assert_eq!(read(&mut fields, true, &[index]), outcome, "{index:x}");
    }
}

#[test]
fn other_fields_are_none() {
    for block in [
        &[][..],
        &[0x8f],
        &[0x10, 4, b'a', b':', b'c', b'd', 1, b':'],
        &[0x5f, 1, b':'],
        &[0x7f, 0x80, 0x00, 1, b':'],
        &[0x0f, 0x00, 1, b':'],
        &[0x1f, 0x05, 0x81, 0xb9],
        &[0x21, 0x3f, 0xe1, 0x1f],
        &[0x2e, 0x90],
    ] {
        let mut fields = Fields::new();
        let kept = [0x40, 1, b'x', 0, 0x40, 1, b'y', 0];
        assert_eq!(read(&mut fields, false, &kept), Ok(()));
        assert_eq!(read(&mut fields, true, block), Ok(()), "{block:?}");
    }
}

#[test]
fn a_block_that_cannot_be_read_is_a_fault_of_its_compression() {
    for block in [
        &[0x80][..],
        &[0xbe],
        &[0x7f, 0x00, 0],
        &[0x0f, 0x2f, 0],
        &[0xff, 0xff, 0x03],
        &[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
        &[0x3f, 0xe2, 0x1f],
        &[0x90, 0x20],
        &[0x10],
        &[0x10, 0x05, b'a'],
        &[0x10, 1, b'a'],
        &[0x10, 1, b'a', 3, b'b'],
        &[0xff],
    ] {
        let outcome = read(&mut Fields::new(), false, block);
        assert_eq!(outcome, COMPRESSION, "{block:?}");
    }
}

#[test]
fn neither_padding_nor_a_priority_is_a_field() {
    let payload = [2, 0x83, 0x83, 0x83, 0x83, 0x83, 0x8f, 0x83, 0x80];
    let mut fields = Fields::new();
    fields.begin(true, true, true);
    let (first, rest) = payload.split_at(4);
    assert_eq!(fields.read(first, payload.len(), false), Ok(()));
    let (second, third) = rest.split_at(4);
    assert_eq!(fields.read(second, rest.len(), false), Ok(()));
    assert_eq!(fields.read(third, third.len(), false), Ok(()));
    fields.go_on();
    assert_eq!(fields.read(&[0x83], 1, true), PROTOCOL);
}

/// A field that is kept, or not.
fn literal(is_kept: bool, name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![if is_kept { 0x40 } else { 0x10 }];
    for text in [name, value] {
        let mut length = text.len();
        if length < 127 {
            block.push(length as u8);
        } else {
            block.push(127);
            length -= 127;
            while length >= 128 {
                block.push((length % 128) as u8 | 0x80);
                length /= 128;
            }
            block.push(length as u8);
        }
        block.extend_from_slice(text.as_bytes());
    }
    block
}

proptest! {
    #[test]
    fn names_and_values_of_any_length_are_passed_over_in_any_pieces(
        all in prop::collection::vec((any::<bool>(), "[a-z:]{0,300}", "[a-z:]{0,300}"), 1..8),
        cut in 1usize..64,
    ) {
        let block: Vec<u8> = all
            .iter()
            .flat_map(|(is_kept, name, value)| literal(*is_kept, name, value))
            .collect();
        let has_pseudo = all.iter().any(|(_, name, _)| name.starts_with(':'));
        prop_assert_eq!(trailers(&block), if has_pseudo { PROTOCOL } else { Ok(()) });

        let mut fields = Fields::new();
        fields.begin(false, false, false);
        let mut left = block.len();
        for piece in block.chunks(cut) {
            prop_assert_eq!(fields.read(piece, left, true), Ok(()));
            left -= piece.len();
        }
        let kept = all.iter().rev().filter(|(is_kept, ..)| *is_kept);
        for (ago, (_, name, _)) in kept.enumerate() {
            let outcome = read(&mut fields, true, &[0x80 | (62 + ago as u8)]);
            prop_assert_eq!(outcome, if name.starts_with(':') { PROTOCOL } else { Ok(()) });
        }
    }

    #[test]
    fn no_octets_are_too_strange(
        blocks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..4),
    ) {
        let mut fields = Fields::new();
        for block in &blocks {
            let _outcome = read(&mut fields, true, block);
            fields.begin(true, true, false);
            let _outcome = fields.read(block, block.len() + 3, true);
        }
    }
}
