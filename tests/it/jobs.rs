//! The Job of each method, whole: what changes here changes in every cluster. And that nothing a user
//! writes is expanded by Kubernetes.

use std::collections::{BTreeMap, BTreeSet};

use image_factory::{
    config::{Images, LaunchMode},
    jobs::{self, Launch, Settings, job},
    source,
};
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{Container, PodSpec},
    },
    apimachinery::pkg::api::resource::Quantity,
};
use serde_json::{Value, json};
use uuid::Uuid;

const METHODS: [&str; 3] = ["kaniko", "buildx", "container"];

fn settings() -> Settings {
    Settings {
        launch_mode: LaunchMode::Kubernetes,
        images: Images {
            operator: "registry.test/factory:1".to_owned(),
            buildx: "registry.test/buildx:1".to_owned(),
            buildkit: "registry.test/buildkit:1".to_owned(),
            sbom_generator: String::new(),
            container: "registry.test/buildah:1".to_owned(),
            kaniko: "registry.test/kaniko:1".to_owned(),
            paketo: "registry.test/builder:1".to_owned(),
            paketo_allowed: Vec::new(),
            packer: "registry.test/packer:1".to_owned(),
        },
        insecure_registries: vec!["mirror.test:5000".to_owned()],
        mirrors: vec!["docker.io=mirror.test:5000/hub".parse().expect("a mirror")],
        packer_plugins: vec!["github.com/hashicorp".to_owned()],
        sources: jobs::source::Settings::default(),
        requests: BTreeMap::from([("cpu".to_owned(), Quantity("100m".to_owned()))]),
        limits: BTreeMap::from([("ephemeral-storage".to_owned(), Quantity("20Gi".to_owned()))]),
    }
}

fn launch(spec: Value) -> Launch {
    Launch {
        id: Uuid::from_u128(0x0190_a5b2_7c3d_7e4f_8a1b_0000_1f3a_9c2e),
        namespace: "green".to_owned(),
        build: "wall.front".to_owned(),
        build_uid: "4b1c2d3e-0000-4000-8000-000000000001".to_owned(),
        project: "paint".to_owned(),
        worker: jobs::Worker { name: "cluster".to_owned(), ..jobs::Worker::default() },
        spec: serde_json::from_value(spec).expect("a spec"),
    }
}

fn rich(method: &str) -> Value {
    json!({
        "project": "paint",
        "method": method,
        "source": {"inline": {"files": {"house/docker/Wall": "FROM scratch", "house/colour.txt": "blue"}}},
        "context": "house",
        "dockerfile": "docker/Wall",
        "target": "dry",
        "buildArgs": {"COATS": "2", "THINNER": "$(HOME) $$ ${x}"},
        "output": {
            "image": "registry.test:5000/green/wall:1.2", "tags": ["latest", "1.2"], "insecure": true,
            "labels": {"org.example.painter": "brush & sons"},
        },
        "timeout": "90s",
        "resources": {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"memory": "2Gi", "ephemeral-storage": "8Gi"}},
    })
}

fn job_of(spec: Value) -> Job {
    job(&launch(spec), &settings()).expect("the method is available")
}

fn pod(job: &Job) -> &PodSpec {
    job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()).expect("a Job has a Pod")
}

fn containers(job: &Job) -> Vec<&Container> {
    let pod = pod(job);
    pod.init_containers.iter().flatten().chain(&pod.containers).collect()
}

/// With a word in place of the packed source, whose bytes are the compressor's business.
fn shown(mut job: Job) -> Job {
    let pod = job.spec.as_mut().and_then(|spec| spec.template.spec.as_mut()).expect("a Job has a Pod");
    for container in pod.init_containers.iter_mut().flatten() {
        for variable in container.env.iter_mut().flatten() {
            if variable.value.as_ref().is_some_and(|value| value.len() > 60) {
                variable.value = Some("the packed source".to_owned());
            }
        }
    }
    job
}

#[test]
fn the_job_of_buildx() {
    let mut spec = rich("buildx");
    spec["cache"] = json!({
        "from": ["type=registry,ref=registry.test:5000/green/cache"],
        "to": ["type=registry,ref=registry.test:5000/green/cache,mode=max"],
    });
    insta::assert_yaml_snapshot!(shown(job_of(spec)));
}

#[test]
fn the_job_of_packer() {
    let mut spec = rich("packer");
    for field in ["dockerfile", "target", "buildArgs"] {
        spec.as_object_mut().expect("an object").remove(field);
    }
    spec["packer"] = json!({"template": "build {\n  # $(HOME)\n}\n", "variables": {"coats": "$(HOME) $$ ${x}"}});
    insta::assert_yaml_snapshot!(shown(job_of(spec)));
}

#[test]
fn the_job_of_container() {
    let mut spec = rich("container");
    spec["cache"] = json!({"repo": "registry.test:5000/green/cache"});
    insta::assert_yaml_snapshot!(shown(job_of(spec)));
}

#[test]
fn the_job_of_kaniko() {
    let mut spec = rich("kaniko");
    spec["cache"] = json!({"repo": "registry.test:5000/green/cache"});
    insta::assert_yaml_snapshot!(shown(job_of(spec)));
}

#[test]
fn the_job_of_paketo() {
    let mut spec = rich("paketo");
    for field in ["dockerfile", "target", "buildArgs"] {
        spec.as_object_mut().expect("an object").remove(field);
    }
    spec["builder"] = json!("registry.test/cnb/builder:1");
    spec["buildpacks"] = json!(["registry.test/cnb/paint:1"]);
    spec["environment"] = json!({"BP_COATS": "$(HOME) $$ ${x}"});
    spec["cache"] = json!({"repo": "registry.test:5000/green/cache"});
    spec["output"]["credentialsSecret"] = json!({"name": "push"});
    insta::assert_yaml_snapshot!(shown(job_of(spec)));
}

#[test]
fn the_launch_mode_decides_who_manages_the_job_and_nothing_else() {
    let launch = launch(rich("container"));
    let of_kubernetes = job(&launch, &settings()).expect("the method is available");
    let by_us = Settings { launch_mode: LaunchMode::Operator, ..settings() };
    let mut ours = job(&launch, &by_us).expect("the method is available");
    let spec = ours.spec.as_mut().expect("a Job has a spec");
    assert_eq!(spec.managed_by.take().as_deref(), Some("imagefactory.dev/operator"));
    assert_eq!(ours, of_kubernetes);
}

#[test]
fn the_same_attempt_has_the_same_job_and_carries_its_whole_source() {
    for method in METHODS {
        let job = job_of(rich(method));
        assert_eq!(job, job_of(rich(method)), "{method}");
        let prepare = containers(&job)[0];
        let env: Vec<_> = prepare.env.iter().flatten().filter_map(|variable| variable.value.clone()).collect();
        let (count, chunks) = env.split_first().expect("the count and the chunks");
        assert_eq!(count, &chunks.len().to_string());
        let files = source::decode_inline(chunks).expect("they unpack");
        assert_eq!(files.get("house/colour.txt").map(String::as_str), Some("blue"));
    }
}

/// What Kubernetes makes of a text: `$(NAME)` becomes a variable's value, where there is one, and `$$` is
/// `$`: <https://github.com/kubernetes/kubernetes/blob/master/third_party/forked/golang/expansion/expand.go>.
fn expanded(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = match after.chars().next() {
            Some('$') => {
                out.push('$');
                &after[1..]
            }
            Some('(') if after.contains(')') => {
                out.push_str("EXPANDED");
                after.split_once(')').map_or("", |(_, rest)| rest)
            }
            _ => {
                out.push('$');
                after
            }
        };
    }
    out + rest
}

#[test]
fn kubernetes_expands_nothing_that_a_user_wrote() {
    let value = "$(HOME) $$(HOME) $HOME ${HOME} $$ $";
    for method in METHODS {
        let mut spec = rich(method);
        spec["buildArgs"] = json!({"THINNER": value});
        spec["output"]["labels"] = json!({"org.example.painter": value});
        spec["context"] = json!("house/$(HOME)");
        spec["dockerfile"] = json!("$(HOME)/Wall");
        let job = job_of(spec);
        let mut after = BTreeSet::new();
        for container in containers(&job) {
            let texts = container.command.iter().chain(&container.args).flatten();
            let values = container.env.iter().flatten().filter_map(|variable| variable.value.as_ref());
            after.extend(texts.chain(values).map(|text| expanded(text)));
        }
        assert!(after.iter().all(|text| !text.contains("EXPANDED")), "{method}: {after:#?}");
        for written in [
            format!("--build-arg=THINNER={value}"),
            format!("--label=org.example.painter={value}"),
            "--context=house/$(HOME)".to_owned(),
            "--dockerfile=$(HOME)/Wall".to_owned(),
        ] {
            assert!(after.contains(&written), "{method} has no {written} in {after:#?}");
        }
        let build = containers(&job).into_iter().find(|container| container.name == "build").expect("it builds");
        let path = |text: &String| expanded(text).ends_with("$(HOME)/Wall");
        assert!(build.command.iter().flatten().any(path), "{method} is told the Dockerfile's path as it is");
    }
}

#[test]
fn no_pod_reaches_into_its_node_or_the_cluster() {
    for method in METHODS {
        let job = job_of(rich(method));
        let pod = pod(&job);
        assert_eq!((pod.automount_service_account_token, pod.enable_service_links), (Some(false), Some(false)));
        assert_eq!((pod.host_network, pod.host_pid, pod.host_ipc), (None, None, None));
        assert!(pod.volumes.iter().flatten().all(|volume| volume.empty_dir.is_some()), "{method}: only empty volumes");
        for container in containers(&job) {
            let security = container.security_context.as_ref().expect("every container has a security context");
            let privileged = security.privileged == Some(true);
            assert_eq!(privileged, container.name == "buildkitd", "{method}: {}", container.name);
        }
    }
}
