//! Which versions of the Platform and the Buildpack API are spoken with a builder: the highest that it and we know. No
//! file of an image says which its lifecycle knows (`lifecycle.toml` stays behind when a builder is made of it), but a
//! program of the lifecycle that is asked for its version in an API that it does not know fails.

use super::Refusal;

/// Those by which the commands of this module are understood. 0.7 is the first that analyzes before it detects.
const PLATFORM: [&str; 9] = ["0.7", "0.8", "0.9", "0.10", "0.11", "0.12", "0.13", "0.14", "0.15"];

/// What is spoken with a builder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apis {
    pub platform: &'static str,
    /// For a buildpack of ours: one that every lifecycle with that Platform API knows.
    pub buildpack: &'static str,
}

/// Asks for one version after the other, the highest first.
///
/// # Errors
/// Where there is none that both know.
pub fn negotiate(knows: impl FnMut(&&str) -> bool) -> Result<Apis, Refusal> {
    let platform = PLATFORM.into_iter().rev().find(knows).ok_or_else(|| {
        Refusal(format!(
            "the builder's lifecycle knows no version of the Platform API between {} and {}: use a builder with another \
             lifecycle",
            PLATFORM[0],
            PLATFORM[PLATFORM.len() - 1]
        ))
    })?;
    Ok(Apis { platform, buildpack: buildpack(platform) })
}

/// By the table of what each lifecycle knows: <https://github.com/buildpacks/lifecycle#supported-apis>. One that knows
/// no more than 0.7 is a 0.12.
fn buildpack(platform: &str) -> &'static str {
    if platform == "0.7" { "0.6" } else { "0.7" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(known: &[&str]) -> Result<Apis, Refusal> {
        negotiate(|version| known.contains(version))
    }

    #[test]
    fn the_highest_version_that_both_know_is_spoken() {
        for (known, platform, buildpack) in [
            (&["0.7", "0.8", "0.9", "0.10"][..], "0.10", "0.7"),
            (&["0.10", "0.9"], "0.10", "0.7"),
            (&["0.3", "0.4", "0.7"], "0.7", "0.6"),
            (&["0.14", "0.15", "0.16", "1.0"], "0.15", "0.7"),
        ] {
            assert_eq!(spoken(known), Ok(Apis { platform, buildpack }), "{known:?}");
        }
    }

    #[test]
    fn where_there_is_none_the_sentence_says_what_is_wanted() {
        for known in [&[][..], &["0.3", "0.6"], &["1.0"]] {
            let refused = spoken(known).expect_err("is refused").0;
            assert!(refused.contains("between 0.7 and 0.15"), "{refused}");
        }
    }
}
