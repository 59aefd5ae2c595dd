//! Indexes: several platforms, and what is pushed beside the images.

use image_factory_core::inspection::{Attestation, AttestationKind};

use super::*;

fn entry(digest: &str, size: usize, platform: &Value) -> Value {
    json!({"mediaType": MANIFEST_TYPE, "digest": digest, "size": size, "platform": platform})
}

impl RealRegistry {
    /// Statements with these types and texts, as a manifest whose entry in the index says that they are about `image`.
    async fn attest(&self, tag: &str, image: &str, statements: &[(&str, &str)]) -> Value {
        let mut layers = Vec::new();
        for (predicate, text) in statements {
            let mut layer = self.push_blob(text.as_bytes().to_vec()).await;
            layer["mediaType"] = "application/vnd.in-toto+json".into();
            layer["annotations"] = json!({"in-toto.io/predicate-type": predicate});
            layers.push(layer);
        }
        let mut config = self.push_blob(image_config("unknown", None).to_string().into_bytes()).await;
        config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers});
        let (digest, size) = self.push_manifest(tag, MANIFEST_TYPE, &manifest).await;
        let mut entry = entry(&digest, size, &json!({"os": "unknown", "architecture": "unknown"}));
        entry["annotations"] =
            json!({"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": image});
        entry
    }
}

#[tokio::test]
async fn an_index_is_described_and_what_is_beside_its_images_is_named() {
    let pod = Pod::new();
    let Some(registry) = RealRegistry::start(&pod.0, None) else { return };
    let (amd, amd_size) = registry.push_image("amd", "amd64", None).await;
    let (arm, arm_size) = registry.push_image("arm", "arm64", Some("v8")).await;
    let spdx = ("https://spdx.dev/Document", "packages");
    let statements = [spdx, ("https://slsa.dev/provenance/v1", "how"), ("https://example.com/vows", "whatever")];
    let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [
        entry(&amd, amd_size, &json!({"os": "linux", "architecture": "amd64"})),
        entry(&arm, arm_size, &json!({"os": "linux", "architecture": "arm64", "variant": "v8"})),
        registry.attest("statements", &arm, &statements).await,
        registry.attest("strange", "sha256:none", &[spdx]).await,
    ]});
    let (digest, _) = registry.push_manifest("2", INDEX_TYPE, &index).await;

    let found = pod.inspect(&registry.image("2"), &digest, true).await.expect("is confirmed");
    assert_eq!(found.kind, ManifestKind::Index);
    let images: Vec<_> = found.images.iter().map(|image| (image.platform.as_str(), &image.manifest_digest)).collect();
    assert_eq!(images, [("linux/amd64", &amd), ("linux/arm64/v8", &arm)]);
    // The base layer is shared: 8 + 5 + 5.
    assert_eq!(found.total_size_bytes, 18);
    let statement = |kind, text: &str| Attestation {
        kind,
        platform: "linux/arm64/v8".to_owned(),
        digest: digest_of(text.as_bytes()),
        size_bytes: text.len() as u64,
    };
    let expected = [statement(AttestationKind::Sbom, "packages"), statement(AttestationKind::Provenance, "how")];
    assert_eq!(found.attestations, expected, "of images that are there, and of kinds that are known");
}

#[tokio::test]
async fn a_platform_that_was_asked_for_and_not_pushed_is_a_mismatch() {
    let pod = Pod::new();
    let Some(registry) = RealRegistry::start(&pod.0, None) else { return };
    let (digest, _) = registry.push_image("1", "arm64", Some("v8")).await;
    let asked = |platforms: &[&str]| {
        let platforms = platforms.iter().map(|platform| (*platform).to_owned()).collect();
        Pushed { platforms, dockerfile: None, ..registry.built(&pod, "1", &digest, "") }
    };
    pod.confirms(&asked(&["linux/arm64"])).await.expect("the same, spelt otherwise");
    let refused = refusal(pod.confirms(&asked(&["linux/amd64", "linux/arm64"])).await);
    let message = "spec.platforms asks for linux/amd64, and what was pushed is for linux/arm64/v8";
    assert_eq!(refused, ("DigestMismatch", message.to_owned()));
}
