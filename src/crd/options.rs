//! Values without a field of their own, which few builders know. What more than one builder can do has one name, so that
//! a Build moves between them by its method alone; which option goes with which method is checked beside
//! [`super::build`].

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Values of some methods that have no field of their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Options {
    /// Media types of the image: oci or docker. Methods kaniko and container. Default: of kaniko those of the base image,
    /// of container oci.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Whether every time in the image is 1970, so that the same files give the same digest. Methods kaniko (with the
    /// media types of docker) and container. Default: false.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub reproducible: bool,
    /// Whether all that is added to the base image is one layer; without cache.repo. Methods kaniko and container.
    /// Default: false.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub squash: bool,
    /// How old a layer in cache.repo may be to be reused, such as 12h or 168h; from 1m. Methods kaniko and container.
    /// Default: of kaniko 336h, of container any age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24))]
    #[x_kube(validation = (
        "self.matches('^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$') && duration(self) >= duration('1m')",
        "spec.options.cacheTtl must be a duration of at least 1m, such as 90m, 12h or 168h"
    ))]
    pub cache_ttl: Option<String>,
    /// Whether COPY is cached beside RUN. Method kaniko; the others cache it anyway. Default: false.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub cache_copy_layers: bool,
    /// False: layers for cache.repo are not compressed in memory, which is slower and needs less of it. Method kaniko.
    /// Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compressed_caching: Option<bool>,
    /// What tells kaniko that an instruction has changed a file: redo, its size, time, mode and owner; full, its content
    /// too; time, its time alone. Method kaniko. Default: redo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_mode: Option<SnapshotMode>,
    /// Whether a RUN is looked at by kaniko's newer way, which is faster and misses that it deleted files of the base
    /// image. Method kaniko. Default: false.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub use_new_run: bool,
    /// Absolute paths that stay out of the image, with all below them. Method kaniko; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 2, max = 255)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = (
        r"self.all(path, path.matches('^/[^\\x00-\\x1f\\x7f]+$') && !path.matches('(^|/)[.][.]?(/|$)|//'))",
        "each of spec.options.ignorePaths must be an absolute path without `.` and `..`, such as /var/cache/apt"
    ))]
    pub ignore_paths: Vec<String>,
    /// What a newer version may know: kept as it is written, and refused.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: BTreeMap<String, Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Oci,
    Docker,
}

impl Format {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Oci => "oci",
            Self::Docker => "docker",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotMode {
    #[default]
    Redo,
    Full,
    Time,
}

impl SnapshotMode {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redo => "redo",
            Self::Full => "full",
            Self::Time => "time",
        }
    }
}
