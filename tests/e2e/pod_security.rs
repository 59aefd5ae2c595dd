//! Which Pod Security level takes which method's Pod, by the API server's own admission, asked by dry run with all that a
//! spec can ask for; and that we refuse what it would not take, so that no build waits for a Pod that never comes.

use std::collections::BTreeMap;

use image_factory::{
    config::Images,
    jobs::{self, Launch, Settings, Worker, job},
};
use image_factory_core::{method::Method, pod_security};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    rows,
    tenant::{Tenant, status, tenant},
};

/// With every field that gives the Pod something.
fn spec(method: Method) -> Value {
    let mut spec = json!({
        "method": method.as_str(),
        "source": {"git": {"url": "https://git.test/a.git", "credentialsSecret": {"name": "git"}}},
        "environment": {"A": "b"},
        "output": {"image": "registry.test/a/b:1", "labels": {"a": "b"}, "credentialsSecret": {"name": "push"}},
        "resources": {"limits": {"memory": "1Gi"}},
    });
    if method != Method::Paketo {
        spec["secrets"] = json!([{"id": "npmrc", "secretRef": {"name": "npm", "key": "npmrc"}}]);
    }
    match method {
        Method::Kaniko | Method::Container => spec["cache"] = json!({"repo": "registry.test/a/cache"}),
        Method::Buildx => spec["ssh"] = json!({"secretRef": {"name": "deploy", "key": "ssh-privatekey"}}),
        Method::Paketo => {
            spec["builder"] = json!("registry.test/builder:1");
            spec["buildpacks"] = json!(["registry.test/one:1", "registry.test/two:2"]);
        }
        Method::Packer => spec["packer"] = json!({"template": "build {}", "variables": {"a": "b"}}),
    }
    spec
}

fn pod(tenant: &Tenant, method: Method) -> Pod {
    let launch = Launch {
        id: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001),
        namespace: tenant.namespace.clone(),
        build: "juice".to_owned(),
        build_uid: "0".to_owned(),
        project: "default".to_owned(),
        worker: Worker::default(),
        spec: serde_json::from_value(spec(method)).expect("a spec"),
    };
    let image = |name: &str| format!("registry.test/{name}:1");
    let images = Images {
        operator: image("operator"),
        kaniko: image("kaniko"),
        buildx: image("buildx"),
        buildkit: image("buildkit"),
        sbom_generator: image("sbom-generator"),
        paketo: image("own"),
        paketo_allowed: Vec::new(),
        container: image("buildah"),
        packer: image("packer"),
    };
    let settings = Settings {
        images,
        sources: jobs::source::Settings { mebibytes: 1, ..jobs::source::Settings::default() },
        ..Settings::default()
    };
    let template = job(&launch, &settings).expect("the method is available").spec.expect("a spec").template;
    let mut pod = Pod { spec: template.spec, ..Pod::default() };
    pod.metadata.name = Some(format!("admitted-{method}"));
    pod
}

/// The methods that a namespace of this level admits, each with what we say of it.
async fn asked(level: &str) -> BTreeMap<&'static str, (bool, Option<String>)> {
    let mut found = BTreeMap::new();
    tenant(&format!("admits-{level}"), level, async |tenant| {
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        for method in Method::ALL {
            let admitted = match tenant.pods().create(&dry, &pod(tenant, method)).await {
                Ok(_) => true,
                Err(error) => {
                    assert!(error.to_string().contains("violates PodSecurity"), "{method}: {error}");
                    false
                }
            };
            let refused = pod_security::refusal(method, &tenant.namespace, Some(level));
            found.insert(method.as_str(), (admitted, refused));
        }
    })
    .await;
    found
}

#[tokio::test]
async fn each_level_admits_the_methods_that_we_say_and_we_refuse_the_others_with_the_remedy() {
    for (level, admitted) in [
        ("restricted", &["packer", "paketo"][..]),
        ("baseline", &["container", "kaniko", "packer", "paketo"]),
        ("privileged", &["buildx", "container", "kaniko", "packer", "paketo"]),
    ] {
        let asked = asked(level).await;
        let by_the_api: Vec<_> = asked.iter().filter(|(_, (is, _))| *is).map(|(method, _)| *method).collect();
        let by_us: Vec<_> = asked.iter().filter(|(_, (_, no))| no.is_none()).map(|(method, _)| *method).collect();
        assert_eq!((by_the_api.as_slice(), by_us.as_slice()), (admitted, admitted), "{level}");
        for (method, (_, refused)) in asked {
            let told = refused.as_ref().is_none_or(|sentence| sentence.contains(pod_security::ENFORCE_LABEL));
            assert!(told, "{method}: {refused:?}");
        }
    }
}

#[tokio::test]
async fn buildx_is_refused_below_privileged_with_a_reason_and_never_has_a_job() {
    for level in ["restricted", "baseline"] {
        tenant(&format!("no-buildx-{level}"), level, async |tenant| {
            tenant.apply(&tenant.manifest("cider", "buildx", "FROM BASE\n")).await;
            let build = tenant.finished("cider", 1).await;
            let failure = status(&build)["failure"].clone();
            assert_eq!((&failure["reason"], &failure["stage"]), (&json!("PodSecurity"), &json!("compile")));
            let remedy = format!("{}=privileged", pod_security::ENFORCE_LABEL);
            assert!(failure["message"].as_str().unwrap_or_default().contains(&remedy), "{failure:#}");
            let id = rows::id(&tenant.attempts(&build).await.pop().expect("a row"));
            assert_eq!(tenant.jobs_of(id).await.len(), 0);
        })
        .await;
    }
}
