//! A build by buildpacks: which programs of the builder's lifecycle are run, in which order, and with what.
//!
//! The phases are run one by one, not by `creator`: so those that run code of buildpacks (detecting, building) are
//! given no credentials, and those that are given them (analyzing, restoring, exporting) run nothing but the lifecycle.
//! <https://github.com/buildpacks/spec/blob/main/platform.md>

mod api;
mod auth;
mod labels;
mod order;
mod project;

pub use api::{Apis, negotiate};
pub use auth::registry_auth;
pub use labels::{LABELS_ID, LABELS_VERSION, LabelsBuildpack};
pub use order::{Buildpack, descriptor, joined, leader};
pub use project::{Project, project};

use crate::pod::{BRINGS, LIFECYCLE_REPORT};

/// Where a builder's image has its lifecycle, its buildpacks and their order, unless its environment says otherwise.
pub const LIFECYCLE: &str = "/cnb/lifecycle";
pub const BUILDPACKS: &str = "/cnb/buildpacks";
pub const ORDER: &str = "/cnb/order.toml";

/// Where the application and its layers are: these paths stand in the image that is made.
pub const APP: &str = "/workspace";
pub const LAYERS: &str = "/layers";

/// Why a builder, or a buildpack that is brought to it, can't be used: the whole sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// What of a Build reaches its lifecycle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Every name the image is pushed under, that of `spec.output.image` first. Never empty.
    pub images: Vec<String>,
    pub cache_image: Option<String>,
    /// Nothing of an earlier build is reused.
    pub is_cold: bool,
    pub insecure_registries: Vec<String>,
    pub labels: Vec<(String, String)>,
    pub environment: Vec<(String, String)>,
    /// `spec.buildpacks`, as they are named there.
    pub buildpacks: Vec<String>,
}

/// A phase of the lifecycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Analyze,
    Detect,
    Restore,
    Build,
    Export,
}

impl Phase {
    pub const ALL: [Self; 5] = [Self::Analyze, Self::Detect, Self::Restore, Self::Build, Self::Export];

    pub const fn program(self) -> &'static str {
        match self {
            Self::Analyze => "analyzer",
            Self::Detect => "detector",
            Self::Restore => "restorer",
            Self::Build => "builder",
            Self::Export => "exporter",
        }
    }

    /// As the lifecycle's own `creator` heads it in the log.
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Analyze => "===> ANALYZING",
            Self::Detect => "===> DETECTING",
            Self::Restore => "===> RESTORING",
            Self::Build => "===> BUILDING",
            Self::Export => "===> EXPORTING",
        }
    }

    /// Whether it speaks to registries, and so is given credentials. The others run what buildpacks bring.
    pub const fn is_connected(self) -> bool {
        matches!(self, Self::Analyze | Self::Restore | Self::Export)
    }
}

/// One program of the lifecycle, as it is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub phase: Phase,
    pub arguments: Vec<String>,
    pub environment: Vec<(&'static str, String)>,
}

/// What is run, in its order. Inputs go by the environment where they can: of a flag that came with a later Platform
/// API an older lifecycle knows nothing and ends; a variable that it does not know it leaves alone.
pub fn commands(request: &Request, apis: &Apis) -> Vec<Command> {
    Phase::ALL
        .into_iter()
        .map(|phase| Command {
            phase,
            arguments: arguments(phase, request),
            environment: environment(phase, request, apis),
        })
        .collect()
}

fn arguments(phase: Phase, request: &Request) -> Vec<String> {
    match phase {
        Phase::Analyze => {
            let (image, tags) =
                request.images.split_first().map_or((None, &[][..]), |(image, tags)| (Some(image), tags));
            tags.iter().map(|tag| format!("-tag={tag}")).chain(image.cloned()).collect()
        }
        Phase::Export => request.images.clone(),
        Phase::Detect | Phase::Restore | Phase::Build => Vec::new(),
    }
}

fn environment(phase: Phase, request: &Request, apis: &Apis) -> Vec<(&'static str, String)> {
    let brings = |name: &str| format!("{BRINGS}/{name}");
    let mut environment = vec![
        ("CNB_PLATFORM_API", apis.platform.to_owned()),
        ("CNB_APP_DIR", APP.to_owned()),
        ("CNB_LAYERS_DIR", LAYERS.to_owned()),
        ("CNB_BUILDPACKS_DIR", brings("buildpacks")),
        ("CNB_ORDER_PATH", brings("order.toml")),
        ("CNB_PLATFORM_DIR", brings("platform")),
        ("CNB_REPORT_PATH", LIFECYCLE_REPORT.to_owned()),
    ];
    if !request.insecure_registries.is_empty() {
        environment.push(("CNB_INSECURE_REGISTRIES", request.insecure_registries.join(",")));
    }
    if request.is_cold {
        environment.push(("CNB_SKIP_LAYERS", "true".to_owned()));
    } else if let Some(cache) = &request.cache_image {
        environment.push(("CNB_CACHE_IMAGE", cache.clone()));
    }
    if phase == Phase::Build {
        // Which buildpack runs is told nowhere else.
        environment.push(("CNB_LOG_LEVEL", "debug".to_owned()));
    }
    if phase.is_connected() {
        // Of the credentials around it only the named Secret counts: not the node's in a cloud, and nothing that a
        // buildpack left where the lifecycle would look for logins, or for a program to ask for one.
        environment.push(("CNB_REGISTRY_AUTH_KEYCHAIN_SKIP_AMAZON", "true".to_owned()));
        environment.push(("CNB_REGISTRY_AUTH_KEYCHAIN_SKIP_AZURE", "true".to_owned()));
        for name in ["HOME", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "REGISTRY_AUTH_FILE"] {
            environment.push((name, "/dev/null/none".to_owned()));
        }
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            images: vec!["registry.test/a/b:1".to_owned(), "registry.test/a/b:latest".to_owned()],
            cache_image: Some("registry.test/a/cache".to_owned()),
            insecure_registries: vec!["registry.test".to_owned(), "mirror.test:5000".to_owned()],
            ..Request::default()
        }
    }

    fn made(request: &Request) -> Vec<Command> {
        commands(request, &Apis { platform: "0.12", buildpack: "0.7" })
    }

    fn value<'a>(command: &'a Command, name: &str) -> Option<&'a str> {
        command.environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn the_phases_come_in_their_order_and_the_image_is_named_where_it_is_read_and_written() {
        let made = made(&request());
        let told: Vec<_> =
            made.iter().map(|command| format!("{} {}", command.phase.program(), command.arguments.join(" "))).collect();
        assert_eq!(
            told,
            [
                "analyzer -tag=registry.test/a/b:latest registry.test/a/b:1",
                "detector ",
                "restorer ",
                "builder ",
                "exporter registry.test/a/b:1 registry.test/a/b:latest",
            ]
        );
        for command in &made {
            assert_eq!(value(command, "CNB_PLATFORM_API"), Some("0.12"));
            assert_eq!(value(command, "CNB_INSECURE_REGISTRIES"), Some("registry.test,mirror.test:5000"));
            assert_eq!(value(command, "CNB_CACHE_IMAGE"), Some("registry.test/a/cache"));
            assert_eq!(value(command, "HOME").is_some(), command.phase.is_connected(), "{:?}", command.phase);
        }
    }

    #[test]
    fn a_cold_build_reads_no_cache_and_writes_none() {
        for command in made(&Request { is_cold: true, ..request() }) {
            assert_eq!((value(&command, "CNB_CACHE_IMAGE"), value(&command, "CNB_SKIP_LAYERS")), (None, Some("true")));
        }
        assert!(made(&request()).iter().all(|command| value(command, "CNB_SKIP_LAYERS").is_none()));
    }

    #[test]
    fn what_runs_code_of_buildpacks_is_not_connected() {
        for phase in Phase::ALL {
            assert_eq!(phase.is_connected(), !matches!(phase, Phase::Detect | Phase::Build));
        }
    }
}
