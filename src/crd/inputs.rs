//! The inputs of a build that have more than one field: cache, Packer template, secrets and keys a
//! builder may use, and the scan. What differs between methods is checked beside [`super::build`].

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reference::SecretKeyReference;

/// Where layers are kept between builds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    /// Whether the builder may reuse layers of earlier builds.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Repository for cached layers, host[:port]/path without tag or digest. Methods kaniko, container
    /// and paketo (there it is the cache image).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = (
        r"self.matches('^([a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?([.][a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*|[[][0-9a-fA-F:]+[]])(:[0-9]{1,5})?(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)+$')",
        "spec.cache.repo must be host[:port]/path without tag or digest, such as registry.example.com/shop/cache"
    ))]
    #[x_kube(validation = (
        "!self.contains('/') || self.matches('^(localhost|[^/]*[.:][^/]*)/')",
        "spec.cache.repo must start with the registry's host, one with a dot or a port, or localhost: builders take `shop/cache` for `docker.io/shop/cache`"
    ))]
    pub repo: Option<String>,
    /// Caches to read, in buildx's own syntax, such as `type=registry,ref=registry.example.com/shop/web:cache`.
    /// Method buildx; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 1024)))]
    #[x_kube(validation = (
        r"self.all(entry, entry.matches('^[a-zA-Z0-9][^\\x00-\\x20\\x7f]*$'))",
        "each entry of spec.cache.from must be one word in buildx's own syntax, such as type=registry,ref=registry.example.com/shop/web:cache"
    ))]
    pub from: Vec<String>,
    /// Caches to write, in buildx's own syntax, such as
    /// `type=registry,ref=registry.example.com/shop/web:cache,mode=min`. Method buildx; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 1024)))]
    #[x_kube(validation = (
        r"self.all(entry, entry.matches('^[a-zA-Z0-9][^\\x00-\\x20\\x7f]*$'))",
        "each entry of spec.cache.to must be one word in buildx's own syntax, such as type=registry,ref=registry.example.com/shop/web:cache"
    ))]
    pub to: Vec<String>,
}

fn yes() -> bool {
    true
}

impl Default for Cache {
    fn default() -> Self {
        Self { enabled: true, repo: None, from: Vec::new(), to: Vec::new() }
    }
}

/// What Packer builds. Exactly one of template and path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.template) != has(self.path)",
    "spec.packer must have exactly one of template and path"
))]
pub struct Packer {
    /// The template's text, in HCL, or in JSON where it begins with `{`. It is put into the context. At most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    #[x_kube(validation = (
        "size(bytes(self)) <= 65536",
        "spec.packer.template is larger than 64 KiB; put it into the source and name it by spec.packer.path"
    ))]
    pub template: Option<String>,
    /// Path of the template in the source, such as image.pkr.hcl, or of a folder whose .pkr.hcl files are one. Relative,
    /// without `..`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = (
        r"!self.matches(r'^[/-]|(^|/)\.\.(/|$)|[\x00-\x1f\x7f]')",
        "spec.packer.path must be a path in the source: relative, without `..` and not starting with / or -"
    ))]
    pub path: Option<String>,
    /// Values for the template's variables, by name. They can be read in the Pod: no place for a secret. At most 64,
    /// values at most 4096 characters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[schemars(schema_with = "super::short_values")]
    #[x_kube(validation = (
        "self.all(name, size(name) <= 128 && name.matches('^[A-Za-z_][A-Za-z0-9_-]*$'))",
        "each name in spec.packer.variables must start with a letter or `_` and hold only letters, digits, `_` and `-`, at most 128 characters"
    ))]
    #[x_kube(validation = (
        r"self.all(name, !self[name].contains('\x00'))",
        "a value in spec.packer.variables has a NUL character; remove it"
    ))]
    pub variables: BTreeMap<String, String>,
}

/// A secret a builder may read while it builds; it is in no layer of the image, unless the build puts it there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BuildSecret {
    /// The name the Dockerfile uses, as in `RUN --mount=type=secret,id=npmrc`; packer's template reads the file
    /// /image-factory-secrets/<id>.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = (
        "self.matches('^[A-Za-z0-9][A-Za-z0-9_.-]*$')",
        "spec.secrets[].id must start with a letter or digit and hold only letters, digits, `_`, `.` and `-`"
    ))]
    pub id: String,
    /// The entry of a Secret that holds the value.
    pub secret_ref: SecretKeyReference,
}

/// A key that `RUN --mount=type=ssh` may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SshKey {
    /// The entry of a Secret that holds the private key.
    pub secret_ref: SecretKeyReference,
}

/// The check for known vulnerabilities after the push.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scan {
    /// The scanner.
    pub tool: ScanTool,
    /// The build fails when a vulnerability of this severity or a higher one is found. Default: it
    /// never fails for what was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_on: Option<Severity>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScanTool {
    Trivy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Low,
    Medium,
    High,
    Critical,
}
