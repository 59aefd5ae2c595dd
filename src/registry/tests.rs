//! The registry's side of `inspect`: a real registry where the machine has one, and one of our own that misbehaves on
//! purpose.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oci_client::client::{ClientConfig, ClientProtocol};
use serde_json::{Value, json};

use image_factory_core::inspection::{LayerFacts, ManifestKind};

use super::describe::facts;
use super::documents::{Descriptor, ImageConfig};
use super::*;

mod facts;
mod indexes;
mod leavings;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

fn use_ring() {
    // Fails where another test was first, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// What the builder left, and the push credentials.
struct Pod(PathBuf);

impl Pod {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("registry-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("makes the folder");
        Self(path)
    }

    fn logged_in(&self, registry: &str) {
        let config = json!({"auths": {registry: {"auth": STANDARD.encode("robot:secret")}}});
        fs::write(self.0.join("config.json"), config.to_string()).expect("writes");
    }

    async fn inspect(&self, image: &str, digest: &str, insecure: bool) -> Result<Inspection, RegistryError> {
        use_ring();
        fs::write(self.0.join("digest"), digest).expect("writes");
        let registry = image.split('/').next().filter(|_| insecure).map(str::to_owned);
        self.confirms(&Pushed {
            image: image.to_owned(),
            tags: Vec::new(),
            platforms: Vec::new(),
            dockerfile: None,
            insecure_registries: registry.into_iter().collect(),
            mirrors: Vec::new(),
            docker_config: Some(self.0.clone()),
        })
        .await
    }

    /// By the digest that is written there.
    async fn confirms(&self, pushed: &Pushed) -> Result<Inspection, RegistryError> {
        inspect(pushed, &DigestSource::File(self.0.join("digest"))).await
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn refusal(result: Result<Inspection, RegistryError>) -> (&'static str, String) {
    let error = result.expect_err("is refused");
    (error.reason(), error.to_string())
}

/// The registry of the distribution project, as this machine's package has it.
struct RealRegistry {
    process: Child,
    address: String,
    folder: PathBuf,
}

impl RealRegistry {
    /// None where it is not installed. `tls`: certificate and key.
    fn start(folder: &Path, tls: Option<(&Path, &Path)>) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
        let address = format!("127.0.0.1:{port}");
        let tls = tls.map(|(certificate, key)| json!({"certificate": certificate, "key": key}));
        let config = json!({
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": folder.join("store")}},
            "http": {"addr": address, "tls": tls.unwrap_or_else(|| json!({}))},
        });
        let file = folder.join("registry.yml");
        fs::write(&file, config.to_string()).expect("writes"); // JSON is YAML
        let started =
            Command::new("docker-registry").arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let Ok(process) = started else {
            eprintln!("skipped: docker-registry is not installed");
            return None;
        };
        let registry = Self { process, address, folder: folder.to_owned() };
        let begin = Instant::now();
        while TcpStream::connect(&registry.address).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(20), "the registry listens");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }

    fn image(&self, tag: &str) -> String {
        format!("{}/shop/web:{tag}", self.address)
    }

    fn pusher(&self) -> oci_client::Client {
        use_ring();
        let protocol = if self.folder.join("key.pem").exists() { ClientProtocol::Https } else { ClientProtocol::Http };
        oci_client::Client::new(ClientConfig { protocol, accept_invalid_certificates: true, ..ClientConfig::default() })
    }

    async fn push_blob(&self, bytes: Vec<u8>) -> Value {
        let (digest, size) = (digest_of(&bytes), bytes.len());
        let reference = self.image("any").parse().expect("a reference");
        self.pusher().push_blob(&reference, bytes, &digest).await.expect("pushes a blob");
        json!({"digest": digest, "size": size})
    }

    async fn push_manifest(&self, tag: &str, media_type: &'static str, manifest: &Value) -> (String, usize) {
        let bytes = manifest.to_string().into_bytes();
        let (digest, size) = (digest_of(&bytes), bytes.len());
        let reference = self.image(tag).parse().expect("a reference");
        let media_type = http::HeaderValue::from_static(media_type);
        self.pusher().push_manifest_raw(&reference, bytes, media_type).await.expect("pushes a manifest");
        (digest, size)
    }

    /// An image of two layers, and an instruction between that made none.
    async fn push_image(&self, tag: &str, architecture: &str, variant: Option<&str>) -> (String, usize) {
        let mut config = self.push_blob(image_config(architecture, variant).to_string().into_bytes()).await;
        config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
        let mut layers = Vec::new();
        for text in ["the base", architecture] {
            let mut layer = self.push_blob(text.as_bytes().to_vec()).await;
            layer["mediaType"] = LAYER_TYPE.into();
            layers.push(layer);
        }
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers});
        self.push_manifest(tag, MANIFEST_TYPE, &manifest).await
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn image_config(architecture: &str, variant: Option<&str>) -> Value {
    json!({
        "os": "linux", "architecture": architecture, "variant": variant, "created": "2026-11-24T10:00:00Z",
        "config": {
            "Entrypoint": ["/server"], "Cmd": null, "Env": ["PATH=/bin", "DB_PASSWORD=hunter2"],
            "WorkingDir": "/srv", "Labels": {"team": "shop"},
        },
        "rootfs": {"type": "layers", "diff_ids": [digest_of(b"the base, unpacked"), digest_of(format!("{architecture}, unpacked").as_bytes())]},
        "history": [
            {"created_by": "ADD base"},
            {"created_by": "ENV A=1", "empty_layer": true},
            {"created_by": "RUN make"},
        ],
    })
}

#[tokio::test]
async fn an_image_is_confirmed_and_described() {
    let pod = Pod::new();
    let Some(registry) = RealRegistry::start(&pod.0, None) else { return };
    let (digest, _) = registry.push_image("1", "amd64", None).await;

    let found = pod.inspect(&registry.image("1"), &digest, true).await.expect("is confirmed");
    assert_eq!((found.reference, found.digest), (registry.image("1"), digest.clone()));
    assert_eq!(
        (found.media_type.as_str(), found.kind, found.total_size_bytes),
        (MANIFEST_TYPE, ManifestKind::Image, 13)
    );
    let [image] = found.images.as_slice() else { unreachable!("one image: {:?}", found.images) };
    assert_eq!((image.platform.as_str(), &image.manifest_digest), ("linux/amd64", &digest));
    assert_eq!(image.config_digest, digest_of(image_config("amd64", None).to_string().as_bytes()));
    assert_eq!(
        image.layers[1],
        LayerFacts {
            digest: digest_of(b"amd64"),
            size_bytes: 5,
            media_type: LAYER_TYPE.into(),
            diff_id: Some(digest_of(b"amd64, unpacked")),
            uncompressed_size_bytes: None,
        }
    );
    let history: Vec<_> = image.history.iter().map(|entry| (entry.created_by.as_deref(), entry.layer)).collect();
    assert_eq!(history, [(Some("ADD base"), Some(0)), (Some("ENV A=1"), None), (Some("RUN make"), Some(1))]);
    assert_eq!((image.entrypoint.clone(), image.cmd.clone()), (vec!["/server".to_owned()], vec![]));
    assert_eq!(image.env, ["PATH=/bin", "DB_PASSWORD=***"]);
    assert_eq!(image.labels["team"], "shop");
    assert_eq!(image.created.as_deref(), Some("2026-11-24T10:00:00Z"));
}

#[tokio::test]
async fn a_tag_that_stands_for_something_else_is_a_mismatch() {
    let pod = Pod::new();
    let Some(registry) = RealRegistry::start(&pod.0, None) else { return };
    let (first, _) = registry.push_image("1", "amd64", None).await;
    let (second, _) = registry.push_image("1", "arm64", None).await;
    let (reason, sentence) = refusal(pod.inspect(&registry.image("1"), &first, true).await);
    assert_eq!(reason, "DigestMismatch");
    assert!(sentence.contains(&first) && sentence.contains(&second), "{sentence}");
}

#[tokio::test]
async fn what_was_never_pushed_is_a_failed_push() {
    let pod = Pod::new();
    let Some(registry) = RealRegistry::start(&pod.0, None) else { return };
    let (digest, _) = registry.push_image("1", "amd64", None).await;
    let other = digest_of(b"never pushed");
    let (reason, sentence) = refusal(pod.inspect(&registry.image("1"), &other, true).await);
    assert_eq!(reason, "PushFailed");
    assert!(sentence.contains("the builder says that it pushed"), "{sentence}");
    let (reason, sentence) = refusal(pod.inspect(&registry.image("2"), &digest, true).await);
    assert_eq!(reason, "PushFailed");
    assert!(sentence.contains("manifests/2"), "{sentence}");
}

#[tokio::test]
async fn an_unverified_certificate_is_accepted_only_where_asked_for() {
    let pod = Pod::new();
    let (certificate, key) = (pod.0.join("cert.pem"), pod.0.join("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=registry.example"])
        .args([Path::new("-keyout"), &key, Path::new("-out"), &certificate])
        .stderr(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: openssl is not installed");
        return;
    }
    let Some(registry) = RealRegistry::start(&pod.0, Some((&certificate, &key))) else { return };
    let (digest, _) = registry.push_image("1", "amd64", None).await;
    assert!(pod.inspect(&registry.image("1"), &digest, true).await.is_ok());
    let (reason, sentence) = refusal(pod.inspect(&registry.image("1"), &digest, false).await);
    assert_eq!(reason, "RegistryUnavailable");
    assert!(sentence.to_lowercase().contains("certificate"), "{sentence}");
}

/// A registry that answers as a test tells it to, and remembers what it was asked.
struct OddRegistry {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    path: String,
    authorization: Option<String>,
}

type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

impl OddRegistry {
    /// `answer` is told the request and how many came before it.
    async fn start(answer: impl Fn(&Asked, usize) -> Answer + Clone + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let address = listener.local_addr().expect("an address").to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let memory = Arc::clone(&asked);
        let respond = move |request: Request| {
            let header = request.headers().get("authorization");
            let authorization = header.map(|value| value.to_str().expect("text").to_owned());
            let now = Asked { path: request.uri().to_string(), authorization };
            let mut memory = memory.lock().expect("no test thread died");
            let (status, headers, body) = answer(&now, memory.len());
            memory.push(now);
            let headers: HeaderMap = headers
                .into_iter()
                .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
                .collect::<HeaderMap<_>>();
            let response = (StatusCode::from_u16(status).expect("a status"), headers, body).into_response();
            async move { response }
        };
        let router = axum::Router::new().fallback(respond);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, asked }
    }

    fn image(&self) -> String {
        format!("{}/shop/web:1", self.address)
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no test thread died").clone()
    }
}

fn ok(body: &[u8]) -> Answer {
    (200, vec![("content-type", MANIFEST_TYPE.into())], body.to_vec())
}

fn status(code: u16) -> Answer {
    (code, vec![], b"{}".to_vec())
}

/// A whole image without layers, for registries that only differ in how they let one in.
fn served(path: &str) -> Answer {
    if path.starts_with("/v2/shop/web/blobs/") {
        ok(image_config("amd64", None).to_string().as_bytes())
    } else {
        ok(small_manifest().as_bytes())
    }
}

fn small_manifest() -> String {
    let config = image_config("amd64", None).to_string();
    let config = json!({"digest": digest_of(config.as_bytes()), "size": config.len()});
    json!({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": []}).to_string()
}

fn small_digest() -> String {
    digest_of(small_manifest().as_bytes())
}

#[tokio::test]
async fn a_registry_that_asks_for_a_password_gets_the_one_for_its_host_and_port() {
    let registry = OddRegistry::start(|asked, _| match &asked.authorization {
        Some(_) => served(&asked.path),
        None => (401, vec![("www-authenticate", r#"Basic realm="registry""#.into())], vec![]),
    })
    .await;
    let pod = Pod::new();
    pod.logged_in(&registry.address);
    pod.inspect(&registry.image(), &small_digest(), true).await.expect("is let in");
    let expected = format!("Basic {}", STANDARD.encode("robot:secret"));
    let asked = registry.asked();
    // Asked for once, then given with every request.
    assert_eq!(asked[0].authorization, None);
    assert!(asked[1..].iter().all(|asked| asked.authorization.as_ref() == Some(&expected)), "{asked:?}");

    let stranger = Pod::new();
    stranger.logged_in("127.0.0.1");
    let (reason, sentence) = refusal(stranger.inspect(&registry.image(), &small_digest(), true).await);
    assert_eq!(reason, "PushDenied");
    assert!(sentence.contains("names none for this host and port"), "{sentence}");
}

/// A registry with a token service: its own, or the one at `realm`.
async fn token_registry(realm: Option<String>) -> OddRegistry {
    let address = Arc::new(Mutex::new(String::new()));
    let own = Arc::clone(&address);
    let registry = OddRegistry::start(move |asked, _| {
        if asked.path.starts_with("/token") {
            let robot = format!("Basic {}", STANDARD.encode("robot:secret"));
            return if asked.authorization == Some(robot) { ok(br#"{"token": "t0k3n"}"#) } else { status(403) };
        }
        if asked.authorization.as_deref() == Some("Bearer t0k3n") {
            return served(&asked.path);
        }
        let own = format!("http://{}/token", own.lock().expect("no test thread died"));
        let realm = realm.as_ref().unwrap_or(&own);
        (401, vec![("www-authenticate", format!("Bearer realm=\"{realm}\",service=\"reg\""))], vec![])
    })
    .await;
    address.lock().expect("no test thread died").clone_from(&registry.address);
    registry
}

#[tokio::test]
async fn a_token_is_fetched_for_this_repository_and_only_for_reading() {
    let registry = token_registry(None).await;
    let pod = Pod::new();
    pod.logged_in(&registry.address);
    pod.inspect(&registry.image(), &small_digest(), true).await.expect("is let in");
    let tokens: Vec<_> = registry.asked().into_iter().filter(|asked| asked.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].path, "/token?scope=repository%3Ashop%2Fweb%3Apull&service=reg");
}

#[tokio::test]
async fn a_password_is_not_sent_in_the_clear_to_another_host() {
    let other = token_registry(None).await;
    let registry = token_registry(Some(format!("http://{}/token", other.address))).await;
    let pod = Pod::new();
    pod.logged_in(&registry.address);
    let (reason, sentence) = refusal(pod.inspect(&registry.image(), &small_digest(), true).await);
    assert_eq!(reason, "PushDenied");
    assert!(sentence.contains("without TLS"), "{sentence}");
    assert_eq!(other.asked(), []);
}

#[tokio::test]
async fn credentials_that_are_refused_are_a_denied_push() {
    for code in [401, 403] {
        let registry = OddRegistry::start(move |_, _| {
            (code, vec![("www-authenticate", r#"Basic realm="registry""#.into())], vec![])
        })
        .await;
        let pod = Pod::new();
        pod.logged_in(&registry.address);
        let (reason, sentence) = refusal(pod.inspect(&registry.image(), &small_digest(), true).await);
        assert_eq!(reason, "PushDenied");
        assert!(sentence.contains("with the push credentials") && !sentence.contains("secret"), "{sentence}");
    }
}

#[tokio::test]
async fn a_registry_that_stumbles_is_asked_again() {
    let registry =
        OddRegistry::start(|asked, before| if before == 0 { status(503) } else { served(&asked.path) }).await;
    let pod = Pod::new();
    assert!(pod.inspect(&registry.image(), &small_digest(), true).await.is_ok());
}

#[tokio::test]
async fn a_registry_that_stays_down_is_unavailable() {
    let registry = OddRegistry::start(|_, _| status(500)).await;
    let pod = Pod::new();
    let (reason, sentence) = refusal(pod.inspect(&registry.image(), &small_digest(), true).await);
    assert_eq!(reason, "RegistryUnavailable");
    assert_eq!(sentence, format!("the registry {} answered 500", registry.address));
    assert_eq!(registry.asked().len(), 4);
}

#[tokio::test]
async fn a_registry_that_sends_something_else_is_a_mismatch() {
    let registry = OddRegistry::start(|_, _| ok(b"{\"schemaVersion\": 2}")).await;
    let pod = Pod::new();
    let (reason, sentence) = refusal(pod.inspect(&registry.image(), &small_digest(), true).await);
    assert_eq!(reason, "DigestMismatch");
    assert!(sentence.contains("sent something else"), "{sentence}");
}

#[tokio::test]
async fn a_document_without_end_is_not_read_to_the_end() {
    let registry = OddRegistry::start(|_, _| ok(&vec![b' '; 5 * 1024 * 1024])).await;
    let pod = Pod::new();
    let (reason, sentence) = refusal(pod.inspect(&registry.image(), &small_digest(), true).await);
    assert_eq!(reason, "PushFailed");
    assert!(sentence.contains("more than 4194304 bytes"), "{sentence}");
}

#[tokio::test]
async fn a_document_of_two_meanings_is_refused() {
    let both =
        json!({"schemaVersion": 2, "config": {"digest": "d", "size": 1}, "layers": [], "manifests": []}).to_string();
    let body = both.clone();
    let registry = OddRegistry::start(move |_, _| ok(body.as_bytes())).await;
    let pod = Pod::new();
    let (reason, sentence) = refusal(pod.inspect(&registry.image(), &digest_of(both.as_bytes()), true).await);
    assert_eq!(reason, "PushFailed");
    assert!(sentence.contains("neither an image nor an index"), "{sentence}");
}

#[tokio::test]
async fn plain_http_is_not_spoken_unless_asked_for() {
    let registry = OddRegistry::start(|asked, _| served(&asked.path)).await;
    let pod = Pod::new();
    let (reason, _) = refusal(pod.inspect(&registry.image(), &small_digest(), false).await);
    assert_eq!(reason, "RegistryUnavailable");
    assert_eq!(registry.asked(), []);
}

#[tokio::test]
async fn an_image_that_is_no_tag_is_refused() {
    let pod = Pod::new();
    let digest = small_digest();
    for image in ["", "reg.example/UPPER:1", &format!("reg.example/a@{digest}")] {
        assert_eq!(refusal(pod.inspect(image, &digest, false).await).0, "InvalidSpec", "{image:?}");
    }
}

#[test]
fn a_history_or_content_that_does_not_fit_the_layers_names_none() {
    let config: ImageConfig = serde_json::from_value(image_config("amd64", None)).expect("parses");
    let layers: Vec<Descriptor> =
        serde_json::from_value(json!([{"digest": "sha256:1", "size": 1, "mediaType": LAYER_TYPE}])).expect("parses");
    let image = facts("sha256:m".into(), "sha256:c".into(), layers, None, config);
    assert_eq!(image.layers[0].diff_id, None);
    assert_eq!(image.history.iter().map(|entry| entry.layer).collect::<Vec<_>>(), [None; 3]);
    assert_eq!(image.history[2].created_by.as_deref(), Some("RUN make"));
}
