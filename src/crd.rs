//! What users write: the five kinds of `imagefactory.dev/v1alpha1`, one file a kind, and the parts
//! of a specification in files named after what they describe. The doc comments here are what
//! `kubectl explain` shows; the rules are what the API server refuses by itself, so that there is no
//! admission webhook. A field that does not act yet is refused by one line, see [`unavailable`].

pub mod build;
pub mod build_concurrency_policy;
pub mod build_schedule;
pub mod build_status;
pub mod build_worker;
pub mod execution;
#[cfg(test)]
mod fields;
pub mod inputs;
pub mod options;
pub mod output;
pub mod reference;
pub mod source;
pub mod template;
pub mod webhook_config;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, JSON, JSONSchemaProps, JSONSchemaPropsOrArray,
    JSONSchemaPropsOrBool,
};
use kube::{CustomResourceExt, core::Rule};
use serde_json::json;

pub use build::{Build, BuildSpec};
pub use build_concurrency_policy::{BuildConcurrencyPolicy, BuildConcurrencyPolicySpec};
pub use build_schedule::{BuildSchedule, BuildScheduleSpec};
pub use build_status::BuildStatus;
pub use build_worker::{BuildWorker, BuildWorkerSpec};
pub use webhook_config::{WebhookConfig, WebhookConfigSpec};

/// The definitions of all five kinds as they are installed.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let mut definitions = vec![
        Build::crd(),
        BuildSchedule::crd(),
        WebhookConfig::crd(),
        BuildWorker::crd(),
        BuildConcurrencyPolicy::crd(),
    ];
    for definition in &mut definitions {
        for root in definition.spec.versions.iter_mut().filter_map(root_schema) {
            make_readable(root);
            if definition.spec.names.kind == "Build" {
                mark_as_not_yet_observed(root);
            }
        }
    }
    definitions
}

fn root_schema(version: &mut CustomResourceDefinitionVersion) -> Option<&mut JSONSchemaProps> {
    version.schema.as_mut()?.open_api_v3_schema.as_mut()
}

/// A new Build has no status yet, and tools that judge health by `observedGeneration` would take it
/// for a finished one. The derive has no way to say this default.
fn mark_as_not_yet_observed(root: &mut JSONSchemaProps) {
    if let Some(status) = root.properties.as_mut().and_then(|fields| fields.get_mut("status")) {
        status.default = Some(JSON(json!({"observedGeneration": -1})));
    }
}

/// Doc comments are broken where the source's lines end, and `kubectl explain` would keep those
/// breaks; an optional enum lists `null`, which it would show as a value. Where `null` is neither listed nor allowed, the
/// API server drops it, as an optional field that is left empty.
fn make_readable(schema: &mut JSONSchemaProps) {
    if let Some(description) = &mut schema.description {
        let paragraphs: Vec<String> = description.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
        *description = paragraphs.join("\n\n");
    }
    if let Some(values) = &mut schema.enum_ {
        values.retain(|JSON(value)| !value.is_null());
        schema.nullable = None;
    }
    if let Some(fields) = &mut schema.properties {
        fields.values_mut().for_each(make_readable);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        make_readable(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        make_readable(values);
    }
}

/// The rule for a field that is in the API and does not act yet: `unused` is the CEL expression that
/// holds while it is not used.
fn unavailable(field: &str, unused: &str) -> Rule {
    Rule::new(unused).message(format!("{field} is not available in this version; remove it").as_str())
}

/// The rule for a field that only some methods read.
fn only_with(field: &str, unused: &str, methods: &[&str]) -> Rule {
    let (listed, named) = match methods {
        [one] => (format!("self.method == '{one}'"), format!("method {one}")),
        several => {
            (format!("self.method in ['{}']", several.join("', '")), format!("the methods {}", several.join(", ")))
        }
    };
    Rule::new(format!("{unused} || {listed}"))
        .message(format!("{field} works only with {named}; remove it or change spec.method").as_str())
}

/// Values of a map that people write, each of a bounded length.
fn short_values(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": 4096},
    })
}

/// For `skip_serializing_if`: a value that says nothing beyond its default is not written.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every schema node of a definition, with its path.
    fn nodes<'a>(path: &str, schema: &'a JSONSchemaProps, found: &mut Vec<(String, &'a JSONSchemaProps)>) {
        found.push((path.to_owned(), schema));
        for (name, field) in schema.properties.iter().flatten() {
            nodes(&format!("{path}.{name}"), field, found);
        }
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
            nodes(&format!("{path}[]"), items, found);
        }
        if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
            nodes(&format!("{path}{{}}"), values, found);
        }
    }

    fn each_node(check: impl Fn(&str, &JSONSchemaProps)) {
        for definition in definitions() {
            let kind = definition.spec.names.kind;
            let schema = definition.spec.versions[0].schema.clone().expect("every kind has a schema");
            let root = schema.open_api_v3_schema.expect("every kind has a schema");
            let mut found = Vec::new();
            nodes(&kind, &root, &mut found);
            for (path, node) in &found {
                check(path, node);
            }
        }
    }

    #[test]
    fn every_kind_has_a_definition_with_a_status_and_its_short_name() {
        let found: Vec<_> = definitions()
            .into_iter()
            .map(|definition| {
                assert_eq!(definition.spec.scope, "Namespaced");
                assert_eq!(definition.spec.names.categories, Some(vec!["imagefactory".to_owned()]));
                let subresources = definition.spec.versions[0].subresources.as_ref();
                assert!(subresources.is_some_and(|declared| declared.status.is_some()));
                let short = definition.spec.names.short_names.unwrap_or_default();
                (definition.spec.names.kind, short)
            })
            .collect();
        let expected = [
            ("Build", "ifb"),
            ("BuildSchedule", "ifbs"),
            ("WebhookConfig", "ifwh"),
            ("BuildWorker", "ifbw"),
            ("BuildConcurrencyPolicy", "ifbcp"),
        ]
        .map(|(kind, short)| (kind.to_owned(), vec![short.to_owned()]));
        assert_eq!(found, expected);
    }

    #[test]
    fn no_schema_has_alternatives_or_unsigned_integers() {
        each_node(|path, node| {
            assert!(node.one_of.is_none() && node.any_of.is_none() && node.all_of.is_none(), "{path}");
            assert!(!node.format.as_deref().is_some_and(|format| format.starts_with("uint")), "{path}");
        });
    }

    /// `null` would be let through to the enum, and refused by it.
    #[test]
    fn no_enum_is_nullable() {
        each_node(|path, node| assert!(node.enum_.is_none() || node.nullable.is_none(), "{path}"));
    }

    #[test]
    fn every_field_of_a_specification_and_of_a_status_is_described_in_unbroken_lines() {
        each_node(|path, node| {
            // Kubernetes' own type describes itself; items and map values are described by their field.
            let own = !path.contains(".conditions[]");
            let is_field = !path.ends_with("[]") && !path.ends_with("{}");
            if own && is_field {
                let description = node.description.as_deref().unwrap_or_default();
                assert!(!description.is_empty(), "{path} has no description");
                assert!(!description.contains('\n'), "{path}: {description}");
            }
        });
    }

    #[test]
    fn no_reference_has_a_namespace() {
        each_node(|path, _| assert!(!path.to_lowercase().ends_with("namespace"), "{path}"));
    }

    #[test]
    fn a_new_build_counts_as_not_yet_observed() {
        let build = definitions().swap_remove(0);
        let schema = build.spec.versions[0].schema.clone().and_then(|schema| schema.open_api_v3_schema);
        let default = schema.and_then(|mut root| root.properties.as_mut()?.remove("status")?.default);
        assert_eq!(default, Some(JSON(json!({"observedGeneration": -1}))));
    }
}
