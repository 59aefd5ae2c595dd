//! The parts of an image reference `host[:port]/path[:tag]`.
//!
//! The API server has judged the form; this only takes it apart.

/// Tag of a reference that names none.
pub const DEFAULT_TAG: &str = "latest";

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
