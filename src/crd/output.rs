//! Where the image goes: one reference with the registry's host, more tags beside it, labels, and
//! the credentials by name. A digest is never part of it: the digest is what a build finds out.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::reference::SecretReference;

/// Where the image is pushed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Reference of the image, host[:port]/path[:tag]. Default tag: latest. At most 255 characters.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = (
        r"self.matches('^([a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?([.][a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*|[[][0-9a-fA-F:]+[]])(:[0-9]{1,5})?(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)+(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$')",
        "spec.output.image must be host[:port]/path[:tag] with the path in lower case and no digest, such as registry.example.com/shop/web:1.2"
    ))]
    #[x_kube(validation = (
        "!self.contains('/') || self.matches('^(localhost|[^/]*[.:][^/]*)/')",
        "spec.output.image must start with the registry's host, one with a dot or a port, or localhost: builders take `shop/web` for `docker.io/shop/web`"
    ))]
    pub image: String,
    /// Further tags of the same repository. At most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(min = 1, max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = (
        "self.all(tag, tag.matches('^[A-Za-z0-9_][A-Za-z0-9_.-]*$'))",
        "each of spec.output.tags must start with a letter, digit or `_` and hold only letters, digits, `_`, `.` and `-`"
    ))]
    pub tags: Vec<String>,
    /// Labels written into the image, such as org.opencontainers.image.source. At most 64; keys at most
    /// 128 characters, values at most 4096.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[schemars(schema_with = "label_values")]
    #[x_kube(validation = (
        "self.all(key, size(key) <= 128 && key.matches('^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$'))",
        "each key of spec.output.labels must hold only letters, digits, `.`, `_`, `/` and `-`, at most 128 characters"
    ))]
    #[x_kube(validation = (
        r"self.all(key, !self[key].contains('\x00'))",
        "a value in spec.output.labels has a NUL character; remove it"
    ))]
    pub labels: BTreeMap<String, String>,
    /// Secret of type kubernetes.io/dockerconfigjson with the right to push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<SecretReference>,
    /// Plain http or an unverified certificate for every reference to this registry host: output,
    /// cache, base, builder and run image. Default: false.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub insecure: bool,
}

fn label_values(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": 4096},
    })
}
