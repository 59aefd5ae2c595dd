//! Deletes old rows of deliveries and slots. Builds are kept with everything that is told of them: their triggers name
//! delivery and slot in words.

use std::num::NonZeroU16;

use image_factory_core::labels;

use super::Error;
use crate::{crd::template, db::old_rows, kube_ext, runtime::Context};

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
    let (mut deliveries, mut slots) = (0, 0);
    if let Some(days) = days.deliveries {
        // Listed before anything is deleted: a Build that is made meanwhile is a new row's.
        let origins =
            kube_ext::builds_labelled(&context.client, labels::WEBHOOK, |build| template::origin(&build)).await?;
        while let gone @ 1.. = old_rows::forget_deliveries(&context.pool, days, &origins, i64::from(BATCH)).await? {
            deliveries += gone;
        }
    }
    if let Some(days) = days.slots {
        let origins =
            kube_ext::builds_labelled(&context.client, labels::SCHEDULE, |build| template::origin(&build)).await?;
        while let gone @ 1.. = old_rows::forget_slots(&context.pool, days, &origins, i64::from(BATCH)).await? {
            slots += gone;
        }
    }
    if deliveries + slots > 0 {
        tracing::info!(deliveries, slots, "old rows of webhooks and schedules were deleted");
    }
    Ok(())
}
