//! What the API server can't judge about a spec and the operator refuses. A refusal becomes a row,
//! so that an older success never hides it.

use image_factory_core::{pod_security, reason::Reason};

use super::load::Namespace;
use crate::{config::Images, crd::BuildSpec, jobs};

/// Why this spec can't be built here; `None` where it can.
pub fn refusal(spec: &BuildSpec, namespace: &Namespace, images: &Images) -> Option<(Reason, String)> {
    if let Some(message) = jobs::unavailable(spec.method, images) {
        return Some((Reason::MethodNotAvailable, message));
    }
    pod_security::refusal(spec.method, &namespace.name, namespace.enforced.as_deref())
        .map(|message| (Reason::PodSecurity, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(method: &str, enforced: Option<&str>) -> Option<(Reason, String)> {
        refused_with("registry.test/kaniko:1", method, enforced)
    }

    fn refused_with(kaniko: &str, method: &str, enforced: Option<&str>) -> Option<(Reason, String)> {
        let image = |name: &str| format!("registry.test/{name}:1");
        let images = Images {
            operator: image("operator"),
            kaniko: kaniko.to_owned(),
            buildx: image("buildx"),
            buildkit: image("buildkit"),
            container: image("buildah"),
        };
        let spec = serde_json::from_value(serde_json::json!({
            "method": method,
            "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}},
            "output": {"image": "registry.test/a/b:1"},
        }))
        .unwrap();
        let namespace =
            Namespace { name: "team-a".to_owned(), uid: "u".to_owned(), enforced: enforced.map(str::to_owned) };
        refusal(&spec, &namespace, &images)
    }

    #[test]
    fn a_method_of_a_later_version_is_refused_by_name() {
        for method in ["paketo", "packer"] {
            let (reason, message) = refused(method, Some("privileged")).unwrap();
            assert_eq!(reason, Reason::MethodNotAvailable);
            assert!(message.contains(method), "{message}");
        }
    }

    #[test]
    fn kaniko_needs_an_image_of_it() {
        assert_eq!(refused("kaniko", Some("baseline")), None);
        let (reason, message) = refused_with("", "kaniko", Some("baseline")).unwrap();
        assert_eq!(reason, Reason::MethodNotAvailable);
        assert!(message.contains("builders.kaniko.image"), "{message}");
    }

    #[test]
    fn what_the_namespace_forbids_is_refused_before_there_is_a_pod() {
        assert_eq!(refused("buildx", Some("baseline")).unwrap().0, Reason::PodSecurity);
        assert_eq!(refused("container", Some("restricted")).unwrap().0, Reason::PodSecurity);
        assert_eq!(refused("container", Some("baseline")), None);
        assert_eq!(refused("buildx", Some("privileged")), None);
    }
}
