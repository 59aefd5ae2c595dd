//! Tests on a real Postgres, one binary. `DATABASE_URL` names a server where databases may be made: each test has
//! its own, migrated from nothing.

mod reconcile;
mod schema;
