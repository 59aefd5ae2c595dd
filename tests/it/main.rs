//! Tests across modules, one binary. Those of the database run on a real Postgres: `DATABASE_URL` names a
//! server where databases may be made, and each test has its own, migrated from nothing.

mod attempts;

mod architecture;
mod claims;
mod enqueue;
mod jobs;
mod log_lines;
mod schema;
mod transitions;
