//! The five ways of building an image. Which method runs which builder, and what that needs, is
//! decided where the method is used; here are only the names, the same in the API, in Postgres and
//! in labels.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How an image is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Method {
    Kaniko,
    Buildx,
    Container,
    Paketo,
    Packer,
}

impl Method {
    pub const ALL: [Self; 5] = [Self::Kaniko, Self::Buildx, Self::Container, Self::Paketo, Self::Packer];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kaniko => "kaniko",
            Self::Buildx => "buildx",
            Self::Container => "container",
            Self::Paketo => "paketo",
            Self::Packer => "packer",
        }
    }

    /// Whether the method builds from a Dockerfile.
    pub fn reads_dockerfile(self) -> bool {
        matches!(self, Self::Kaniko | Self::Buildx | Self::Container)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is none of the five methods.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to read the method `{0}`: it is none of kaniko, buildx, container, paketo and packer")]
pub struct UnknownMethod(pub String);

impl FromStr for Method {
    type Err = UnknownMethod;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|method| method.as_str() == name)
            .ok_or_else(|| UnknownMethod(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_reads_back_from_its_own_name_and_from_json() {
        for method in Method::ALL {
            assert_eq!(method.to_string().parse(), Ok(method));
            let json = serde_json::to_string(&method).expect("a method serialises");
            assert_eq!(json, format!("\"{method}\""));
            assert_eq!(serde_json::from_str::<Method>(&json).expect("and reads back"), method);
        }
    }

    #[test]
    fn another_name_is_refused_and_named() {
        let refused = "docker".parse::<Method>().expect_err("docker is no method");
        assert!(refused.to_string().contains("`docker`"));
    }
}
