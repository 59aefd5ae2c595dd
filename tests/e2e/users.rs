//! Who asked for a build: the user whom the API server has authenticated, where it has policies to write them down,
//! whatever a manifest says; and nobody otherwise.

use image_factory::crd::Build;
use image_factory_core::labels::REQUESTED_BY;
use k8s_openapi::api::{admissionregistration::v1::ValidatingAdmissionPolicy, authentication::v1::SelfSubjectReview};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use super::{
    cluster, rows,
    tenant::{APPLIER, Tenant, tenant},
};

/// Whether the operator was installed with the policy.
pub async fn are_recorded(client: &Client) -> bool {
    let group = ValidatingAdmissionPolicy::group(&());
    let mut found = false;
    for version in ["v1", "v1beta1"] {
        let kind = GroupVersionKind::gvk(&group, version, "MutatingAdmissionPolicyBinding");
        let policies: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&kind));
        let list = policies.list(&ListParams::default()).await;
        found |= list.is_ok_and(|list| list.items.iter().any(|one| one.name_any().ends_with("-requested-by")));
    }
    found
}

/// Who this client is to the API server.
pub async fn username(client: &Client) -> String {
    let reviews: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await.expect("an answer");
    review.status.and_then(|status| status.user_info?.username).expect("a name")
}

/// What a trigger of the Build that `client` has applied says, and whether it names a user.
pub async fn trigger(tenant: &Tenant, trigger: &Value) -> (String, Option<String>) {
    let user: Option<String> = sqlx::query_scalar("select username from users where id::text = $1")
        .bind(trigger["created_by_user_id"].as_str())
        .fetch_optional(&tenant.pool)
        .await
        .expect("a query");
    (trigger["trigger_source"].as_str().unwrap_or_default().to_owned(), user)
}

#[tokio::test]
async fn whoever_asks_for_a_run_is_written_over_what_a_manifest_says() {
    tenant("users", "baseline", async |tenant| {
        let me = username(&tenant.client).await;
        // Refused at once: that is a row too.
        let mut manifest = tenant.manifest("cider", "buildx", "FROM scratch\n");
        manifest["metadata"]["annotations"] = json!({REQUESTED_BY: "somebody-else"});
        let build = tenant.apply(&manifest).await;
        let build = tenant.finished(&build.name_any(), 1).await;
        let attempt = tenant.attempts(&build).await.pop().expect("a row");
        let said = trigger(tenant, &rows::build_triggers(&tenant.pool, rows::id(&attempt)).await).await;
        if !are_recorded(&tenant.client).await {
            assert_eq!(said, (APPLIER.to_owned(), None), "anybody may write an annotation");
            return;
        }
        assert_eq!(said, (me.clone(), Some(me.clone())));
        assert_eq!(build.annotations()[REQUESTED_BY], me);

        // Another user, who has as many rights.
        let mut config = cluster::config().await;
        config.auth_info.impersonate = Some("pomona".to_owned());
        config.auth_info.impersonate_groups = Some(vec!["system:masters".to_owned()]);
        let builds: Api<Build> = Api::namespaced(Client::try_from(config).expect("a client"), &tenant.namespace);
        let patch = async |annotations: Value| {
            let patch = json!({"metadata": {"annotations": annotations, "labels": {"seen": "yes"}}});
            builds.patch("cider", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("it is taken")
        };
        for forged in [json!({REQUESTED_BY: "somebody-else"}), json!({REQUESTED_BY: null}), json!({"note": "mine"})] {
            assert_eq!(patch(forged).await.annotations()[REQUESTED_BY], me, "that asks for nothing");
        }
        let rerun = patch(json!({"imagefactory.dev/rerun": "1", REQUESTED_BY: "somebody-else"})).await;
        assert_eq!(rerun.annotations()[REQUESTED_BY], "pomona");
        let build = tenant.finished("cider", 2).await;
        let attempt = tenant.attempts(&build).await.pop().expect("a row");
        assert_eq!(attempt["run"], 2);
        let said = trigger(tenant, &rows::build_triggers(&tenant.pool, rows::id(&attempt)).await).await;
        assert_eq!(said, ("pomona".to_owned(), Some("pomona".to_owned())));
        // The status, which the operator writes, changes nothing of it.
        assert_eq!(build.annotations()[REQUESTED_BY], "pomona");
        let applied = tenant.apply(&manifest).await;
        assert_eq!(applied.annotations()[REQUESTED_BY], "pomona", "the same applied again asks for nothing");
    })
    .await;
}
