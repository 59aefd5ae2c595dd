//! Text that Postgres can't hold: the API server lets a NUL pass where no rule of ours names it. Such a Build
//! is refused, and its row is [`storable`].

use image_factory_core::{
    reason::Reason,
    storable::{self, NUL},
};
use kube::ResourceExt;
use serde_json::Value;

use super::plan::RERUN;
use crate::crd::Build;

/// Why a Build can't be a row as it is.
pub fn refusal(build: &Build) -> serde_json::Result<Option<(Reason, String)>> {
    let field = if build.annotations().get(RERUN).is_some_and(|rerun| rerun.contains(NUL)) {
        Some(format!("the annotation {RERUN}"))
    } else {
        with_nul("spec", &serde_json::to_value(&build.spec)?)
    };
    Ok(field.map(|field| (Reason::InvalidSpec, format!("{field} has a NUL character; remove it"))))
}

/// Path of the first text with a NUL, below the path given.
pub fn with_nul(path: &str, value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.contains(NUL).then(|| path.to_owned()),
        Value::Array(items) => items.iter().find_map(|item| with_nul(&format!("{path}[]"), item)),
        Value::Object(members) => members.iter().find_map(|(name, member)| {
            let path = format!("{path}.{}", storable::text(name));
            if name.contains(NUL) { Some(path) } else { with_nul(&path, member) }
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn build(rerun: &str, template: &str) -> Build {
        serde_json::from_value(json!({
            "metadata": {"name": "cider", "annotations": {"imagefactory.dev/rerun": rerun}},
            "spec": {
                "method": "packer",
                "source": {"inline": {"files": {"a": "b"}}},
                "packer": {"template": template},
                "output": {"image": "registry.test/orchard/cider:1"},
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_build_with_a_nul_is_refused_by_the_name_of_the_field() {
        assert_eq!(refusal(&build("monday", "source {}")).unwrap(), None);
        for (build, field) in [
            (build("monday", "source\0 {}"), "spec.packer.template"),
            (build("mon\0day", "source {}"), "the annotation imagefactory.dev/rerun"),
        ] {
            let sentence = format!("{field} has a NUL character; remove it");
            assert_eq!(refusal(&build).unwrap(), Some((Reason::InvalidSpec, sentence)));
        }
    }

    #[test]
    fn a_nul_is_found_wherever_it_stands_and_its_field_is_named() {
        for (value, field) in [
            (json!({"packer": {"template": "a\0b"}}), Some("spec.packer.template")),
            (json!({"output": {"tags": ["1", "2\0"]}}), Some("spec.output.tags[]")),
            (json!({"options": {"deep": [{"a\0": 1}]}}), Some("spec.options.deep[].a\u{fffd}")),
            (json!({"options": {"deep": [1, true, null, "\u{fffd}\u{1}"]}, "context": "."}), None),
        ] {
            assert_eq!(with_nul("spec", &value).as_deref(), field, "{value}");
            assert_eq!(with_nul("spec", &storable::json(value.clone())), None, "{value}");
        }
        assert_eq!(storable::json(json!({"a\0": ["b\0c", 1]})), json!({"a\u{fffd}": ["b\u{fffd}c", 1]}));
    }
}
