//! The table of the API's rules: what passes beside what does not, and the sentence that says why. Each
//! change is merged into the smallest object of its kind.

mod builds;
mod kinds;
mod options;
mod webhooks;

use serde_json::{Value, json};

/// Said beside an error of the schema itself: the rules are only judged on a well-formed object.
const UNCHECKED: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";

pub struct Case {
    pub kind: &'static str,
    /// Merged into the smallest object of the kind; none where the whole kind is refused.
    pub accepted: Option<Value>,
    pub refused: Value,
    pub because: Vec<&'static str>,
}

fn spec(change: Value) -> Value {
    Value::Object([("spec".to_owned(), change)].into_iter().collect())
}

/// An object that is accepted with the one change of its specification and refused with the other.
fn of(kind: &'static str, accepted: Value, refused: Value, because: &[&'static str]) -> Case {
    Case { kind, accepted: Some(spec(accepted)), refused: spec(refused), because: because.to_vec() }
}

fn build<const N: usize>(accepted: Value, refused: Value, because: [&'static str; N]) -> Case {
    of("Build", accepted, refused, &because)
}

fn policy<const N: usize>(accepted: Value, refused: Value, because: [&'static str; N]) -> Case {
    of("BuildConcurrencyPolicy", accepted, refused, &because)
}

fn files(entries: &[(&str, &str)]) -> Value {
    let files: serde_json::Map<String, Value> =
        entries.iter().map(|(path, text)| ((*path).to_owned(), json!(text))).collect();
    json!({"source": {"inline": {"files": files}}})
}

/// All rows.
pub fn cases() -> Vec<Case> {
    let mut cases = builds::names_and_sources();
    cases.extend(builds::git_sources());
    cases.extend(builds::paths_and_values());
    cases.extend(builds::outputs_and_caches());
    cases.extend(builds::limits_of_a_run());
    cases.extend(builds::methods_and_their_fields());
    cases.extend(builds::secrets_and_environment());
    cases.extend(builds::buildx_alone());
    cases.extend(options::options());
    cases.extend(builds::not_available_yet());
    cases.extend(kinds::other_kinds());
    cases.extend(kinds::schedules());
    cases.extend(kinds::workers());
    cases.extend(webhooks::webhooks());
    cases
}
