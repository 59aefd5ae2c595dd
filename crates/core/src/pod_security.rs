//! Which methods a namespace's Pod Security level allows: a build that its namespace would never
//! give a Pod is refused with the remedy, instead of waiting for one.
//!
//! Levels: <https://kubernetes.io/docs/concepts/security/pod-security-standards/>.

use crate::method::Method;

/// Label of a namespace with the level it enforces.
pub const ENFORCE_LABEL: &str = "pod-security.kubernetes.io/enforce";

/// Why `method` can't run where `enforced` is the label's value; `None` where it can.
///
/// buildx runs a privileged daemon, so a namespace must opt in to it by name; the label's absence
/// is no consent, even where the cluster would admit the Pod.
pub fn refusal(method: Method, namespace: &str, enforced: Option<&str>) -> Option<String> {
    match method {
        Method::Buildx if enforced != Some("privileged") => Some(format!(
            "method buildx runs a privileged BuildKit daemon, which namespace {namespace} has not opted in to: \
             set its label {ENFORCE_LABEL}=privileged, or use spec.method container"
        )),
        Method::Kaniko | Method::Container if enforced == Some("restricted") => Some(format!(
            "method {method} runs as root, which namespace {namespace} forbids by its label \
             {ENFORCE_LABEL}=restricted: use a namespace that enforces baseline"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_needs_at_least_its_level() {
        for (method, allowed) in [
            (Method::Buildx, [false, true, false, false]),
            (Method::Kaniko, [true, true, true, false]),
            (Method::Container, [true, true, true, false]),
            (Method::Paketo, [true, true, true, true]),
            (Method::Packer, [true, true, true, true]),
        ] {
            let levels = [None, Some("privileged"), Some("baseline"), Some("restricted")];
            assert_eq!(levels.map(|level| refusal(method, "team-a", level).is_none()), allowed, "{method}");
        }
    }

    #[test]
    fn a_refusal_names_the_namespace_and_the_label_to_set() {
        let text = refusal(Method::Buildx, "team-a", Some("baseline")).unwrap();
        assert!(text.contains("team-a") && text.contains("pod-security.kubernetes.io/enforce=privileged"), "{text}");
    }
}
