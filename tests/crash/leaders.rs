//! More than one operator: one leads, another takes over, and the first comes back from its pause
//! where it was, believing that it leads.

use std::time::{Duration, Instant};

use image_factory::{clock, crd::BuildConcurrencyPolicy};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::sleep_until;

use super::{
    history::{self, Jobs, Pods},
    hops::{HOPS, LAUNCHING_HOPS},
    operator::{self, Operator, Settings},
    stage::stage,
    tenant::{Tenant, tenant},
    watching,
};

const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

/// How long a cluster may be without a leader after one died.
const TAKEOVER: Duration = Duration::from_secs(20);
/// How long a leader that comes to again was gone at least.
const PAUSE: Duration = Duration::from_mins(1);

/// At most so many builds of the tenant at once.
async fn limit(tenant: &Tenant, builds: i32) {
    let api: Api<BuildConcurrencyPolicy> = Api::namespaced(tenant.client.clone(), &tenant.namespace);
    let policy = json!({
        "apiVersion": "imagefactory.dev/v1alpha1",
        "kind": "BuildConcurrencyPolicy",
        "metadata": {"name": "default"},
        "spec": {"maxConcurrentBuilds": builds},
    });
    let params = PatchParams::apply("crash").force();
    api.patch("default", &params, &Patch::Apply(&policy)).await.expect("the policy is accepted");
    watching::eventually("the policy in force", async || {
        let found = api.get("default").await.expect("it is there");
        found.status.is_some_and(|status| status.observed_generation == found.metadata.generation).then_some(())
    })
    .await;
}

#[tokio::test]
async fn when_the_leader_is_killed_the_other_takes_over_and_every_limit_holds() {
    let stage = stage().await;
    tenant("crash-two", "baseline", async |tenant| {
        let since = clock::now();
        let jobs = Jobs::watch(tenant);
        let first = Operator::start(&stage, &Settings::named("crash-a"));
        first.leads().await;
        let second = Operator::start(&stage, &Settings::named("crash-b"));
        second.is_ready(true).await;
        limit(tenant, 3).await;
        for name in NAMES {
            tenant.apply(&history::ticking(tenant, name)).await;
        }
        tenant.until(NAMES[0], "its start", |build| history::phase_is(build, "InProgress")).await;
        assert!(!second.said("this operator leads"), "one leads");
        let killed = Instant::now();
        first.signal("KILL").await;
        second.leads().await;
        assert!(killed.elapsed() < TAKEOVER, "took over after {:?}", killed.elapsed());
        history::succeeded(tenant, &jobs, &NAMES).await;
        operator::verify(Some(since)).await;
        second.stop().await;
    })
    .await;
}

/// Each of these leaders stops dead at its hop, believing that it leads. Postgres must not wait for
/// them, and when they come to again what they were about to do must do no harm.
#[tokio::test]
async fn leaders_that_come_to_after_another_took_over_do_no_harm() {
    let stage = stage().await;
    tenant("crash-paused", "baseline", async |tenant| {
        let since = clock::now();
        let jobs = Jobs::watch(tenant);
        let mut frozen = Vec::new();
        for (name, place) in [
            ("crash-a", "claim.before-commit"),
            ("crash-b", "launch.before-create"),
            ("crash-c", "log.before-commit"),
            ("crash-d", "finish.before-commit"),
            ("crash-e", "report.before-patch"),
        ] {
            let failpoints = format!("{place}=1*return(freeze)");
            let leader = Operator::start(&stage, &Settings { failpoints, ..Settings::named(name) });
            leader.leads().await;
            if frozen.is_empty() {
                limit(tenant, 3).await;
                for name in NAMES {
                    tenant.apply(&history::ticking(tenant, name)).await;
                }
            }
            leader.says(&format!("freezing at {place}")).await;
            frozen.push((leader, Instant::now()));
        }
        let last = Operator::start(&stage, &Settings::named("crash-f"));
        last.leads().await;
        history::succeeded(tenant, &jobs, &NAMES).await;
        for (leader, since) in &frozen {
            sleep_until((*since + PAUSE).into()).await;
            leader.signal("CONT").await;
        }
        for (leader, _) in frozen {
            leader.gave_up().await;
        }
        history::succeeded(tenant, &jobs, &NAMES).await;
        operator::verify(Some(since)).await;
        last.stop().await;
    })
    .await;
}

/// Two leases, so two leaders, for as long as it takes; and each hop fails now and then.
#[tokio::test]
async fn two_operators_that_lead_at_once_and_fail_all_the_time_do_everything_once() {
    both_lead("crash-both", &HOPS, Settings::default()).await;
}

#[tokio::test]
async fn two_operators_that_make_pods_themselves_and_fail_all_the_time_make_each_once() {
    both_lead("crash-both-launch", &[&HOPS[..], &LAUNCHING_HOPS].concat(), Settings::launching()).await;
}

async fn both_lead(name: &str, hops: &[&str], settings: Settings) {
    let stage = stage().await;
    tenant(name, "baseline", async |tenant| {
        let since = clock::now();
        let (jobs, pods) = (Jobs::watch(tenant), Pods::watch(tenant));
        let failpoints = hops.iter().map(|hop| format!("{hop}=15%return(error)")).collect::<Vec<_>>().join(";");
        let here = Settings { failpoints: failpoints.clone(), name: "crash-a".to_owned(), ..settings.clone() };
        let name = "crash-b".to_owned();
        let there = Settings { failpoints, name, namespace: tenant.namespace.clone(), ..settings };
        let operators = [Operator::start(&stage, &here), Operator::start(&stage, &there)];
        for operator in &operators {
            operator.leads().await;
        }
        limit(tenant, 3).await;
        for name in NAMES {
            tenant.apply(&history::ticking(tenant, name)).await;
        }
        history::succeeded(tenant, &jobs, &NAMES).await;
        for name in NAMES {
            let build = tenant.builds().get(name).await.expect("it is there");
            assert_eq!(pods.of(history::only_attempt(tenant, &build).await), 1, "one Pod, ever");
        }
        operator::verify(Some(since)).await;
        for operator in operators {
            assert!(operator.said("failing at"));
            operator.stop().await;
        }
    })
    .await;
}
