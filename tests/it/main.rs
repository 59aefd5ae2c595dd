//! Tests on real Git and a real Postgres, one binary. `DATABASE_URL` names a server where databases may be made: each test has
//! its own, migrated from nothing.

mod git;
mod schema;
mod verify;
