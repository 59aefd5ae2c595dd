//! Jobs as their methods make them: which flag, which mount and which bound each input becomes.

use image_factory_core::{labels::WORKER, method::Method, pod::BUILD_CONTAINER};
use serde_json::{Value, json};

use super::*;

fn quantities<const N: usize>(amounts: [(&str, &str); N]) -> BTreeMap<String, Quantity> {
    amounts.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))).into_iter().collect()
}

fn settings() -> Settings {
    let image = |name: &str| format!("registry.test/{name}:1");
    Settings {
        launch_mode: LaunchMode::Kubernetes,
        images: Images {
            operator: image("operator"),
            kaniko: image("kaniko"),
            buildx: image("buildx"),
            buildkit: image("buildkit"),
            sbom_generator: image("sbom-generator"),
            container: image("buildah"),
            paketo: image("builder"),
            paketo_allowed: Vec::new(),
            packer: image("packer"),
        },
        insecure_registries: Vec::new(),
        mirrors: Vec::new(),
        requests: quantities([("cpu", "100m"), ("memory", "256Mi")]),
        limits: quantities([("memory", "4Gi"), ("ephemeral-storage", "20Gi")]),
        packer_plugins: vec!["github.com/hashicorp".to_owned()],
        sources: source::Settings::default(),
    }
}

fn job_of(method: &str, more: Value) -> Job {
    job_on(Worker { name: "cluster".to_owned(), ..Worker::default() }, method, more)
}

fn job_on(worker: Worker, method: &str, more: Value) -> Job {
    job_with(&settings(), worker, method, more)
}

fn job_with(settings: &Settings, worker: Worker, method: &str, more: Value) -> Job {
    let mut spec = json!({
        "method": method,
        "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}},
        "output": {"image": "registry.test:5000/shop/web:1.2"},
    });
    merge(&mut spec, more);
    let launch = Launch {
        id: Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001),
        namespace: "team-a".to_owned(),
        build: "web".to_owned(),
        build_uid: "uid-of-web".to_owned(),
        project: "storefront".to_owned(),
        worker,
        spec: serde_json::from_value(spec).expect("the spec reads"),
    };
    job(&launch, settings).expect("the method is available")
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

fn pod(job: &Job) -> PodSpec {
    job.spec.as_ref().and_then(|spec| spec.template.spec.clone()).expect("a Job has a Pod")
}

fn containers(job: &Job) -> Vec<Container> {
    let pod = pod(job);
    pod.init_containers.into_iter().flatten().chain(pod.containers).collect()
}

fn container(job: &Job, name: &str) -> Container {
    containers(job).into_iter().find(|container| container.name == name).expect("the container is there")
}

fn command(job: &Job) -> Vec<String> {
    container(job, BUILD_CONTAINER).command.expect("a builder has a command")
}

fn env(container: &Container, name: &str) -> Option<String> {
    container.env.iter().flatten().find(|variable| variable.name == name)?.value.clone()
}

fn secret_inputs() -> Value {
    json!({
        "secrets": [{"id": "npmrc", "secretRef": {"name": "npm", "key": "config"}}],
        "output": {"credentialsSecret": {"name": "push"}},
    })
}

#[test]
fn a_pod_lands_on_the_nodes_of_its_worker_and_says_nothing_where_any_will_do() {
    for method in ["kaniko", "buildx", "container", "paketo"] {
        let anywhere = pod(&job_of(method, json!({})));
        assert_eq!((anywhere.node_selector, anywhere.tolerations), (None, None));
        let toleration = Toleration { key: Some("gpu".to_owned()), ..Toleration::default() };
        let selector = BTreeMap::from([("pool".to_owned(), "builds".to_owned())]);
        let worker =
            Worker { name: "press".to_owned(), node_selector: selector.clone(), tolerations: vec![toleration.clone()] };
        let job = job_on(worker, method, json!({}));
        assert_eq!(job.metadata.labels.as_ref().map(|labels| labels[WORKER].as_str()), Some("press"));
        let pod = pod(&job);
        assert_eq!((pod.node_selector, pod.tolerations), (Some(selector), Some(vec![toleration])));
    }
}

#[test]
fn kaniko_gets_every_input_as_a_flag_of_its_own() {
    let job = job_of(
        "kaniko",
        json!({
            "context": "web",
            "dockerfile": "docker/Dockerfile",
            "target": "release",
            "cache": {"enabled": true, "repo": "registry.test:5000/shop/cache"},
            "buildArgs": {"VERSION": "$(HOME) 1.2"},
            "environment": {"HTTPS_PROXY": "http://proxy.test"},
            "output": {"tags": ["latest", "1.2"], "labels": {"a.b": "c"}, "insecure": true},
        }),
    );
    assert_eq!(
        command(&job).join("\n"),
        "/image-factory/bin/image-factory-agent\nrun\n--timeout-seconds=3600\n--\n\
         /kaniko/executor\n--force\n--log-format=text\n--log-timestamp\n\
         --credential-helpers=\n--snapshot-mode=redo\n--ignore-path=/image-factory\n--context=dir:///image-factory/source/web\n\
         --dockerfile=/image-factory/source/web/docker/Dockerfile\n\
         --destination=registry.test:5000/shop/web:1.2\n--destination=registry.test:5000/shop/web:latest\n\
         --digest-file=/image-factory/out/digest\n--target=release\n--build-arg=VERSION=$$(HOME) 1.2\n--label=a.b=c\n\
         --cache\n--cache-repo=registry.test:5000/shop/cache\n\
         --insecure-registry=registry.test:5000\n--skip-tls-verify-registry=registry.test:5000"
    );
    let build = container(&job, BUILD_CONTAINER);
    assert_eq!(env(&build, "HTTPS_PROXY").as_deref(), Some("http://proxy.test"));
    let security = build.security_context.expect("it is set");
    assert_eq!(security.privileged, None);
    assert_eq!(security.seccomp_profile.map(|profile| profile.type_), Some("RuntimeDefault".to_owned()));
}

#[test]
fn kaniko_has_no_cache_without_a_repository_and_none_where_it_is_switched_off() {
    for cache in [json!(null), json!({"enabled": true}), json!({"enabled": false, "repo": "registry.test/c"})] {
        let command = command(&job_of("kaniko", json!({"cache": cache})));
        assert!(!command.iter().any(|argument| argument.starts_with("--cache")), "{cache}");
    }
}

#[test]
fn each_option_is_a_flag_of_the_builder_that_has_it_under_its_own_name() {
    let cache = json!({"repo": "registry.test:5000/shop/cache"});
    for (method, options, expected) in [
        ("kaniko", json!({}), &["--snapshot-mode=redo"][..]),
        ("kaniko", json!({"squash": true}), &["--single-snapshot"]),
        ("container", json!({"squash": true}), &["--layers=false"]),
        ("kaniko", json!({"format": "oci", "reproducible": true}), &["--image-format=oci", "--reproducible"]),
        ("container", json!({"format": "docker", "reproducible": true}), &["--format=docker", "--timestamp=0"]),
        ("kaniko", json!({"cacheTtl": "36h"}), &["--cache-ttl=36h"]),
        ("container", json!({"cacheTtl": "36h"}), &["--cache-ttl=36h"]),
        (
            "kaniko",
            json!({"cacheCopyLayers": true, "compressedCaching": false}),
            &["--cache-copy-layers", "--compressed-caching=false"],
        ),
        (
            "kaniko",
            json!({"snapshotMode": "full", "useNewRun": true, "ignorePaths": ["/var/$(HOME)", "/b,c"]}),
            &["--snapshot-mode=full", "--use-new-run", "--ignore-path=/var/$$(HOME)", "--ignore-path=/b,c"],
        ),
    ] {
        let with =
            |options: &Value, cache: &Value| command(&job_of(method, json!({"options": options, "cache": cache})));
        let (given, none) = (with(&options, &cache), with(&json!({}), &cache));
        let mut flags: Vec<_> = given.iter().filter(|flag| !none.contains(flag)).collect();
        if options == json!({}) {
            flags = given.iter().filter(|flag| flag.starts_with("--snapshot-mode")).collect();
        }
        assert_eq!(flags.len(), expected.len(), "{method} {options}: {flags:?}");
        assert!(flags.iter().all(|flag| expected.contains(&flag.as_str())), "{method} {options}: {flags:?}");
        // What is about a cache says nothing where there is none.
        let without = with(&options, &json!(null));
        assert!(!without.iter().any(|flag| flag.contains("cache") || flag.contains("caching")), "{without:?}");
    }
}

#[test]
fn mirrors_are_told_to_each_builder_in_its_own_way_and_to_what_looks_at_the_base() {
    let mirror = |text: &str| text.parse().expect("a mirror");
    let settings = Settings {
        insecure_registries: vec!["inner.test:5000".to_owned(), "plain.test".to_owned()],
        mirrors: ["docker.io=inner.test:5000/hub", "quay.io=other.test", "docker.io=other.test/d"].map(mirror).to_vec(),
        ..settings()
    };
    let prepared = |job: &Job| {
        let args = container(job, PREPARE_CONTAINER).args.unwrap_or_default();
        args.into_iter().find_map(|arg| Some(arg.strip_prefix("--file=")?.split_once('=')?.1.to_owned()))
    };
    let kaniko = command(&job_with(&settings, Worker::default(), "kaniko", json!({})));
    let maps: Vec<_> = kaniko.iter().filter_map(|flag| flag.strip_prefix("--registry-map=")).collect();
    let expected = ["index.docker.io=inner.test:5000/hub", "quay.io=other.test", "index.docker.io=other.test/d"];
    assert_eq!(maps, expected);
    let buildx = job_with(&settings, Worker::default(), "buildx", json!({}));
    assert_eq!(
        prepared(&buildx).as_deref(),
        Some(
            "[registry.\"docker.io\"]\n  mirrors = [\"inner.test:5000/hub\", \"other.test/d\"]\n\
             [registry.\"quay.io\"]\n  mirrors = [\"other.test\"]\n\
             [registry.\"inner.test:5000\"]\n  http = true\n  insecure = true\n\
             [registry.\"plain.test\"]\n  http = true\n  insecure = true\n"
        )
    );
    let of_itself = json!({"output": {"image": "quay.io/a/b:1", "insecure": true}});
    let buildah = job_with(&settings, Worker::default(), "container", of_itself);
    assert_eq!(
        prepared(&buildah).as_deref(),
        Some(
            "unqualified-search-registries = [\"docker.io\"]\n\
             [[registry]]\nlocation = \"docker.io\"\n\
             [[registry.mirror]]\nlocation = \"inner.test:5000/hub\"\ninsecure = true\n\
             [[registry.mirror]]\nlocation = \"other.test/d\"\n\
             [[registry]]\nlocation = \"quay.io\"\ninsecure = true\n\
             [[registry.mirror]]\nlocation = \"other.test\"\n\
             [[registry]]\nlocation = \"inner.test:5000\"\ninsecure = true\n\
             [[registry]]\nlocation = \"plain.test\"\ninsecure = true\n"
        )
    );
    for method in ["kaniko", "buildx", "container", "paketo"] {
        let inspect = container(&job_with(&settings, Worker::default(), method, json!({})), INSPECT_CONTAINER);
        let told: Vec<_> =
            inspect.args.into_iter().flatten().filter(|arg| arg.starts_with("--registry-mirror")).collect();
        let expected = if method == "paketo" { 0 } else { 3 };
        assert_eq!(told.len(), expected, "{method}: {told:?}");
    }
}

#[test]
fn buildx_alone_has_platforms_attestations_and_a_key() {
    let job = job_of(
        "buildx",
        json!({
            "platforms": ["linux/amd64", "linux/arm64"],
            "sbom": true,
            "provenance": true,
            "ssh": {"secretRef": {"name": "deploy", "key": "ssh-privatekey"}},
        }),
    );
    let argv = command(&job);
    for argument in [
        "--platform=linux/amd64,linux/arm64",
        "--provenance=mode=min",
        "--sbom=generator=registry.test/sbom-generator:1",
        "--ssh=default=/image-factory-ssh/key",
        "--mask-file=/image-factory-ssh/key",
        "--needs-secret=/image-factory-ssh/key=spec.ssh: Secret deploy with key ssh-privatekey was not found in \
         namespace team-a",
    ] {
        assert!(argv.contains(&argument.to_owned()), "{argument} in {argv:#?}");
    }
    let asked = container(&job, INSPECT_CONTAINER).args.unwrap_or_default();
    assert!(
        asked.contains(&"--platform=linux/amd64".to_owned()) && asked.contains(&"--platform=linux/arm64".to_owned())
    );
    for each in containers(&job) {
        let sees = each.volume_mounts.iter().flatten().any(|mount| mount.mount_path == "/image-factory-ssh");
        assert_eq!(sees, each.name == BUILD_CONTAINER, "{}", each.name);
    }
    let argv = command(&job_of("buildx", json!({})));
    assert!(argv.contains(&"--provenance=false".to_owned()) && argv.contains(&"--sbom=false".to_owned()));
    assert!(!argv.iter().any(|argument| argument.starts_with("--platform") || argument.starts_with("--ssh")));
}

#[test]
fn a_cache_that_is_switched_off_is_neither_read_nor_written() {
    let cache = json!({"enabled": false, "from": ["type=registry,ref=a"], "to": ["type=registry,ref=a"]});
    let command = command(&job_of("buildx", json!({"cache": cache})));
    assert!(command.contains(&"--no-cache".to_owned()));
    assert!(!command.iter().any(|argument| argument.starts_with("--cache-")));
}

#[test]
fn secrets_reach_the_builder_and_credentials_the_inspection_and_nobody_else() {
    for method in ["kaniko", "buildx", "container"] {
        let job = job_of(method, secret_inputs());
        for each in containers(&job) {
            let mounted: Vec<_> = each
                .volume_mounts
                .iter()
                .flatten()
                .map(|mount| mount.mount_path.as_str())
                .filter(|path| path.starts_with("/image-factory-"))
                .collect();
            let expected: &[&str] = match each.name.as_str() {
                "build" => &["/image-factory-credentials", "/image-factory-secrets"],
                "inspect" => &["/image-factory-credentials"],
                _ => &[],
            };
            assert_eq!(mounted, expected, "{method}: {}", each.name);
        }
        assert!(command(&job).contains(&"--secret=id=npmrc,src=/image-factory-secrets/npmrc".to_owned()));
        let inspect = container(&job, INSPECT_CONTAINER);
        assert!(inspect.args.iter().flatten().any(|arg| arg == "--docker-config=/image-factory-credentials"));
    }
}

#[test]
fn paketos_credentials_are_handed_over_in_memory_and_never_mounted_beside_buildpacks() {
    let job =
        job_of("paketo", json!({"output": {"credentialsSecret": {"name": "push"}}, "buildpacks": ["r.test/a:1"]}));
    let secrets: Vec<String> = containers(&job)
        .into_iter()
        .filter(|each| each.volume_mounts.iter().flatten().any(|mount| mount.name == "credentials"))
        .map(|each| each.name)
        .collect();
    assert_eq!(secrets, ["prepare", "inspect"]);
    let handover = pod(&job).volumes.into_iter().flatten().find(|volume| volume.name == "handover");
    let medium = handover.and_then(|volume| volume.empty_dir).and_then(|empty_dir| empty_dir.medium);
    assert_eq!(medium.as_deref(), Some("Memory"));
    let args = container(&job, PREPARE_CONTAINER).args.unwrap_or_default();
    assert!(args.contains(&"--hand-over-credentials".to_owned()), "{args:?}");
    assert!(command(&job).contains(&"--registry-auth=/image-factory-credentials/config.json".to_owned()));
    let pulls = pod(&job).image_pull_secrets.unwrap_or_default();
    assert_eq!(pulls.into_iter().map(|secret| secret.name).collect::<Vec<_>>(), ["push"]);

    let job = job_of("paketo", json!({}));
    assert!(!command(&job).iter().any(|argument| argument.starts_with("--registry-auth")));
    assert_eq!(pod(&job).image_pull_secrets, None);
}

#[test]
fn a_lifecycle_gets_every_input_through_the_agent_and_nothing_as_its_own_environment() {
    let job = job_of(
        "paketo",
        json!({
            "context": "web",
            "builder": "registry.test/other:2",
            "buildpacks": ["r.test/a:1", "r.test/b:2"],
            "cache": {"repo": "registry.test:5000/shop/cache"},
            "environment": {"BP_X": "$(HOME) 1"},
            "output": {"tags": ["latest"], "labels": {"a.b": "c"}, "insecure": true},
        }),
    );
    let build = container(&job, BUILD_CONTAINER);
    assert_eq!((build.image.as_deref(), build.env), (Some("registry.test/other:2"), None));
    assert_eq!(
        build.command.unwrap_or_default().join("\n"),
        "/image-factory/bin/image-factory-agent\nlifecycle\n--timeout-seconds=3600\n--source=/image-factory/source/web\n\
         --image=registry.test:5000/shop/web:1.2\n--image=registry.test:5000/shop/web:latest\n\
         --cache-image=registry.test:5000/shop/cache\n--insecure-registry=registry.test:5000\n--label=a.b=c\n\
         --env=BP_X=$$(HOME) 1\n--buildpack=r.test/a:1\n--buildpack=r.test/b:2\n--"
    );
    for (index, image) in ["r.test/a:1", "r.test/b:2"].into_iter().enumerate() {
        let bring = container(&job, &format!("buildpack-{index}"));
        assert_eq!(bring.image.as_deref(), Some(image));
        assert_eq!(
            bring.command.unwrap_or_default()[1..],
            ["bring".to_owned(), format!("--to=/image-factory/brought/{index}")]
        );
    }
    let cold = command(&job_of("paketo", json!({"cache": {"enabled": false, "repo": "registry.test/c"}})));
    assert!(cold.contains(&"--cold=true".to_owned()) && !cold.iter().any(|flag| flag.starts_with("--cache-image")));
}

/// <https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted>
#[test]
fn every_container_of_paketo_is_as_restricted_wants_it_and_the_builder_is_its_images_user() {
    let job =
        job_of("paketo", json!({"buildpacks": ["r.test/a:1"], "output": {"credentialsSecret": {"name": "push"}}}));
    for each in containers(&job) {
        let security = each.security_context.unwrap_or_default();
        assert_eq!(security.run_as_non_root, Some(true), "{}", each.name);
        assert_eq!(security.allow_privilege_escalation, Some(false), "{}", each.name);
        assert_eq!(security.seccomp_profile.map(|profile| profile.type_), Some("RuntimeDefault".to_owned()));
        let capabilities = security.capabilities.unwrap_or_default();
        assert_eq!((capabilities.add, capabilities.drop), (None, Some(vec!["ALL".to_owned()])), "{}", each.name);
        assert_eq!(security.run_as_user.is_none(), each.name == BUILD_CONTAINER, "{}", each.name);
    }
    assert_eq!(pod(&job).security_context.and_then(|security| security.fs_group), Some(65532));
}

#[test]
fn packer_reads_secrets_and_no_credentials_and_they_are_missed_before_it_is_started() {
    let mut inputs = secret_inputs();
    inputs["packer"] = json!({"path": "a.pkr.hcl"});
    let job = job_of("packer", inputs);
    let mounted: Vec<_> = containers(&job)
        .into_iter()
        .map(|each| {
            let paths = each.volume_mounts.into_iter().flatten().map(|mount| mount.mount_path);
            (each.name, paths.filter(|path| path != "/image-factory").collect::<Vec<_>>())
        })
        .collect();
    let credentials = "/image-factory-credentials".to_owned();
    let own = ["/image-factory-packer", "/tmp", "/image-factory-secrets"].map(str::to_owned).to_vec();
    let expected = [("prepare", vec![credentials.clone()]), ("build", own), ("inspect", vec![credentials])];
    assert_eq!(mounted, expected.map(|(name, paths)| (name.to_owned(), paths)));
    let missed = "--needs-secret=/image-factory-credentials/config.json=spec.output.credentialsSecret: Secret push with key \
                  .dockerconfigjson was not found in namespace team-a";
    let args = container(&job, PREPARE_CONTAINER).args.unwrap_or_default();
    assert!(args.iter().any(|arg| arg == missed), "{args:?}");
    let command = command(&job);
    assert!(command.contains(&"--mask-file=/image-factory-secrets/npmrc".to_owned()));
    assert!(!command.iter().any(|argument| argument.contains("credentials") || argument.starts_with("--secret")));
}

#[test]
fn packer_runs_in_the_context_on_the_text_that_is_put_there_or_on_a_path_of_the_source() {
    for (context, packer, folder, template) in [
        (".", json!({"template": "build {}"}), "/image-factory/source", "image-factory.pkr.hcl"),
        ("./web/", json!({"template": " {\"builders\": []}"}), "/image-factory/source/web", "image-factory.json"),
        ("web", json!({"path": "images"}), "/image-factory/source/web", "/image-factory/source/images"),
    ] {
        let job = job_of("packer", json!({"context": context, "packer": packer}));
        let build = container(&job, BUILD_CONTAINER);
        assert_eq!(build.working_dir.as_deref(), Some(folder));
        let command = command(&job);
        let own: Vec<&str> = command.iter().skip_while(|arg| *arg != "--").skip(1).map(String::as_str).collect();
        let expected = ["packer", "init", template, "--then", "packer", "build", "-color=false", template];
        assert_eq!(own, expected);
        let inspect = container(&job, INSPECT_CONTAINER).args.unwrap_or_default();
        assert!(inspect.contains(&format!("--context={folder}")), "{inspect:?}");
    }
}

#[test]
fn each_builder_finds_the_credentials_in_its_own_way() {
    for (method, name, with, without) in [
        ("kaniko", "DOCKER_CONFIG", "/image-factory-credentials", Some("/image-factory/out/docker")),
        ("buildx", "DOCKER_CONFIG", "/image-factory-credentials", Some("/image-factory/out/docker")),
        ("container", "REGISTRY_AUTH_FILE", "/image-factory-credentials/config.json", None),
    ] {
        let build = container(&job_of(method, secret_inputs()), BUILD_CONTAINER);
        assert_eq!(env(&build, name).as_deref(), Some(with), "{method}");
        let build = container(&job_of(method, json!({})), BUILD_CONTAINER);
        assert_eq!(env(&build, name).as_deref(), without, "{method}");
    }
}

#[test]
fn a_secret_may_be_missing_for_the_kubelet_and_not_for_the_agent() {
    let job = job_of("container", secret_inputs());
    let volumes = pod(&job).volumes.unwrap_or_default();
    let optional: Vec<_> = volumes
        .iter()
        .flat_map(|volume| {
            let credentials = volume.secret.iter().map(|secret| secret.optional);
            let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
            credentials.chain(sources.filter_map(|source| source.secret.as_ref()).map(|secret| secret.optional))
        })
        .collect();
    assert_eq!(optional, [Some(true), Some(true)]);
    let command = command(&job);
    let agents: Vec<&str> = command.iter().take_while(|argument| *argument != "--").map(String::as_str).collect();
    assert_eq!(
        agents[3..],
        [
            "--needs-secret=/image-factory-credentials/config.json=spec.output.credentialsSecret: Secret push with key \
             .dockerconfigjson was not found in namespace team-a",
            "--mask-docker-config=/image-factory-credentials/config.json",
            "--needs-secret=/image-factory-secrets/npmrc=spec.secrets[npmrc]: Secret npm with key config was not found \
             in namespace team-a",
            "--mask-file=/image-factory-secrets/npmrc",
        ]
    );
}

#[test]
fn the_environment_reaches_the_builder_as_it_was_written_and_no_container_of_ours() {
    for method in Method::ALL {
        if unavailable(method, &settings().images).is_some() {
            continue;
        }
        let job = job_of(method.as_str(), json!({"environment": {"FTP_PROXY": "the $(HOME) road", "EMPTY": ""}}));
        for each in containers(&job) {
            let given = ["FTP_PROXY", "EMPTY"].map(|name| env(&each, name));
            let expected = match each.name.as_str() {
                // Buildpacks get it through the lifecycle alone.
                BUILD_CONTAINER if method == Method::Paketo => {
                    assert!(
                        command(&job).contains(&"--env=FTP_PROXY=the $$(HOME) road".to_owned()),
                        "{:?}",
                        command(&job)
                    );
                    [None, None]
                }
                BUILD_CONTAINER => [Some("the $$(HOME) road".to_owned()), Some(String::new())],
                _ => [None, None],
            };
            assert_eq!(given, expected, "{method}: {}", each.name);
        }
    }
}

#[test]
fn no_container_has_a_variable_twice() {
    for method in ["kaniko", "buildx", "container", "paketo"] {
        let job = job_of(method, json!({"environment": {"CI": "true", "HTTP_PROXY": ""}}));
        for each in containers(&job) {
            let mut names: Vec<_> = each.env.iter().flatten().map(|variable| &variable.name).collect();
            let all = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), all, "{method}: {}", each.name);
        }
    }
}

#[test]
fn a_build_has_bounds_even_where_its_spec_has_none() {
    for (asked, requests, limits) in [
        (json!({}), json!({"cpu": "100m", "memory": "256Mi"}), json!({"memory": "4Gi", "ephemeral-storage": "20Gi"})),
        (
            json!({"requests": {"memory": "8Gi", "cpu": "2"}}),
            json!({"cpu": "2", "memory": "8Gi"}),
            json!({"memory": "8Gi", "ephemeral-storage": "20Gi"}),
        ),
        (
            json!({"limits": {"memory": "128Mi", "cpu": "1"}}),
            json!({}),
            json!({"cpu": "1", "memory": "128Mi", "ephemeral-storage": "20Gi"}),
        ),
    ] {
        let job = job_of("container", json!({"resources": asked}));
        let given = container(&job, BUILD_CONTAINER).resources.unwrap();
        assert_eq!(json!(given.requests.unwrap_or_default()), requests);
        assert_eq!(json!(given.limits.unwrap()), limits);
    }
}
