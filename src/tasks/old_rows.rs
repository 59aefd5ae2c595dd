//! Deletes old rows of deliveries and slots. Builds are kept with everything that is told of them: their triggers name
//! delivery and slot in words.

use std::num::NonZeroU16;

use image_factory_core::labels;

use super::Error;
use crate::{
    crd::template,
    db::old_rows::{self, Old},
    kube_ext,
    runtime::Context,
};

const BATCH: u16 = 5_000;

/// For how many days rows are kept; `None` for ever.
#[derive(Clone, Copy, Debug, Default)]
pub struct Days {
    /// What webhooks received and sent.
    pub deliveries: Option<NonZeroU16>,
    /// Slots of schedules.
    pub slots: Option<NonZeroU16>,
}

/// # Errors
/// When the Builds can't be listed, or a statement fails; what was deleted until then is gone.
pub async fn forget(context: Context, days: Days) -> Result<(), Error> {
    let deliveries = forget_of(&context, days.deliveries, Old::Deliveries).await?;
    let slots = forget_of(&context, days.slots, Old::Slots).await?;
    if deliveries + slots > 0 {
        tracing::info!(deliveries, slots, "old rows of webhooks and schedules were deleted");
    }
    Ok(())
}

async fn forget_of(context: &Context, days: Option<NonZeroU16>, old: Old) -> Result<u64, Error> {
    let Some(days) = days else { return Ok(0) };
    let label = match old {
        Old::Deliveries => labels::WEBHOOK,
        Old::Slots => labels::SCHEDULE,
    };
    // Listed before anything is deleted: a Build that is made meanwhile is a new row's.
    let origins = kube_ext::builds_labelled(&context.client, label, |build| template::origin(&build)).await?;
    let mut all = 0;
    loop {
        match old_rows::forget(&context.pool, old, days, &origins, i64::from(BATCH)).await? {
            0 => return Ok(all),
            gone => all += gone,
        }
    }
}
