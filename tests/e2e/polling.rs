//! A commit that nobody delivers is found and built, also from a repository that is locked.

use image_factory::crd::WebhookConfig;
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    cluster,
    git::repository::Repository,
    rows,
    tenant::{APPLIER, Tenant, phase, status, tenant},
    watching,
};

async fn webhook(tenant: &Tenant, spec: &Value) -> Api<WebhookConfig> {
    let webhooks: Api<WebhookConfig> = Api::namespaced(tenant.client.clone(), &tenant.namespace);
    let manifest = json!({
        "apiVersion": "imagefactory.dev/v1alpha1", "kind": "WebhookConfig",
        "metadata": {"name": "web", "namespace": tenant.namespace}, "spec": spec,
    });
    let params = PatchParams::apply(APPLIER).force();
    webhooks.patch("web", &params, &Patch::Apply(&manifest)).await.expect("the API server accepts it");
    webhooks
}

/// Waits for the end of a look that is told so; gives the error.
async fn looked(webhooks: &Api<WebhookConfig>, what: &str, is_told: impl Fn(Option<&str>) -> bool) {
    let told = |webhook: &WebhookConfig| {
        let last = webhook.status.as_ref().and_then(|status| status.last_poll.as_ref());
        last.is_some_and(|last| is_told(last.error.as_deref()))
    };
    watching::until(webhooks, "web", what, |webhook| webhook.is_some_and(&told)).await;
}

/// As if the last look had begun a minute earlier.
async fn due(tenant: &Tenant) {
    let past = "update webhook_polls p set started_at = p.started_at - interval '1 minute', seen_at = p.seen_at - interval '1 minute'
                from tenants t where t.id = p.tenant_id and t.name = $1 and p.poll_id is null";
    sqlx::query(past).bind(&tenant.namespace).execute(&tenant.pool).await.expect("time passes");
}

#[tokio::test]
async fn a_commit_that_was_never_delivered_is_built_once_from_a_private_repository() {
    tenant("polling", "restricted", async |tenant| {
        let repository = Repository::new("private", &tenant.namespace);
        let first = repository.commit("Plant", &[("Dockerfile", "FROM scratch\n"), ("year", "one\n")]);
        repository.push(&["main"]);
        let basic = "kubernetes.io/basic-auth";
        let (user, password) = (cluster::variable("GIT_USER"), cluster::variable("GIT_PASSWORD"));
        let mut template = tenant.manifest("web", "container", "")["spec"].clone();
        template["source"] = json!({"git": {"url": repository.url, "credentialsSecret": {"name": "git"}}});
        let spec = json!({
            "provider": "gitea", "secretRef": {"name": "hook", "key": "secret"}, "repository": "orchard/web",
            "branches": ["main"], "poll": {"interval": "1m"}, "template": {"spec": template},
        });
        let webhooks = webhook(tenant, &spec).await;
        looked(&webhooks, "a Secret that is missed", |error| {
            error.is_some_and(|error| error.contains("Secret \"git\"") && error.contains("does not exist"))
        })
        .await;

        tenant.secret("git", basic, json!({"username": user, "password": password})).await;
        due(tenant).await;
        looked(&webhooks, "a look", |error| error.is_none()).await;
        let of = ListParams::default().labels("imagefactory.dev/webhook=web");
        assert!(tenant.builds().list(&of).await.expect("a list").items.is_empty(), "the first look builds nothing");
        let heads: Value = sqlx::query_scalar(
            "select p.heads from webhook_polls p join tenants t on t.id = p.tenant_id where t.name = $1",
        )
        .bind(&tenant.namespace)
        .fetch_one(&tenant.pool)
        .await
        .expect("a row");
        assert_eq!(heads, json!({"main": first}));

        let second = repository.commit("Ripen", &[("year", "two\n")]);
        repository.git(&["checkout", "-q", "-b", "side"]);
        repository.commit("Graft", &[("year", "three\n")]);
        repository.push(&["main", "side"]);
        due(tenant).await;
        let build = watching::eventually("a Build", async || {
            tenant.builds().list(&of).await.expect("a list").items.into_iter().next()
        })
        .await;
        let build = tenant.finished(&build.name_any(), 1).await;
        // A restricted namespace runs the look, and no build of this method.
        assert_eq!(phase(&build), "Failed", "{:#}", status(&build));
        assert_eq!(status(&build)["failure"]["reason"], "PodSecurity");
        let attempt = tenant.attempts(&build).await.pop().expect("a row");
        assert_eq!((&attempt["git_commit"], &attempt["git_branch"]), (&json!(second), &json!("main")));
        let trigger = rows::build_triggers(&tenant.pool, rows::id(&attempt)).await;
        let said = (&trigger["trigger_type"], &trigger["trigger_source"]);
        assert_eq!(said, (&json!("git_event"), &json!(format!("main {second}"))));
        // Jobs of looks go when they have been read.
        watching::eventually("no Job", async || {
            tenant.jobs().list(&of).await.expect("a list").items.is_empty().then_some(())
        })
        .await;
        assert_eq!(tenant.builds().list(&of).await.expect("a list").items.len(), 1);
    })
    .await;
}
