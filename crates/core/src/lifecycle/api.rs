//! Which versions of the Platform and the Buildpack API are spoken with a builder: the highest that it and we know.

use serde::Deserialize;

use super::Refusal;

/// Those by which the commands of this module are understood. 0.7 is the first that analyzes before it detects.
const PLATFORM: [&str; 9] = ["0.7", "0.8", "0.9", "0.10", "0.11", "0.12", "0.13", "0.14", "0.15"];
/// Those by which the buildpack that sets labels works.
const BUILDPACK: [&str; 6] = ["0.7", "0.8", "0.9", "0.10", "0.11", "0.12"];

/// What is spoken with a builder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apis {
    pub platform: String,
    pub buildpack: String,
}

/// `lifecycle.toml`: <https://github.com/buildpacks/rfcs/blob/main/text/0011-lifecycle-descriptor.md> and, since
/// several versions are supported, `apis`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Descriptor {
    apis: Supported,
    api: Single,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Supported {
    platform: Versions,
    buildpack: Versions,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Versions {
    supported: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Single {
    platform: String,
    buildpack: String,
}

/// From the builder's `/cnb/lifecycle/lifecycle.toml`.
///
/// # Errors
/// Where it can't be read, or there is no version that both know.
pub fn negotiate(descriptor: &str) -> Result<Apis, Refusal> {
    let found: Descriptor = toml::from_str(descriptor)
        .map_err(|error| Refusal(format!("the builder's lifecycle.toml can't be read: {}", error.message())))?;
    Ok(Apis {
        platform: highest("Platform", &found.apis.platform.supported, &found.api.platform, &PLATFORM)?,
        buildpack: highest("Buildpack", &found.apis.buildpack.supported, &found.api.buildpack, &BUILDPACK)?,
    })
}

fn highest(kind: &str, several: &[String], single: &str, known: &[&str]) -> Result<String, Refusal> {
    // A descriptor of old names one alone.
    let offered: Vec<&str> =
        if several.is_empty() { vec![single] } else { several.iter().map(String::as_str).collect() };
    let found = known.iter().rev().find(|version| offered.contains(version));
    found.map(|version| (*version).to_owned()).ok_or_else(|| {
        let offered: Vec<&str> = offered.into_iter().filter(|version| !version.is_empty()).collect();
        let offered = if offered.is_empty() { "none".to_owned() } else { offered.join(", ") };
        Refusal(format!(
            "the builder's lifecycle speaks no version of the {kind} API between {} and {} ({offered}): use a builder \
             with another lifecycle",
            known[0],
            known[known.len() - 1]
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(supported: &str) -> Result<String, String> {
        let text =
            format!("[apis.platform]\nsupported = {supported}\n[apis.buildpack]\nsupported = [\"0.8\", \"0.10\", \"0.9\"]");
        negotiate(&text).map(|apis| apis.platform).map_err(|refusal| refusal.0)
    }

    #[test]
    fn the_highest_version_that_both_know_is_spoken() {
        for (supported, spoken) in [
            (r#"["0.7", "0.8", "0.9", "0.10"]"#, "0.10"),
            (r#"["0.10", "0.9"]"#, "0.10"),
            (r#"["0.3", "0.4", "0.7"]"#, "0.7"),
            (r#"["0.14", "0.15", "0.16", "1.0"]"#, "0.15"),
        ] {
            assert_eq!(platform(supported).as_deref(), Ok(spoken), "{supported}");
        }
        let apis = negotiate("[apis.platform]\nsupported = [\"0.12\"]\n[apis.buildpack]\nsupported = [\"0.9\", \"0.10\"]");
        assert_eq!(apis, Ok(Apis { platform: "0.12".to_owned(), buildpack: "0.10".to_owned() }));
    }

    #[test]
    fn a_descriptor_of_old_names_one_version_alone() {
        let apis = negotiate("[api]\nplatform = \"0.7\"\nbuildpack = \"0.8\"\n[lifecycle]\nversion = \"0.12.0\"");
        assert_eq!(apis, Ok(Apis { platform: "0.7".to_owned(), buildpack: "0.8".to_owned() }));
    }

    #[test]
    fn where_there_is_none_the_sentence_says_what_the_builder_offers() {
        for (supported, words) in
            [(r#"["0.3", "0.4"]"#, "(0.3, 0.4)"), (r#"["1.0"]"#, "between 0.7 and 0.15 (1.0)"), ("[]", "(none)")]
        {
            let refused = platform(supported).expect_err("is refused");
            assert!(refused.contains("Platform API") && refused.contains(words), "{refused}");
        }
        assert!(negotiate("no = toml = here").is_err());
    }
}
