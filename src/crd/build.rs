//! The kind Build: what should be built and how, and what the API server refuses by itself. Each
//! change of its inputs is a run; which fields are inputs is decided where runs are compared. Values
//! left out mean the defaults that the accessors give.

use std::{collections::BTreeMap, time::Duration};

use image_factory_core::method::Method;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    build_status::BuildStatus,
    execution::{Placement, Resources, Retention, Retries},
    inputs::{BuildSecret, Cache, Packer, Scan, SshKey},
    only_with,
    options::Options,
    output::Output,
    source::Source,
    unavailable,
};

/// What should be built, and how.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "imagefactory.dev",
    version = "v1alpha1",
    kind = "Build",
    plural = "builds",
    shortname = "ifb",
    category = "imagefactory",
    namespaced,
    status = "BuildStatus",
    derive = "PartialEq",
    doc = "A Build says which container image should be built. Each change of its inputs is a run, and every run is kept in Postgres.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Method", type_ = "string", json_path = ".spec.method"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Succeeded")].reason"#),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.output.image", priority = 1),
    printcolumn(name = "Queue", type_ = "integer", json_path = ".status.queue.position", priority = 1, description = "Position in the queue of this namespace, from 1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = ("size(self.metadata.name) <= 52", "metadata.name must be at most 52 characters; shorten it"),
)]
#[serde(rename_all = "camelCase")]
// Which fields go with which method.
#[x_kube(validation = only_with("spec.target", "!has(self.target)", &["kaniko", "buildx", "container"]))]
#[x_kube(validation = only_with("spec.dockerfile", "!has(self.dockerfile)", &["kaniko", "buildx", "container"]))]
#[x_kube(validation = only_with("spec.buildArgs", "!has(self.buildArgs) || size(self.buildArgs) == 0", &["kaniko", "buildx", "container"]))]
#[x_kube(validation = only_with("spec.platforms", "!has(self.platforms) || size(self.platforms) == 0", &["buildx"]))]
#[x_kube(validation = only_with("spec.cache.from", "!has(self.cache) || !has(self.cache.from) || size(self.cache.from) == 0", &["buildx"]))]
#[x_kube(validation = only_with("spec.cache.to", "!has(self.cache) || !has(self.cache.to) || size(self.cache.to) == 0", &["buildx"]))]
#[x_kube(validation = only_with("spec.cache.repo", "!has(self.cache) || !has(self.cache.repo)", &["kaniko", "container", "paketo"]))]
#[x_kube(validation = only_with("spec.secrets", "!has(self.secrets) || size(self.secrets) == 0", &["kaniko", "buildx", "container", "packer"]))]
#[x_kube(validation = only_with("spec.ssh", "!has(self.ssh)", &["buildx"]))]
#[x_kube(validation = only_with("spec.provenance", "!has(self.provenance) || !self.provenance", &["buildx"]))]
#[x_kube(validation = only_with("spec.sbom", "!has(self.sbom) || !self.sbom", &["buildx"]))]
#[x_kube(validation = only_with("spec.builder", "!has(self.builder)", &["paketo"]))]
#[x_kube(validation = only_with("spec.buildpacks", "!has(self.buildpacks) || size(self.buildpacks) == 0", &["paketo"]))]
#[x_kube(validation = only_with("spec.packer", "!has(self.packer)", &["packer"]))]
#[x_kube(validation = ("self.method != 'packer' || has(self.packer)", "method packer needs spec.packer with a template, or the path of one in the source"))]
// Which of the options, and what they need.
#[x_kube(validation = only_with("spec.options.format", "!has(self.options) || !has(self.options.format)", &["kaniko", "container"]))]
#[x_kube(validation = only_with("spec.options.reproducible", "!has(self.options) || !has(self.options.reproducible) || !self.options.reproducible", &["kaniko", "container"]))]
#[x_kube(validation = only_with("spec.options.squash", "!has(self.options) || !has(self.options.squash) || !self.options.squash", &["kaniko", "container"]))]
#[x_kube(validation = only_with("spec.options.cacheTtl", "!has(self.options) || !has(self.options.cacheTtl)", &["kaniko", "container"]))]
#[x_kube(validation = only_with("spec.options.cacheCopyLayers", "!has(self.options) || !has(self.options.cacheCopyLayers) || !self.options.cacheCopyLayers", &["kaniko"]))]
#[x_kube(validation = only_with("spec.options.compressedCaching", "!has(self.options) || !has(self.options.compressedCaching) || self.options.compressedCaching", &["kaniko"]))]
#[x_kube(validation = only_with("spec.options.snapshotMode", "!has(self.options) || !has(self.options.snapshotMode) || self.options.snapshotMode == 'redo'", &["kaniko"]))]
#[x_kube(validation = only_with("spec.options.useNewRun", "!has(self.options) || !has(self.options.useNewRun) || !self.options.useNewRun", &["kaniko"]))]
#[x_kube(validation = only_with("spec.options.ignorePaths", "!has(self.options) || !has(self.options.ignorePaths) || size(self.options.ignorePaths) == 0", &["kaniko"]))]
#[x_kube(validation = (
    "!has(self.options) || !(has(self.options.cacheTtl) || has(self.options.cacheCopyLayers) && self.options.cacheCopyLayers || has(self.options.compressedCaching) && !self.options.compressedCaching) || has(self.cache) && has(self.cache.repo)",
    "spec.options.cacheTtl, cacheCopyLayers and compressedCaching are about the layers in spec.cache.repo: set it, or remove them"
))]
#[x_kube(validation = (
    "!has(self.options) || !has(self.options.squash) || !self.options.squash || !has(self.cache) || !has(self.cache.repo) || !self.cache.enabled",
    "spec.options.squash leaves no layers to keep or to take from a cache: remove it, or spec.cache.repo"
))]
#[x_kube(validation = (
    "self.method != 'kaniko' || !has(self.options) || !has(self.options.reproducible) || !self.options.reproducible || !has(self.options.format) || self.options.format == 'docker'",
    "method kaniko writes a reproducible image by the media types of docker: remove spec.options.format, or make it docker"
))]
// What is in the API and does not act yet. Delete a line when its field does.
#[x_kube(validation = unavailable("spec.scan", "!has(self.scan)"))]
#[x_kube(validation = unavailable("spec.retention.deleteFromRegistry", "!has(self.retention) || !has(self.retention.deleteFromRegistry) || !self.retention.deleteFromRegistry"))]
#[x_kube(validation = unavailable("spec.retention.artifacts delete_on_success", "!has(self.retention) || !has(self.retention.artifacts) || self.retention.artifacts != 'delete_on_success'"))]
pub struct BuildSpec {
    /// Project the build is counted in. A DNS label, at most 63 characters.
    #[serde(default = "default_project")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = (
        "self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",
        "spec.project must be a DNS label: lower-case letters, digits and `-`, such as storefront"
    ))]
    pub project: String,
    /// How the image is built: kaniko, buildx or container (Buildah) from a Dockerfile, paketo with
    /// buildpacks, packer from a Packer template.
    pub method: Method,
    /// Where the files come from.
    pub source: Source,
    /// Folder of the source that is built. Relative, without `..`.
    #[serde(default = "default_context")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = (
        r"!self.matches(r'^[/-]|(^|/)\.\.(/|$)|[\x00-\x1f\x7f]')",
        "spec.context must be a folder of the source: relative, without `..` and not starting with / or -"
    ))]
    pub context: String,
    /// Path of the Dockerfile in the context. Methods kaniko, buildx and container. Default: Dockerfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = (
        r"!self.matches(r'^[/-]|(^|/)\.\.(/|$)|/$|[\x00-\x1f\x7f]')",
        "spec.dockerfile must be a file in the context: relative, without `..` and not starting with / or -"
    ))]
    pub dockerfile: Option<String>,
    /// Stage of the Dockerfile to build. Methods kaniko, buildx and container. Default: the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = (
        "self.matches('^[A-Za-z0-9][A-Za-z0-9_.-]*$')",
        "spec.target must be the name of a stage: letters, digits, `_`, `.` and `-`"
    ))]
    pub target: Option<String>,
    /// Platforms to build for, such as linux/amd64; several make an index. Method buildx. Default: that of the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    #[x_kube(validation = (
        "self.all(platform, platform.matches('^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?$'))",
        "each of spec.platforms must be os/architecture[/variant], such as linux/amd64"
    ))]
    pub platforms: Vec<String>,
    /// Where layers are kept between builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// Builder image. Method paketo; it must begin with one of the prefixes the operator allows.
    /// Default: the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = (
        r"self.matches('^[a-zA-Z0-9][a-zA-Z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$')",
        "spec.builder must be an image, [host[:port]/]path[:tag][@sha256:digest], such as docker.io/paketobuildpacks/builder-jammy-base:latest"
    ))]
    pub builder: Option<String>,
    /// Buildpack images, in their order: they come before each group of the builder's own, and at last
    /// alone. Method paketo; each must begin with one of the prefixes the operator allows; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 255)))]
    #[x_kube(validation = (
        r"self.all(image, image.matches('^[a-zA-Z0-9][a-zA-Z0-9.-]*(:[0-9]{1,5})?(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$'))",
        "each of spec.buildpacks must be an image, [host[:port]/]path[:tag][@sha256:digest], such as docker.io/paketobuildpacks/nodejs:latest"
    ))]
    pub buildpacks: Vec<String>,
    /// The Packer template and its variables. Method packer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packer: Option<Packer>,
    /// Values of some methods that have no field of their own.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub options: Options,
    /// Values for the Dockerfile's ARG instructions, by name. They can be read in the image's history:
    /// no place for a secret. Methods kaniko, buildx and container; at most 64, values at most 4096
    /// characters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[schemars(schema_with = "super::short_values")]
    #[x_kube(validation = (
        "self.all(name, size(name) <= 128 && name.matches('^[A-Za-z_][A-Za-z0-9_]*$'))",
        "each name in spec.buildArgs must start with a letter or `_` and hold only letters, digits and `_`, at most 128 characters"
    ))]
    #[x_kube(validation = (
        r"self.all(name, !self[name].contains('\x00'))",
        "a value in spec.buildArgs has a NUL character; remove it"
    ))]
    pub build_args: BTreeMap<String, String>,
    /// Environment of the builder, by name; instructions of a Dockerfile don't see it, buildpacks do
    /// (method paketo: the platform's environment). It can be read in the Pod: no place for a secret. At most 64, values at most 4096 characters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    #[schemars(schema_with = "super::short_values")]
    #[x_kube(validation = (
        "self.all(name, size(name) <= 128 && name.matches('^[A-Za-z_][A-Za-z0-9_]*$'))",
        "each name in spec.environment must start with a letter or `_` and hold only letters, digits and `_`, at most 128 characters"
    ))]
    // What says where builders find their programs, homes, credentials, certificates and daemons.
    #[x_kube(validation = (
        "self.all(name, !name.matches('^(PATH|HOME|USER|TMPDIR|REGISTRY_AUTH_FILE)$|^(LD_|SSL_CERT_|XDG_|DOCKER_|BUILDX_|BUILDKIT_|BUILDAH_|STORAGE_|_?CONTAINERS_|(FF_)?KANIKO_|PACKER_(CACHE|CONFIG|PLUGIN)|IMAGE_FACTORY_)'))",
        "spec.environment must not set what the builder's isolation and credentials rest on: PATH, HOME, USER, TMPDIR, REGISTRY_AUTH_FILE and names starting with LD_, SSL_CERT_, XDG_, DOCKER_, BUILDX_, BUILDKIT_, BUILDAH_, STORAGE_, CONTAINERS_, KANIKO_, FF_KANIKO_, PACKER_CACHE, PACKER_CONFIG, PACKER_PLUGIN or IMAGE_FACTORY_"
    ))]
    #[x_kube(validation = (
        r"self.all(name, !self[name].contains('\x00'))",
        "a value in spec.environment has a NUL character; remove it"
    ))]
    pub environment: BTreeMap<String, String>,
    /// Secrets the build may read: those of a Dockerfile by `RUN --mount=type=secret`, those of packer as files
    /// /image-factory-secrets/<id>. Methods kaniko, buildx, container and packer; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    pub secrets: Vec<BuildSecret>,
    /// A key that `RUN --mount=type=ssh` may use. Method buildx.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<SshKey>,
    /// Where the image is pushed. Of packer it is an image of the files that its manifest names.
    pub output: Output,
    /// Whether a list of the image's packages (SBOM) is made and pushed beside it. Method buildx. Default: false.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub sbom: bool,
    /// Whether a statement of how the image was built (SLSA provenance) is pushed beside it. Method buildx.
    /// Default: false.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub provenance: bool,
    /// The check for known vulnerabilities after the push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scan: Option<Scan>,
    /// Which workers may take the build. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Placement>,
    /// Order in the queue where the namespace's policy dispatches by priority, from -1000 to 1000; the
    /// higher goes first. Default: 0.
    #[serde(default, skip_serializing_if = "super::is_default")]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,
    /// How long a run may take, not counting its wait in the queue, such as 90s, 15m or 1h30m; from 1s
    /// to 24h. Default: 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(min = 2, max = 24))]
    #[x_kube(validation = (
        "self.matches('^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$') && duration(self) >= duration('1s') && duration(self) <= duration('24h')",
        "spec.timeout must be a duration from 1s to 24h, such as 90s, 15m or 1h30m"
    ))]
    pub timeout: Option<kube::core::Duration>,
    /// When a failed build is tried again. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// What the build container asks for and may use. Default: the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// How long what the build leaves behind is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// True cancels the newest run and holds back new ones until it is false again. Default: false.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub cancel: bool,
}

impl BuildSpec {
    /// How long a run may take where the spec does not say.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_hours(1);

    /// How long a finished Job stays where the spec does not say.
    pub const DEFAULT_JOB_TTL: Duration = Duration::from_mins(10);

    /// The Dockerfile's path in the context; none for a method that reads no Dockerfile.
    pub fn dockerfile(&self) -> Option<&str> {
        self.method.reads_dockerfile().then(|| self.dockerfile.as_deref().unwrap_or("Dockerfile"))
    }

    /// How long a run may take.
    pub fn timeout(&self) -> Duration {
        self.timeout.map_or(Self::DEFAULT_TIMEOUT, Into::into)
    }

    /// The repository that keeps layers, where they may be reused.
    pub fn cache_repo(&self) -> Option<&str> {
        self.cache.as_ref().filter(|cache| cache.enabled)?.repo.as_deref()
    }

    /// Whether layers of earlier builds may be reused.
    pub fn cache_enabled(&self) -> bool {
        self.cache.as_ref().is_none_or(|cache| cache.enabled)
    }

    /// How long the finished Job stays once its log is stored.
    pub fn job_ttl(&self) -> Duration {
        self.retention.as_ref().and_then(|retention| retention.job_ttl).map_or(Self::DEFAULT_JOB_TTL, Into::into)
    }
}

fn default_project() -> String {
    "default".to_owned()
}

fn default_context() -> String {
    ".".to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(spec: &Value) -> BuildSpec {
        serde_json::from_value(spec.clone()).expect("the specification reads")
    }

    fn smallest() -> Value {
        json!({
            "method": "buildx",
            "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}},
            "output": {"image": "localhost:5000/shop/web"},
        })
    }

    /// Every field, each with another value than its default.
    fn fullest() -> Value {
        json!({
            "project": "storefront",
            "method": "kaniko",
            "source": {"git": {
                "url": "https://git.example.com/shop/web.git", "revision": "main", "depth": 3, "submodules": true,
                "credentialsSecret": {"name": "git"},
            }},
            "context": "web",
            "dockerfile": "docker/Dockerfile",
            "target": "release",
            "platforms": ["linux/amd64", "linux/arm64/v8"],
            "cache": {"enabled": false, "repo": "localhost:5000/shop/cache", "from": ["type=inline"], "to": ["type=inline"]},
            "builder": "localhost:5000/builder:1",
            "buildpacks": ["localhost:5000/buildpack:1"],
            "packer": {"template": "source {}", "path": "image.pkr.hcl", "variables": {"region": "eu"}},
            "options": {
                "format": "docker", "reproducible": true, "squash": true, "cacheTtl": "36h", "cacheCopyLayers": true,
                "compressedCaching": false, "snapshotMode": "full", "useNewRun": true, "ignorePaths": ["/var/cache"],
                "ofANewerVersion": {"list": [1, true, null]},
            },
            "buildArgs": {"VERSION": "1.2"},
            "environment": {"CI": "true"},
            "secrets": [{"id": "npmrc", "secretRef": {"name": "npm", "key": "npmrc"}}],
            "ssh": {"secretRef": {"name": "deploy", "key": "ssh-privatekey"}},
            "output": {
                "image": "localhost:5000/shop/web:1.2", "tags": ["latest"], "labels": {"team": "shop"},
                "credentialsSecret": {"name": "push"}, "insecure": true,
            },
            "sbom": true,
            "provenance": true,
            "scan": {"tool": "trivy", "failOn": "high"},
            "worker": {"name": "gpu-1", "zone": "eu-1", "selector": {"gpu": "true"}},
            "priority": -7,
            "timeout": "90s",
            "retries": {"limit": 2, "on": "Any"},
            "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "4Gi"}},
            "retention": {"artifacts": "days_90", "deleteFromRegistry": true, "jobTtl": "30s"},
            "cancel": true,
        })
    }

    #[test]
    fn a_specification_with_every_field_is_written_as_it_was_read() {
        let schema = schemars::schema_for!(BuildSpec);
        let known = schema.get("properties").and_then(Value::as_object).expect("it has fields");
        let given = fullest();
        assert!(known.keys().eq(given.as_object().expect("it has fields").keys()), "a field is missing above");
        assert_eq!(serde_json::to_value(read(&fullest())).expect("it serialises"), fullest());
    }

    #[test]
    fn the_smallest_specification_means_the_documented_defaults_and_writes_no_null() {
        let spec = read(&smallest());
        assert_eq!(spec.project, "default");
        assert_eq!(spec.context, ".");
        assert_eq!(spec.dockerfile(), Some("Dockerfile"));
        assert_eq!(spec.timeout(), Duration::from_hours(1));
        assert_eq!(spec.job_ttl(), Duration::from_mins(10));
        assert!(spec.cache_enabled());
        let written = serde_json::to_string(&spec).expect("it serialises");
        assert!(!written.contains("null"), "{written}");
        assert!(!written.contains("priority") && !written.contains("cancel"), "{written}");
    }

    #[test]
    fn a_method_without_a_dockerfile_has_none_by_default() {
        let mut spec = read(&smallest());
        spec.method = Method::Paketo;
        assert_eq!(spec.dockerfile(), None);
    }

    #[test]
    fn a_duration_keeps_its_length_whatever_its_spelling() {
        let mut written = smallest();
        written["timeout"] = json!("1h30m");
        let spec = read(&written);
        assert_eq!(spec.timeout(), Duration::from_mins(90));
        let again = read(&serde_json::to_value(&spec).expect("it serialises"));
        assert_eq!(again, spec);
    }

    proptest! {
        /// Rows hold the specification as jsonb: whatever subset of the fields is given, reading what
        /// was written gives the same specification.
        #[test]
        fn any_subset_of_the_fields_survives_being_written_and_read(given in prop::collection::vec(any::<bool>(), 27)) {
            let mut spec = smallest();
            let Value::Object(all) = fullest() else { unreachable!("a specification is an object") };
            for ((field, value), given) in all.into_iter().zip(given) {
                if given {
                    spec[field] = value;
                }
            }
            let first = read(&spec);
            let written = serde_json::to_value(&first).expect("it serialises");
            prop_assert_eq!(read(&written), first);
        }
    }
}
