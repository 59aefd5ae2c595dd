//! Sources by ssh, from an sshd of the test's own: whose key is told to whom.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::{Pod, server::Server};

/// An sshd that lets this user in with one key.
struct Sshd {
    process: Child,
    address: String,
    key: String,
    known_hosts: String,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn run(program: &str, argv: &[&str]) -> String {
    let output = Command::new(program).args(argv).output().expect(program);
    assert!(output.status.success(), "{program} {argv:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn key(path: &Path) -> String {
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "orchard", "-f", &path.display().to_string()]);
    fs::read_to_string(path.with_extension("pub")).expect("a public key")
}

impl Sshd {
    async fn start(folder: &Path) -> Self {
        let (host_key, user_key) = (folder.join("host"), folder.join("user"));
        let host = key(&host_key);
        fs::write(folder.join("authorized"), key(&user_key)).expect("writes");
        // Asked for and given back: sshd takes no port 0.
        let port = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address").port();
        let settings = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nPidFile none\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PermitRootLogin prohibit-password\nAcceptEnv GIT_PROTOCOL\n",
            host_key.display(),
            folder.join("authorized").display(),
        );
        fs::write(folder.join("sshd.conf"), settings).expect("writes");
        let process = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &folder.join("sshd.conf").display().to_string()])
            .stderr(Stdio::null())
            .spawn()
            .expect("sshd runs");
        let started = Self {
            process,
            address: format!("ssh://{}@127.0.0.1:{port}", run("id", &["-un"])),
            key: fs::read_to_string(&user_key).expect("a key"),
            known_hosts: format!("[127.0.0.1]:{port} {host}"),
        };
        let listens = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), listens).await.expect("sshd listens in time");
        started
    }
}

#[tokio::test]
async fn a_key_opens_the_host_and_port_it_is_for_and_is_offered_to_no_submodule_elsewhere() {
    let server = Server::start().await;
    let sshd = Sshd::start(&server.folder).await;
    let inner = server.repository("private/inner.git");
    inner.commit("inner", &[("seed", "pip")]);
    let outer = server.repository("private/outer.git");
    let add = |address: &str, path: &str| {
        outer.git(&["submodule", "--quiet", "add", "--force", &inner.bare.display().to_string(), path]);
        outer.git(&["config", "-f", ".gitmodules", &format!("submodule.{path}.url"), address]);
        outer.commit("a submodule", &[]);
    };
    add("../inner.git", "lib");
    // Another port of the same machine, which the Secret knows too; whoever answers there would have the key offered.
    let stranger = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let elsewhere = stranger.local_addr().expect("an address");
    let host_key = sshd.known_hosts.split_once(' ').expect("a name and a key").1;
    let known = format!("{}[127.0.0.1]:{} {host_key}", sshd.known_hosts, elsewhere.port());
    let secret = [("ssh-privatekey", &*sshd.key), ("known_hosts", &*known)];
    let url = format!("{}{}", sshd.address, outer.bare.display());

    let pod = Pod::new(&server, "same").secret(&secret).flag("--git-submodules");
    let prepared = pod.prepare(&url).await;
    assert_eq!((prepared.report.failure.as_ref(), prepared.read("lib/seed")), (None, "pip".to_owned()));

    add(&format!("ssh://root@{elsewhere}/inner.git"), "other");
    let public = server.repository("public/inner.git");
    inner.git(&["push", "-q", &public.bare.display().to_string(), "HEAD:trunk"]);
    let public = server.repository("public/outer.git");
    public.git(&["pull", "-q", &outer.bare.display().to_string(), "trunk"]);
    public.git(&["push", "-q", "origin", "HEAD"]);
    let bound = sshd.address.split_once('@').expect("a user").1.to_owned();
    for (name, url, because) in [
        ("elsewhere", &url, format!("ssh://{bound} alone, not for ssh://{elsewhere}")),
        ("by-http", &public.url, format!("{} alone, not for ssh://", server.url)),
    ] {
        let mut pod = Pod::new(&server, name).flag("--git-submodules");
        if url.starts_with("ssh") {
            pod = pod.secret(&secret);
        }
        let connected = async {
            let _ = stranger.accept().await;
        };
        let prepared = tokio::select! {
            prepared = pod.prepare(url) => prepared,
            () = connected => panic!("{name}: the submodule's host was spoken to"),
        };
        let (reason, message) = prepared.failure();
        assert_eq!(reason, "SourceAuth", "{name}: {message}");
        assert!(message.contains("a submodule of") && message.contains(&because), "{name}: {message}");
    }
}
