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
pub mod inputs;
pub mod output;
pub mod reference;
pub mod source;
pub mod template;
pub mod webhook_config;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps,
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
    let mut build = Build::crd();
    mark_as_not_yet_observed(&mut build);
    vec![
        build,
        BuildSchedule::crd(),
        WebhookConfig::crd(),
        BuildWorker::crd(),
        BuildConcurrencyPolicy::crd(),
    ]
}

/// A new Build has no status yet, and tools that judge health by `observedGeneration` would take it
/// for a finished one. The derive has no way to say this default.
fn mark_as_not_yet_observed(definition: &mut CustomResourceDefinition) {
    for version in &mut definition.spec.versions {
        if let Some(status) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
            .and_then(|root| root.properties.as_mut())
            .and_then(|properties| properties.get_mut("status"))
        {
            *status = JSONSchemaProps {
                default: Some(JSON(json!({"observedGeneration": -1}))),
                ..std::mem::take(status)
            };
        }
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
        several => (
            format!("self.method in ['{}']", several.join("', '")),
            format!("the methods {}", several.join(", ")),
        ),
    };
    Rule::new(format!("{unused} || {listed}"))
        .message(format!("{field} works only with {named}; remove it or change spec.method").as_str())
}

/// For `skip_serializing_if`: a value that says nothing beyond its default is not written.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
