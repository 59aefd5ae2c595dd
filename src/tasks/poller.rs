//! Looks at the branch heads of webhooks with `spec.poll`, for deliveries that never came. The operator holds no
//! credentials of a source, and asks no address that a tenant names: each look is a Job in the tenant's namespace, which
//! says the heads in its log. A look is a row before it is a Job, and what it has found are rows before that goes.

use std::{collections::HashMap, time::Duration};

use futures::{StreamExt, stream};
use image_factory_core::{
    ids, labels,
    report::PrepareReport,
    trigger::heads::{self, Heads},
};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ContainerStatus, Pod},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, PostParams},
};
use tokio::time::timeout;
use uuid::Uuid;

use super::Error;
use crate::{
    db::polls::{self, Polling, UnderWay},
    failpoint,
    jobs::{
        heads::{CONTAINER, DEADLINE_SECONDS, Look, heads_job},
        managed::has_ended,
    },
    kube_ext,
    runtime::Context,
};

/// Looks at once: of all tenants, and of one.
const AT_ONCE: usize = 20;
const AT_ONCE_OF_TENANT: usize = 2;
/// The shortest time between two looks, whatever an object from before the rule says.
const SHORTEST: Duration = Duration::from_mins(1);
/// A Pod's life, and as long again for whoever makes it.
const DEADLINE: Duration = Duration::from_secs(2 * DEADLINE_SECONDS.cast_unsigned());
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Goes on with the looks that are under way, and begins those that are due.
///
/// # Errors
/// When a statement fails.
pub async fn poll(context: Context) -> Result<(), Error> {
    let polling = polls::polling(&context.pool).await?;
    if polling.is_empty() {
        return Ok(());
    }
    let due = due(&polling);
    if !due.is_empty() {
        polls::begin(&context.pool, &due).await?;
    }
    let looks = polls::under_way(&context.pool).await?;
    let looks = looks.into_iter().map(|look| {
        let context = &context;
        async move {
            // One that can't be gone on with holds up no other.
            let Err(error) = go_on(context, &look).await else { return };
            tracing::warn!(webhook.namespace = look.namespace, webhook.name = look.webhook, %error, "branch heads could not be looked at; it is tried again");
            context.metrics.failed("poller");
        }
    });
    stream::iter(looks).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    Ok(())
}

/// Which looks begin now, with the least time since the last; those that have waited longest come first.
fn due(polling: &[Polling]) -> Vec<(Uuid, Duration)> {
    let mut of_tenant: HashMap<Uuid, usize> = HashMap::new();
    for under_way in polling.iter().filter(|one| one.is_under_way) {
        *of_tenant.entry(under_way.tenant).or_default() += 1;
    }
    let mut room = AT_ONCE.saturating_sub(of_tenant.values().sum());
    let mut due = Vec::new();
    for one in polling.iter().filter(|one| !one.is_under_way) {
        let Some(interval) = one.interval.map(|interval| interval.max(SHORTEST)) else { continue };
        let looks = of_tenant.entry(one.tenant).or_default();
        if room > 0 && *looks < AT_ONCE_OF_TENANT && one.since.is_none_or(|since| since >= interval) {
            due.push((one.webhook, interval));
            *looks += 1;
            room -= 1;
        }
    }
    due
}

async fn go_on(context: &Context, under_way: &UnderWay) -> Result<(), Error> {
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &under_way.namespace);
    let name = ids::poll_job_name(&under_way.webhook, under_way.id);
    let is_of = |job: &Job| job.labels().get(labels::POLL).is_some_and(|id| *id == under_way.id.to_string());
    let job = jobs.get_opt(&name).await?.filter(is_of);
    let seen = match &job {
        _ if under_way.since > DEADLINE => Some(Err("the look at the branch heads took too long".to_owned())),
        None => make(context, &jobs, under_way).await?,
        Some(job) => said(context, under_way, job).await?,
    };
    let Some(seen) = seen else { return Ok(()) };
    let found = polls::settle(&context.pool, under_way.id, &seen).await?;
    if let Some(found) = found.filter(|found| *found > 0) {
        tracing::info!(
            webhook.namespace = under_way.namespace,
            webhook.name = under_way.webhook,
            found,
            "branch heads had moved without a delivery"
        );
    }
    if let Some(job) = job {
        kube_ext::delete_exactly(&jobs, &job.metadata, DeleteParams::background()).await?;
    }
    Ok(())
}

type Seen = Result<Heads, String>;

/// Makes the Job; gives why there is none, where there will be none.
async fn make(context: &Context, jobs: &Api<Job>, under_way: &UnderWay) -> Result<Option<Seen>, Error> {
    let Some(git) = under_way.spec.template.as_ref().and_then(|template| template.spec.source.git.clone()) else {
        return Ok(Some(Err("spec.template has no spec.source.git".to_owned())));
    };
    let look = Look {
        id: under_way.id,
        namespace: under_way.namespace.clone(),
        webhook: under_way.webhook.clone(),
        webhook_uid: under_way.webhook_uid.clone(),
        git,
        branches: under_way.spec.branches.clone(),
    };
    let job = match heads_job(&look, &context.jobs) {
        Ok(job) => job,
        Err(refused) => return Ok(Some(Err(refused))),
    };
    match jobs.create(&PostParams::default(), &job).await {
        Ok(_) => {
            failpoint::request("poll.after-create")?;
            Ok(None)
        }
        // A quota, a policy, a namespace that goes.
        Err(kube::Error::Api(refused)) if (400..500).contains(&refused.code) && refused.code != 429 => {
            Ok(Some(Err(format!("the Job that looks at the branch heads was refused: {}", refused.message))))
        }
        Err(error) => Err(error.into()),
    }
}

/// What the Job's Pod has said; `None` while it may yet say something.
async fn said(context: &Context, under_way: &UnderWay, job: &Job) -> Result<Option<Seen>, Error> {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &under_way.namespace);
    let labelled = ListParams::default().labels(&format!("{}={}", labels::POLL, under_way.id));
    let found = pods.list(&labelled).await?.items;
    let is_of = |pod: &&Pod| {
        pod.owner_references()
            .iter()
            .any(|owner| owner.controller == Some(true) && Some(&owner.uid) == job.uid().as_ref())
    };
    match found.iter().find(is_of).and_then(ending) {
        Some(Ok(pod)) => {
            let params = LogParams {
                container: Some(CONTAINER.to_owned()),
                limit_bytes: i64::try_from(heads::MAX_BYTES).ok(),
                ..LogParams::default()
            };
            // A node that can't give it now may do so later, until the look has taken too long.
            match timeout(PATIENCE, pods.logs(&pod, &params)).await {
                Ok(Ok(log)) => Ok(Some(heads::read(&log).map_err(|error| error.to_string()))),
                Ok(Err(error)) => Err(error.into()),
                Err(_) => Ok(None),
            }
        }
        Some(Err(why)) => Ok(Some(Err(why))),
        None if has_ended(job) => Ok(Some(Err("the Pod that looked at the branch heads is gone".to_owned()))),
        None => Ok(None),
    }
}

/// How the Pod ended: its name where it succeeded, or why it did not.
fn ending(pod: &Pod) -> Option<Result<String, String>> {
    let status = pod.status.as_ref()?;
    let statuses = status.container_statuses.iter().flatten();
    let ended = |status: &ContainerStatus| status.state.as_ref().and_then(|state| state.terminated.clone());
    if let Some(end) = statuses.filter(|status| status.name == CONTAINER).find_map(ended) {
        if end.exit_code == 0 {
            return Some(Ok(pod.name_any()));
        }
        let report = PrepareReport::decode(end.message.unwrap_or_default().as_bytes()).ok();
        let told = report.and_then(|report| report.failure).map(|failure| failure.message);
        let reason = end.reason.unwrap_or_default();
        return Some(Err(told.unwrap_or_else(|| {
            format!("the look at the branch heads ended with exit code {} ({reason})", end.exit_code)
        })));
    }
    (status.phase.as_deref() == Some("Failed")).then(|| {
        let reason = status.reason.clone().unwrap_or_else(|| "Failed".to_owned());
        let message = status.message.clone().unwrap_or_default();
        Err(format!("the Pod that looks at the branch heads failed: {reason}: {message}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn polling(number: u128, tenant: u128, since: Option<u64>, is_under_way: bool) -> Polling {
        Polling {
            webhook: Uuid::from_u128(number),
            tenant: Uuid::from_u128(tenant),
            interval: Some(Duration::from_mins(5)),
            since: since.map(Duration::from_secs),
            is_under_way,
        }
    }

    fn begun(polling: &[Polling]) -> Vec<u128> {
        due(polling).iter().map(|(webhook, _)| webhook.as_u128()).collect()
    }

    #[test]
    fn a_look_begins_when_its_time_has_come_and_none_is_under_way() {
        let minutes = |minutes: u64| Some(minutes * 60);
        assert_eq!(
            begun(&[polling(1, 1, None, false), polling(2, 2, minutes(5), false), polling(3, 3, minutes(4), false)]),
            [1, 2]
        );
        assert_eq!(begun(&[polling(1, 1, minutes(60), true)]), []);
        let unreadable = Polling { interval: None, ..polling(1, 1, None, false) };
        let hasty = Polling { interval: Some(Duration::ZERO), ..polling(2, 2, Some(59), false) };
        assert_eq!(begun(&[unreadable, hasty]), []);
    }

    #[test]
    fn no_tenant_keeps_the_others_from_looking() {
        let mut all: Vec<Polling> = (0..30).map(|number| polling(number, 1, None, false)).collect();
        all.push(polling(100, 2, None, false));
        assert_eq!(begun(&all), [0, 1, 100]);
        all[7].is_under_way = true;
        assert_eq!(begun(&all), [0, 100]);
        let many: Vec<Polling> = (0..50).map(|number| polling(number, number, None, number < 15)).collect();
        assert_eq!(begun(&many), [15, 16, 17, 18, 19]);
    }

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-poll-1"}, "status": status})).unwrap()
    }

    fn ended(code: i32, message: &str) -> Value {
        json!({"phase": "Running", "containerStatuses": [{
            "name": "heads", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": code, "reason": "Error", "message": message}},
        }]})
    }

    #[test]
    fn a_pod_says_how_it_ended() {
        let report = PrepareReport::failed(image_factory_core::report::PodFailure::new("SourceAuth", "it is locked"));
        for (status, expected) in [
            (json!({"phase": "Pending"}), None),
            (ended(0, ""), Some(Ok("web-poll-1"))),
            (ended(1, &report.encode()), Some(Err("it is locked"))),
            (ended(137, ""), Some(Err("the look at the branch heads ended with exit code 137 (Error)"))),
            (
                json!({"phase": "Failed", "reason": "DeadlineExceeded", "message": "Pod was active too long"}),
                Some(Err("the Pod that looks at the branch heads failed: DeadlineExceeded: Pod was active too long")),
            ),
        ] {
            let said = ending(&pod(&status));
            let said = said.as_ref().map(|end| end.as_deref().map_err(String::as_str));
            assert_eq!(said, expected, "{status}");
        }
    }
}
