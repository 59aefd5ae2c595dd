//! How a specification names a Secret: always by name, always in its own namespace. No reference has
//! a `namespace`, so that a tenant can never make the operator read another one's Secret.

use std::fmt;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Name of the Secret, in the namespace of this object.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = (
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
        "the name of a Secret must hold only lower-case letters, digits, `-` and `.`, and start and end with a letter or digit"
    ))]
    pub name: String,
}

/// One entry of a Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyReference {
    /// Name of the Secret, in the namespace of this object.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = (
        "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
        "the name of a Secret must hold only lower-case letters, digits, `-` and `.`, and start and end with a letter or digit"
    ))]
    pub name: String,
    /// Key inside the Secret's data.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = (
        "self.matches('^[-._a-zA-Z0-9]+$') && !self.startsWith('..')",
        "the key of a Secret must hold only letters, digits, `-`, `_` and `.`, and not start with `..`"
    ))]
    pub key: String,
}

impl fmt::Display for SecretKeyReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "entry {:?} of Secret {:?}", self.key, self.name)
    }
}
