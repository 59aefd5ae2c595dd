//! Labels of the image: the lifecycle takes them from buildpacks alone, so there is one of ours that does nothing else.
//! It joins the group after detection, so that it can never be the only buildpack that knows a source.

use serde::Serialize;

pub const LABELS_ID: &str = "imagefactory.dev/labels";
pub const LABELS_VERSION: &str = "1";

/// The files of that buildpack, and how it stands in the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelsBuildpack {
    pub descriptor: String,
    /// `launch.toml`: what it leaves behind.
    pub launch: String,
    /// What is added to `group.toml`.
    pub group: String,
}

#[derive(Serialize)]
struct Launch<'a> {
    labels: Vec<Label<'a>>,
}

#[derive(Serialize)]
struct Label<'a> {
    key: &'a str,
    value: &'a str,
}

impl LabelsBuildpack {
    /// `api`: of the Buildpack API. None without labels.
    pub fn new(labels: &[(String, String)], api: &str) -> Option<Self> {
        let launch = Launch { labels: labels.iter().map(|(key, value)| Label { key, value }).collect() };
        // Plain tables of text can always be written.
        let launch = toml::to_string(&launch).ok().filter(|_| !labels.is_empty())?;
        Some(Self {
            descriptor: format!(
                "api = \"{api}\"\n\n[buildpack]\nid = \"{LABELS_ID}\"\nversion = \"{LABELS_VERSION}\"\nname = \"Labels \
                 of spec.output.labels\"\n\n[[stacks]]\nid = \"*\"\n\n[[targets]]\nos = \"linux\"\n"
            ),
            launch,
            group: format!("\n[[group]]\nid = \"{LABELS_ID}\"\nversion = \"{LABELS_VERSION}\"\napi = \"{api}\"\n"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_survive_whatever_they_hold() {
        let value = "a \"quoted\" \\ line\nand = [another]\u{1}";
        let labels = [("org.example/a".to_owned(), value.to_owned()), ("b".to_owned(), String::new())];
        let made = LabelsBuildpack::new(&labels, "0.10").expect("is made");
        let read: toml::Value = toml::from_str(&made.launch).expect("is TOML");
        assert_eq!(read["labels"][0]["key"].as_str(), Some("org.example/a"));
        assert_eq!(read["labels"][0]["value"].as_str(), Some(value));
        assert_eq!(read["labels"][1]["value"].as_str(), Some(""));
        let group: toml::Value =
            toml::from_str(&format!("[[group]]\nid = \"x\"\nversion = \"2\"\n{}", made.group)).expect("is TOML");
        assert_eq!(group["group"][1]["id"].as_str(), Some(LABELS_ID));
        let descriptor: toml::Value = toml::from_str(&made.descriptor).expect("is TOML");
        assert_eq!(
            (descriptor["api"].as_str(), descriptor["buildpack"]["id"].as_str()),
            (Some("0.10"), Some(LABELS_ID))
        );
        assert_eq!(LabelsBuildpack::new(&[], "0.10"), None);
    }
}
