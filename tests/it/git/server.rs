//! A Git server for one test: repositories in a folder of its own, given out by Git's own `http-backend`. What lies under
//! `/private/` asks for a password (below `/private/latin/` for one that is no UTF-8), what lies under `/elsewhere/` is answered with a redirect to another port, where
//! nobody is let in and every credential that arrives is written down. Under `/old/` are the public ones as a server gives
//! them out that knows only the first version of the protocol, where a commit can't be asked for by its id.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

pub const USER: &str = "gardener";
pub const PASSWORD: &str = "quince-and-medlar";
/// `Süßmost` in Latin-1.
pub const LATIN_PASSWORD: &[u8] = b"S\xfc\xdfmost";

pub struct Server {
    pub folder: PathBuf,
    pub url: String,
    /// Where `/elsewhere/` leads.
    pub stranger: String,
    /// Credentials that arrived where none should.
    pub leaked: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
struct Shared {
    folder: PathBuf,
    stranger: String,
}

impl Server {
    pub async fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("git-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(folder.join("public")).expect("makes the folder");
        fs::create_dir_all(folder.join("private")).expect("makes the folder");
        let leaked = Arc::new(Mutex::new(Vec::new()));
        let stranger = listen(Router::new().fallback(stranger).with_state(leaked.clone())).await;
        let shared = Shared { folder: folder.clone(), stranger: stranger.clone() };
        let url = listen(Router::new().fallback(serve).with_state(shared)).await;
        Self { folder, url, stranger, leaked }
    }

    /// A repository `public/…` or `private/…` with a work tree to commit in.
    pub fn repository(&self, path: &str) -> Repository {
        self.repository_of("sha1", path)
    }

    /// The same, whose objects are named by this hash.
    pub fn repository_of(&self, hash: &str, path: &str) -> Repository {
        let bare = self.folder.join(path);
        let tree = self.folder.join("trees").join(path);
        fs::create_dir_all(&tree).expect("makes the folder");
        let format = format!("--object-format={hash}");
        git(&self.folder, &["init", "-q", "--bare", &format, "-b", "trunk", &bare.display().to_string()]);
        git(&tree, &["init", "-q", &format, "-b", "trunk", "."]);
        git(&tree, &["remote", "add", "origin", &bare.display().to_string()]);
        Repository { tree, bare, url: format!("{}/{path}", self.url) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub struct Repository {
    pub tree: PathBuf,
    pub bare: PathBuf,
    pub url: String,
}

impl Repository {
    /// Commits these files to the branch that is checked out, pushes it, and gives the commit.
    pub fn commit(&self, message: &str, files: &[(&str, &str)]) -> String {
        for (path, text) in files {
            let place = self.tree.join(path);
            fs::create_dir_all(place.parent().expect("a folder")).expect("makes the folder");
            fs::write(place, text).expect("writes");
        }
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["push", "-q", "origin", "HEAD"]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub fn git(&self, argv: &[&str]) -> String {
        git(&self.tree, argv)
    }
}

pub fn git(folder: &Path, argv: &[&str]) -> String {
    let output = std::process::Command::new("git")
        .args(["-c", "user.name=Pomona Orchard", "-c", "user.email=pomona@example.com"])
        .args(["-c", "protocol.file.allow=always", "-c", "commit.gpgsign=false"])
        .args(argv)
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .expect("git runs");
    assert!(output.status.success(), "git {argv:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

async fn listen(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

fn answer(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if status == StatusCode::UNAUTHORIZED {
        let basic = "Basic realm=\"git\"".parse().expect("a value");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, basic);
    }
    response
}

async fn stranger(State(leaked): State<Arc<Mutex<Vec<String>>>>, headers: HeaderMap) -> Response {
    if let Some(credential) = headers.get(header::AUTHORIZATION) {
        leaked.lock().expect("not poisoned").push(format!("{credential:?}"));
    }
    answer(StatusCode::UNAUTHORIZED)
}

async fn serve(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    if path.starts_with("/elsewhere/") {
        let mut response = answer(StatusCode::MOVED_PERMANENTLY);
        let place = format!("{}{path}?{query}", shared.stranger).parse().expect("a value");
        response.headers_mut().insert(header::LOCATION, place);
        return response;
    }
    if path.starts_with("/broken/") {
        return answer(StatusCode::BAD_GATEWAY);
    }
    let password = if path.starts_with("/private/latin/") { LATIN_PASSWORD } else { PASSWORD.as_bytes() };
    let expected = base64::engine::general_purpose::STANDARD.encode([USER.as_bytes(), b":", password].concat());
    let given = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if path.starts_with("/private/") && given != Some(&format!("Basic {expected}")) {
        return answer(StatusCode::UNAUTHORIZED);
    }
    let old = path.strip_prefix("/old/").map(|rest| format!("/public/{rest}"));
    let body = to_bytes(body, usize::MAX).await.expect("a body");
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut backend = tokio::process::Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &shared.folder)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", old.as_ref().unwrap_or(&path))
        .env("QUERY_STRING", &query)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", if old.is_some() { "" } else { header("git-protocol") })
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git http-backend runs");
    let mut input = backend.stdin.take().expect("an input");
    tokio::spawn(async move { input.write_all(&body).await });
    let output = backend.wait_with_output().await.expect("it ends");
    from_cgi(&output.stdout)
}

/// Headers, an empty line, the body.
fn from_cgi(output: &[u8]) -> Response {
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").expect("an end of the headers");
    let mut response = Response::new(Body::from(Bytes::copy_from_slice(&output[end + 4..])));
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let (name, value) = line.split_once(": ").expect("a header");
        if name == "Status" {
            *response.status_mut() = value.split(' ').next().and_then(|code| code.parse().ok()).expect("a status");
        } else {
            let name: header::HeaderName = name.parse().expect("a name");
            response.headers_mut().insert(name, value.parse().expect("a value"));
        }
    }
    response
}
