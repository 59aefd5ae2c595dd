//! Hashes of specs that go the way of a real one: read from JSON, written by `BuildSpec`, hashed. A field that is written
//! where nobody had set it would change one of them, and build everything again after an upgrade.

use kube::api::ObjectMeta;
use serde_json::{Value, json};

use super::*;

fn hash(fields: &Value) -> String {
    let mut spec = json!({
        "method": "buildx",
        "source": {"inline": {"files": {"Dockerfile": "FROM scratch\n"}}},
        "output": {"image": "registry.test:5000/shop/web:1"},
    });
    for (name, value) in fields.as_object().into_iter().flatten() {
        spec[name] = value.clone();
    }
    let spec = serde_json::from_value(spec).expect("the specification reads");
    let build = Build { metadata: ObjectMeta::default(), spec, status: None };
    Desired::of(&build).expect("it is written").inputs_hash
}

/// Each object of the API that is an input, as little of it as there can be and as much: what is left out in one is
/// what an upgrade may not write.
fn specs() -> Vec<(&'static str, Value)> {
    let secret = |name: &str, key: &str| json!({"secretRef": {"name": name, "key": key}});
    vec![
        ("smallest", json!({})),
        ("git", json!({"source": {"git": {"url": "https://git.example.com/shop/web.git"}}})),
        (
            "git with all",
            json!({"source": {"git": {
                "url": "ssh://git@git.example.com/shop/web.git", "revision": "main", "depth": 3, "submodules": true,
                "credentialsSecret": {"name": "git"},
            }}}),
        ),
        (
            "output with all",
            json!({"output": {
                "image": "registry.test:5000/shop/web:1", "tags": ["latest", "1.2"], "labels": {"team": "shop", "a": ""},
                "credentialsSecret": {"name": "push"}, "insecure": true,
            }}),
        ),
        (
            "dockerfile",
            json!({
                "method": "container", "project": "storefront", "context": "web", "dockerfile": "docker/Dockerfile",
                "target": "release", "buildArgs": {"VERSION": "1.2", "EMPTY": ""}, "environment": {"CI": "true"},
            }),
        ),
        ("resources", json!({"resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "4Gi", "cpu": 2}}})),
        ("requests", json!({"resources": {"requests": {"memory": "1Gi"}}})),
        (
            "secrets",
            json!({
                "secrets": [
                    {"id": "npmrc", "secretRef": {"name": "npm", "key": "npmrc"}},
                    {"id": "token", "secretRef": {"name": "api", "key": "token"}},
                ],
                "ssh": secret("deploy", "ssh-privatekey"),
            }),
        ),
        ("cache", json!({"cache": {"from": ["type=inline"], "to": ["type=inline"]}})),
        ("cache of a repository", json!({"method": "kaniko", "cache": {"repo": "registry.test:5000/shop/cache"}})),
        ("no cache", json!({"cache": {"enabled": false}})),
        ("attested", json!({"platforms": ["linux/amd64", "linux/arm64/v8"], "sbom": true, "provenance": true})),
        ("scan", json!({"scan": {"tool": "trivy"}})),
        ("scan that fails", json!({"scan": {"tool": "trivy", "failOn": "high"}})),
        (
            "paketo",
            json!({"method": "paketo", "builder": "registry.test/builder:1", "buildpacks": ["registry.test/pack:1"]}),
        ),
        ("packer", json!({"method": "packer", "packer": {"template": "source {}", "variables": {"region": "eu"}}})),
        ("packer by path", json!({"method": "packer", "packer": {"path": "image.pkr.hcl"}})),
        ("options", json!({"options": {"deep": {"list": [1, true, null], "empty": {}}}})),
        ("options of container", json!({"method": "container", "options": {"format": "docker", "squash": true}})),
        (
            "options of kaniko",
            json!({
                "method": "kaniko", "cache": {"repo": "registry.test:5000/shop/cache"},
                "options": {
                    "reproducible": true, "cacheTtl": "36h", "cacheCopyLayers": true, "compressedCaching": false,
                    "snapshotMode": "full", "useNewRun": true, "ignorePaths": ["/var/cache"],
                },
            }),
        ),
    ]
}

#[test]
fn golden_hashes_of_specs_as_they_are_written_never_change() {
    let hashes: Vec<(&str, String)> = specs().iter().map(|(name, fields)| (*name, hash(fields))).collect();
    let told: Vec<(&str, &str)> = hashes.iter().map(|(name, hash)| (*name, hash.as_str())).collect();
    assert_eq!(told, GOLDEN);
}

#[test]
fn what_is_no_input_changes_no_hash_however_it_is_written() {
    let handled = json!({
        "worker": {"name": "gpu-1", "zone": "eu-1", "selector": {"gpu": "true"}}, "priority": -7, "timeout": "90s",
        "retries": {"limit": 2, "on": "Any"}, "cancel": true,
        "retention": {"artifacts": "days_90", "deleteFromRegistry": true, "jobTtl": "30s"},
    });
    assert_eq!(hash(&handled), hash(&json!({})));
    let written_out = json!({
        "project": "default", "context": ".", "dockerfile": "Dockerfile", "cache": {"enabled": true, "from": []},
        "resources": {"requests": {}, "limits": {}}, "secrets": [], "sbom": false,
        "options": {"squash": false, "compressedCaching": true, "snapshotMode": "redo", "ignorePaths": []},
        "output": {"image": "registry.test:5000/shop/web:1", "tags": [], "insecure": false},
    });
    assert_eq!(hash(&written_out), hash(&json!({})));
}

const GOLDEN: &[(&str, &str)] = &[
    ("smallest", "v1:65c3e3341267bc79e23818d3e5fb61cdf8956808d38c72a39ee75cbeefa010d1"),
    ("git", "v1:7f6da6008f7d2839dbcbf395b2cda2d27ea4da2e57210238d2512cae919c3eb2"),
    ("git with all", "v1:107be67488eb757f7d765f2e513a2ab83ffbb30e7556427def1bec42c9e3ce98"),
    ("output with all", "v1:0146d41470a8c56dcc14ef60a4a7b105f71295b827afe66acc044ae465120776"),
    ("dockerfile", "v1:ff92ef005392c1cfe090798be6ae189f6e965a41789b3ee1a059609af0b8729e"),
    ("resources", "v1:09b15c202e2a7f38518486eca22f09cc042cb8277abbc8c1e3177b22d056a82c"),
    ("requests", "v1:9af3da487927c1d9394286380801261717afc05d6eb9e1c97c8c3abe9aacb7cc"),
    ("secrets", "v1:9e4a80cb1f803732377385fcd578c9cc0f6be9b3851f97cee1c7d0a25370524a"),
    ("cache", "v1:0323cf08fa03a7159889049ac2af30143399bcf76c6858339b54a6701d3bd9c1"),
    ("cache of a repository", "v1:ee25deed9447cc13b3915a0a7b010f3dfdae1debfd20ebdc3b1a5b54a01f32f9"),
    ("no cache", "v1:d725d3b354703c1b8dec0118f814c0cb88ec8f10c5fec2446ff80048bd71c4e4"),
    ("attested", "v1:966b2fe92986b5fa929c86189162a1d66baf46760f949893dd7cfd5556306040"),
    ("scan", "v1:aecfb3d5c493cb6d64afa71f7ccb17374d1f0bfb526885d1bbf315265b0f29af"),
    ("scan that fails", "v1:e6a7651a3ce02363ff4105c2d76222b0bbd0a76fe54e409204fc5cbb4f5f0333"),
    ("paketo", "v1:f1ee99db9f6cbfdd1ba388dad7dba3cccd94c32a26dd5ef99a176314fcb20279"),
    ("packer", "v1:5bf2f9834029e61f3b5e61b7ecfde3549681cdb754e8a00183adcbc5a533d444"),
    ("packer by path", "v1:1446aa06717bc2a56fe111b5aa30a4e46e860606fc6c6e6b6f8c593f944e2cd6"),
    ("options", "v1:c30545a5646f1eb91b1482715dd314dfb9bd81c947399d2b0daad302c6046199"),
    ("options of container", "v1:f57fa44cdefe53a7941bd32cb910977a24e87440c3f8f238cd6062f5fd034a68"),
    ("options of kaniko", "v1:39ebfae8e9051551ad416aa0a71da437dc2d2a5a2970179ddfb26acbf89b482f"),
];
