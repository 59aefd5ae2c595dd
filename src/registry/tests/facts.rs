//! What is told of an image beyond its confirmation: the base and its layers, sizes unpacked, further tags.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use image_factory_core::inspection::BaseFacts;

use super::*;

const GZIP: &str = LAYER_TYPE;
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layer of so many bytes unpacked.
fn packed(media_type: &str, content: &[u8]) -> Vec<u8> {
    match media_type {
        GZIP => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(content).expect("compresses");
            encoder.finish().expect("compresses")
        }
        ZSTD => zstd::encode_all(content, 3).expect("compresses"),
        _ => content.to_vec(),
    }
}

impl RealRegistry {
    /// Pushes an image of these layers, given by media type and content, under `shop/web`.
    async fn push_layers(&self, tag: &str, architecture: &str, layers: &[(&str, &str)]) -> (String, usize) {
        let mut descriptors = Vec::new();
        for (media_type, content) in layers {
            let mut layer = self.push_blob(packed(media_type, content.as_bytes())).await;
            layer["mediaType"] = (*media_type).into();
            descriptors.push(layer);
        }
        let diff_ids: Vec<String> = layers.iter().map(|(_, content)| digest_of(content.as_bytes())).collect();
        let mut config = image_config(architecture, None);
        config["rootfs"]["diff_ids"] = json!(diff_ids);
        let mut config = self.push_blob(config.to_string().into_bytes()).await;
        config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": descriptors});
        self.push_manifest(tag, MANIFEST_TYPE, &manifest).await
    }

    /// What is asked about an image that was built from this Dockerfile.
    pub(super) fn built(&self, pod: &Pod, tag: &str, digest: &str, dockerfile: &str) -> Pushed {
        use_ring();
        fs::write(pod.0.join("digest"), digest).expect("writes");
        fs::write(pod.0.join("Dockerfile"), dockerfile.replace("REGISTRY", &self.address)).expect("writes");
        Pushed {
            image: self.image(tag),
            tags: Vec::new(),
            platforms: Vec::new(),
            dockerfile: Some(Dockerfile {
                path: pod.0.join("Dockerfile"),
                target: None,
                build_args: BTreeMap::from([("TAG".to_owned(), "base".to_owned())]),
            }),
            insecure_registries: vec![self.address.clone()],
            mirrors: Vec::new(),
            docker_config: None,
        }
    }
}

const FROM_BASE: &str = "ARG TAG=none\nFROM REGISTRY/shop/web:$TAG AS oven\nRUN bake\nFROM oven\nRUN eat\n";

#[tokio::test]
async fn the_lowest_layers_are_the_bases_where_all_of_its_are_there() {
    let pod = Pod::new();
    let Some(registry) = RealRegistry::start(&pod.0, None) else { return };
    registry.push_layers("base", "amd64", &[(GZIP, "one"), (ZSTD, "two")]).await;
    // The base's layers are the same content packed otherwise.
    let layers = [(ZSTD, "one"), (GZIP, "two"), (GZIP, "three")];
    let (digest, _) = registry.push_layers("1", "amd64", &layers).await;
    let expected =
        BaseFacts::Image { repository: format!("{}/shop/web", registry.address), tag: Some("base".into()), layers: 2 };
    let pushed = registry.built(&pod, "1", &digest, FROM_BASE);
    let found = pod.confirms(&pushed).await.expect("is confirmed");
    assert_eq!(found.images[0].base.as_ref(), Some(&expected));

    // Afterwards the tag stands for something else.
    let (moved, _) = registry.push_layers("base", "amd64", &[(GZIP, "one"), (GZIP, "2")]).await;
    assert_eq!(pod.confirms(&pushed).await.expect("is confirmed").images[0].base, None);

    let by_digest = format!("FROM REGISTRY/shop/web@{moved}\n");
    let (digest, _) = registry.push_layers("2", "amd64", &[(GZIP, "one"), (GZIP, "2"), (GZIP, "3")]).await;
    let found = pod.confirms(&registry.built(&pod, "2", &digest, &by_digest)).await.expect("is confirmed");
    let expected = BaseFacts::Image { repository: format!("{}/shop/web", registry.address), tag: None, layers: 2 };
    assert_eq!(found.images[0].base.as_ref(), Some(&expected));

    let found =
        pod.confirms(&registry.built(&pod, "2", &digest, "FROM scratch\nCOPY a /\n")).await.expect("is confirmed");
    assert_eq!(found.images[0].base, Some(BaseFacts::Scratch));
}

#[tokio::test]
async fn a_base_is_read_from_a_mirror_first_and_keeps_its_own_name() {
    let pod = Pod::new();
    let Some(registry) = RealRegistry::start(&pod.0, None) else { return };
    registry.push_layers("base", "amd64", &[(GZIP, "one")]).await;
    let (digest, _) = registry.push_layers("1", "amd64", &[(GZIP, "one"), (GZIP, "two")]).await;
    let mut pushed = registry.built(&pod, "1", &digest, "FROM nowhere.invalid/web:base\n");
    assert_eq!(pod.confirms(&pushed).await.expect("is confirmed").images[0].base, None);
    // Takes connections, and never says anything.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = format!("{}/shop", silent.local_addr().expect("an address"));
    for mirrors in [
        vec![silent, format!("{}/shop", registry.address)],
        vec!["127.0.0.1:1/shop".to_owned(), format!("{}/shop", registry.address)],
        vec![format!("{}/shop", registry.address)],
    ] {
        let mirror = |place: &String| format!("nowhere.invalid={place}").parse().expect("a mirror");
        pushed.mirrors = mirrors.iter().map(mirror).collect();
        let base = pod.confirms(&pushed).await.expect("is confirmed").images[0].base.clone();
        let expected =
            BaseFacts::Image { repository: "nowhere.invalid/web".into(), tag: Some("base".into()), layers: 1 };
        assert_eq!(base, Some(expected), "{mirrors:?}");
    }
}

#[tokio::test]
async fn of_a_base_for_several_platforms_each_image_has_its_own() {
    let pod = Pod::new();
    let Some(registry) = RealRegistry::start(&pod.0, None) else { return };
    let mut indexes = Vec::new();
    for layers in [&[(GZIP, "low")][..], &[(GZIP, "low"), (GZIP, "high")]] {
        let mut manifests = Vec::new();
        for architecture in ["amd64", "arm64"] {
            let layers: Vec<(&str, String)> =
                layers.iter().map(|(form, content)| (*form, format!("{content} {architecture}"))).collect();
            let layers: Vec<(&str, &str)> = layers.iter().map(|(form, content)| (*form, content.as_str())).collect();
            let (digest, size) = registry.push_layers(architecture, architecture, &layers).await;
            let platform = json!({"os": "linux", "architecture": architecture});
            manifests.push(json!({"mediaType": MANIFEST_TYPE, "digest": digest, "size": size, "platform": platform}));
        }
        indexes.push(json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}));
    }
    registry.push_manifest("base", INDEX_TYPE, &indexes[0]).await;
    let (digest, _) = registry.push_manifest("1", INDEX_TYPE, &indexes[1]).await;
    let found = pod.confirms(&registry.built(&pod, "1", &digest, FROM_BASE)).await.expect("is confirmed");
    let bases: Vec<_> = found.images.iter().map(|image| image.base.as_ref().map(BaseFacts::layers)).collect();
    assert_eq!(bases, [Some(1), Some(1)]);
    // "low" and "high" of each, once.
    let sizes = ["low amd64", "high amd64", "low arm64", "high arm64"].map(str::len);
    assert_eq!(found.uncompressed_size_bytes(), Some(sizes.into_iter().sum::<usize>() as u64));
}

#[tokio::test]
async fn a_base_that_can_not_be_read_is_not_known_and_fails_nothing() {
    let pod = Pod::new();
    let Some(registry) = RealRegistry::start(&pod.0, None) else { return };
    let (digest, _) = registry.push_layers("1", "amd64", &[(GZIP, "one")]).await;
    for dockerfile in [
        "FROM REGISTRY/shop/web:missing\n",
        "FROM 127.0.0.1:1/shop/web:1\n",
        "FROM UPPER/CASE\n",
        "FROM $OPEN\n",
        "no Dockerfile",
    ] {
        let found = pod.confirms(&registry.built(&pod, "1", &digest, dockerfile)).await.expect("is confirmed");
        assert_eq!(found.images[0].base, None, "{dockerfile}");
    }
    let mut pushed = registry.built(&pod, "1", &digest, "");
    pushed.dockerfile.as_mut().expect("has one").path = pod.0.join("missing");
    assert_eq!(pod.confirms(&pushed).await.expect("is confirmed").images[0].base, None);
}

#[tokio::test]
async fn layers_are_measured_as_they_are_unpacked() {
    let pod = Pod::new();
    let Some(registry) = RealRegistry::start(&pod.0, None) else { return };
    let large = "the same words again ".repeat(50_000);
    let layers = [(GZIP, large.as_str()), (ZSTD, &large[1..]), (PLAIN, "plain"), (GZIP, large.as_str())];
    let (digest, _) = registry.push_layers("1", "amd64", &layers).await;
    let found = pod.confirms(&registry.built(&pod, "1", &digest, "FROM scratch\n")).await.expect("is confirmed");
    let sizes: Vec<_> = found.images[0].layers.iter().map(|layer| layer.uncompressed_size_bytes).collect();
    let size = large.len() as u64;
    assert_eq!(sizes, [Some(size), Some(size - 1), Some(5), Some(size)]);
    assert_eq!(found.uncompressed_size_bytes(), Some(2 * size - 1 + 5), "the layer it has twice counts once");
    assert!(found.total_size_bytes < size / 10);

    // Pushed as what it is not.
    let (digest, _) = registry.push_image("2", "amd64", None).await;
    let found = pod.confirms(&registry.built(&pod, "2", &digest, "FROM scratch\n")).await.expect("is confirmed");
    assert_eq!(found.uncompressed_size_bytes(), None);
}

#[tokio::test]
async fn layers_of_a_large_image_are_not_read() {
    let config = image_config("amd64", None).to_string();
    let layer = digest_of(b"never sent");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
        "config": {"digest": digest_of(config.as_bytes()), "size": config.len()},
        "layers": [{"mediaType": GZIP, "digest": layer, "size": 64 * 1024 * 1024 + 1}],
    })
    .to_string();
    let body = manifest.clone();
    let registry = OddRegistry::start(move |asked, _| {
        ok(if asked.path.contains("/manifests/") { body.as_bytes() } else { config.as_bytes() })
    })
    .await;
    let pod = Pod::new();
    let found = pod.inspect(&registry.image(), &digest_of(manifest.as_bytes()), true).await.expect("is confirmed");
    assert_eq!(found.uncompressed_size_bytes(), None);
    assert!(registry.asked().iter().all(|asked| !asked.path.contains(&layer)));
}

#[tokio::test]
async fn a_further_tag_counts_where_it_stands_for_the_same_digest() {
    let pod = Pod::new();
    let Some(registry) = RealRegistry::start(&pod.0, None) else { return };
    registry.push_image("taken", "arm64", None).await;
    registry.push_image("latest", "amd64", None).await;
    let (digest, _) = registry.push_image("1", "amd64", None).await;
    let mut pushed = registry.built(&pod, "1", &digest, "FROM scratch\n");
    pushed.tags = ["latest", "taken", "missing"].map(str::to_owned).to_vec();
    assert_eq!(pod.confirms(&pushed).await.expect("is confirmed").tags, ["latest"]);
}
