//! An operator as a process of the test, with the environment of the deployed one: it can be told
//! where to crash, be paused, and reach Postgres and the API server through a proxy.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    time::timeout,
};

use super::{cluster, stage::Stage, watching};

const BINARY: &str = env!("CARGO_BIN_EXE_image-factory");
const SIGABRT: i32 = 6;

pub struct Operator {
    child: Child,
    log: PathBuf,
    address: SocketAddr,
}

/// How an operator differs from the deployed one.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name in the lease.
    pub name: String,
    /// Where the lease is: operators with leases of their own all lead.
    pub namespace: String,
    /// `IMAGE_FACTORY_LAUNCH_MODE`.
    pub launch_mode: &'static str,
    /// `FAILPOINTS`.
    pub failpoints: String,
    pub database_url: String,
    pub kubeconfig: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "crash-a".to_owned(),
            namespace: super::chart::NAMESPACE.to_owned(),
            launch_mode: "kubernetes",
            failpoints: String::new(),
            database_url: cluster::variable("DATABASE_URL"),
            kubeconfig: cluster::variable("KUBECONFIG"),
        }
    }
}

impl Settings {
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// One that makes Pods itself.
    pub fn launching() -> Self {
        Self { launch_mode: "operator", ..Self::default() }
    }

    pub fn failing(failpoints: &str) -> Self {
        Self { failpoints: failpoints.to_owned(), ..Self::default() }
    }
}

impl Operator {
    pub fn start(stage: &Stage, settings: &Settings) -> Self {
        let address = free_address();
        let log = log_file(&settings.name);
        let stderr = File::create(&log).expect("the log can be made");
        let child = Command::new(BINARY)
            .arg("operator")
            .envs(stage.environment.iter().map(|(name, value)| (name, value)))
            .env("IMAGE_FACTORY_NAMESPACE", &settings.namespace)
            .env("IMAGE_FACTORY_LISTEN", address.to_string())
            .env("IMAGE_FACTORY_HEALTH_LISTEN", "127.0.0.1:0")
            .env("POD_NAME", &settings.name)
            .env("DATABASE_URL", &settings.database_url)
            .env("KUBECONFIG", &settings.kubeconfig)
            .env("IMAGE_FACTORY_LAUNCH_MODE", settings.launch_mode)
            .env("FAILPOINTS", &settings.failpoints)
            .stdin(Stdio::null())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .expect("the operator can be started");
        Self { child, log, address }
    }

    /// Waits until it has crashed where it was told to.
    pub async fn crashed(mut self, place: &str) {
        let status = timeout(watching::PATIENCE, self.child.wait()).await;
        let Ok(status) = status else { unreachable!("did not crash at {place}: {}", self.log.display()) };
        let status = status.expect("its end can be waited for");
        assert_eq!(status.signal(), Some(SIGABRT), "{status}: {}", self.log.display());
        assert!(self.said(&format!("crashing at {place}")), "crashed elsewhere: {}", self.log.display());
    }

    /// Where it is reached.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until its log has these words.
    pub async fn says(&self, words: &str) {
        let what = format!("{words:?} in {}", self.log.display());
        watching::eventually(&what, async || self.said(words).then_some(())).await;
    }

    pub fn said(&self, words: &str) -> bool {
        fs::read_to_string(&self.log).expect("its log can be read").contains(words)
    }

    /// Waits until it leads.
    pub async fn leads(&self) {
        self.says("this operator leads").await;
    }

    /// Waits until it has seen that another leads, and has ended.
    pub async fn gave_up(mut self) {
        let status = timeout(watching::PATIENCE, self.child.wait()).await.expect("it ends by itself");
        assert_eq!(status.expect("its end can be waited for").code(), Some(1), "{}", self.log.display());
        assert!(self.said("another operator leads now"), "{}", self.log.display());
    }

    /// Ends it as Kubernetes does.
    pub async fn stop(mut self) {
        self.signal("TERM").await;
        let status = timeout(Duration::from_secs(30), self.child.wait()).await.expect("it ends when it is asked to");
        assert!(status.expect("its end can be waited for").success(), "{}", self.log.display());
    }

    /// Sends a signal by its name.
    pub async fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().await.expect("kill can be run");
        assert!(sent.success());
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it can be asked for").is_none()
    }

    /// The status of `/livez` or `/readyz`; none where it does not answer.
    pub async fn health(&self, path: &str) -> Option<u16> {
        let request = reqwest::Client::new().get(format!("http://{}{path}", self.address));
        let response = request.timeout(Duration::from_secs(5)).send().await.ok()?;
        Some(response.status().as_u16())
    }

    /// Waits for this answer of `/readyz`, while `/livez` says that it lives.
    pub async fn is_ready(&self, ready: bool) {
        let wanted = if ready { 200 } else { 503 };
        watching::eventually(&format!("{wanted} of /readyz, {}", self.log.display()), async || {
            if let Some(status) = self.health("/livez").await {
                assert_eq!(status, 200, "it lives all the time");
            }
            (self.health("/readyz").await == Some(wanted)).then_some(())
        })
        .await;
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it has an address")
}

fn log_file(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("crash");
    fs::create_dir_all(&folder).expect("the folder can be made");
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("test").replace("::", "-");
    folder.join(format!("{test}-{}-{name}.log", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Runs `image-factory verify`, which must find nothing broken.
pub async fn verify(limits_since: Option<jiff::Timestamp>) {
    let since = limits_since.map(|time| format!("--limits-since={time}"));
    let output = Command::new(BINARY).arg("verify").args(since).output().await.expect("verify can be run");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{complained}");
    assert_eq!(said.lines().filter(|line| line.starts_with("holds ")).count(), 12, "{said}");
}
