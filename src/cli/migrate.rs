//! `image-factory migrate`: brings the database up to date and ends.

use anyhow::Context;

use crate::{config, db};

/// # Errors
/// When the database can't be reached or a migration fails; what had been applied stays.
pub async fn run(database: &config::Database) -> anyhow::Result<()> {
    let pool = db::pool(database).context("failed to read DATABASE_URL")?;
    db::MIGRATIONS.run(&pool).await.context("failed to migrate the database")?;
    let applied = db::MIGRATIONS.iter().count();
    println!("the database is up to date: {applied} migrations");
    Ok(())
}
