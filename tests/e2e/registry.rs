//! The registry as anyone sees it, by plain http: the third witness of what was pushed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use super::cluster;

const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, \
application/vnd.oci.image.index.v1+json";

/// What a tag stands for.
#[derive(Debug)]
pub struct Pushed {
    pub digest: String,
    /// Compressed bytes of its layers, each counted once.
    pub layer_bytes: i64,
    /// Digest and compressed size of each layer, the lowest first.
    pub layers: Vec<(String, i64)>,
    pub config_digest: String,
    /// The configuration of the image: environment, command, labels, history.
    pub config: Value,
}

/// `image` is `host:port/path:tag`, here and below.
pub async fn pushed(image: &str) -> Pushed {
    let (path, tag) = parts(image);
    let (manifest, digest) = get(&path, "manifests", tag).await;
    let layers: Vec<(String, i64)> = manifest["layers"]
        .as_array()
        .expect("an image has layers")
        .iter()
        .map(|layer| {
            let digest = layer["digest"].as_str().expect("a layer has a digest");
            (digest.to_owned(), layer["size"].as_i64().expect("a layer has a size"))
        })
        .collect();
    let distinct: BTreeMap<_, _> = layers.iter().cloned().collect();
    let config_digest = manifest["config"]["digest"].as_str().expect("an image has a config").to_owned();
    let (config, _) = get(&path, "blobs", &config_digest).await;
    Pushed { digest, layer_bytes: distinct.values().sum(), layers, config_digest, config }
}

/// The path of its repository, and its tag.
fn parts(image: &str) -> (String, &str) {
    let (repository, tag) = image.rsplit_once(':').expect("an image with a tag");
    let path = repository.strip_prefix(&format!("{}/", cluster::registry())).expect("an image of our registry");
    (path.to_owned(), tag)
}

/// The document that the tag stands for, of an image or of an index.
pub async fn manifest(image: &str) -> Value {
    let (path, tag) = parts(image);
    get(&path, "manifests", tag).await.0
}

/// Another document of its repository.
pub async fn manifest_by_digest(image: &str, digest: &str) -> Value {
    get(&parts(image).0, "manifests", digest).await.0
}

/// Pushes another image by the same tag: the one that is there, with an annotation.
pub async fn push_over(image: &str) -> String {
    let (path, tag) = parts(image);
    let (mut manifest, _) = get(&path, "manifests", tag).await;
    manifest["annotations"] = serde_json::json!({"org.example.pushed": "by someone else"});
    let kind = manifest["mediaType"].as_str().expect("a manifest says what it is").to_owned();
    let url = format!("http://{}/v2/{path}/manifests/{tag}", cluster::registry());
    let pushed = reqwest::Client::new().put(&url).header("Content-Type", kind).body(manifest.to_string()).send().await;
    let pushed = pushed.and_then(reqwest::Response::error_for_status).expect("the registry takes it");
    let digest = pushed.headers().get("Docker-Content-Digest").and_then(|value| value.to_str().ok());
    digest.expect("the registry tells the digest").to_owned()
}

/// A blob of its repository.
pub async fn blob(image: &str, digest: &str) -> Vec<u8> {
    let url = format!("http://{}/v2/{}/blobs/{digest}", cluster::registry(), parts(image).0);
    let response = reqwest::get(&url).await.and_then(reqwest::Response::error_for_status).expect("it has the blob");
    response.bytes().await.expect("the registry sends it").to_vec()
}

/// A file of a layer, as `tar` unpacks it.
pub async fn text_of(image: &str, layer: &str, path: &str) -> String {
    let listed = listed(image, layer).await;
    let entry = listed.iter().find(|entry| plain(entry) == path).expect("the layer has it");
    let output = tar(image, layer, &["-xPOf", "-", entry]).await;
    assert!(output.status.success(), "{path} can be unpacked");
    String::from_utf8(output.stdout).expect("a text")
}

/// The paths in a layer.
pub async fn paths(image: &str, layer: &str) -> Vec<String> {
    listed(image, layer).await.iter().map(|entry| plain(entry).to_owned()).collect()
}

/// As each builder writes them: `a`, `./a` or `/a`.
async fn listed(image: &str, layer: &str) -> Vec<String> {
    let output = tar(image, layer, &["-tPf", "-"]).await;
    String::from_utf8(output.stdout).expect("paths are text").lines().map(str::to_owned).collect()
}

fn plain(entry: &str) -> &str {
    entry.trim_start_matches("./").trim_matches('/')
}

async fn tar(image: &str, layer: &str, arguments: &[&str]) -> Output {
    let packed = blob(image, layer).await;
    // Which tar tells by itself only of a file: layers of Packer's are not packed.
    let zipped = packed.starts_with(&[0x1f, 0x8b]).then_some("-z");
    let mut tar = Command::new("tar");
    let mut tar = tar.args(zipped).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("tar");
    let mut stdin = tar.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || stdin.write_all(&packed));
    let output = tar.wait_with_output().expect("tar ends");
    writer.join().expect("no panic").expect("tar reads it all");
    output
}

/// Bytes of the layers as `gzip` unpacks them, each counted once.
pub async fn unpacked_bytes(image: &str, pushed: &Pushed) -> u64 {
    let mut bytes = 0;
    for digest in pushed.layers.iter().map(|(digest, _)| digest).collect::<BTreeSet<_>>() {
        let packed = blob(image, digest).await;
        let mut gunzip =
            Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("gzip");
        let mut stdin = gunzip.stdin.take().expect("it is piped");
        let writer = std::thread::spawn(move || stdin.write_all(&packed));
        let output = gunzip.wait_with_output().expect("gzip ends");
        assert!(output.status.success(), "{digest} is gzip");
        writer.join().expect("no panic").expect("gzip reads it all");
        bytes += output.stdout.len() as u64;
    }
    bytes
}

async fn get(path: &str, kind: &str, reference: &str) -> (Value, String) {
    let url = format!("http://{}/v2/{path}/{kind}/{reference}", cluster::registry());
    let request = reqwest::Client::new().get(&url).header("Accept", ACCEPT).send();
    let response = request.await.and_then(reqwest::Response::error_for_status).expect("the registry has it");
    let digest = response.headers().get("Docker-Content-Digest").and_then(|value| value.to_str().ok());
    let digest = digest.unwrap_or_default().to_owned();
    let body = response.bytes().await.expect("the registry sends it");
    (serde_json::from_slice(&body).expect("it is JSON"), digest)
}

/// Digest of an image in the registry that asks for a password.
pub async fn private_digest(image: &str) -> String {
    let (repository, tag) = image.rsplit_once(':').expect("an image with a tag");
    let (host, path) = repository.split_once('/').expect("an image with a host");
    let url = format!("http://{host}/v2/{path}/manifests/{tag}");
    let (user, password) = ("REGISTRY_PRIVATE_USER", "REGISTRY_PRIVATE_PASSWORD");
    let request = reqwest::Client::new()
        .get(&url)
        .header("Accept", ACCEPT)
        .basic_auth(cluster::variable(user), Some(cluster::variable(password)))
        .send();
    let response = request.await.and_then(reqwest::Response::error_for_status).expect("the registry has it");
    let digest = response.headers().get("Docker-Content-Digest").and_then(|value| value.to_str().ok());
    digest.expect("the registry tells the digest").to_owned()
}
