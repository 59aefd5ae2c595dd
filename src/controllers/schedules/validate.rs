//! Whether a schedule can act: what the API server can't judge of it. Pure; a refusal is a condition of its status.

use std::collections::BTreeMap;

use image_factory_core::{
    schedule::{Invalid, Schedule},
    storable::NUL,
};

use crate::{controllers::build::text, crd::BuildSchedule};

/// Why a schedule can't act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Of the conditions.
    pub reason: &'static str,
    pub message: String,
}

/// # Errors
/// Why it can't act.
pub fn validate(schedule: &BuildSchedule) -> Result<Schedule, Refusal> {
    let spec = &schedule.spec;
    let read = Schedule::new(&spec.cron, spec.timezone.as_deref()).map_err(|invalid| {
        let reason = match invalid {
            Invalid::Cron(_) => "InvalidCron",
            Invalid::Timezone(_) => "InvalidTimezone",
        };
        Refusal { reason, message: invalid.to_string() }
    })?;
    match template(schedule) {
        Some(message) => Err(Refusal { reason: "InvalidTemplate", message }),
        None => Ok(read),
    }
}

/// Why the API server, or a row, would refuse every Build of the template.
fn template(schedule: &BuildSchedule) -> Option<String> {
    let template = &schedule.spec.template;
    let nul = serde_json::to_value(template).ok().and_then(|value| text::with_nul("spec.template", &value));
    if let Some(field) = nul {
        return Some(format!("{field} has a NUL character; remove it"));
    }
    let metadata = template.metadata.as_ref()?;
    wrong_key("labels", &metadata.labels).or_else(|| wrong_key("annotations", &metadata.annotations)).or_else(|| {
        let (key, value) = metadata.labels.iter().find(|(_, value)| !value.is_empty() && !is_name(value))?;
        Some(format!(
            "spec.template.metadata.labels: the value {value:?} of {key} is no label's value as Kubernetes has it: at most 63 letters, digits, `-`, `_` and `.`"
        ))
    })
}

fn wrong_key(field: &str, map: &BTreeMap<String, String>) -> Option<String> {
    let key = map.keys().find(|key| !is_key(key))?;
    Some(format!(
        "spec.template.metadata.{field}: {key:?} is no key as Kubernetes has it: [prefix/]name, the name at most 63 letters, digits, `-`, `_` and `.`"
    ))
}

/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>
fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_name(key),
        Some((prefix, name)) => {
            let is_part = |part: &str| {
                let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
                !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
            };
            prefix.len() <= 253 && prefix.split('.').all(is_part) && is_name(name)
        }
    }
}

fn is_name(name: &str) -> bool {
    let ends = |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_alphanumeric());
    name.len() <= 63
        && !name.contains(NUL)
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
        && ends(name.chars().next())
        && ends(name.chars().next_back())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn schedule(spec: &Value, metadata: &Value) -> BuildSchedule {
        let mut whole = json!({
            "cron": "0 2 * * *",
            "template": {
                "metadata": metadata,
                "spec": {
                    "method": "container",
                    "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}},
                    "output": {"image": "registry.test/orchard/cider:1"},
                },
            },
        });
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": "nightly"}, "spec": whole})).unwrap()
    }

    #[test]
    fn a_schedule_that_cannot_act_is_told_why() {
        assert!(validate(&schedule(&json!({}), &json!({}))).is_ok());
        let labels =
            json!({"labels": {"fruit": "", "example.com/kind": "a.B_c-1"}, "annotations": {"why": "any text: ä"}});
        assert!(validate(&schedule(&json!({}), &labels)).is_ok());
        for (spec, metadata, reason, words) in [
            (json!({"cron": "61 * * * *"}), json!({}), "InvalidCron", "\"61\" is no minute"),
            (json!({"timezone": "Middle/Earth"}), json!({}), "InvalidTimezone", "put its IANA name"),
            (
                json!({}),
                json!({"labels": {"fruit": "red apple"}}),
                "InvalidTemplate",
                "the value \"red apple\" of fruit",
            ),
            (json!({}), json!({"labels": {"-fruit": "apple"}}), "InvalidTemplate", "labels: \"-fruit\" is no key"),
            (json!({}), json!({"labels": {"Example.com/fruit": "x"}}), "InvalidTemplate", "is no key"),
            (json!({}), json!({"annotations": {"a/b/c": "x"}}), "InvalidTemplate", "annotations: \"a/b/c\" is no key"),
            (
                json!({}),
                json!({"annotations": {"why": "a\0b"}}),
                "InvalidTemplate",
                "spec.template.metadata.annotations.why has a NUL",
            ),
        ] {
            let refusal = validate(&schedule(&spec, &metadata)).unwrap_err();
            assert_eq!(refusal.reason, reason, "{refusal:?}");
            assert!(refusal.message.contains(words), "{refusal:?}");
        }
    }
}
