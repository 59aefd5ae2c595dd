//! Which images a Build may name as its builder and buildpacks: those below one of the operator's prefixes. A builder's
//! image decides what runs in a Pod, so who may name one is the installation's to say.

use crate::reference::{HUB, registry_name};

/// Why this image can't be used; `None` where it can. `field` names it to the user, `standard` is the operator's own
/// image, which is always allowed.
pub fn refusal(field: &str, image: &str, standard: &str, prefixes: &[String]) -> Option<String> {
    if image == standard || prefixes.iter().any(|prefix| is_below(image, prefix)) {
        return None;
    }
    let allowed = if prefixes.is_empty() {
        "this installation allows none (builders.paketo.allowed of its chart)".to_owned()
    } else {
        format!("this installation allows {}", prefixes.join(", "))
    };
    Some(format!("{field} is {image}, which is not among the images that builds may be run by: {allowed}"))
}

/// Whether the image is in the registry, the folder or the repository that the prefix names. A name that merely begins
/// alike is another's.
fn is_below(image: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    // An image is never a registry alone.
    let prefix = if is_host(prefix) { registry(prefix) } else { whole(prefix) };
    let image = whole(image);
    let Some(rest) = image.strip_prefix(&prefix) else { return false };
    // Behind a registry a colon is a port, and so another registry.
    let ends: &[char] = if prefix.contains('/') { &['/', ':', '@'] } else { &['/'] };
    rest.is_empty() || rest.starts_with(ends)
}

/// With its registry written out.
fn whole(reference: &str) -> String {
    match reference.split_once('/') {
        Some((host, path)) if is_host(host) => format!("{}/{path}", registry(host)),
        _ => format!("{HUB}/{reference}"),
    }
}

fn is_host(text: &str) -> bool {
    !text.contains('/') && (text.contains(['.', ':']) || text == "localhost")
}

/// By the one name that stands for all of its names.
fn registry(host: &str) -> String {
    registry_name(&host.to_ascii_lowercase()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(image: &str, prefixes: &[&str]) -> bool {
        let prefixes: Vec<String> = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
        refusal("spec.builder", image, "registry.test/own:1", &prefixes).is_none()
    }

    #[test]
    fn a_prefix_is_a_registry_a_folder_or_a_repository() {
        for (image, prefix) in [
            ("registry.test/cnb/builder:1", "registry.test/cnb"),
            ("registry.test/cnb/builder:1", "registry.test/cnb/"),
            ("registry.test/cnb/builder:1", "registry.test/cnb/builder"),
            ("registry.test/cnb/builder@sha256:00", "registry.test/cnb/builder"),
            ("registry.test/cnb/builder", "registry.test"),
            ("registry.test:5000/cnb/builder", "registry.test:5000/"),
            ("Registry.Test/cnb/builder", "registry.test/cnb"),
            ("paketobuildpacks/builder-jammy-base", "docker.io/paketobuildpacks"),
            ("docker.io/paketobuildpacks/builder-jammy-base:1", "paketobuildpacks/"),
            ("index.docker.io/paketobuildpacks/go", "docker.io/paketobuildpacks/"),
            ("localhost:5000/builder", "localhost:5000"),
        ] {
            assert!(allowed(image, &[prefix]), "{image} below {prefix}");
        }
    }

    #[test]
    fn what_only_begins_alike_is_another() {
        for (image, prefix) in [
            ("registry.test/cnb-evil/builder", "registry.test/cnb"),
            ("registry.test.evil.test/cnb/builder", "registry.test"),
            ("registry.test:5000/cnb/builder", "registry.test"),
            ("registry.test/CNB/builder", "registry.test/cnb"),
            ("evil.test/registry.test/cnb/builder", "registry.test/cnb"),
            ("paketobuildpacks.evil.test/builder", "paketobuildpacks"),
            ("registry.test/builder", "registry.test/cnb/builder"),
        ] {
            assert!(!allowed(image, &[prefix]), "{image} below {prefix}");
        }
        assert!(!allowed("registry.test/cnb/builder", &[]));
        assert!(allowed("registry.test/own:1", &[]), "the operator's own");
        assert!(!allowed("registry.test/own:2", &[]));
    }

    #[test]
    fn a_refusal_says_what_is_allowed() {
        let told = refusal("spec.buildpacks[1]", "a.test/b", "", &["c.test/d".to_owned()]);
        assert!(told.is_some_and(|told| told.contains("spec.buildpacks[1] is a.test/b") && told.contains("c.test/d")));
    }
}
