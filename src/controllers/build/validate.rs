//! What the API server can't judge about a spec and the operator refuses. A refusal becomes a row,
//! so that an older success never hides it.

use image_factory_core::{pod_security, reason::Reason};

use super::load::Namespace;
use crate::{
    crd::{BuildSpec, source::GitSource},
    jobs, source,
};

/// Why this spec can't be built here; `None` where it can.
pub fn refusal(spec: &BuildSpec, namespace: &Namespace, settings: &jobs::Settings) -> Option<(Reason, String)> {
    if let Some(message) = jobs::unavailable(spec.method, &settings.images) {
        return Some((Reason::MethodNotAvailable, message));
    }
    if let Some(option) = spec.options.unknown.keys().next() {
        return Some((
            Reason::InvalidSpec,
            format!("spec.options.{option} is not available in this version; remove it"),
        ));
    }
    if let Some(message) = jobs::paketo::refusal(spec, &settings.images) {
        return Some((Reason::BuilderNotAllowed, message));
    }
    if let Some(message) = spec.source.git.as_ref().and_then(|git| source_refusal(git, &settings.sources)) {
        return Some((Reason::InvalidSpec, message));
    }
    pod_security::refusal(spec.method, &namespace.name, namespace.enforced.as_deref())
        .map(|message| (Reason::PodSecurity, message))
}

/// The rules of the API again, for objects from before they stood there, and what depends on this installation.
fn source_refusal(git: &GitSource, sources: &jobs::source::Settings) -> Option<String> {
    let has_credentials = git.credentials_secret.is_some();
    source::check_git(&git.url, git.revision.as_deref(), has_credentials, &sources.insecure_protocols)
        .err()
        .map(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use image_factory_core::git::Protocol;
    use serde_json::{Value, json};

    use super::*;
    use crate::config::Images;

    fn refused(method: &str, enforced: Option<&str>) -> Option<(Reason, String)> {
        refused_with("registry.test/kaniko:1", method, enforced)
    }

    fn refused_with(kaniko: &str, method: &str, enforced: Option<&str>) -> Option<(Reason, String)> {
        let source = json!({"inline": {"files": {"Dockerfile": "FROM scratch"}}});
        refused_source(kaniko, method, enforced, &source, &[])
    }

    fn refused_source(
        kaniko: &str,
        method: &str,
        enforced: Option<&str>,
        source: &Value,
        insecure: &[Protocol],
    ) -> Option<(Reason, String)> {
        let image = |name: &str| format!("registry.test/{name}:1");
        let images = Images {
            operator: image("operator"),
            kaniko: kaniko.to_owned(),
            buildx: image("buildx"),
            buildkit: image("buildkit"),
            sbom_generator: image("sbom-generator"),
            container: image("buildah"),
            ..Images::default()
        };
        let settings = jobs::Settings {
            images,
            sources: jobs::source::Settings { insecure_protocols: insecure.to_vec(), authorities: None, mebibytes: 1 },
            ..jobs::Settings::default()
        };
        let spec = serde_json::from_value(json!({
            "method": method,
            "source": source,
            "output": {"image": "registry.test/a/b:1"},
        }))
        .unwrap();
        let namespace =
            Namespace { name: "team-a".to_owned(), uid: "u".to_owned(), enforced: enforced.map(str::to_owned) };
        refusal(&spec, &namespace, &settings)
    }

    #[test]
    fn an_unencrypted_protocol_is_refused_unless_this_installation_allows_it() {
        let refused =
            |git: Value, allowed: &[Protocol]| refused_source("", "container", None, &json!({"git": git}), allowed);
        for (url, allowed, expected) in [
            ("https://git.test/a.git", &[][..], None),
            ("http://git.test/a.git", &[], Some("http is not encrypted, and this installation does not allow it")),
            ("http://git.test/a.git", &[Protocol::Http], None),
            ("git://git.test/a.git", &[Protocol::Http], Some("git is not encrypted")),
            ("git://git.test/a.git", &[Protocol::Git], None),
            ("https://me:word@git.test/a.git", &[], Some("spec.source.git.url must have no password in it")),
            ("git@git.test:a.git", &[], Some("a source by ssh needs spec.source.git.credentialsSecret")),
        ] {
            let refused = refused(json!({"url": url}), allowed);
            match expected {
                None => assert_eq!(refused, None, "{url}"),
                Some(sentence) => {
                    let (reason, message) = refused.unwrap();
                    assert_eq!(reason, Reason::InvalidSpec);
                    assert!(message.contains(sentence), "{message}");
                }
            }
        }
        let source = json!({"url": "https://git.test/a.git", "revision": "--upload-pack=x"});
        let (reason, message) = refused(source, &[]).unwrap();
        assert_eq!(reason, Reason::InvalidSpec);
        let sentence = "spec.source.git.revision must be a branch, a tag or a full commit id";
        assert!(message.starts_with(sentence), "{message}");
    }

    #[test]
    fn a_method_of_a_later_version_is_refused_by_name() {
        let (reason, message) = refused("paketo", Some("privileged")).unwrap();
        assert_eq!(reason, Reason::MethodNotAvailable);
        assert!(message.contains("paketo"), "{message}");
    }

    /// The API server drops what its definitions don't know; they may be newer than the operator.
    #[test]
    fn an_option_of_a_newer_version_is_refused_by_name_and_not_left_out() {
        let refused = |options: Value| {
            let spec = serde_json::from_value(json!({
                "method": "container", "options": options,
                "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}},
                "output": {"image": "registry.test/a/b:1"},
            }))
            .unwrap();
            let namespace = Namespace { name: "team-a".to_owned(), uid: "u".to_owned(), enforced: None };
            refusal(&spec, &namespace, &jobs::Settings::default())
        };
        assert_eq!(refused(json!({"squash": true, "format": "docker"})), None);
        let (reason, message) = refused(json!({"squash": true, "flatten": 1})).unwrap();
        assert_eq!(reason, Reason::InvalidSpec);
        assert_eq!(message, "spec.options.flatten is not available in this version; remove it");
    }

    #[test]
    fn packer_needs_an_image_of_it() {
        let (reason, message) = refused("packer", Some("restricted")).unwrap();
        assert_eq!(reason, Reason::MethodNotAvailable);
        assert!(message.contains("builders.packer.image"), "{message}");
    }

    #[test]
    fn kaniko_needs_an_image_of_it() {
        assert_eq!(refused("kaniko", Some("baseline")), None);
        let (reason, message) = refused_with("", "kaniko", Some("baseline")).unwrap();
        assert_eq!(reason, Reason::MethodNotAvailable);
        assert!(message.contains("builders.kaniko.image"), "{message}");
    }

    #[test]
    fn paketo_takes_images_below_the_allowed_prefixes_and_its_own() {
        let refused = |field: &str, value: Value| {
            let mut spec = json!({
                "method": "paketo",
                "source": {"inline": {"files": {"a": "b"}}},
                "output": {"image": "registry.test/a/b:1"},
            });
            spec[field] = value;
            let images = Images {
                paketo: "registry.test/own:1".to_owned(),
                paketo_allowed: vec!["registry.test/cnb/".to_owned()],
                ..Images::default()
            };
            let settings = jobs::Settings { images, ..jobs::Settings::default() };
            let namespace =
                Namespace { name: "team-a".to_owned(), uid: "u".to_owned(), enforced: Some("restricted".to_owned()) };
            refusal(&serde_json::from_value(spec).unwrap(), &namespace, &settings)
        };
        for (field, value) in [
            ("project", json!("default")),
            ("builder", json!("registry.test/own:1")),
            ("builder", json!("registry.test/cnb/builder:1")),
            ("buildpacks", json!(["registry.test/cnb/a:1", "registry.test/cnb/b@sha256:00"])),
        ] {
            assert_eq!(refused(field, value.clone()), None, "{field} {value}");
        }
        for (field, value, words) in [
            ("builder", json!("registry.test/own:2"), "spec.builder is registry.test/own:2"),
            ("buildpacks", json!(["registry.test/cnb/a:1", "evil.test/b"]), "spec.buildpacks[1] is evil.test/b"),
        ] {
            let (reason, message) = refused(field, value).unwrap();
            assert_eq!(reason, Reason::BuilderNotAllowed);
            assert!(message.contains(words) && message.contains("registry.test/cnb/"), "{message}");
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
