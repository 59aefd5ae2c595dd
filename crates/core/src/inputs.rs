//! What makes a run: the hash of a Build's inputs.
//!
//! A change of an input is a new run; a change of anything else is not. The hash is taken over a
//! canonical form of the spec, so that it does not depend on the order of keys, on whether a
//! default is written out, or on fields that a newer operator knows: an upgrade never rebuilds
//! the world. The form has a version; golden hashes in the tests keep it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Fields of the spec that say *what* is built. All others (priority, timeout, retries, retention,
/// worker, cancel) say how it is handled.
const INPUTS: [&str; 21] = [
    "buildArgs",
    "builder",
    "buildpacks",
    "cache",
    "context",
    "dockerfile",
    "environment",
    "method",
    "options",
    "output",
    "packer",
    "platforms",
    "project",
    "provenance",
    "resources",
    "sbom",
    "scan",
    "secrets",
    "source",
    "ssh",
    "target",
];

const VERSION: &str = "v1";

/// Hash of the inputs of a spec in its JSON form: `v1:` and 64 hex digits of SHA-256.
pub fn hash(spec: &Value) -> String {
    format!("{VERSION}:{}", hex::encode(Sha256::digest(canonical(spec).to_string())))
}

/// Inputs only, defaults and empties left out. Members are inserted in the order of their keys: the
/// result is the same whether serde_json's map keeps that order or sorts.
fn canonical(spec: &Value) -> Value {
    let mut inputs = Map::new();
    for field in INPUTS {
        let Some(value) = spec.get(field) else { continue };
        if default_of(field).is_some_and(|default| *value == default) {
            continue;
        }
        if let Some(value) = without_defaults(field, value) {
            inputs.insert(field.to_owned(), value);
        }
    }
    Value::Object(inputs)
}

/// The value without empty and default members; `None` when nothing is left. User-keyed maps
/// (build arguments, labels, files) keep their empty strings: `ARG=""` is not an absent ARG.
fn without_defaults(path: &str, value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Array(items) if items.is_empty() => None,
        Value::Object(members) => {
            let sorted: BTreeMap<&String, &Value> = members.iter().collect();
            let kept: Map<String, Value> = sorted
                .into_iter()
                .filter_map(|(key, member)| {
                    let path = format!("{path}.{key}");
                    if default_of(&path).is_some_and(|default| *member == default) {
                        return None;
                    }
                    without_defaults(&path, member).map(|member| (key.clone(), member))
                })
                .collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        other => Some(other.clone()),
    }
}

/// Defaults of the API. Once landed a default never changes, or old Builds would run again.
fn default_of(path: &str) -> Option<Value> {
    Some(match path {
        "project" => json!("default"),
        "context" => json!("."),
        "dockerfile" => json!("Dockerfile"),
        "cache.enabled" | "options.compressedCaching" => json!(true),
        "source.git.depth" => json!(1),
        "source.git.submodules"
        | "output.insecure"
        | "sbom"
        | "provenance"
        | "options.reproducible"
        | "options.squash"
        | "options.cacheCopyLayers"
        | "options.useNewRun" => json!(false),
        "options.snapshotMode" => json!("redo"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Value {
        json!({
            "method": "buildx",
            "source": {"inline": {"files": {"Dockerfile": "FROM scratch\n"}}},
            "output": {"image": "registry.test:5000/shop/web:1"},
        })
    }

    #[test]
    fn golden_hashes_never_change() {
        assert_eq!(hash(&spec()), "v1:65c3e3341267bc79e23818d3e5fb61cdf8956808d38c72a39ee75cbeefa010d1");
        let mut rich = spec();
        rich["buildArgs"] = json!({"B": "2", "A": ""});
        rich["cache"] = json!({"enabled": false});
        assert_eq!(hash(&rich), "v1:74fca4b022529f6d308e0ac41c17b54b3b7fa30511ef61eddafffdbf320cdfb3");
    }

    #[test]
    fn defaults_written_out_and_fields_that_are_no_inputs_change_nothing() {
        let mut written = spec();
        for (field, value) in [
            ("project", json!("default")),
            ("context", json!(".")),
            ("dockerfile", json!("Dockerfile")),
            ("cache", json!({"enabled": true, "from": []})),
            ("buildArgs", json!({})),
            ("sbom", json!(false)),
            ("options", json!({"squash": false, "compressedCaching": true, "snapshotMode": "redo", "ignorePaths": []})),
            ("target", Value::Null),
            ("priority", json!(7)),
            ("timeout", json!("2h")),
            ("retries", json!({"limit": 2})),
            ("retention", json!({"jobTtl": "1m"})),
            ("worker", json!({"name": "gpu"})),
            ("cancel", json!(true)),
            ("aFieldOfANewerVersion", json!("x")),
        ] {
            written[field] = value;
        }
        assert_eq!(hash(&written), hash(&spec()));
    }

    #[test]
    fn every_input_changes_the_hash() {
        for field in INPUTS {
            let mut changed = spec();
            changed[field] = json!({"changed": "x"});
            assert_ne!(hash(&changed), hash(&spec()), "{field}");
        }
    }

    #[test]
    fn an_empty_build_argument_is_not_an_absent_one() {
        let mut with = spec();
        with["buildArgs"] = json!({"A": ""});
        assert_ne!(hash(&with), hash(&spec()));
    }
}
