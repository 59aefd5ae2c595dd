//! The operator of Image Factory, and what runs of it inside a build's Pod.

pub mod cli;
pub mod clock;
pub mod config;
pub mod crd;
pub mod db;
pub mod registry;
pub mod source;
