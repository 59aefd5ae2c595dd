//! The operator of Image Factory, and what runs of it inside a build's Pod.

pub mod clock;
pub mod config;
pub mod db;
