//! What the API server can't judge about a spec and the operator refuses. A refusal becomes a row,
//! so that an older success never hides it.

use image_factory_core::{pod_security, reason::Reason};

use super::load::Namespace;
use crate::{
    crd::{BuildSpec, source::GitSource},
    jobs, source,
};

/// Why this spec can't be built here; `None` where it can.
pub fn refusal(spec: &BuildSpec, namespace: &Namespace, sources: &jobs::source::Settings) -> Option<(Reason, String)> {
    if !jobs::is_available(spec.method) {
        let message = format!("spec.method {} is not available in this version; use buildx or container", spec.method);
        return Some((Reason::MethodNotAvailable, message));
    }
    if let Some(message) = spec.source.git.as_ref().and_then(|git| source_refusal(git, sources)) {
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

    fn refused(method: &str, enforced: Option<&str>) -> Option<(Reason, String)> {
        refused_source(method, enforced, &json!({"inline": {"files": {"Dockerfile": "FROM scratch"}}}), &[])
    }

    fn refused_source(
        method: &str,
        enforced: Option<&str>,
        source: &Value,
        insecure: &[Protocol],
    ) -> Option<(Reason, String)> {
        let spec = serde_json::from_value(json!({
            "method": method,
            "source": source,
            "output": {"image": "registry.test/a/b:1"},
        }))
        .unwrap();
        let namespace =
            Namespace { name: "team-a".to_owned(), uid: "u".to_owned(), enforced: enforced.map(str::to_owned) };
        let sources = jobs::source::Settings { insecure_protocols: insecure.to_vec(), mebibytes: 1 };
        refusal(&spec, &namespace, &sources)
    }

    #[test]
    fn an_unencrypted_protocol_is_refused_unless_this_installation_allows_it() {
        let source = |url: &str| json!({"git": {"url": url}});
        for (url, allowed, expected) in [
            ("https://git.test/a.git", &[][..], None),
            ("http://git.test/a.git", &[], Some("http is not encrypted, and this installation does not allow it")),
            ("http://git.test/a.git", &[Protocol::Http], None),
            ("git://git.test/a.git", &[Protocol::Http], Some("git is not encrypted")),
            ("git://git.test/a.git", &[Protocol::Git], None),
            ("https://me:word@git.test/a.git", &[], Some("spec.source.git.url must have no password in it")),
            ("git@git.test:a.git", &[], Some("a source by ssh needs spec.source.git.credentialsSecret")),
        ] {
            let refused = refused_source("container", None, &source(url), allowed);
            match expected {
                None => assert_eq!(refused, None, "{url}"),
                Some(sentence) => {
                    let (reason, message) = refused.unwrap();
                    assert_eq!(reason, Reason::InvalidSpec);
                    assert!(message.contains(sentence), "{message}");
                }
            }
        }
        let source = json!({"git": {"url": "https://git.test/a.git", "revision": "--upload-pack=x"}});
        let (reason, message) = refused_source("container", None, &source, &[]).unwrap();
        assert_eq!(reason, Reason::InvalidSpec);
        assert!(
            message.starts_with("spec.source.git.revision must be a branch, a tag or a full commit id"),
            "{message}"
        );
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
