//! The schema as a contract: its tables and columns are public names, so people's own queries must go on working;
//! its constraints are the last line of what must hold whatever crashes; its indexes serve the queries they name.

mod contract;
mod days;
mod integrity;
mod partitions;
mod plans;
mod queue;
pub mod rows;
mod views;
