//! The layout of a build's Pod: which containers it has, where the shared volume is mounted and what lies where on it.
//! The operator writes a Job by these names and the processes inside the Pod find each other by them, so both sides
//! read them here.

/// Puts the agent and the source on the shared volume.
pub const PREPARE_CONTAINER: &str = "prepare";
/// BuildKit's daemon beside the build (method buildx).
pub const BUILDKITD_CONTAINER: &str = "buildkitd";
/// Copies `/cnb/buildpacks` out of an image of `spec.buildpacks`, whose place is the rest of the name (method paketo).
pub const BUILDPACK_CONTAINER: &str = "buildpack-";
/// The builder itself, under the agent.
pub const BUILD_CONTAINER: &str = "build";
/// Confirms in the registry what was pushed, and describes it.
pub const INSPECT_CONTAINER: &str = "inspect";

/// Where the shared emptyDir is mounted in every container.
pub const VOLUME: &str = "/image-factory";

/// Folders and files of the shared volume, relative to its mount.
pub const BIN_FOLDER: &str = "bin";
pub const SOURCE_FOLDER: &str = "source";
pub const OUT_FOLDER: &str = "out";
pub const SPENT_NAME: &str = "spent";
pub const PACKER_PLAN_NAME: &str = "packer.json";
pub const PACKER_INIT_NAME: &str = "packer-init";

/// The same, as the containers see them.
pub const AGENT: &str = "/image-factory/bin/image-factory-agent";
pub const SOURCE: &str = "/image-factory/source";
pub const OUT: &str = "/image-factory/out";
/// A file with nothing but a digest: what kaniko and buildah write.
pub const DIGEST_FILE: &str = "/image-factory/out/digest";
/// The document `-report` of the lifecycle's exporter writes.
pub const LIFECYCLE_REPORT: &str = "/image-factory/out/report.toml";
/// The document `buildctl build --metadata-file` writes.
pub const METADATA_FILE: &str = "/image-factory/out/metadata.json";
/// What a build by buildpacks is given beside its source: the environment, the buildpacks and their order.
pub const BRINGS: &str = "/image-factory/brings";
/// A folder for each of `spec.buildpacks`, named by its place: what its image has in `/cnb/buildpacks`.
pub const BROUGHT: &str = "/image-factory/brought";
/// Created by the agent at its first start; one that finds it refuses to start a second time.
pub const STARTED_MARKER: &str = "/image-factory/started";
/// Milliseconds of the run's timeout that `prepare` has used up.
pub const SPENT: &str = "/image-factory/spent";
/// What `prepare` found out of a template ([`crate::packer::Plan`]).
pub const PACKER_PLAN: &str = "/image-factory/packer.json";
/// There where a template asks for plugins.
pub const PACKER_INIT: &str = "/image-factory/packer-init";
/// Where the agent of the daemon beside the build keeps what that has used.
pub const USAGE_FILE: &str = "/image-factory/usage.json";

/// Where `prepare`, and no other container, finds the Secret of a Git source.
pub const GIT_CREDENTIALS: &str = "/image-factory-git";

/// Where the push credentials are mounted, in `build` and `inspect` alone; the file of Docker's own name in it.
/// A folder at the top, as is the next: kaniko lets mounts alone, but keeps the empty folders above them.
pub const CREDENTIALS: &str = "/image-factory-credentials";
pub const CREDENTIALS_FILE: &str = "config.json";
/// Where `prepare` finds them to hand them over, with method paketo: there the folder above is in memory, and the agent
/// empties the file before anything else runs.
pub const HANDED_CREDENTIALS: &str = "/image-factory-push";
/// Where `spec.secrets` are mounted, in `build` alone: a file named by each id.
pub const SECRETS: &str = "/image-factory-secrets";
/// Where the key of `spec.ssh` is mounted, in `build` alone.
pub const SSH: &str = "/image-factory-ssh";

/// Where the operator's image keeps the agent that `prepare` copies to the volume.
pub const AGENT_IN_IMAGE: &str = "/usr/local/bin/image-factory-agent";

/// Kubernetes' default `terminationMessagePath`.
pub const TERMINATION_LOG: &str = "/dev/termination-log";

/// An inline source travels in `IMAGE_FACTORY_INLINE_0`, `IMAGE_FACTORY_INLINE_1`, ...; this one says how many there are.
pub const INLINE_COUNT_VARIABLE: &str = "IMAGE_FACTORY_INLINE_COUNT";
pub const INLINE_CHUNK_PREFIX: &str = "IMAGE_FACTORY_INLINE_";

/// Longest line that the agent writes, in bytes with the mark of one that it cut and without its newline. Leaves room under the 16 KiB
/// that the container runtime keeps in one piece.
pub const MAX_LINE_BYTES: usize = 15 * 1024;
/// At the end of a line that it cut, whose rest is the next line.
pub const GOES_ON: &str = "…";

/// The agent itself failed or refused (a second start, a socket that never came up): nothing of the builder's is meant.
pub const EXIT_AGENT: i32 = 125;
/// The command was found but could not be executed.
pub const EXIT_NOT_EXECUTABLE: i32 = 126;
/// The command was not found.
pub const EXIT_NOT_FOUND: i32 = 127;
/// The run was ended at its timeout and its command still exited with 0.
pub const EXIT_TIMED_OUT: i32 = 124;
