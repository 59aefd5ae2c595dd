//! The parts of an image reference `host[:port]/path[:tag]`.
//!
//! The API server has judged the form; this only takes it apart.

/// Tag of a reference that names none.
pub const DEFAULT_TAG: &str = "latest";
/// Registry of a reference that names none: Docker Hub.
pub const HUB: &str = "docker.io";
/// Its older name, by which kaniko and the lifecycle know it.
pub const HUB_INDEX: &str = "index.docker.io";

/// The one name of a registry that has several, as Docker Hub has; any other as it is.
pub fn registry_name(host: &str) -> &str {
    if matches!(host, HUB | HUB_INDEX | "registry-1.docker.io") { HUB } else { host }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    /// Host, port and path: `images.repository`.
    pub repository: &'a str,
    pub tag: &'a str,
}

impl<'a> Reference<'a> {
    pub fn new(text: &'a str) -> Self {
        let path_starts = text.find('/').unwrap_or(0);
        match text[path_starts..].rfind(':') {
            Some(colon) => {
                let colon = path_starts + colon;
                Self { repository: &text[..colon], tag: &text[colon + 1..] }
            }
            None => Self { repository: text, tag: DEFAULT_TAG },
        }
    }

    /// The registry, with its port where it has one.
    pub fn host(&self) -> &'a str {
        self.repository.split('/').next().unwrap_or(self.repository)
    }

    /// The same repository with another tag.
    pub fn with_tag(&self, tag: &str) -> String {
        format!("{}:{tag}", self.repository)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_hub_has_three_names_and_no_other_registry_has_one_of_them() {
        for (host, name) in [
            ("docker.io", HUB),
            ("index.docker.io", HUB),
            ("registry-1.docker.io", HUB),
            ("docker.io:443", "docker.io:443"),
            ("mirror.docker.io", "mirror.docker.io"),
            ("", ""),
        ] {
            assert_eq!(registry_name(host), name);
        }
    }

    #[test]
    fn a_port_is_no_tag_and_the_default_tag_is_latest() {
        for (text, repository, tag, host) in [
            ("reg.test:5000/shop/web:1.2", "reg.test:5000/shop/web", "1.2", "reg.test:5000"),
            ("reg.test:5000/web", "reg.test:5000/web", "latest", "reg.test:5000"),
            ("reg.test/web:a-b_c.d", "reg.test/web", "a-b_c.d", "reg.test"),
            ("[::1]:5000/web:1", "[::1]:5000/web", "1", "[::1]:5000"),
        ] {
            let reference = Reference::new(text);
            assert_eq!((reference.repository, reference.tag, reference.host()), (repository, tag, host));
            assert_eq!(Reference::new(&reference.with_tag("x")).tag, "x");
        }
    }
}
