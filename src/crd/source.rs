//! Where the files come from that are built: a Git repository, or files written into the Build
//! itself. Every path is relative and stays inside the source; that is checked here in words and
//! again where the path is resolved.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::reference::SecretReference;

/// What all files of an inline source may hold together, in bytes: a Build is one object in etcd.
pub const INLINE_BYTES: usize = 256 * 1024;

/// Where the files come from. Exactly one of git and inline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.git) != has(self.inline)",
    "spec.source must have exactly one of git and inline"
))]
pub struct Source {
    /// A Git repository, fetched inside the build's own Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSource>,
    /// Files written here, for small images that need no Git server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<InlineSource>,
}

// The rules for address and revision stand in core's `git` too, which is asked again where they are used.
/// A Git repository.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.credentialsSecret) || !self.url.matches('^(ssh://|[^/:]+:/?[^/:])')",
    "a source by ssh needs spec.source.git.credentialsSecret, a Secret with ssh-privatekey and known_hosts"
))]
#[x_kube(validation = (
    "!has(self.credentialsSecret) || !self.url.startsWith('git://')",
    "the protocol git has no credentials; remove spec.source.git.credentialsSecret"
))]
pub struct GitSource {
    /// Address of the repository: https://host/path, ssh://user@host/path or user@host:path, without a
    /// password in it. http:// and git:// only where the installation allows them. At most 2048
    /// characters.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = (
        "self.matches('^((https|http|git|ssh)://([^/]*@)?([A-Za-z0-9_][A-Za-z0-9_.-]*|[[][0-9a-fA-F:.]+[]])(:[0-9]{1,5})?/[!-~]+|([A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9_][A-Za-z0-9_.-]*:/?[A-Za-z0-9_~.][!-.0-?A-~]*(/[!-~]*)?)$')",
        "spec.source.git.url must be https://host/path, ssh://user@host/path or user@host:path"
    ))]
    #[x_kube(validation = (
        "!self.matches('^(https?|git)://[^/]*@|^ssh://[^/]*[:@][^/]*@')",
        "spec.source.git.url must have no password in it, and over https no user either; put them into the Secret that credentialsSecret names"
    ))]
    pub url: String,
    /// Branch, tag or commit (its full id). Default: the repository's own default branch. At most 255
    /// characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = (
        r"self.matches('^[A-Za-z0-9_][A-Za-z0-9._/+@-]*$') && !self.matches(r'[.][.]|//|/$|[.]lock$')",
        "spec.source.git.revision must be a branch, a tag or a full commit id: letters, digits and ._/+@- that start with a letter, digit or `_`, without `..` or `//` and not ending with `/` or `.lock`"
    ))]
    pub revision: Option<String>,
    /// How many commits of history to fetch; 0 fetches all. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub depth: Option<i32>,
    /// Whether submodules are fetched too. Default: false.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub submodules: bool,
    /// Secret of type kubernetes.io/basic-auth (username, password) for https, or
    /// kubernetes.io/ssh-auth (ssh-privatekey) with known_hosts for ssh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<SecretReference>,
}

/// Files written into the Build.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct InlineSource {
    /// The files by path, for example `Dockerfile: "FROM ..."`. Paths are relative, at most 255
    /// characters; at most 64 files, 256 KiB in all, text in UTF-8.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 64))]
    #[schemars(schema_with = "file_contents")]
    #[x_kube(validation = (
        r"self.all(path, size(path) <= 255 && !path.matches(r'(^|/)\.{0,2}(/|$)|[\x00-\x1f\x7f]'))",
        "each path in spec.source.inline.files must be relative and without empty, `.` or `..` parts, at most 255 characters"
    ))]
    #[x_kube(validation = (
        "self.all(path, !self.exists(other, other.startsWith(path + '/')))",
        "a path in spec.source.inline.files is both a file and a folder; rename one"
    ))]
    #[x_kube(validation = (
        "self.map(path, size(bytes(self[path]))).sum() <= 262144",
        "the files in spec.source.inline.files are larger than 256 KiB in all; use a Git source"
    ))]
    #[x_kube(validation = (
        r"self.all(path, !self[path].contains('\x00'))",
        "a file in spec.source.inline.files has a NUL character; only text can be written inline"
    ))]
    pub files: BTreeMap<String, String>,
}

fn file_contents(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": INLINE_BYTES},
    })
}
