//! One request: route, handler, answer.

pub mod index;
pub mod verify;
