//! Registries that are asked before another for the images in it: which ones, and under which name each has an image. A
//! mirror that does not answer, or does not have the image, is passed over.

use std::{fmt, str::FromStr};

use crate::reference::registry_name;

/// `docker.io=mirror.example.com/hub`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The registry whose images it has, as `host` or `host:port`.
    pub registry: String,
    /// Where it has them: `host[:port][/path]`.
    pub location: String,
}

impl Mirror {
    /// Of the mirror itself.
    pub fn host(&self) -> &str {
        self.location.split('/').next().unwrap_or_default()
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.registry, self.location)
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no registry and its mirror, such as docker.io=mirror.example.com/hub")]
pub struct NoMirror(String);

impl FromStr for Mirror {
    type Err = NoMirror;

    fn from_str(text: &str) -> Result<Self, NoMirror> {
        let no = || NoMirror(text.to_owned());
        let (registry, location) = text.split_once('=').ok_or_else(no)?;
        let (host, path) = location.split_once('/').map_or((location, None), |(host, path)| (host, Some(path)));
        let is_path = |path: &str| {
            path.split('/').all(|part| {
                !part.is_empty()
                    && part.starts_with(|c: char| c.is_ascii_alphanumeric())
                    && part
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte))
            })
        };
        // What else stands before a slash is part of a name, to some who read it.
        let is_told_from_a_name = host.contains(['.', ':']) || host == "localhost";
        if !is_host(registry) || !is_host(host) || !is_told_from_a_name || !path.is_none_or(is_path) {
            return Err(no());
        }
        Ok(Self { registry: registry_name(registry).to_owned(), location: location.to_owned() })
    }
}

fn is_host(text: &str) -> bool {
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
        && port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

/// The registries of which a builder has to be told, each once: those that have mirrors, with them in their order, and
/// after them those of `others` that have none.
pub fn by_registry<'a>(mirrors: &'a [Mirror], others: &'a [String]) -> Vec<(&'a str, Vec<&'a Mirror>)> {
    let mut registries: Vec<(&str, Vec<&Mirror>)> = Vec::new();
    for mirror in mirrors {
        match registries.iter_mut().find(|(known, _)| *known == mirror.registry) {
            Some((_, known)) => known.push(mirror),
            None => registries.push((&mirror.registry, vec![mirror])),
        }
    }
    let mirrored = registries.len();
    for other in others {
        if registries[..mirrored].iter().all(|(known, _)| known != other) {
            registries.push((other, Vec::new()));
        }
    }
    registries
}

/// The repositories to ask for `repository` of `registry`, one after another, as `host[:port]/path`; the mirrors' first.
pub fn repositories(mirrors: &[Mirror], registry: &str, repository: &str) -> Vec<String> {
    let registry = registry_name(registry);
    let locations = mirrors.iter().filter(|mirror| mirror.registry == registry).map(|mirror| mirror.location.as_str());
    locations.chain([registry]).map(|location| format!("{location}/{repository}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrors(texts: &[&str]) -> Vec<Mirror> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_mirror_is_a_registry_and_a_place_and_nothing_that_a_file_of_settings_would_read_as_more() {
        let mirror = |registry: &str, location: &str| {
            Ok(Mirror { registry: registry.to_owned(), location: location.to_owned() })
        };
        assert_eq!("docker.io=mirror.test/hub".parse(), mirror("docker.io", "mirror.test/hub"));
        assert_eq!("index.docker.io=mirror.test".parse(), mirror("docker.io", "mirror.test"));
        assert_eq!("quay.io=10.0.0.1:5000/a/b-c".parse(), mirror("quay.io", "10.0.0.1:5000/a/b-c"));
        assert_eq!("registry.test:5000=mirror.test:80".parse(), mirror("registry.test:5000", "mirror.test:80"));
        assert_eq!(mirrors(&["a=b.test:1/c"])[0].host(), "b.test:1");
        for text in [
            "",
            "docker.io",
            "=mirror.test",
            "docker.io=",
            "docker.io/library=mirror.test",
            "docker.io=https://mirror.test",
            "docker.io=mirror.test/",
            "docker.io=mirror.test/a//b",
            "docker.io=mirror.test/../b",
            "docker.io=mirror.test/A",
            "docker.io=mirror.test\"]",
            "docker.io=mirror.test;a=b",
            "docker.io=mirror.test:port",
            "docker.io=mirror.test:+80",
            "docker.io=mirror.test:99999",
            "docker.io=mirror/hub",
            "-docker.io=mirror.test",
        ] {
            assert!(text.parse::<Mirror>().is_err(), "{text}");
        }
    }

    #[test]
    fn mirrors_are_asked_in_their_order_and_the_registry_itself_last() {
        let mirrors = mirrors(&["docker.io=one.test/hub", "quay.io=one.test/quay", "docker.io=two.test"]);
        for (registry, expected) in [
            ("docker.io", &["one.test/hub/library/a", "two.test/library/a", "docker.io/library/a"][..]),
            ("index.docker.io", &["one.test/hub/library/a", "two.test/library/a", "docker.io/library/a"]),
            ("quay.io", &["one.test/quay/library/a", "quay.io/library/a"]),
            ("other.test", &["other.test/library/a"]),
        ] {
            assert_eq!(repositories(&mirrors, registry, "library/a"), expected, "{registry}");
        }
        let others = ["quay.io", "other.test"].map(str::to_owned);
        let expected =
            [("docker.io", vec![&mirrors[0], &mirrors[2]]), ("quay.io", vec![&mirrors[1]]), ("other.test", vec![])];
        assert_eq!(by_registry(&mirrors, &others), expected);
    }
}
