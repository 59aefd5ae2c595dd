//! What the API server can't judge about a spec and the operator refuses. A refusal becomes a row,
//! so that an older success never hides it.

use image_factory_core::{pod_security, reason::Reason};

use super::load::Namespace;
use crate::{crd::BuildSpec, jobs};

/// Why this spec can't be built here; `None` where it can.
pub fn refusal(spec: &BuildSpec, namespace: &Namespace) -> Option<(Reason, String)> {
    if !jobs::is_available(spec.method) {
        let message = format!("spec.method {} is not available in this version; use buildx or container", spec.method);
        return Some((Reason::MethodNotAvailable, message));
    }
    pod_security::refusal(spec.method, &namespace.name, namespace.enforced.as_deref())
        .map(|message| (Reason::PodSecurity, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(method: &str, enforced: Option<&str>) -> Option<(Reason, String)> {
        let spec = serde_json::from_value(serde_json::json!({
            "method": method,
            "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}},
            "output": {"image": "registry.test/a/b:1"},
        }))
        .unwrap();
        let namespace =
            Namespace { name: "team-a".to_owned(), uid: "u".to_owned(), enforced: enforced.map(str::to_owned) };
        refusal(&spec, &namespace)
    }

    #[test]
    fn a_method_of_a_later_version_is_refused_by_name() {
        for method in ["kaniko", "paketo", "packer"] {
            let (reason, message) = refused(method, Some("privileged")).unwrap();
            assert_eq!(reason, Reason::MethodNotAvailable);
            assert!(message.contains(method), "{message}");
        }
    }

    #[test]
    fn what_the_namespace_forbids_is_refused_before_there_is_a_pod() {
        assert_eq!(refused("buildx", Some("baseline")).unwrap().0, Reason::PodSecurity);
        assert_eq!(refused("container", Some("restricted")).unwrap().0, Reason::PodSecurity);
        assert_eq!(refused("container", Some("baseline")), None);
        assert_eq!(refused("buildx", Some("privileged")), None);
    }
}
