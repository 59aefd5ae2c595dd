//! The rules of Image Factory: pure functions and data. Nothing here reads a clock, a network, a file or the environment.

pub mod inspection;
pub mod pod;
pub mod report;
