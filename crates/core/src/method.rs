//! Which builders there are, and which of them this version can run.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The way an image is built: `spec.method`, and `build_configs.build_method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
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

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kaniko => "kaniko",
            Self::Buildx => "buildx",
            Self::Container => "container",
            Self::Paketo => "paketo",
            Self::Packer => "packer",
        }
    }

    /// Whether the method takes a Dockerfile (and with it `target`, `buildArgs`, `dockerfile`).
    pub const fn reads_dockerfile(self) -> bool {
        matches!(self, Self::Kaniko | Self::Buildx | Self::Container)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown build method {0:?}: expected kaniko, buildx, container, paketo or packer")]
pub struct UnknownMethod(pub String);

impl FromStr for Method {
    type Err = UnknownMethod;

    fn from_str(text: &str) -> Result<Self, UnknownMethod> {
        Self::ALL.into_iter().find(|method| method.as_str() == text).ok_or_else(|| UnknownMethod(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_reads_back_from_its_name_and_from_json() {
        for method in Method::ALL {
            assert_eq!(method.as_str().parse(), Ok(method));
            assert_eq!(serde_json::to_value(method).unwrap(), method.as_str());
        }
        assert!("docker".parse::<Method>().unwrap_err().to_string().contains("docker"));
    }
}
