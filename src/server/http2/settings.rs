//! Looks for a window in a client's settings that is larger than any may be: `h2` would end the
//! connection for it, but with the code of another fault (RFC 9113, 6.5.2).

/// The settings of one frame, as far as they have arrived.
#[derive(Debug)]
pub(super) struct Settings {
    setting: [u8; SETTING],
    /// How much of the setting is here.
    have: usize,
}

/// The octets of a setting: two say which, four its value (RFC 9113, 6.5.1).
const SETTING: usize = 6;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
const LARGEST_WINDOW: u32 = u32::MAX >> 1;

impl Settings {
    pub(super) fn new() -> Self {
        Self {
            setting: [0; SETTING],
            have: 0,
        }
    }

    /// Whether a window that is too large ends in `payload`.
    pub(super) fn has_bad_window(&mut self, payload: &[u8]) -> bool {
        payload.iter().any(|&octet| {
            self.setting[self.have] = octet;
            self.have = (self.have + 1) % SETTING;
            let [a, b, value @ ..] = self.setting;
            self.have == 0
                && u16::from_be_bytes([a, b]) == INITIAL_WINDOW_SIZE
                && u32::from_be_bytes(value) > LARGEST_WINDOW
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_too_large_from_two_to_the_thirty_first_on() {
        let has_bad = |payload: &[u8]| Settings::new().has_bad_window(payload);
        assert!(has_bad(&[0, 4, 0x80, 0, 0, 0]));
        assert!(has_bad(&[0, 3, 0, 0, 0, 1, 0, 4, 0xff, 0xff, 0xff, 0xff]));
        assert!(!has_bad(&[0, 4, 0x7f, 0xff, 0xff, 0xff]));
        assert!(!has_bad(&[
            1, 4, 0x80, 0, 0, 0, 0, 6, 0xff, 0xff, 0xff, 0xff
        ]));
        assert!(!has_bad(&[0, 3, 0, 4, 0x80, 0]));
    }

    #[test]
    fn a_setting_in_pieces_is_one() {
        let mut settings = Settings::new();
        let setting = [0, 4, 0x80, 0, 0, 0];
        let found = setting.map(|octet| settings.has_bad_window(&[octet]));
        assert_eq!(found, [false, false, false, false, false, true]);
    }
}
