//! Whether the statuses of Builds that wait still say what holds them back. Nobody tells when a place or a reason
//! changes, and to ask for each Build would cost ever more in a long queue: so one look at the whole queue, every few
//! seconds, is compared with what the statuses in the watch's store say, and wakes the Builds that say something else.
//! That also makes good a message that was lost.

use std::{collections::HashMap, sync::Arc, time::Duration};

use kube::{
    ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};
use tokio::{sync::mpsc, time::Instant};
use uuid::Uuid;

use super::{told::Told, watched::Guarded};
use crate::{
    db::queue::{self, Waiting},
    runtime::Context,
};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);
/// Looks at a long queue are further apart: between two it rests for so many times as long as one takes.
const REST: u32 = 20;
/// Builds that one look wakes. Where everything changes for all of a long queue, its head is told first.
const AT_ONCE: usize = 100;

/// Looks for ever.
pub async fn watch(context: &Context, store: Store<Guarded>, stale: mpsc::UnboundedSender<ObjectRef<Guarded>>) {
    let mut looks = Looks::default();
    let mut rest = EVERY;
    loop {
        tokio::time::sleep(rest).await;
        let began = Instant::now();
        match queue::waiting(&context.pool).await {
            Ok(queue) => {
                for build in looks.stale(&queue, &store.state()) {
                    // Its receiver lives as long as the controller.
                    let _ = stale.send(build);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the queue could not be looked at; it is looked at again");
                context.metrics.failed("build");
            }
        }
        rest = EVERY.max(began.elapsed() * REST);
    }
}

#[derive(Default)]
pub struct Looks {
    /// Of the last look: attempts whose status gave another reason, with their own.
    differed: HashMap<Uuid, Option<String>>,
}

impl Looks {
    /// The Builds to wake, the first of the queue first. Another reason counts when it has lasted from one look to the
    /// next: between the end of a build and the next claim all that wait for its place seem to wait for nothing.
    pub fn stale(&mut self, queue: &[Waiting], builds: &[Arc<Guarded>]) -> Vec<ObjectRef<Guarded>> {
        let waiting: HashMap<&str, &Waiting> = queue.iter().map(|one| (one.resource_uid.as_str(), one)).collect();
        let differed = std::mem::take(&mut self.differed);
        let mut stale: Vec<(i64, &Arc<Guarded>)> = Vec::new();
        for guarded in builds {
            let Ok(build) = &guarded.0 else { continue };
            let told = build.told.as_ref();
            match waiting.get(build.uid().unwrap_or_default().as_str()) {
                None if told.is_some_and(Told::is_queued) => stale.push((0, guarded)),
                None => {}
                Some(Waiting { build, waiting_for, position, .. }) => match told.filter(|told| told.is_about(*build)) {
                    None => stale.push((*position, guarded)),
                    Some(told) if told.waits_for(waiting_for.as_deref()) => {
                        if told.has_moved_to(*position) {
                            stale.push((*position, guarded));
                        }
                    }
                    Some(_) => {
                        if differed.get(build) == Some(waiting_for) {
                            stale.push((*position, guarded));
                        }
                        self.differed.insert(*build, waiting_for.clone());
                    }
                },
            }
        }
        stale.sort_by_key(|(position, _)| *position);
        stale.into_iter().take(AT_ONCE).map(|(_, build)| ObjectRef::from_obj(&**build)).collect()
    }
}
