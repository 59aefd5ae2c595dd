//! The kind WebhookConfig: makes Builds from what a Git host sends, and sends out what became of builds.

use image_factory_core::{
    retention::Limits,
    signature::{Encoding, Scheme},
    trigger::{self, Cause, Event, GitEvent, Pointers, Provider, Rules},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{reference::SecretKeyReference, template::BuildTemplate};

/// What is received from a Git host, and what is sent out.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "imagefactory.dev",
    version = "v1alpha1",
    kind = "WebhookConfig",
    plural = "webhookconfigs",
    shortname = "ifwh",
    category = "imagefactory",
    namespaced,
    status = "WebhookConfigStatus",
    derive = "PartialEq",
    doc = "A WebhookConfig makes Builds from what a Git host sends, and sends out what became of builds.",
    printcolumn(name = "Provider", type_ = "string", json_path = ".spec.provider"),
    printcolumn(name = "Verified", type_ = "boolean", json_path = ".status.verified"),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(name = "Url", type_ = "string", json_path = ".status.url", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = (
        "size(self.metadata.name) <= 63",
        "metadata.name must have at most 63 characters: it is a label of the Builds made"
    ),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.provider) || has(self.notify)",
    "spec.provider must say who delivers: github, gitlab, gitea, forgejo, bitbucket or generic; or spec.notify where to send"
))]
#[x_kube(validation = (
    "has(self.secretRef) || !has(self.provider)",
    "spec.secretRef must name the Secret that deliveries are signed with: without one anybody could start builds"
))]
#[x_kube(validation = (
    "has(self.repository) || !has(self.provider)",
    "spec.repository must be the full name of the repository, such as shop/web: deliveries about another make no Build"
))]
#[x_kube(validation = (
    "!self.autoBuild || has(self.template) || !has(self.provider)",
    "spec.template must say what is built; or set spec.autoBuild to false, and deliveries are only recorded"
))]
#[x_kube(validation = (
    "has(self.provider) || !has(self.notify) || !(has(self.secretRef) || has(self.previousSecretRef) || has(self.repository) || has(self.events) || has(self.branches) || has(self.paths) || has(self.template) || (has(self.supersede) && self.supersede) || has(self.successfulBuildsHistoryLimit) || has(self.failedBuildsHistoryLimit))",
    "without spec.provider nothing is received and no Build made: name it, or remove what is about that (secretRef, previousSecretRef, repository, events, branches, paths, supersede, template and the history limits)"
))]
#[x_kube(validation = (
    "!has(self.template) || !has(self.template.spec.cancel) || !self.template.spec.cancel",
    "spec.template.spec.cancel would hold back every Build that is made; remove it, or set spec.suspend"
))]
#[x_kube(validation = (
    "!has(self.generic) || (has(self.provider) && self.provider == 'generic')",
    "spec.generic is read only with provider generic; remove it or change spec.provider"
))]
#[x_kube(validation = (
    "!has(self.poll) || (has(self.provider) && has(self.template) && has(self.template.spec.source.git))",
    "spec.poll needs spec.provider, and a template with spec.source.git: its repository is looked at"
))]
#[x_kube(validation = (
    "!has(self.poll) || !has(self.events) || 'push' in self.events",
    "spec.poll looks at branches, and spec.events has no push: add it or remove spec.poll"
))]
#[x_kube(validation = (
    "!has(self.commitStatus) || (has(self.provider) && self.provider in ['github', 'gitlab', 'gitea', 'forgejo'])",
    "spec.commitStatus works only with the providers github, gitlab, gitea and forgejo; remove it"
))]
#[x_kube(validation = (
    "!has(self.commitStatus) || (has(self.template) && has(self.template.spec.source.git))",
    "spec.commitStatus needs a template with spec.source.git: its host is told of the commit"
))]
pub struct WebhookConfigSpec {
    /// Who sends: decides how deliveries are signed and read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// The entry of a Secret that deliveries are signed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyReference>,
    /// The entry of a Secret that was used before: still accepted, so that a secret can be changed
    /// without losing deliveries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_secret_ref: Option<SecretKeyReference>,
    /// Which events make a Build. Default: push.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub events: Vec<GitEvent>,
    /// Branches that make a Build, as globs such as release/*. Default: all. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255)))]
    pub branches: Vec<String>,
    /// A delivery makes a Build only if it changes a path that fits one of these globs. Default: all.
    /// At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255)))]
    pub paths: Vec<String>,
    /// Full name of the repository, such as shop/web; deliveries about another one make no Build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub repository: Option<String>,
    /// Whether a delivery makes a Build; otherwise it is only recorded.
    #[serde(default = "yes")]
    pub auto_build: bool,
    /// Whether a newer delivery cancels unfinished Builds of the same branch. Default: false.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub supersede: bool,
    /// True receives and sends nothing until it is false again: deliveries are answered like those of a webhook that
    /// is not there, and what happens meanwhile is not sent later. Default: false.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub suspend: bool,
    /// The Build to make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<BuildTemplate>,
    /// How many successful Builds are kept as objects; rows in Postgres stay. Default: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub successful_builds_history_limit: Option<i32>,
    /// How many failed Builds are kept as objects; rows in Postgres stay. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub failed_builds_history_limit: Option<i32>,
    /// Looks at the heads of the branches itself, for deliveries that never came: a Pod in this namespace asks the
    /// template's repository. A commit that was not delivered makes a Build as its push would have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll: Option<Poll>,
    /// How to read deliveries of provider generic. Default: signed by the rules of Standard Webhooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generic: Option<GenericProvider>,
    /// Writes the state of the Builds made onto their commits, at the host of the template's source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_status: Option<CommitStatus>,
    /// What is sent out, about every Build of the namespace, by the rules of Standard Webhooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
}

impl WebhookConfig {
    /// One as rows know it: what owns a Build or is spoken of in an Event.
    pub fn known(namespace: &str, name: &str, uid: &str, spec: WebhookConfigSpec) -> Self {
        let mut webhook = Self::new(name, spec);
        webhook.metadata.namespace = Some(namespace.to_owned());
        webhook.metadata.uid = Some(uid.to_owned());
        webhook
    }
}

fn yes() -> bool {
    true
}

impl WebhookConfigSpec {
    /// How deliveries are signed; `None` where nobody is named who delivers.
    pub fn scheme(&self) -> Option<Scheme<'_>> {
        let named = self.generic.as_ref().and_then(|generic| Some((generic, generic.header.as_deref()?)));
        match (self.provider?, named) {
            (Provider::Generic, Some((generic, header))) => Some(Scheme::Hmac {
                header,
                prefix: generic.prefix.as_deref().unwrap_or_default(),
                encoding: match generic.encoding {
                    None | Some(SignatureEncoding::Hex) => Encoding::Hex,
                    Some(SignatureEncoding::Base64) => Encoding::Base64,
                },
            }),
            (provider, _) => Some(provider.row().signature),
        }
    }

    /// Where a generic payload has what.
    pub fn pointers(&self) -> Pointers {
        let generic = self.generic.as_ref();
        let pointer =
            |field: fn(&GenericProvider) -> &Option<String>| generic.and_then(|generic| field(generic).clone());
        Pointers {
            event: pointer(|generic| &generic.event_pointer),
            git_ref: pointer(|generic| &generic.ref_pointer),
            commit: pointer(|generic| &generic.commit_pointer),
        }
    }

    /// The Secrets whose entries deliveries may be signed with: the current one first.
    pub fn signing_secrets(&self) -> impl Iterator<Item = &SecretKeyReference> {
        self.secret_ref.iter().chain(&self.previous_secret_ref)
    }

    /// How many ended Builds are kept.
    pub fn history(&self) -> Limits {
        Limits::of(self.successful_builds_history_limit, self.failed_builds_history_limit)
    }

    /// Every entry of a Secret that it names.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretKeyReference> {
        let notify = self.notify.iter().map(|notify| &notify.secret_ref);
        self.signing_secrets().chain(notify).chain(self.commit_status.iter().map(|status| &status.token_secret_ref))
    }

    /// The revision that an event has built, or why none is.
    ///
    /// # Errors
    /// Why none is.
    pub fn decide(&self, event: &Event, is_repeated: bool) -> Result<String, Cause> {
        let rules = Rules {
            events: &self.events,
            branches: &self.branches,
            paths: &self.paths,
            repository: self.repository.as_deref().unwrap_or_default(),
            auto_build: self.auto_build && self.template.is_some(),
        };
        trigger::decide(event, rules, is_repeated)
    }
}

/// Looks at the branch heads itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Poll {
    /// Time between two looks, such as 5m; from 1m to 24h.
    #[schemars(with = "String", length(min = 2, max = 24))]
    #[x_kube(validation = (
        "self.matches('^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$') && duration(self) >= duration('1m') && duration(self) <= duration('24h')",
        "spec.poll.interval must be a duration from 1m to 24h, such as 5m"
    ))]
    pub interval: Duration,
}

/// How to read deliveries of provider generic. Without a header, Standard Webhooks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.header) || !(has(self.prefix) || has(self.encoding))",
    "spec.generic.prefix and spec.generic.encoding say what is in spec.generic.header: name the header, or remove them"
))]
pub struct GenericProvider {
    /// Header with the HMAC-SHA256 of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = ("self.matches('^[A-Za-z0-9_-]+$')", "spec.generic.header must be the name of a header: letters, digits, _ and -"))]
    pub header: Option<String>,
    /// What stands before the signature in that header, such as `sha256=`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub prefix: Option<String>,
    /// How the signature is written. Default: hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<SignatureEncoding>,
    /// JSON pointer to the event in the body, such as /event: push, tag, pull_request, release or ping. Default: a
    /// push, or a tag, by the ref.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    #[x_kube(validation = ("self.startsWith('/')", "spec.generic.eventPointer must be a JSON pointer, which begins with /, such as /event"))]
    pub event_pointer: Option<String>,
    /// JSON pointer to the branch or tag in the body. Default: /ref.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    #[x_kube(validation = ("self.startsWith('/')", "spec.generic.refPointer must be a JSON pointer, which begins with /, such as /ref"))]
    pub ref_pointer: Option<String>,
    /// JSON pointer to the commit in the body. Default: the first of /commit, /after and /checkout_sha.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    #[x_kube(validation = ("self.startsWith('/')", "spec.generic.commitPointer must be a JSON pointer, which begins with /, such as /commit"))]
    pub commit_pointer: Option<String>,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SignatureEncoding {
    Hex,
    Base64,
}

/// Writes the build's state onto the commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommitStatus {
    /// The entry of a Secret with a token that may write commit states.
    pub token_secret_ref: SecretKeyReference,
}

/// What is sent out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notify {
    /// Address that receives the events: https, and http only where the installation allows it. It must be reached by a
    /// public address. At most 2048 characters.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = (
        "self.matches('^https?://[A-Za-z0-9_.:[\\\\]-]+([/?][!-~]*)?$')",
        "spec.notify.url must be https://host/path, without a user or a password in it"
    ))]
    pub url: String,
    /// Which events are sent. Default: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub events: Vec<BuildEvent>,
    /// The entry of a Secret that what is sent is signed with: base64, with whsec_ before it or without.
    pub secret_ref: SecretKeyReference,
}

/// What became of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BuildEvent {
    #[serde(rename = "build.queued")]
    Queued,
    #[serde(rename = "build.started")]
    Started,
    #[serde(rename = "build.succeeded")]
    Succeeded,
    #[serde(rename = "build.failed")]
    Failed,
    #[serde(rename = "build.cancelled")]
    Cancelled,
}

/// Where deliveries go, and how the last one went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookConfigStatus {
    /// The metadata.generation this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The address to give to the Git host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Whether a delivery with a good signature has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<bool>,
    /// The last delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_delivery: Option<LastDelivery>,
    /// The last look at the branch heads that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_poll: Option<LastPoll>,
    /// Ready, and Stalled where the specification can't act.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The last delivery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastDelivery {
    /// When it came.
    pub at: Timestamp,
    /// Its id, given by the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What became of it, as a sentence.
    pub outcome: String,
}

/// The last look at the branch heads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastPoll {
    /// When it ended.
    pub at: Timestamp,
    /// Why it saw nothing. Absent where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
