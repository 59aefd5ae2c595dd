//! What a build pushed, as rows: the build's own image for good, the image as it was last pushed, and layers that builds
//! of a tenant share.

use image_factory::{
    db::{
        queue::claim,
        results::{self, End, Measured},
        verify,
    },
    verify::rows,
};
use image_factory_core::{
    cost::Cost,
    inspection::{BaseFacts, ImageFacts, Inspection, LayerFacts, ManifestKind},
    outcome::Outcome,
    reason::Reason,
};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::attempts::{attempt, failure, limits, next_run, queued, success};

/// An image of these layers, each of 100 bytes and 250 unpacked, the first `base` of them the base's.
fn image(layers: &[&str], base: Option<u64>) -> ImageFacts {
    let layer = |digest: &&str| LayerFacts {
        digest: format!("sha256:{digest}"),
        size_bytes: 100,
        media_type: "m".to_owned(),
        diff_id: None,
        uncompressed_size_bytes: Some(250),
    };
    ImageFacts {
        platform: "linux/amd64".to_owned(),
        manifest_digest: digest(layers),
        config_digest: format!("sha256:config-{}", layers.concat()),
        layers: layers.iter().map(layer).collect(),
        layer_count: layers.len() as u64,
        compressed_size_bytes: 100 * layers.len() as u64,
        base: base.map(|layers| BaseFacts::Image {
            repository: "registry.test/canvas".to_owned(),
            tag: Some("3".to_owned()),
            layers,
        }),
        cmd: vec!["hang".to_owned()],
        env: vec!["FRAME=oak".to_owned()],
        ..ImageFacts::default()
    }
}

/// The digest of the image of these layers.
fn digest(layers: &[&str]) -> String {
    format!("sha256:{:0>64}", layers.concat())
}

/// A success that pushed these images to `registry.test/<name>:1`.
fn pushed(name: &str, images: Vec<ImageFacts>) -> Outcome {
    let kind = if images.len() == 1 { ManifestKind::Image } else { ManifestKind::Index };
    let digest = images[0].manifest_digest.clone();
    let reference = format!("registry.test/{name}:1");
    let found = Inspection::new(reference.clone(), digest, "m".to_owned(), kind, images);
    Outcome { image: Some(found), ..success(&reference) }
}

/// Queues, claims and ends the first or next run of a Build.
async fn run(
    pool: &PgPool,
    new: &image_factory::db::builds::NewAttempt,
    outcome: &Outcome,
    measured: Measured,
) -> Uuid {
    let id = queued(pool, new).await;
    assert!(claim(pool).await.expect("claims").contains(&id));
    assert!(results::finish(pool, id, End { measured, ..End::of(outcome) }).await.expect("finishes"));
    id
}

async fn rows_of(pool: &PgPool, query: &'static str, id: Uuid) -> Vec<Value> {
    sqlx::query_scalar(query).bind(id).fetch_all(pool).await.expect("rows can be read")
}

/// Of the image that the build is for: number, digest, base layer or not, name of the base, builds, whether reused.
async fn layers(pool: &PgPool, build: Uuid) -> Vec<Value> {
    let query = "select jsonb_build_array(l.layer_number, l.layer_digest, l.is_base_layer, l.base_image_name || ':' || l.base_image_tag,
                     l.used_in_builds_count, l.last_used_in_build_at is not null)
                 from image_layers l join builds b on b.image_id = l.image_id where b.id = $1 order by l.layer_number";
    rows_of(pool, query, build).await
}

/// Layers: total, reused, new; size, ratio.
async fn metrics(pool: &PgPool, build: Uuid) -> Value {
    let query =
        "select jsonb_build_array(total_layers, reused_layers, new_layers, final_image_size_bytes, compression_ratio)
                 from build_metrics where build_id = $1";
    let [row] = <[Value; 1]>::try_from(rows_of(pool, query, build).await).expect("one row");
    row
}

async fn all_holds(pool: &PgPool) {
    let mut snapshot = verify::snapshot(pool).await.expect("begins");
    for finding in rows(&mut snapshot, None).await.expect("asks") {
        assert_eq!(finding.checked.broken, [], "{}", finding.invariant);
    }
}

#[sqlx::test(migrations = "./migrations")]
async fn an_image_is_described_as_it_was_last_pushed_and_each_build_keeps_its_own(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let wall = attempt("green", "wall");
    let first =
        run(&pool, &wall, &pushed("green/wall", vec![image(&["a", "b", "c"], Some(1))]), Measured::default()).await;
    let base = "registry.test/canvas:3";
    assert_eq!(
        layers(&pool, first).await,
        [
            json!([1, "sha256:a", true, base, 1, false]),
            json!([2, "sha256:b", false, null, 1, false]),
            json!([3, "sha256:c", false, null, 1, false]),
        ]
    );
    assert_eq!(metrics(&pool, first).await, json!([3, 1, 2, 300, 0.4]));

    let changed = vec![image(&["a", "d"], Some(1))];
    let second = run(&pool, &next_run(&wall), &pushed("green/wall", changed), Measured::default()).await;
    let now = [json!([1, "sha256:a", true, base, 2, true]), json!([2, "sha256:d", false, null, 1, false])];
    assert_eq!(layers(&pool, second).await, now);
    assert_eq!(metrics(&pool, second).await, json!([2, 1, 1, 200, 0.4]));

    let bare =
        run(&pool, &next_run(&next_run(&wall)), &pushed("green/wall", vec![image(&[], Some(0))]), Measured::default())
            .await;
    assert_eq!(layers(&pool, bare).await, Vec::<Value>::new());
    assert_eq!(metrics(&pool, bare).await, json!([0, 0, 0, 0, null]));
    run(
        &pool,
        &next_run(&next_run(&next_run(&wall))),
        &pushed("green/wall", vec![image(&["a", "d"], Some(1))]),
        Measured::default(),
    )
    .await;

    // Another Build of the tenant takes c of the first, and b twice.
    let door = vec![image(&["a", "b", "c", "e", "b"], Some(1))];
    let third = run(&pool, &attempt("green", "door"), &pushed("green/door", door), Measured::default()).await;
    assert_eq!(metrics(&pool, third).await, json!([5, 4, 1, 400, 0.4]));
    assert_eq!(layers(&pool, third).await[4], json!([5, "sha256:b", false, null, 2, true]));

    let own = "select to_jsonb(i) from build_images i where build_id = $1";
    let [of_first] = <[Value; 1]>::try_from(rows_of(&pool, own, first).await).expect("one image");
    let expected = json!({
        "platform_number": 1, "platform": "linux/amd64", "manifest_digest": digest(&["a", "b", "c"]),
        "config_digest": "sha256:config-abc", "layer_count": 3,
        "layer_digests": ["sha256:a", "sha256:b", "sha256:c"], "layer_sizes_bytes": [100, 100, 100],
        "base_layer_count": 1, "base_image_name": "registry.test/canvas", "base_image_tag": "3",
        "compressed_size_bytes": 300, "uncompressed_size_bytes": 750, "entrypoint": null, "cmd": ["hang"],
        "env_vars": ["FRAME=oak"], "working_dir": null, "labels": null,
    });
    for (column, value) in expected.as_object().expect("an object") {
        assert_eq!(&of_first[column], value, "build_images.{column}");
    }
    let described = "select to_jsonb(m) from image_metadata m join builds b on b.image_id = m.image_id where b.id = $1";
    let [of_wall] = <[Value; 1]>::try_from(rows_of(&pool, described, first).await).expect("one row");
    let expected = json!({
        "docker_config_digest": "sha256:config-ad", "docker_manifest_digest": digest(&["a", "d"]), "total_layer_count": 2,
        "compressed_size_bytes": 200, "uncompressed_size_bytes": 500, "cmd": ["hang"], "env_vars": ["FRAME=oak"],
        "entrypoint": null, "working_dir": null, "packages_count": null, "last_scanned_at": null,
    });
    for (column, value) in expected.as_object().expect("an object") {
        assert_eq!(&of_wall[column], value, "image_metadata.{column}");
    }
    all_holds(&pool).await;
}

#[sqlx::test(migrations = "./migrations")]
async fn layers_are_shared_within_a_tenant_only(pool: PgPool) {
    limits(&pool, 10, 10).await;
    run(&pool, &attempt("green", "wall"), &pushed("wall", vec![image(&["a"], Some(0))]), Measured::default()).await;
    let other =
        run(&pool, &attempt("amber", "wall"), &pushed("wall", vec![image(&["a"], Some(0))]), Measured::default()).await;
    assert_eq!(layers(&pool, other).await, [json!([1, "sha256:a", false, null, 1, false])]);
    assert_eq!(metrics(&pool, other).await, json!([1, 0, 1, 100, 0.4]));
    all_holds(&pool).await;
}

#[sqlx::test(migrations = "./migrations")]
async fn where_the_base_is_not_known_nothing_is_said_of_it(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let mut unread = image(&["a", "b"], None);
    unread.layers[1].uncompressed_size_bytes = None;
    let id = run(&pool, &attempt("green", "wall"), &pushed("wall", vec![unread]), Measured::default()).await;
    assert_eq!(metrics(&pool, id).await, json!([2, null, null, 200, null]));
    assert_eq!(layers(&pool, id).await[0], json!([1, "sha256:a", null, null, 1, false]));

    let mut bare = image(&["a", "b"], None);
    bare.base = Some(BaseFacts::Scratch);
    let id = run(&pool, &attempt("green", "door"), &pushed("door", vec![bare]), Measured::default()).await;
    assert_eq!(metrics(&pool, id).await, json!([2, 2, 0, 200, 0.4]));
    assert_eq!(layers(&pool, id).await[0], json!([1, "sha256:a", false, null, 2, true]));
}

#[sqlx::test(migrations = "./migrations")]
async fn each_tag_is_an_image_with_an_artifact_and_the_same_layers(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let mut outcome = pushed("green/wall", vec![image(&["a", "b"], Some(1))]);
    outcome.image.as_mut().expect("an image").tags = vec!["latest".to_owned(), "blue".to_owned(), "1".to_owned()];
    let id = run(&pool, &attempt("green", "wall"), &outcome, Measured::default()).await;
    let query = "select jsonb_build_array(a.artifact_name, a.artifact_location, a.artifact_size_bytes, a.artifact_type, m.total_layer_count,
                     (select count(*) from image_layers l where l.image_id = i.id))
                 from build_artifacts a join images i on i.id = a.image_id join image_metadata m on m.image_id = i.id
                 where a.build_id = $1 order by i.tag";
    let expected = ["1", "blue", "latest"].map(|tag| {
        let name = format!("registry.test/green/wall:{tag}");
        json!([name, format!("{name}@{}", digest(&["a", "b"])), 200, "docker_image", 2, 2])
    });
    assert_eq!(rows_of(&pool, query, id).await, expected);
    // One build, whatever the number of its tags.
    assert_eq!(metrics(&pool, id).await, json!([2, 1, 1, 200, 0.4]));
    all_holds(&pool).await;
}

#[sqlx::test(migrations = "./migrations")]
async fn an_index_has_the_layers_of_every_platform(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let arm = ImageFacts { platform: "linux/arm64".to_owned(), ..image(&["a", "c"], Some(0)) };
    let outcome = pushed("green/wall", vec![image(&["a", "b"], Some(1)), arm]);
    let id = run(&pool, &attempt("green", "wall"), &outcome, Measured::default()).await;
    // a of the second platform is not of its base, and was made by this build.
    assert_eq!(metrics(&pool, id).await, json!([4, 1, 3, 300, 0.4]));
    let digests: Vec<Value> = layers(&pool, id).await.into_iter().map(|layer| layer[1].clone()).collect();
    assert_eq!(digests, ["sha256:a", "sha256:b", "sha256:a", "sha256:c"]);
    let described = "select to_jsonb(m) from image_metadata m join builds b on b.image_id = m.image_id where b.id = $1";
    let row = &rows_of(&pool, described, id).await[0];
    assert_eq!((&row["docker_config_digest"], &row["cmd"]), (&Value::Null, &Value::Null));
    assert_eq!((&row["total_layer_count"], &row["compressed_size_bytes"]), (&json!(4), &json!(300)));
    let platforms =
        rows_of(&pool, "select to_jsonb(platform) from build_images where build_id = $1 order by platform_number", id);
    assert_eq!(platforms.await, ["linux/amd64", "linux/arm64"]);
    all_holds(&pool).await;
}

#[sqlx::test(migrations = "./migrations")]
async fn an_image_that_says_odd_things_is_stored_all_the_same(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let mut odd = image(&["a"], Some(1));
    odd.layers[0].size_bytes = u64::MAX;
    odd.compressed_size_bytes = u64::MAX;
    odd.cmd = vec!["\0\\u0000'\"".to_owned(), String::new()];
    odd.working_dir = Some("\0".to_owned());
    odd.labels.insert("a\0b".to_owned(), "\0".to_owned());
    let id = run(&pool, &attempt("green", "wall"), &pushed("wall", vec![odd]), Measured::default()).await;
    let row = &rows_of(&pool, "select to_jsonb(i) from build_images i where build_id = $1", id).await[0];
    assert_eq!(row["cmd"], json!(["\u{fffd}\\u0000'\"", ""]));
    assert_eq!(row["labels"], json!({"a\u{fffd}b": "\u{fffd}"}));
    assert_eq!((&row["layer_sizes_bytes"], &row["compressed_size_bytes"]), (&json!([i64::MAX]), &json!(i64::MAX)));
    assert_eq!(metrics(&pool, id).await[4], Value::Null, "no such ratio");
}

#[sqlx::test(migrations = "./migrations")]
async fn what_a_scan_found_stays_only_while_the_image_is_the_same(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let wall = attempt("green", "wall");
    let same = pushed("green/wall", vec![image(&["a"], Some(0))]);
    run(&pool, &wall, &same, Measured::default()).await;
    let scanned = "update image_metadata set vulnerabilities_high = 3, scan_tool = 'trivy', last_scanned_at = now(), packages_count = 9";
    sqlx::query(scanned).execute(&pool).await.expect("notes the scan");
    let query = "select jsonb_build_array(vulnerabilities_high, scan_tool, packages_count, last_scanned_at is null)
                 from image_metadata m join builds b on b.image_id = m.image_id where b.id = $1";
    let wall = next_run(&wall);
    let again = run(&pool, &wall, &same, Measured::default()).await;
    assert_eq!(rows_of(&pool, query, again).await, [json!([3, "trivy", 9, false])]);
    let other = pushed("green/wall", vec![image(&["b"], Some(0))]);
    let other = run(&pool, &next_run(&wall), &other, Measured::default()).await;
    assert_eq!(rows_of(&pool, query, other).await, [json!([null, null, null, true])]);
}

#[sqlx::test(migrations = "./migrations")]
async fn a_build_that_ran_has_its_cost_whatever_its_end(pool: PgPool) {
    limits(&pool, 10, 10).await;
    let cost = Cost {
        build_seconds: Some(7),
        push_seconds: Some(2),
        peak_memory_mebibytes: Some(64),
        cpu_percent: Some(131.456),
        disk_read_bytes: Some(5),
        disk_write_bytes: None,
    };
    let measured = Measured { execution: Some(9_000), push: Some(2_000), cost };
    let query = "select to_jsonb(m) - 'id' - 'build_id' from build_metrics m where build_id = $1";
    let expected = json!({
        "total_duration_seconds": 0, "docker_build_duration_seconds": 7, "docker_push_duration_seconds": 2,
        "peak_memory_usage_mb": 64, "cpu_usage_percent": 131.46, "disk_read_bytes": 5, "disk_write_bytes": null,
        "total_layers": null, "reused_layers": null, "new_layers": null, "final_image_size_bytes": null,
        "compression_ratio": null,
    });
    let id = run(&pool, &attempt("green", "wall"), &failure(Reason::BuildFailed), measured).await;
    assert_eq!(rows_of(&pool, query, id).await, [expected]);

    let id = run(&pool, &attempt("green", "door"), &failure(Reason::JobDeleted), Measured::default()).await;
    let row = &rows_of(&pool, query, id).await[0];
    assert_eq!((&row["total_duration_seconds"], &row["cpu_usage_percent"]), (&json!(0), &Value::Null));
    all_holds(&pool).await;
}

const TAGS: [&str; 4] = ["1", "x", "y", "z"];

#[sqlx::test(migrations = "./migrations")]
async fn builds_that_end_at_once_count_each_layer_once_each(pool: PgPool) {
    limits(&pool, 20, 20).await;
    let mut ids = Vec::new();
    for number in 0..16 {
        // Of one project and one repository, whose tags all of them push, each another one first: every row is
        // wanted by all, in another order.
        let mut new = attempt("green", &format!("wall-{number}"));
        new.repository = "registry.test/green/wall".to_owned();
        new.tag = TAGS[number % 4].to_owned();
        ids.push(queued(&pool, &new).await);
    }
    assert_eq!(claim(&pool).await.expect("claims").len(), 16);
    let mut ends = JoinSet::new();
    for (number, id) in ids.into_iter().enumerate() {
        let pool = pool.clone();
        let own = number.to_string();
        let mut names = vec!["a", "b", "c", own.as_str()];
        if number % 2 == 0 {
            names.reverse();
        } else {
            names.truncate(2);
        }
        let mut outcome = pushed("green/wall", vec![image(&names, Some(0))]);
        let image = outcome.image.as_mut().expect("an image");
        image.reference = format!("registry.test/green/wall:{}", TAGS[number % 4]);
        image.tags = TAGS.map(str::to_owned).to_vec();
        ends.spawn(async move { results::finish(&pool, id, End::of(&outcome)).await });
    }
    for ended in ends.join_all().await {
        assert!(ended.expect("no build stands in another's way"));
    }
    let counts: Vec<(String, i32)> = sqlx::query_as(
        "select layer_digest, used_in_builds_count from layers where used_in_builds_count > 1 order by 1",
    )
    .fetch_all(&pool)
    .await
    .expect("layers can be read");
    let expected = [("a", 16), ("b", 16), ("c", 8)].map(|(digest, builds)| (format!("sha256:{digest}"), builds));
    assert_eq!(counts, expected);
    let images: Vec<(bool,)> = sqlx::query_as(
        "select m.total_layer_count = (select count(*) from image_layers l where l.image_id = m.image_id)
             and m.docker_manifest_digest = 'sha256:' || lpad(
                 (select string_agg(substr(layer_digest, 8), '' order by layer_number) from image_layers l where l.image_id = m.image_id), 64, '0')
         from image_metadata m",
    )
    .fetch_all(&pool)
    .await
    .expect("images can be read");
    assert_eq!(images, [(true,); 4], "each of the four tags has the layers of one push");
    all_holds(&pool).await;
}
