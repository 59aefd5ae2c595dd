//! What the operator may do is a list that stands here: whoever widens its rights changes this test. Asked
//! of the API server as the operator itself, so that every binding counts, not only the chart's own.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    authorization::v1::{SelfSubjectRulesReview, SelfSubjectRulesReviewSpec},
    core::v1::Secret,
    rbac::v1::ClusterRole,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};

use super::{
    chart::{self, NAMESPACE},
    cluster,
};

const OPERATOR: &str = "image-factory";

/// API group and resource, verbs.
const RIGHTS: [(&str, &str); 19] = [
    ("imagefactory.dev/builds", "get list watch patch create delete"),
    ("imagefactory.dev/buildschedules", "get list watch patch"),
    ("imagefactory.dev/buildconcurrencypolicies", "get list watch patch"),
    ("imagefactory.dev/buildworkers", "get list watch patch"),
    ("imagefactory.dev/builds/status", "patch"),
    ("imagefactory.dev/buildschedules/status", "patch"),
    ("imagefactory.dev/buildconcurrencypolicies/status", "patch"),
    ("imagefactory.dev/buildworkers/status", "patch"),
    ("imagefactory.dev/webhookconfigs", "get list watch patch"),
    ("imagefactory.dev/webhookconfigs/status", "patch"),
    ("/secrets", "get"),
    ("batch/jobs", "get list watch create patch delete"),
    ("/pods", "get list watch"),
    ("/pods/log", "get"),
    ("/namespaces", "get list watch"),
    ("/nodes", "get list watch"),
    ("events.k8s.io/events", "create patch"),
    ("authentication.k8s.io/tokenreviews", "create"),
    ("authorization.k8s.io/subjectaccessreviews", "create"),
];

/// The same in the operator's own namespace alone: by which lease it leads.
const RIGHTS_AT_HOME: [(&str, &str); 1] = [("coordination.k8s.io/leases", "get create patch")];

/// And only where the operator makes the Pods of builds itself.
const RIGHTS_WHERE_IT_LAUNCHES: [(&str, &str); 2] = [("/pods", "create delete"), ("batch/jobs/status", "patch")];

/// What it may do, one verb each.
fn listed(more: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    let all = RIGHTS.iter().chain(more);
    all.flat_map(|(what, verbs)| verbs.split(' ').map(|verb| ((*what).to_owned(), verb.to_owned()))).collect()
}

/// A client that is this service account to the API server.
async fn acting_as(account: &str) -> Client {
    let mut config = cluster::config().await;
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{NAMESPACE}:{account}"));
    let groups = ["system:serviceaccounts", "system:serviceaccounts:image-factory", "system:authenticated"];
    config.auth_info.impersonate_groups = Some(groups.map(str::to_owned).to_vec());
    Client::try_from(config).expect("a client can be made")
}

async fn rights(client: &Client, namespace: &str) -> BTreeSet<(String, String)> {
    let reviews: Api<SelfSubjectRulesReview> = Api::all(client.clone());
    let spec = SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) };
    let review = SelfSubjectRulesReview { spec, ..SelfSubjectRulesReview::default() };
    let review = reviews.create(&PostParams::default(), &review).await.expect("the API server answers");
    let status = review.status.expect("a review has an answer");
    assert!(!status.incomplete, "the answer is whole");
    let mut found = BTreeSet::new();
    for rule in status.resource_rules {
        let groups = rule.api_groups.unwrap_or_default();
        let resources = rule.resources.unwrap_or_default();
        for (group, resource) in groups.iter().flat_map(|group| resources.iter().map(move |name| (group, name))) {
            found.extend(rule.verbs.iter().map(|verb| (format!("{group}/{resource}"), verb.clone())));
        }
    }
    for rule in status.non_resource_rules {
        for path in rule.non_resource_urls.unwrap_or_default() {
            found.extend(rule.verbs.iter().map(|verb| (path.clone(), verb.clone())));
        }
    }
    found
}

#[tokio::test]
async fn the_operator_has_exactly_these_rights_everywhere() {
    let operator = acting_as(OPERATOR).await;
    // An account nobody bound anything to has what every authenticated one has.
    let anyone = acting_as("nobody-in-particular").await;
    for (namespace, more) in [("default", &[][..]), ("kube-system", &[]), (NAMESPACE, &RIGHTS_AT_HOME)] {
        let expected = listed(more);
        let everyones = rights(&anyone, namespace).await;
        let found: BTreeSet<_> = rights(&operator, namespace).await.difference(&everyones).cloned().collect();
        let too_many: Vec<_> = found.difference(&expected).collect();
        let missing: Vec<_> = expected.difference(&found).collect();
        assert!(too_many.is_empty() && missing.is_empty(), "{namespace}: too many {too_many:?}, missing {missing:?}");
    }
}

/// The launch mode is one value of the chart, which rights and operator both follow.
#[tokio::test]
async fn the_operators_rights_follow_its_launch_mode() {
    for (mode, more) in [("kubernetes", &[][..]), ("operator", &RIGHTS_WHERE_IT_LAUNCHES)] {
        let objects = chart::rendered("orchard", "templates/rights.yaml", mode).await;
        let roles: Vec<ClusterRole> = objects
            .into_iter()
            .filter(|object| object["kind"] == "ClusterRole")
            .map(|object| serde_json::from_value(object).expect("a ClusterRole"))
            .collect();
        let mut found = BTreeSet::new();
        for rule in roles.into_iter().flat_map(|role| role.rules.unwrap_or_default()) {
            assert_eq!((&rule.resource_names, &rule.non_resource_urls), (&None, &None), "{rule:?}");
            let resources = rule.resources.unwrap_or_default();
            for (group, resource) in
                rule.api_groups.iter().flatten().flat_map(|group| resources.iter().map(move |name| (group, name)))
            {
                found.extend(rule.verbs.iter().map(|verb| (format!("{group}/{resource}"), verb.clone())));
            }
        }
        assert_eq!(found, listed(more), "{mode}");

        let deployment = chart::rendered("orchard", "templates/deployment.yaml", mode).await.remove(0);
        let variables = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array().cloned();
        let told = variables.unwrap_or_default().into_iter().find(|entry| entry["name"] == "IMAGE_FACTORY_LAUNCH_MODE");
        assert_eq!(told.map(|entry| entry["value"].clone()), Some(mode.into()));
    }
}

/// Which of them it reads, tests/it/webhooks asks: those that a WebhookConfig names.
#[tokio::test]
async fn the_operator_can_list_no_secrets_and_change_none() {
    let secrets: Api<Secret> = Api::all(acting_as(OPERATOR).await);
    let refused = |error: kube::Error| match error {
        kube::Error::Api(status) => status.code,
        other => unreachable!("no answer: {other}"),
    };
    assert_eq!(secrets.list(&ListParams::default()).await.map_err(refused).err(), Some(403));
    let own: Api<Secret> = Api::namespaced(acting_as(OPERATOR).await, NAMESPACE);
    let deleted = own.delete("image-factory-database", &DeleteParams::default().dry_run()).await;
    assert_eq!(deleted.map_err(refused).err(), Some(403));
}
