//! The controller of BuildConcurrencyPolicies: the table holds exactly what the cluster holds. Any
//! change writes the whole set in one statement, so a deletion that nobody saw is made good too. The set
//! is read from the API server, and the older of two never replaces the newer: an operator that is
//! behind takes away no limit.

use std::{future, pin::pin, time::Duration};

use futures::{Stream, StreamExt};
use image_factory_core::method::Method;
use k8s_openapi::{
    api::core::v1::Namespace,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{
    Api, ResourceExt,
    core::PartialObjectMeta,
    runtime::{WatchStreamExt, reflector::Store, watcher},
};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    crd::{
        BuildConcurrencyPolicy,
        build_concurrency_policy::{BuildConcurrencyPolicySpec, BuildConcurrencyPolicyStatus, MethodLimits},
    },
    db::{self, policies::Policy},
    kube_ext,
    runtime::{Context, health::Watch},
};

/// Between two rounds at least: each lists all policies and takes the claim's turn, and our own statuses change the
/// objects too.
const PAUSE: Duration = Duration::from_secs(1);
/// After a round that failed.
const RETRY: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Db(#[from] db::Error),
    #[error("failed to reach the API server: {0}")]
    Kube(#[from] kube::Error),
}

/// Runs until `stop`.
pub async fn run(context: Context, namespaces: Store<PartialObjectMeta<Namespace>>, stop: CancellationToken) {
    let api: Api<BuildConcurrencyPolicy> = Api::all(context.watching(Watch::Policies));
    let changes = watcher(api, watcher::Config::default()).default_backoff().filter_map(|event| {
        future::ready(match event {
            // A list counts when it is whole.
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => None,
            Ok(watcher::Event::InitDone) => {
                context.health.synced(Watch::Policies);
                Some(())
            }
            Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_)) => Some(()),
            Err(error) => {
                tracing::warn!(%error, "the watch of policies broke; it is made again");
                None
            }
        })
    });
    let round = || bring_in_line(&context, &namespaces);
    stop.run_until_cancelled(rounds(pin!(changes), PAUSE, round)).await;
}

/// Makes rounds for as long as there are changes: one for all that have come since the last, and one again after one
/// that failed.
async fn rounds<R: Future<Output = bool>>(
    mut changes: impl Stream<Item = ()> + Unpin,
    pause: Duration,
    mut round: impl FnMut() -> R,
) {
    let mut is_due = false;
    let mut not_before = Instant::now();
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(()) => is_due = true,
                None => return,
            },
            () = sleep_until(not_before), if is_due => {
                is_due = !round().await;
                not_before = Instant::now() + if is_due { RETRY } else { pause };
            }
        }
    }
}

/// Whether they are in line now.
async fn bring_in_line(context: &Context, namespaces: &Store<PartialObjectMeta<Namespace>>) -> bool {
    let result = declare(context, namespaces).await;
    if let Err(error) = &result {
        tracing::warn!(%error, "policies could not be brought in line; it is tried again");
        context.metrics.failed("policies");
    }
    result.is_ok()
}

async fn declare(context: &Context, namespaces: &Store<PartialObjectMeta<Namespace>>) -> Result<(), Error> {
    let (found, version) = kube_ext::list_all::<BuildConcurrencyPolicy>(&context.client).await?;
    let mut policies = Vec::with_capacity(found.len());
    for policy in &found {
        let tenant_name = policy.namespace().unwrap_or_default();
        if let Some(tenant_uid) = kube_ext::uid_of_namespace(&context.client, namespaces, &tenant_name).await? {
            policies.push(row(&policy.spec, tenant_uid, tenant_name));
        }
    }
    if !db::policies::declare(&context.pool, &policies, version).await? {
        tracing::warn!(version, "policies listed at this version are older than those in force; they are left alone");
        return Ok(());
    }
    for policy in &found {
        // One that can't be told holds up no other, and is told with the next change.
        if let Err(error) = report(context, policy).await {
            tracing::warn!(policy.namespace = policy.namespace(), %error, "a policy's status could not be written");
            context.metrics.failed("policies");
        }
    }
    Ok(())
}

fn row(spec: &BuildConcurrencyPolicySpec, tenant_uid: String, tenant_name: String) -> Policy {
    let BuildConcurrencyPolicySpec {
        max_concurrent_builds,
        max_concurrent_per_project,
        methods,
        priority_dispatch,
        max_queued_wait_minutes,
        weight,
    } = spec;
    let MethodLimits { kaniko, buildx, container, packer, paketo } = methods.clone().unwrap_or_default();
    let by_method = [
        (Method::Kaniko, kaniko),
        (Method::Buildx, buildx),
        (Method::Container, container),
        (Method::Packer, packer),
        (Method::Paketo, paketo),
    ];
    Policy {
        tenant_uid,
        tenant_name,
        max_concurrent_builds: *max_concurrent_builds,
        max_concurrent_per_project: *max_concurrent_per_project,
        max_concurrent_by_method: by_method.into_iter().filter_map(|(method, most)| Some((method, most?))).collect(),
        priority_dispatch: *priority_dispatch,
        max_queued_wait_minutes: *max_queued_wait_minutes,
        weight: weight.unwrap_or(1),
    }
}

/// In force as soon as it is a row.
async fn report(context: &Context, policy: &BuildConcurrencyPolicy) -> Result<(), kube::Error> {
    let generation = policy.metadata.generation;
    if policy.status.as_ref().is_some_and(|status| status.observed_generation == generation) {
        return Ok(());
    }
    let since = policy.creation_timestamp().map_or(jiff::Timestamp::UNIX_EPOCH, |time| time.0);
    let status = BuildConcurrencyPolicyStatus {
        observed_generation: generation,
        conditions: vec![Condition {
            type_: "Ready".to_owned(),
            status: "True".to_owned(),
            reason: "InForce".to_owned(),
            message: "the dispatcher holds these limits".to_owned(),
            last_transition_time: Time(since),
            observed_generation: generation,
        }],
    };
    let namespace = policy.namespace().unwrap_or_default();
    kube_ext::apply_status::<BuildConcurrencyPolicy>(&context.client, &namespace, &policy.name_any(), &status).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures::stream;

    use super::*;

    #[tokio::test]
    async fn many_changes_are_one_round_or_two() {
        let (seen, made) = (Cell::new(0), Cell::new(0));
        let (told, mut last) = tokio::sync::mpsc::unbounded_channel();
        let changes = stream::iter([(); 50]).inspect(|()| seen.set(seen.get() + 1)).chain(stream::pending());
        let changes = pin!(changes);
        let round = || {
            made.set(made.get() + 1);
            if seen.get() == 50 {
                told.send(()).unwrap();
            }
            future::ready(true)
        };
        tokio::select! {
            () = rounds(changes, Duration::from_millis(200), round) => unreachable!("changes may come for ever"),
            _ = last.recv() => {}
        }
        assert!(made.get() <= 2, "{} rounds", made.get());
    }
}
