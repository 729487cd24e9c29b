use proptest::prelude::*;

use super::*;

const SETTINGS_FRAME: (u8, u8, usize) = (4, 0, 0);

/// The bytes of a connection that sends these frames, each on its own stream: kind, flags, length.
fn bytes(frames: &[(u8, u8, usize)]) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    for (stream, &(kind, flags, length)) in (1_u16..).zip(frames) {
        let [.., a, b, c] = (length as u64).to_be_bytes();
        let [y, z] = stream.to_be_bytes();
        bytes.extend([a, b, c, kind, flags, 0, 0, y, z]);
        bytes.resize(bytes.len() + length, 0);
    }
    bytes
}

fn read(frames: &[(u8, u8, usize)]) -> (Frames, Result<(), Stop>) {
    let mut read = Frames::new();
    let outcome = read.read(&bytes(frames));
    (read, outcome)
}

fn verdict(frames: &[(u8, u8, usize)]) -> Option<Reason> {
    read(frames).0.verdict()
}

#[tokio::test]
async fn settings_come_first() {
    assert_eq!(verdict(&[SETTINGS_FRAME]), None);
    for first in [(6, 0, 8), (1, 4, 1), (4, 1, 0), (99, 0, 0)] {
        assert_eq!(verdict(&[first]), Some(Reason::PROTOCOL_ERROR), "{first:?}");
    }
}

#[tokio::test]
async fn a_frame_of_a_fixed_size_has_that_size() {
    let fits = [
        (0, 0, 0),
        (0, 8, 1),
        (1, 0x2c, 6),
        (2, 0, 5),
        (3, 0, 4),
        (4, 0, 12),
        (4, 1, 0),
        (6, 0, 8),
        (7, 0, 8),
        (7, 0, 99),
        (8, 0, 4),
        (99, 0, 3),
    ];
    for frame in fits {
        assert_eq!(verdict(&[SETTINGS_FRAME, frame]), None, "{frame:?}");
    }
    let others = [
        (0, 8, 0),
        (1, 0x2c, 5),
        (1, 0x24, 4),
        (1, 0x0c, 0),
        (2, 0, 4),
        (3, 0, 5),
        (4, 0, 5),
        (4, 1, 6),
        (6, 0, 7),
        (6, 1, 9),
        (7, 0, 7),
        (8, 0, 3),
    ];
    for frame in others {
        let expected = Some(Reason::FRAME_SIZE_ERROR);
        assert_eq!(verdict(&[SETTINGS_FRAME, frame]), expected, "{frame:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_flood_is_too_much_and_what_carries_messages_is_not() {
    let flood = |frame| verdict(&[&[SETTINGS_FRAME][..], &vec![frame; 2000]].concat());
    let calm = Some(Reason::ENHANCE_YOUR_CALM);
    for frame in [
        (0, 0, 0),
        (0, 8, 1),
        (2, 0, 5),
        (3, 0, 4),
        (4, 0, 0),
        (4, 1, 0),
        (6, 0, 8),
        (7, 0, 8),
        (8, 0, 4),
        (99, 0, 0),
    ] {
        assert_eq!(flood(frame), calm, "{frame:?}");
    }
    assert_eq!(flood((0, 0, 300)), None);
    assert_eq!(flood((0, 1, 0)), None);
    assert_eq!(flood((1, 5, 9)), None);
    // A client that downloads opens its windows.
    let mut frames = read(&[SETTINGS_FRAME]).0;
    let update = &bytes(&[(8, 0, 4)])[PREFACE.len()..];
    for _ in 0..2000 {
        frames.written(16 << 10);
        frames.read(update).unwrap();
    }
}

#[tokio::test]
async fn of_a_message_that_has_ended_nothing_more_comes() {
    let on = |kind, flags, stream| [0, 0, 0, kind, flags, 0x80, 0, 0, stream];
    for (kind, verdict) in [
        (0, Some(Reason::STREAM_CLOSED)),
        (1, Some(Reason::STREAM_CLOSED)),
        (99, None),
    ] {
        let mut frames = read(&[SETTINGS_FRAME]).0;
        frames.read(&on(1, 4, 1)).unwrap();
        frames.read(&on(0, 1, 1)).unwrap();
        frames.read(&on(1, 5, 3)).unwrap();
        let _verdict = frames.read(&on(kind, 0, 1));
        assert_eq!(frames.verdict(), verdict, "{kind}");
    }
}

#[tokio::test]
async fn nothing_of_a_frame_that_is_too_much_is_passed_on() {
    let good = bytes(&[SETTINGS_FRAME, (6, 0, 8)]);
    let (mut frames, outcome) = read(&[SETTINGS_FRAME, (6, 0, 8), (6, 0, 7), (6, 0, 8)]);
    assert_eq!(outcome, Err(Stop { before: good.len() }));
    assert!(frames.is_over());
    assert_eq!(frames.verdict(), Some(Reason::FRAME_SIZE_ERROR));
    assert_eq!(frames.verdict(), None);
    assert!(frames.is_over());
}

#[tokio::test]
async fn a_block_is_one_part_until_its_last_frame_is_here() {
    let mut frames = Frames::new();
    assert!(frames.part().is_some());
    let whole = bytes(&[SETTINGS_FRAME, (1, 0, 3), (9, 0, 2), (9, 4, 1), (0, 0, 5)]);
    let block = PREFACE.len() + 9..PREFACE.len() + 9 + 33;
    let mut of_block = None;
    for (at, byte) in whole.iter().enumerate() {
        frames.read(&[*byte]).unwrap();
        let part = frames.part();
        if block.start <= at && at + 1 < block.end {
            let first = *of_block.get_or_insert(part);
            assert!(part.is_some() && part == first, "{at}");
        }
        if at + 1 == block.start || at + 1 == block.end || at + 1 == whole.len() {
            assert_eq!(part, None, "{at}");
        }
        if at + 2 == whole.len() {
            assert!(part.unwrap().is_data);
        }
    }
}

proptest! {
    #[test]
    fn what_comes_in_pieces_is_read_as_what_comes_at_once(
        frames in prop::collection::vec((0u8..12, any::<u8>(), 0usize..40), 0..20),
        cut in 1usize..64,
    ) {
        let bytes = bytes(&[&[SETTINGS_FRAME][..], &frames].concat());
        let mut at_once = Frames::new();
        let outcome = at_once.read(&bytes);
        let mut pieces = Frames::new();
        let mut passed = 0;
        for piece in bytes.chunks(cut) {
            match pieces.read(piece) {
                Ok(()) => passed += piece.len(),
                Err(stop) => {
                    passed += stop.before;
                    break;
                }
            }
        }
        prop_assert_eq!(at_once.verdict(), pieces.verdict());
        prop_assert_eq!(at_once.part(), pieces.part());
        // A frame in pieces was passed on in part, which is none.
        let whole = outcome.map_or_else(|stop| stop.before, |()| bytes.len());
        prop_assert!(whole <= passed && passed < whole + HEAD + 40, "{} {}", whole, passed);
    }

    #[test]
    fn no_bytes_are_too_strange_to_be_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut frames = Frames::new();
        let _outcome = frames.read(&bytes);
        let _part = frames.part();
    }
}
