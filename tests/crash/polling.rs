//! Every hop of a look at branch heads, twice: an error, then a crash. A commit that nobody delivers is built once all the
//! same, and what the first look has found is not.

use std::collections::BTreeSet;

use image_factory::crd::{Build, WebhookConfig};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;

use super::{
    cluster, history,
    operator::{Operator, Settings},
    repository::Repository,
    stage::stage,
    tenant::{APPLIER, Tenant, phase, status, tenant},
    watching,
};

fn webhooks(tenant: &Tenant) -> Api<WebhookConfig> {
    Api::namespaced(tenant.client.clone(), &tenant.namespace)
}

async fn apply(tenant: &Tenant, repository: &Repository) {
    let mut template = tenant.manifest("web", "container", "")["spec"].clone();
    template["source"] = json!({"git": {"url": repository.url}});
    let manifest = json!({
        "apiVersion": "imagefactory.dev/v1alpha1", "kind": "WebhookConfig",
        "metadata": {"name": "web", "namespace": tenant.namespace},
        "spec": {"provider": "gitea", "secretRef": {"name": "hook", "key": "secret"}, "repository": "orchard/web",
            "poll": {"interval": "1m"}, "template": {"spec": template}},
    });
    webhooks(tenant)
        .patch("web", &PatchParams::apply(APPLIER).force(), &Patch::Apply(&manifest))
        .await
        .expect("the API server accepts it");
}

/// The commit of the branch as the last look has found it; as if that had begun long ago.
async fn looked(tenant: &Tenant) -> Option<String> {
    let past = "update webhook_polls p
                set started_at = case when p.poll_id is null then now() - interval '2 minutes' else p.started_at end
                from tenants t where t.id = p.tenant_id and t.name = $1
                returning p.heads ->> 'main'";
    sqlx::query_scalar(past).bind(&tenant.namespace).fetch_optional(&tenant.pool).await.expect("time passes").flatten()
}

fn revision(build: &Build) -> String {
    build.spec.source.git.as_ref().and_then(|git| git.revision.clone()).expect("it is pinned")
}

async fn error_then_crash(place: &str) {
    let stage = stage().await;
    tenant(&format!("crash-{}", place.replace('.', "-")), "baseline", async |tenant| {
        let repository = Repository::new("git", &tenant.namespace);
        let dockerfile = format!("FROM {}/busybox:1\nCOPY . /source\n", cluster::registry());
        let planted = repository.commit("Plant", &[("Dockerfile", &dockerfile)]);
        repository.push(&["main"]);
        let failpoints = format!("{place}=1*off->1*return(error)->1*return(crash)");
        let operator = Operator::start(&stage, &Settings::failing(&failpoints));
        apply(tenant, &repository).await;
        watching::eventually("a first look", async || looked(tenant).await.filter(|found| *found == planted)).await;

        let ripened = repository.commit("Ripen", &[("year", "one\n")]);
        repository.push(&["main"]);
        watching::eventually("an error", async || {
            looked(tenant).await;
            operator.said(&format!("failing at {place}")).then_some(())
        })
        .await;
        let picked = repository.commit("Pick", &[("year", "two\n")]);
        repository.push(&["main"]);
        watching::eventually("a crash", async || {
            looked(tenant).await;
            operator.said(&format!("crashing at {place}")).then_some(())
        })
        .await;
        operator.crashed(place).await;

        let operator = Operator::start(&stage, &Settings::default());
        let of = ListParams::default().labels("imagefactory.dev/webhook=web");
        let made = async || tenant.builds().list(&of).await.expect("Builds can be listed").items;
        watching::eventually("a Build of the last commit", async || {
            looked(tenant).await;
            made().await.iter().any(|build| revision(build) == picked).then_some(())
        })
        .await;
        for build in made().await {
            let build = tenant.finished(&build.name_any(), 1).await;
            assert_eq!(phase(&build), "Success", "{:#}", status(&build));
        }
        let revisions: Vec<String> = made().await.iter().map(revision).collect();
        let different: BTreeSet<&String> = revisions.iter().collect();
        assert_eq!(different.len(), revisions.len(), "each commit once: {revisions:?}");
        // Between two looks only the last commit is seen.
        assert!(revisions.iter().all(|revision| [&ripened, &picked].contains(&revision)), "{revisions:?}");
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "select d.event ->> 'commit', count(*) from webhook_deliveries d join tenants t on t.id = d.tenant_id
             where t.name = $1 and d.polled group by 1",
        )
        .bind(&tenant.namespace)
        .fetch_all(&tenant.pool)
        .await
        .expect("rows");
        assert_eq!(rows.len(), revisions.len());
        assert!(rows.iter().all(|(commit, number)| different.contains(commit) && *number == 1), "{rows:?}");
        history::holds().await;
        // The next operator shall look at nothing of this.
        webhooks(tenant).delete("web", &DeleteParams::default()).await.expect("it can be deleted");
        watching::eventually("no more looks", async || looked(tenant).await.is_none().then_some(())).await;
        operator.stop().await;
    })
    .await;
}

failpoints! {
    after_a_look_is_begun: "poll.after-begun";
    after_the_job_of_a_look_is_created: "poll.after-create";
    before_a_look_is_settled: "poll.before-settled";
    after_a_look_is_settled: "poll.after-settled";
}
