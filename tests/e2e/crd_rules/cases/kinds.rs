//! Of the other kinds.

use serde_json::{Value, json};

use super::{Case, of, policy, spec};

pub fn other_kinds() -> Vec<Case> {
    vec![
        Case {
            kind: "BuildConcurrencyPolicy",
            accepted: Some(json!({})),
            refused: json!({"metadata": {"name": "second"}}),
            because: vec!["metadata.name must be default: a namespace has one policy"],
        },
        policy(
            json!({"maxConcurrentBuilds": 1}),
            json!({"maxConcurrentBuilds": 0}),
            ["spec.maxConcurrentBuilds in body should be greater than or equal to 1"],
        ),
    ]
}

pub fn schedules() -> Vec<Case> {
    const FIELDS: &str =
        "spec.cron must have five fields: minute, hour, day of month, month and day of week, such as `0 2 * * *`";
    const BRANCH: &str = "spec.branch must be a branch: letters, digits and ._/+@- that start with a letter, digit or `_`, without `..` or `//` and not ending with `/` or `.lock`";
    let schedule = |accepted, refused, because: &[&'static str]| Case {
        kind: "BuildSchedule",
        accepted: Some(accepted),
        refused,
        because: because.to_vec(),
    };
    let named = |name: &str| json!({"metadata": {"name": name}});
    let git = |change: Value| {
        let source = json!({"git": {"url": "https://git.example.com/shop/web.git"}, "inline": null});
        let mut whole = json!({"template": {"spec": {"source": source}}});
        whole.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        spec(whole)
    };
    let template = |change: Value| spec(json!({"template": {"spec": change}}));
    vec![
        schedule(
            named(&"x".repeat(41)),
            named(&"x".repeat(42)),
            &["metadata.name must be at most 41 characters: the names of its Builds add the minute; shorten it"],
        ),
        schedule(spec(json!({"cron": " */5 0-6 L JAN-MAR  MON#1 "})), spec(json!({"cron": "0 0 2 * * *"})), &[FIELDS]),
        schedule(spec(json!({"cron": "61 * * * *"})), spec(json!({"cron": "@annually"})), &[FIELDS]),
        schedule(
            git(json!({"branch": "release/1.2"})),
            spec(json!({"branch": "main"})),
            &["spec.branch is for a template whose source is git; remove it"],
        ),
        schedule(git(json!({"branch": "main"})), git(json!({"branch": "--upload-pack=x"})), &[BRANCH]),
        schedule(git(json!({"branch": "a.b"})), git(json!({"branch": "a..b"})), &[BRANCH]),
        schedule(
            template(json!({"cancel": false})),
            template(json!({"cancel": true})),
            &["spec.template.spec.cancel would hold back every Build that is made; remove it, or set spec.suspend"],
        ),
        schedule(
            spec(json!({"rescan": false})),
            spec(json!({"rescan": true})),
            &["spec.rescan is not available in this version; remove it"],
        ),
        schedule(
            spec(
                json!({"startingDeadlineSeconds": 1, "successfulBuildsHistoryLimit": 0, "concurrencyPolicy": "Replace"}),
            ),
            spec(json!({"startingDeadlineSeconds": 0})),
            &["spec.startingDeadlineSeconds in body should be greater than or equal to 1"],
        ),
        // The template is a Build's.
        schedule(
            template(json!({"target": "release"})),
            template(json!({"scan": {"tool": "trivy"}})),
            &["spec.scan is not available in this version; remove it"],
        ),
    ]
}

pub fn workers() -> Vec<Case> {
    let named = |accepted: &str, refused: &str, because| Case {
        kind: "BuildWorker",
        accepted: Some(json!({"metadata": {"name": accepted}})),
        refused: json!({"metadata": {"name": refused}}),
        because: vec![because],
    };
    let worker = |accepted, refused, because: &[&'static str]| of("BuildWorker", accepted, refused, because);
    let long = "x".repeat(64);
    let tolerations = |one: Value| json!({"tolerations": [one]});
    vec![
        named(
            "cluster-2",
            "cluster",
            "metadata.name cluster is the built-in worker's, which is set by the operator's configuration; choose another",
        ),
        named(&long[1..], &long, "metadata.name must have at most 63 characters: it is a label of the worker's Jobs"),
        worker(
            json!({"concurrentBuilds": 1, "cordon": true, "methods": ["kaniko", "buildx", "container"]}),
            json!({"concurrentBuilds": 0}),
            &["spec.concurrentBuilds in body should be greater than or equal to 1"],
        ),
        worker(
            json!({}),
            json!({"type": "docker", "endpoint": "tcp://buildkit.example.com:1234", "tlsSecret": {"name": "tls"}}),
            &[
                "spec.type docker is not available in this version; remove it",
                "spec.endpoint is not available in this version; remove it",
                "spec.tlsSecret is not available in this version; remove it",
            ],
        ),
        worker(
            json!({}),
            json!({"type": "docker", "managed": {"storage": "50Gi"}}),
            &[
                "spec.type docker is not available in this version; remove it",
                "spec.managed is not available in this version; remove it",
            ],
        ),
        worker(
            json!({}),
            json!({"type": "local", "tokenSecret": {"name": "token", "key": "token"}}),
            &[
                "spec.type local is not available in this version; remove it",
                "spec.tokenSecret is not available in this version; remove it",
            ],
        ),
        worker(
            json!({"zone": "eu-1.a_B"}),
            json!({"zone": "eu 1"}),
            &["spec.zone must hold only letters, digits, `-`, `_` and `.`, and start and end with a letter or digit"],
        ),
        worker(
            json!({"labels": {"gpu": "true", "example.com/pool": ""}}),
            json!({"labels": {"-gpu": "true"}}),
            &[
                "each key of spec.labels must be a label's key as Kubernetes has it: [prefix/]name, the name at most 63 letters, digits, `-`, `_` and `.`",
            ],
        ),
        worker(
            json!({"labels": {"gpu": "a.b"}}),
            json!({"labels": {"gpu": "a b"}}),
            &[
                "each value in spec.labels must be a label's value as Kubernetes has it: at most 63 letters, digits, `-`, `_` and `.`",
            ],
        ),
        worker(
            json!({"nodeSelector": {"kubernetes.io/arch": "amd64"}}),
            json!({"nodeSelector": {"two/many/slashes": "x"}}),
            &[
                "each key of spec.nodeSelector must be a label's key as Kubernetes has it: [prefix/]name, the name at most 63 letters, digits, `-`, `_` and `.`",
            ],
        ),
        worker(
            json!({"nodeSelector": {"pool": ""}}),
            json!({"nodeSelector": {"pool": "builds-"}}),
            &[
                "each value in spec.nodeSelector must be a label's value as Kubernetes has it: at most 63 letters, digits, `-`, `_` and `.`",
            ],
        ),
        worker(
            tolerations(json!({"operator": "Exists"})),
            tolerations(json!({"value": "yes"})),
            &["each of spec.tolerations without a key must have the operator Exists: it tolerates every taint"],
        ),
        worker(
            tolerations(json!({"key": "gpu", "value": "yes", "effect": "NoSchedule"})),
            tolerations(json!({"key": "gpu", "operator": "Exists", "value": "yes"})),
            &["each of spec.tolerations with the operator Exists takes no value; remove it"],
        ),
        worker(
            tolerations(json!({"key": "gpu", "effect": "NoExecute", "tolerationSeconds": 60})),
            tolerations(json!({"key": "gpu", "effect": "NoSchedule", "tolerationSeconds": 60})),
            &["each of spec.tolerations with tolerationSeconds must have the effect NoExecute"],
        ),
        worker(
            tolerations(json!({"key": "example.com/gpu", "operator": "Exists"})),
            tolerations(json!({"key": "example.com/", "operator": "Exists"})),
            &[
                "the key of each of spec.tolerations must be a label's key as Kubernetes has it, such as example.com/gpu",
            ],
        ),
        worker(
            tolerations(json!({"key": "gpu", "operator": "Equal", "value": "a_b"})),
            tolerations(json!({"key": "gpu", "value": "a/b"})),
            &[
                "the value of each of spec.tolerations must be a label's value as Kubernetes has it: at most 63 letters, digits, `-`, `_` and `.`",
            ],
        ),
    ]
}
