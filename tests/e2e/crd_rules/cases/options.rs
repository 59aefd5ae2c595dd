//! Of a Build's `spec.options`.

use serde_json::{Value, json};

use super::{Case, UNCHECKED, build};

pub fn options() -> Vec<Case> {
    const TTL: &str = "spec.options.cacheTtl must be a duration of at least 1m, such as 90m, 12h or 168h";
    const PATHS: &str =
        "each of spec.options.ignorePaths must be an absolute path without `.` and `..`, such as /var/cache/apt";
    const CACHE: &str = "spec.options.cacheTtl, cacheCopyLayers and compressedCaching are about the layers in spec.cache.repo: set it, or remove them";
    const SQUASH: &str =
        "spec.options.squash leaves no layers to keep or to take from a cache: remove it, or spec.cache.repo";
    let of = |method: &str, options: Value| json!({"method": method, "options": options});
    let cached = |method: &str, options: Value| json!({"method": method, "options": options, "cache": {"repo": "localhost:5000/cache"}});
    let paths = |paths: Value| of("kaniko", json!({"ignorePaths": paths}));
    let mut cases = vec![
        build(cached("kaniko", json!({"cacheTtl": "1m"})), cached("kaniko", json!({"cacheTtl": "59s"})), [TTL]),
        build(
            cached("container", json!({"cacheTtl": "1h30m"})),
            cached("container", json!({"cacheTtl": "2 days"})),
            [TTL],
        ),
        build(paths(json!(["/var/cache", "/a..b/.c,d e"])), paths(json!(["var/cache"])), [PATHS]),
        build(paths(json!([])), paths(json!(["/var/../etc"])), [PATHS]),
        build(json!({}), paths(json!(["/var/."])), [PATHS]),
        build(json!({}), paths(json!(["/a\nb"])), [PATHS]),
        build(cached("container", json!({"cacheTtl": "12h"})), of("container", json!({"cacheTtl": "12h"})), [CACHE]),
        build(of("kaniko", json!({"cacheCopyLayers": false})), of("kaniko", json!({"cacheCopyLayers": true})), [CACHE]),
        build(
            of("kaniko", json!({"compressedCaching": true})),
            of("kaniko", json!({"compressedCaching": false})),
            [CACHE],
        ),
        build(cached("container", json!({"squash": false})), cached("container", json!({"squash": true})), [SQUASH]),
        build(
            of("container", json!({"reproducible": true, "format": "oci"})),
            of("kaniko", json!({"reproducible": true, "format": "oci"})),
            [
                "method kaniko writes a reproducible image by the media types of docker: remove spec.options.format, or make it docker",
            ],
        ),
        build(
            json!({"method": "kaniko", "options": {"squash": true}, "cache": {"enabled": false, "repo": "localhost:5000/cache"}}),
            of("kaniko", json!({"snapshotMode": "none"})),
            ["Unsupported value: \"none\": supported values: \"redo\", \"full\", \"time\"", UNCHECKED],
        ),
        build(
            json!({"method": "packer", "packer": {"path": "a"}, "options": {}}),
            of("kaniko", json!({"format": "v2s2"})),
            ["Unsupported value: \"v2s2\": supported values: \"oci\", \"docker\"", UNCHECKED],
        ),
    ];
    for (options, other, because) in [
        (
            json!({"format": "oci"}),
            "buildx",
            "spec.options.format works only with the methods kaniko, container; remove it or change spec.method",
        ),
        (
            json!({"reproducible": true}),
            "paketo",
            "spec.options.reproducible works only with the methods kaniko, container; remove it or change spec.method",
        ),
        (
            json!({"squash": true}),
            "buildx",
            "spec.options.squash works only with the methods kaniko, container; remove it or change spec.method",
        ),
        (
            json!({"snapshotMode": "full"}),
            "container",
            "spec.options.snapshotMode works only with method kaniko; remove it or change spec.method",
        ),
        (
            json!({"useNewRun": true}),
            "container",
            "spec.options.useNewRun works only with method kaniko; remove it or change spec.method",
        ),
        (
            json!({"ignorePaths": ["/a"]}),
            "container",
            "spec.options.ignorePaths works only with method kaniko; remove it or change spec.method",
        ),
    ] {
        cases.push(build(of("kaniko", options.clone()), of(other, options), [because]));
    }
    for (options, other, because) in [
        (
            json!({"cacheTtl": "12h"}),
            "paketo",
            "spec.options.cacheTtl works only with the methods kaniko, container; remove it or change spec.method",
        ),
        (
            json!({"cacheCopyLayers": true}),
            "container",
            "spec.options.cacheCopyLayers works only with method kaniko; remove it or change spec.method",
        ),
        (
            json!({"compressedCaching": false}),
            "container",
            "spec.options.compressedCaching works only with method kaniko; remove it or change spec.method",
        ),
    ] {
        cases.push(build(cached("kaniko", options.clone()), cached(other, options), [because]));
    }
    // What says the default moves with the Build.
    let defaults = json!({
        "reproducible": false, "squash": false, "cacheCopyLayers": false, "compressedCaching": true,
        "snapshotMode": "redo", "useNewRun": false, "ignorePaths": [],
    });
    cases.push(build(
        of("paketo", defaults),
        of("paketo", json!({"squash": true})),
        ["spec.options.squash works only with the methods kaniko, container; remove it or change spec.method"],
    ));
    cases
}
