//! Tests on a real Postgres, one binary. `DATABASE_URL` names a server where databases may be made: each test has
//! its own, migrated from nothing.

mod cluster;
mod collector;
mod logs;
mod schema;
