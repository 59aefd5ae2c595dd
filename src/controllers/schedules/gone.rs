//! Deleted BuildSchedules: their rows act no more. The watch tells of a deletion at once; one that nobody saw is found
//! when the watch has listed all, by comparing rows with it. Each is looked for live before its row is retired.

use std::{collections::HashSet, time::Duration};

use kube::{Api, ResourceExt, runtime::reflector::Store};
use tokio::sync::mpsc;

use super::{Error, Watched};
use crate::{
    crd::BuildSchedule,
    db::schedules::{self, Owner},
    runtime::Context,
};

const RETRY: Duration = Duration::from_secs(5);

pub fn owner(schedule: &Watched) -> Owner {
    Owner {
        namespace: schedule.namespace().unwrap_or_default(),
        name: schedule.name_any(),
        uid: schedule.uid().unwrap_or_default(),
    }
}

/// Retires for ever what is deleted, and after each list what is not in it. What could not be retired is tried again.
pub async fn retire(
    context: &Context,
    store: &Store<Watched>,
    mut lists: mpsc::UnboundedReceiver<()>,
    mut deletions: mpsc::UnboundedReceiver<Owner>,
) {
    let mut left = HashSet::new();
    let mut list_is_new = false;
    loop {
        tokio::select! {
            Some(owner) = deletions.recv() => drop(left.insert(owner)),
            Some(()) = lists.recv() => list_is_new = true,
            () = tokio::time::sleep(RETRY), if list_is_new || !left.is_empty() => {}
            else => return,
        }
        if list_is_new {
            match missing(context, store).await {
                Ok(missing) => {
                    left.extend(missing);
                    list_is_new = false;
                }
                Err(error) => say(context, &error),
            }
        }
        for owner in left.clone() {
            match retire_if_gone(context, &owner).await {
                Ok(()) => drop(left.remove(&owner)),
                Err(error) => say(context, &error),
            }
        }
    }
}

fn say(context: &Context, error: &Error) {
    tracing::warn!(%error, "the rows of deleted schedules could not be retired; it is tried again");
    context.metrics.failed("schedules");
}

async fn missing(context: &Context, store: &Store<Watched>) -> Result<Vec<Owner>, Error> {
    let mut owners = schedules::owners(&context.pool).await?;
    let there: HashSet<Option<String>> = store.state().iter().map(|schedule| schedule.uid()).collect();
    owners.retain(|owner| !there.contains(&Some(owner.uid.clone())));
    Ok(owners)
}

async fn retire_if_gone(context: &Context, owner: &Owner) -> Result<(), Error> {
    let api: Api<BuildSchedule> = Api::namespaced(context.client.clone(), &owner.namespace);
    let found = api.get_metadata_opt(&owner.name).await?;
    if found.and_then(|schedule| schedule.uid()).as_ref() != Some(&owner.uid) {
        schedules::retire(&context.pool, &owner.uid).await?;
    }
    Ok(())
}
