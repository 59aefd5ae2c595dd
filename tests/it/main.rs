//! Tests across modules, one binary, on real Git and a real Postgres: `DATABASE_URL` names a server where
//! databases may be made, and each test has its own, migrated from nothing.

mod api;
mod architecture;
mod attempts;
mod claims;
mod cleaner;
mod cluster;
mod collector;
mod enqueue;
mod git;
mod images;
mod jobs;
mod log_lines;
mod notifications;
mod old_rows;
mod origins;
mod policies;
mod reconcile;
mod retention;
mod retries;
mod schedules;
mod schema;
mod steps;
mod sweep;
mod transitions;
mod verify;
mod waiting;
mod webhooks;
mod workers;
