//! Webhooks on the real router and a real Postgres: what Git hosts deliver becomes a row and then a Build.

pub mod cluster;
pub mod host;
mod making;
mod polling;
mod receiving;
