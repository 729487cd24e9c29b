//! The admin address: health, metrics, and the mailbox of `dev`.
