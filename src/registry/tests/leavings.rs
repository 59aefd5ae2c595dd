//! What Packer left, pushed to a real registry and to one that misbehaves.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use axum::http::Method;
use axum::response::Response;
use image_factory_core::inspection::{Artifact, BaseFacts};

use super::*;

/// A context with what Packer made in it: sources by name, with their files or what they are called elsewhere.
fn context(pod: &Pod, made: &[(&str, &str, &[&str])]) -> PathBuf {
    let folder = pod.0.join("context");
    fs::create_dir_all(folder.join("out")).expect("makes the folder");
    for (file, text) in [("out/disk.img", "juice\n"), ("label.txt", "")] {
        fs::write(folder.join(file), text).expect("writes");
    }
    let builds: Vec<Value> = made
        .iter()
        .map(|(name, id, files)| {
            let files: Vec<Value> = files.iter().map(|name| json!({"name": name, "size": 1})).collect();
            json!({"name": name, "builder_type": "press", "artifact_id": id, "files": files, "packer_run_uuid": "a"})
        })
        .collect();
    let manifest = json!({"builds": builds, "last_run_uuid": "a"}).to_string();
    fs::write(folder.join("packer-manifest.json"), manifest).expect("writes");
    folder
}

async fn push(pod: &Pod, context: PathBuf, image: &str, tags: &[&str]) -> Result<Inspection, RegistryError> {
    use_ring();
    let leavings = Leavings {
        context,
        manifests: vec!["packer-manifest.json".to_owned(), "not-written.json".to_owned()],
        labels: BTreeMap::from([("org.example.grower".to_owned(), "sons".to_owned())]),
    };
    let pushed = Pushed {
        image: image.to_owned(),
        tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        platforms: Vec::new(),
        dockerfile: None,
        insecure_registries: image.split('/').next().map(str::to_owned).into_iter().collect(),
        mirrors: Vec::new(),
        docker_config: Some(pod.0.clone()),
    };
    super::super::push(&leavings, &pushed).await
}

#[tokio::test]
async fn what_packer_left_is_one_image_however_often_it_is_pushed() {
    let pod = Pod::new();
    let Some(registry) = RealRegistry::start(&pod.0, None) else { return };
    let made: [(&str, &str, &[&str]); 3] = [
        ("web", "", &["./out/disk.img", "label.txt"]),
        ("copy", "", &["out/../out/disk.img"]),
        ("machine", "eu-1:ami-0f1e", &[]),
    ];
    let folder = context(&pod, &made);
    let found = push(&pod, folder.clone(), &registry.image("1"), &["latest"]).await.expect("is pushed");
    assert_eq!(found.tags, ["latest"]);
    let [image] = &found.images[..] else { unreachable!("one image") };
    assert_eq!((image.layer_count, image.base.as_ref()), (3, Some(&BaseFacts::Scratch)));
    assert_eq!(image.labels["org.example.grower"], "sons");
    // A block for the header, one for the content where there is any, and two at the end.
    let sizes: Vec<_> = image.layers.iter().map(|layer| (layer.size_bytes, layer.uncompressed_size_bytes)).collect();
    assert_eq!(sizes[..2], [(3 * 512, Some(3 * 512)), (4 * 512, Some(4 * 512))]);
    let made: Vec<_> = image.history.iter().map(|entry| (entry.created_by.as_deref(), entry.layer)).collect();
    let packed = ["packer label.txt", "packer out/disk.img", "packer packer-artifacts.json"];
    assert_eq!(made, (0..).zip(packed).map(|(place, text)| (Some(text), Some(place))).collect::<Vec<_>>());

    let file = |name: &str, text: &str| Artifact {
        name: name.to_owned(),
        id: None,
        size_bytes: Some(text.len() as u64),
        digest: Some(digest_of(text.as_bytes())),
    };
    let machine = Artifact {
        name: "press.machine".to_owned(),
        id: Some("eu-1:ami-0f1e".to_owned()),
        size_bytes: None,
        digest: None,
    };
    assert_eq!(found.artifacts, [file("label.txt", ""), file("out/disk.img", "juice\n"), machine]);
    assert!(found.push_milliseconds.is_some());

    let again = push(&pod, folder, &registry.image("2"), &[]).await.expect("is pushed");
    assert_eq!(again.digest, found.digest);
}

#[tokio::test]
async fn what_is_not_in_the_context_or_not_there_is_not_pushed() {
    let pod = Pod::new();
    let outside = pod.0.join("outside");
    fs::write(&outside, "x").expect("writes");
    symlink(&outside, {
        fs::create_dir_all(pod.0.join("context/out")).expect("makes the folder");
        pod.0.join("context/out/link")
    })
    .expect("links");
    let outside = outside.to_str().expect("a plain path");
    for (made, sentence) in [
        (&[("web", "", &["missing"][..])][..], "names \"missing\", which can't be found"),
        (&[("web", "", &["out"])], "names \"out\", which is no file"),
        (&[("web", "", &["out/link"])], "names \"out/link\", which is not in the context"),
        (&[("web", "", &[outside])], "which is not in the context: only files in spec.context outlive"),
        (&[], "names neither a file nor an artifact elsewhere"),
    ] {
        let (reason, found) = refusal(push(&pod, context(&pod, made), "nowhere.invalid/a:1", &[]).await);
        assert!(reason == "BuildFailed" && found.contains(sentence), "{found}");
    }
    let many: Vec<String> = (0..101).map(|number| format!("out/{number}")).collect();
    let folder = context(&pod, &[("web", "", &many.iter().map(String::as_str).collect::<Vec<_>>())]);
    for name in &many {
        fs::write(folder.join(name), "").expect("writes");
    }
    let (_, found) = refusal(push(&pod, folder.clone(), "nowhere.invalid/a:1", &[]).await);
    assert!(found.contains("more than 100 files"), "{found}");
    fs::write(folder.join("packer-manifest.json"), "{}").expect("writes");
    let (_, found) = refusal(push(&pod, folder.clone(), "nowhere.invalid/a:1", &[]).await);
    assert!(found.contains("its manifest can't be read: "), "{found}");
}

/// A registry that has nothing, wants uploads elsewhere, and fails as often as it is told.
async fn registry_of(answer: impl Fn(&Method, &str, &HeaderMap) -> Response + Clone + Send + Sync + 'static) -> String {
    let app = axum::Router::new().fallback(async move |request: Request| {
        let (method, path) = (request.method().clone(), request.uri().to_string());
        answer(&method, &path, request.headers())
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

#[tokio::test]
async fn a_registry_that_refuses_denies_and_one_that_fails_is_asked_again() {
    let pod = Pod::new();
    let made: [(&str, &str, &[&str]); 1] = [("web", "", &["label.txt"])];
    let forbidding = registry_of(|method, _, _| {
        let status = if method == Method::HEAD { StatusCode::NOT_FOUND } else { StatusCode::FORBIDDEN };
        status.into_response()
    })
    .await;
    let folder = context(&pod, &made);
    let (reason, sentence) = refusal(push(&pod, folder.clone(), &format!("{forbidding}/a:1"), &[]).await);
    assert!(reason == "PushDenied" && sentence.contains("refused to take a (403)"), "{sentence}");

    let asked = Arc::new(AtomicU32::new(0));
    let counted = asked.clone();
    let failing = registry_of(move |method, _, _| {
        if *method == Method::HEAD {
            return StatusCode::NOT_FOUND.into_response();
        }
        counted.fetch_add(1, Ordering::Relaxed);
        StatusCode::BAD_GATEWAY.into_response()
    })
    .await;
    let (reason, sentence) = refusal(push(&pod, folder, &format!("{failing}/a:1"), &[]).await);
    assert!(reason == "RegistryUnavailable" && sentence.contains("502"), "{sentence}");
    assert_eq!(asked.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_login_is_not_sent_to_where_the_registry_wants_the_upload() {
    let pod = Pod::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let stored = seen.clone();
    let storage = registry_of(move |method, path, headers| {
        let authorization = headers.get("authorization").is_some();
        stored.lock().expect("no panic").push((method.clone(), path.starts_with("/put?digest=sha256"), authorization));
        StatusCode::CREATED.into_response()
    })
    .await;
    let elsewhere = format!("http://{storage}/put");
    let registry = registry_of(move |method, _, headers| {
        if headers.get("authorization").is_none() {
            return (StatusCode::UNAUTHORIZED, [("www-authenticate", "Basic realm=\"x\"")]).into_response();
        }
        match *method {
            Method::HEAD => StatusCode::NOT_FOUND.into_response(),
            _ => (StatusCode::ACCEPTED, [("location", elsewhere.clone())]).into_response(),
        }
    })
    .await;
    pod.logged_in(&registry);
    let folder = context(&pod, &[("web", "", &["label.txt"])]);
    // To another host only verified TLS will do.
    let (reason, _) = refusal(push(&pod, folder, &format!("{registry}/a:1"), &[]).await);
    assert_eq!(reason, "RegistryUnavailable");
    assert_eq!(*seen.lock().expect("no panic"), []);
}
