//! `image-factory webhooks redeliver`: a delivery that is stored is decided again, by what its webhook says now, and
//! makes a Build of its own, though the same made one before.

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use crate::{config, db};

#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Have a delivery that was received make a Build again
    Redeliver(Redeliver),
}

#[derive(Args)]
struct Redeliver {
    #[command(flatten)]
    database: config::Database,
    /// The WebhookConfig, as namespace/name
    webhook: String,
    /// The delivery's id, as the Git host and status.lastDelivery.id have it
    delivery: String,
}

/// # Errors
/// When there is no such delivery, or the database does not answer.
pub async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Command::Redeliver(Redeliver { database, webhook, delivery }) = &arguments.command;
    let Some((namespace, name)) = webhook.split_once('/') else {
        bail!("{webhook:?} is no namespace/name of a WebhookConfig");
    };
    let pool = db::pool(database).context("failed to read DATABASE_URL")?;
    if !db::deliveries::redeliver(&pool, namespace, name, delivery).await? {
        bail!("there is no delivery {delivery:?} of an active WebhookConfig {webhook}");
    }
    println!("delivery {delivery} of {webhook} will be looked at again");
    Ok(())
}
