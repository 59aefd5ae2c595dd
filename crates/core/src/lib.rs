//! The rules of Image Factory: pure functions and data. No I/O, no clock, no environment.

pub mod method;
