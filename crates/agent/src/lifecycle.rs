//! A build by buildpacks is made ready: in the builder's own image, under its own user, before its lifecycle runs. The
//! application is copied to where the image will have it, the buildpacks of the builder and those that were brought are
//! joined in one folder with one order, and the environment becomes files, as the lifecycle wants it. What is decided is
//! decided in core; here are only the files.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use image_factory_core::lifecycle::{
    APP, Apis, BUILDPACKS, Buildpack, LABELS_ID, LABELS_VERSION, LAYERS, LIFECYCLE, LabelsBuildpack, ORDER, Phase,
    Refusal, Request, commands, descriptor, joined, leader, negotiate, project, registry_auth,
};
use image_factory_core::pod::{AGENT, BRINGS, BROUGHT};
use image_factory_core::reason::Reason;
use image_factory_core::report::PodFailure;

use crate::arguments::Lifecycle;
use crate::log::Log;
use crate::process::Start;
use crate::tree;

/// More than any file that is read here needs to be.
const MAX_BYTES: u64 = 1024 * 1024;

/// Where things are: the Pod's own places, or a test's.
struct Places {
    lifecycle: PathBuf,
    buildpacks: PathBuf,
    order: PathBuf,
    brings: PathBuf,
    brought: PathBuf,
    app: PathBuf,
    agent: PathBuf,
}

impl Places {
    /// A builder's image may say that it has its buildpacks elsewhere.
    fn of_pod() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the builder's image speaks through its environment")]
        let told = |name: &str, standard: &str| std::env::var_os(name).map_or_else(|| standard.into(), PathBuf::from);
        Self {
            lifecycle: LIFECYCLE.into(),
            buildpacks: told("CNB_BUILDPACKS_DIR", BUILDPACKS),
            order: told("CNB_ORDER_PATH", ORDER),
            brings: BRINGS.into(),
            brought: BROUGHT.into(),
            app: APP.into(),
            agent: AGENT.into(),
        }
    }
}

/// Makes all ready; what is to be started, in its order.
pub fn prepare(lifecycle: &Lifecycle, log: &Log) -> Result<Vec<Start>, PodFailure> {
    let auth = lifecycle.registry_auth.as_deref().map(take_auth).transpose()?;
    prepare_in(&Places::of_pod(), lifecycle, auth.as_deref(), log)
}

fn prepare_in(places: &Places, lifecycle: &Lifecycle, auth: Option<&str>, log: &Log) -> Result<Vec<Start>, PodFailure> {
    let request = &lifecycle.request;
    let apis = ask(&places.lifecycle).map_err(|refusal| refused("spec.builder", &refusal))?;
    let brought = join_buildpacks(places, request, &apis)?;
    let order = read(&places.order)?.unwrap_or_default();
    let order = joined(&order, &brought).map_err(|refusal| refused("spec.builder", &refusal))?;
    write(&places.brings.join("order.toml"), &order)?;
    // Its history is no part of the application.
    tree::copy(&lifecycle.source, &places.app, Some(".git"))
        .map_err(|error| failed("copy the source", &places.app, &error))?;
    write_environment(places, request, log)?;
    log.say(&format!("Platform API {}", apis.platform));
    for (buildpack, image) in brought.iter().zip(&request.buildpacks) {
        log.say(&format!("buildpack {}@{} from {image}", buildpack.id, buildpack.version));
    }
    let labels = LabelsBuildpack::new(&request.labels, apis.buildpack);
    Ok(commands(request, &apis)
        .into_iter()
        .map(|command| {
            let program = places.lifecycle.join(command.phase.program());
            let mut environment: Vec<(OsString, OsString)> =
                command.environment.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            if let Some(auth) = auth.filter(|_| command.phase.is_connected()) {
                environment.push(("CNB_REGISTRY_AUTH".into(), auth.into()));
            }
            let arguments = command.arguments.into_iter().map(OsString::from);
            let group = |labels: &LabelsBuildpack| (Path::new(LAYERS).join("group.toml"), labels.group.clone());
            Start {
                argv: std::iter::once(program.into()).chain(arguments).collect(),
                environment,
                // Nothing of the application is near what has credentials.
                folder: Some(if command.phase.is_connected() { "/".into() } else { places.app.clone() }),
                heading: Some(command.phase.heading()),
                appends: labels.as_ref().filter(|_| command.phase == Phase::Detect).map(group),
            }
        })
        .collect())
}

/// Which API is spoken with this lifecycle.
fn ask(lifecycle: &Path) -> Result<Apis, Refusal> {
    let program = lifecycle.join(Phase::Analyze.program());
    if !program.is_file() {
        return Err(Refusal("the image has no lifecycle in /cnb/lifecycle".to_owned()));
    }
    negotiate(|version| {
        let mut process = Command::new(&program);
        process.arg("-version").env("CNB_PLATFORM_API", version);
        let asked = process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    })
}

/// The credentials, which from here on are in this process alone, and in those of the lifecycle that speak to registries.
fn take_auth(path: &Path) -> Result<String, PodFailure> {
    let document = fs::read(path).map_err(|error| failed("read the credentials", path, &error))?;
    // It is another user's, in a folder with the sticky bit: what it holds can be taken away, its name can't.
    File::options()
        .write(true)
        .truncate(true)
        .open(path)
        .map_err(|error| failed("take the credentials away", path, &error))?;
    registry_auth(&document).map_err(|refusal| PodFailure::new(Reason::SecretNotFound.as_str(), refusal.to_string()))
}

/// One folder for all: links to those of the builder, and to those that were brought, which take the place of the same
/// version of the builder's.
fn join_buildpacks(places: &Places, request: &Request, apis: &Apis) -> Result<Vec<Buildpack>, PodFailure> {
    let folder = places.brings.join("buildpacks");
    make(&folder)?;
    link_all(&places.buildpacks, &folder)?;
    let mut brought = Vec::new();
    for (index, image) in request.buildpacks.iter().enumerate() {
        let from = places.brought.join(index.to_string());
        let field = format!("spec.buildpacks[{index}] ({image})");
        let found = buildpacks_of(&from).map_err(|refusal| refused(&field, &refusal))?;
        brought.push(leader(&found).map_err(|refusal| refused(&field, &refusal))?.clone());
        link_all(&from, &folder)?;
    }
    if let Some(labels) = LabelsBuildpack::new(&request.labels, apis.buildpack) {
        let own = folder.join(LABELS_ID.replace('/', "_")).join(LABELS_VERSION);
        make(&own.join("bin"))?;
        write(&own.join("buildpack.toml"), &labels.descriptor)?;
        write(&own.join("launch.toml"), &labels.launch)?;
        for name in [DETECT, BUILD] {
            link(&places.agent, &own.join("bin").join(name))?;
        }
    }
    Ok(brought)
}

/// What each `buildpack.toml` two folders below says.
fn buildpacks_of(folder: &Path) -> Result<Vec<(Buildpack, Vec<String>)>, Refusal> {
    let mut found = Vec::new();
    for version in folders(folder).iter().flat_map(|id| folders(id)) {
        if let Ok(Some(text)) = read(&version.join("buildpack.toml")) {
            found.push(descriptor(&text)?);
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// Links to folders are folders. One that can't be read has none.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn link_all(from: &Path, to: &Path) -> Result<(), PodFailure> {
    for id in folders(from) {
        let Some(name) = id.file_name() else { continue };
        make(&to.join(name))?;
        for version in folders(&id) {
            let Some(version_name) = version.file_name() else { continue };
            link(&version, &to.join(name).join(version_name))?;
        }
    }
    Ok(())
}

fn link(target: &Path, at: &Path) -> Result<(), PodFailure> {
    match fs::remove_file(at) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace", at, &error)),
        _ => {}
    }
    symlink(target, at).map_err(|error| failed("link", at, &error))
}

/// A file a variable. What the Build says goes before what the source says.
fn write_environment(places: &Places, request: &Request, log: &Log) -> Result<(), PodFailure> {
    let mut environment = BTreeMap::new();
    if let Some(text) = read(&places.app.join("project.toml"))? {
        let project = project(&text)
            .map_err(|refusal| PodFailure::new(Reason::InvalidSpec.as_str(), format!("the source's {refusal}")))?;
        if !project.ignored.is_empty() {
            log.print(&format!("Warning: project.toml: not honoured: {}", project.ignored.join(", ")));
        }
        environment = project.environment;
    }
    environment.extend(request.environment.iter().cloned());
    let folder = places.brings.join("platform/env");
    make(&folder)?;
    environment.iter().try_for_each(|(name, value)| write(&folder.join(name), value))
}

/// `None` where there is no such file.
fn read(path: &Path) -> Result<Option<String>, PodFailure> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() && found.len() <= MAX_BYTES => {}
        Ok(_) => {
            return Err(PodFailure::new(
                Reason::InvalidSpec.as_str(),
                format!("{} is no file of at most {MAX_BYTES} bytes", path.display()),
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path, &error)),
    }
    fs::read_to_string(path).map(Some).map_err(|error| failed("read", path, &error))
}

fn make(folder: &Path) -> Result<(), PodFailure> {
    fs::create_dir_all(folder).map_err(|error| failed("make the folder", folder, &error))
}

fn write(path: &Path, text: &str) -> Result<(), PodFailure> {
    fs::write(path, text).map_err(|error| failed("write", path, &error))
}

fn failed(action: &str, path: &Path, error: &io::Error) -> PodFailure {
    PodFailure::new(Reason::Internal.as_str(), format!("failed to {action} {}: {error}", path.display()))
}

fn refused(field: &str, refusal: &Refusal) -> PodFailure {
    PodFailure::new(Reason::InvalidSpec.as_str(), format!("{field}: {refusal}"))
}

/// The programs of the buildpack that sets labels are links to the agent.
const DETECT: &str = "detect";
const BUILD: &str = "build";

/// What is done where this program was started as a buildpack's; `None` where it was not. It is never asked to detect
/// anything (it joins the group afterwards), but a buildpack has to be able to.
pub fn as_buildpack(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let program = PathBuf::from(arguments.next()?);
    let is_build = match program.file_name()?.to_str()? {
        DETECT => false,
        BUILD => true,
        _ => return None,
    };
    let own = program.parent().and_then(Path::parent);
    let layers = arguments.next().map(PathBuf::from);
    let (Some(own), Some(layers), true) = (own, layers, is_build) else { return Some(ExitCode::SUCCESS) };
    Some(match fs::copy(own.join("launch.toml"), layers.join("launch.toml")) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed to leave the labels in {}: {error}", layers.display());
            ExitCode::FAILURE
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Container {
        base: PathBuf,
        places: Places,
    }

    impl Container {
        fn new(test: &str) -> Self {
            let base = std::env::temp_dir().join(format!("lifecycle-test-{test}-{}", std::process::id()));
            let at = |name: &str| base.join(name);
            let places = Places {
                lifecycle: at("cnb/lifecycle"),
                buildpacks: at("cnb/buildpacks"),
                order: at("cnb/order.toml"),
                brings: at("v/brings"),
                brought: at("v/brought"),
                app: at("workspace"),
                agent: at("v/bin/agent"),
            };
            let container = Self { base, places };
            container.write("cnb/lifecycle/analyzer", "#!/bin/sh\n[ \"$CNB_PLATFORM_API $1\" = \"0.12 -version\" ]\n");
            let program = container.base.join("cnb/lifecycle/analyzer");
            fs::set_permissions(program, fs::Permissions::from_mode(0o755)).expect("sets");
            container.write("cnb/order.toml", "[[order]]\n[[order.group]]\nid = \"press/own\"\nversion = \"1\"\n");
            container.buildpack("cnb/buildpacks", "press/own", "1", "");
            container.write("source/apples", "gala");
            container.write("source/.git/config", "x");
            container
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.base.join(name);
            fs::create_dir_all(path.parent().expect("has a folder")).expect("makes");
            fs::write(path, text).expect("writes");
        }

        fn buildpack(&self, folder: &str, id: &str, version: &str, more: &str) {
            let name = format!("{folder}/{}/{version}/buildpack.toml", id.replace('/', "_"));
            let text = format!("api = \"0.10\"\n[buildpack]\nid = \"{id}\"\nversion = \"{version}\"\n{more}");
            self.write(&name, &text);
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.base.join(name)).expect("reads")
        }

        fn prepare(&self, request: Request, auth: Option<&str>) -> Result<Vec<Start>, PodFailure> {
            let request = Request { images: vec!["registry.test/a:1".to_owned()], ..request };
            let lifecycle = Lifecycle { request, source: self.base.join("source"), registry_auth: None };
            prepare_in(&self.places, &lifecycle, auth, &Log::new())
        }
    }

    impl Drop for Container {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.base);
        }
    }

    fn value(start: &Start, name: &str) -> Option<String> {
        let found = start.environment.iter().find(|(known, _)| known == name);
        found.and_then(|(_, value)| value.to_str().map(str::to_owned))
    }

    #[test]
    fn only_what_speaks_to_registries_is_given_the_credentials() {
        let container = Container::new("auth");
        let made = container.prepare(Request::default(), Some("{}")).expect("is made ready");
        let given: Vec<_> = made.iter().map(|start| value(start, "CNB_REGISTRY_AUTH").is_some()).collect();
        assert_eq!(given, [true, false, true, false, true]);
        let folders: Vec<_> = made.iter().map(|start| start.folder == Some("/".into())).collect();
        assert_eq!(folders, given);
        assert!(made.iter().all(|start| value(start, "CNB_PLATFORM_API").as_deref() == Some("0.12")));
    }

    #[test]
    fn credentials_are_read_once() {
        let container = Container::new("once");
        container.write("config.json", r#"{"auths": {"registry.test": {"auth": "YTpi"}}}"#);
        let path = container.base.join("config.json");
        assert_eq!(take_auth(&path).as_deref(), Ok(r#"{"registry.test":"Basic YTpi"}"#));
        assert_eq!(container.read("config.json"), "");
        container.write("config.json", "hunter2");
        let failure = take_auth(&path).expect_err("is refused");
        assert!(
            !failure.message.contains("hunter2") && container.read("config.json").is_empty(),
            "{}",
            failure.message
        );
    }

    #[test]
    fn brought_buildpacks_are_joined_with_the_builders_and_come_first() {
        let container = Container::new("joined");
        let parts = "[[order]]\n[[order.group]]\nid = \"part\"\nversion = \"1\"\n";
        container.buildpack("v/brought/0", "whole", "3", parts);
        container.buildpack("v/brought/0", "part", "1", "");
        // The same version as the builder's own.
        container.buildpack("v/brought/1", "press/own", "1", "");
        let request = Request { buildpacks: vec!["r/whole:3".to_owned(), "r/own:1".to_owned()], ..Request::default() };
        container.prepare(request, None).expect("is made ready");
        let order = container.read("v/brings/order.toml");
        let ids: Vec<&str> = order.lines().filter(|line| line.starts_with("id = ")).collect();
        let expected = ["whole", "press/own", "press/own", "whole", "press/own"].map(|id| format!("id = \"{id}\""));
        assert_eq!(ids, expected);
        let target =
            |name: &str| fs::read_link(container.base.join("v/brings/buildpacks").join(name)).expect("is a link");
        assert_eq!(target("part/1"), container.base.join("v/brought/0/part/1"));
        assert_eq!(target("press_own/1"), container.base.join("v/brought/1/press_own/1"));
        assert_eq!(container.read("workspace/apples"), "gala");
        assert!(!container.base.join("workspace/.git").exists());
    }

    #[test]
    fn the_build_says_more_than_the_project() {
        let container = Container::new("environment");
        let project = "[[io.buildpacks.build.env]]\nname = \"A\"\nvalue = \"source\"\n\
            [[io.buildpacks.build.env]]\nname = \"B\"\nvalue = \"source\"\n";
        container.write("source/project.toml", project);
        let environment = vec![("A".to_owned(), "build".to_owned())];
        container.prepare(Request { environment, ..Request::default() }, None).expect("is made ready");
        assert_eq!(container.read("v/brings/platform/env/A"), "build");
        assert_eq!(container.read("v/brings/platform/env/B"), "source");
    }

    #[test]
    fn labels_are_a_buildpack_that_joins_after_detection() {
        let container = Container::new("labels");
        let labels = vec![("a".to_owned(), "b".to_owned())];
        let made = container.prepare(Request { labels, ..Request::default() }, None).expect("is made ready");
        let appends: Vec<_> = made.iter().map(|start| start.appends.is_some()).collect();
        assert_eq!(appends, [false, true, false, false, false]);
        let own = container.base.join("v/brings/buildpacks/imagefactory.dev_labels/1");
        let layers = container.base.join("layers");
        fs::create_dir_all(&layers).expect("makes");
        let start = |name: &str| vec![own.join("bin").join(name).into_os_string(), layers.clone().into_os_string()];
        assert!(as_buildpack(start(DETECT).into_iter()).is_some() && !layers.join("launch.toml").exists());
        assert!(as_buildpack(start(BUILD).into_iter()).is_some());
        assert!(container.read("layers/launch.toml").contains("key = \"a\""));
        assert!(as_buildpack(["/v/bin/image-factory-agent", "run"].map(OsString::from).into_iter()).is_none());
    }

    #[test]
    fn what_can_not_be_used_is_refused_by_the_name_of_its_field() {
        let container = Container::new("refused");
        fs::create_dir_all(container.base.join("v/brought/0")).expect("makes");
        let request = Request { buildpacks: vec!["r/empty:1".to_owned()], ..Request::default() };
        let failure = container.prepare(request, None).err().expect("is refused");
        assert_eq!(failure.reason, "InvalidSpec");
        assert!(
            failure.message.starts_with("spec.buildpacks[0] (r/empty:1): the image has no buildpack"),
            "{failure:?}"
        );
        fs::remove_file(container.base.join("cnb/lifecycle/analyzer")).expect("removes");
        let failure = container.prepare(Request::default(), None).err().expect("is refused");
        assert!(failure.message.starts_with("spec.builder: the image has no lifecycle"), "{failure:?}");
    }
}
