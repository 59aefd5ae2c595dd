//! Of a Build: names, sources, paths, outputs, bounds, and which field goes with which method.

use serde_json::json;

use super::{Case, UNCHECKED, build, files};

pub fn names_and_sources() -> Vec<Case> {
    const PATH: &str = "each path in spec.source.inline.files must be relative and without empty, `.` or `..` parts, at most 255 characters";
    let quarter = "x".repeat(64 * 1024);
    let half_of_two_byte_letters = "é".repeat(64 * 1024 + 1);
    let many: Vec<(String, &str)> = (0..65).map(|n| (format!("file{n}"), "")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    vec![
        Case {
            kind: "Build",
            accepted: Some(json!({"metadata": {"name": "n".repeat(52)}})),
            refused: json!({"metadata": {"name": "n".repeat(53)}}),
            because: vec!["metadata.name must be at most 52 characters; shorten it"],
        },
        build(json!({}), json!({"source": {"inline": null}}), ["spec.source must have exactly one of git and inline"]),
        build(
            json!({}),
            json!({"source": {"git": {"url": "https://git.example.com/shop/web.git"}}}),
            ["spec.source must have exactly one of git and inline"],
        ),
        build(
            json!({}),
            json!({"source": {"inline": {"files": {"Dockerfile": null}}}}),
            ["spec.source.inline.files in body should have at least 1 properties"],
        ),
        build(files(&many[..63]), files(&many), ["must have at most 64 items", UNCHECKED]),
        build(files(&[("app/main.go", ""), (".dockerignore", ""), ("a..b", "")]), files(&[("../main.go", "")]), [PATH]),
        build(json!({}), files(&[("/etc/passwd", "")]), [PATH]),
        build(json!({}), files(&[("app//main.go", "")]), [PATH]),
        build(json!({}), files(&[("app/./main.go", "")]), [PATH]),
        build(json!({}), files(&[("app/", "")]), [PATH]),
        build(json!({}), files(&[("line\nbreak", "")]), [PATH]),
        build(json!({}), files(&[(&"p".repeat(256), "")]), [PATH]),
        build(
            files(&[("app", ""), ("app.d/main.go", "")]),
            files(&[("app", ""), ("app/main.go", "")]),
            ["a path in spec.source.inline.files is both a file and a folder; rename one"],
        ),
        build(
            json!({"source": {"inline": {"files": {"Dockerfile": null, "a": quarter, "b": quarter, "c": quarter, "d": quarter}}}}),
            files(&[("a", &quarter), ("b", &quarter), ("c", &quarter), ("d", &quarter), ("e", "x")]),
            ["the files in spec.source.inline.files are larger than 256 KiB in all; use a Git source"],
        ),
        build(
            json!({}),
            files(&[("a", &half_of_two_byte_letters), ("b", &half_of_two_byte_letters)]),
            ["the files in spec.source.inline.files are larger than 256 KiB in all; use a Git source"],
        ),
        build(
            files(&[("a", "tab\tand\nline")]),
            files(&[("a", "nul\0")]),
            ["a file in spec.source.inline.files has a NUL character; only text can be written inline"],
        ),
    ]
}

pub fn git_sources() -> Vec<Case> {
    const URL: &str = "spec.source.git.url must be https://host/path, ssh://user@host/path or user@host:path";
    const PASSWORD: &str = "spec.source.git.url must have no password in it, and over https no user either; put them into the Secret that credentialsSecret names";
    const REVISION: &str = "spec.source.git.revision must be a branch, a tag or a full commit id: letters, digits and ._/+@- that start with a letter, digit or `_`, without `..` or `//` and not ending with `/` or `.lock`";
    const SSH: &str =
        "a source by ssh needs spec.source.git.credentialsSecret, a Secret with ssh-privatekey and known_hosts";
    const GIT: &str = "the protocol git has no credentials; remove spec.source.git.credentialsSecret";
    let url = |url: &str| json!({"source": {"inline": null, "git": {"url": url}}});
    let by_ssh =
        |url: &str| json!({"source": {"inline": null, "git": {"url": url, "credentialsSecret": {"name": "git"}}}});
    let revision = |revision: &str| json!({"source": {"inline": null, "git": {"url": "https://git.example.com/shop/web.git", "revision": revision}}});
    let longest = format!("https://git.example.com/{}", "p".repeat(2_048 - 24));
    vec![
        build(url("https://git.example.com:8443/shop/web.git"), url("--upload-pack=touch"), [URL]),
        build(url("http://10.245.0.1:3080/git/web.git"), url("/srv/git/web.git"), [URL]),
        build(url("git://mirror/web.git"), url("file:///srv/git/web.git"), [URL]),
        build(url("https://[fd00::1]/web.git"), url("https://-host/web.git"), [URL]),
        build(json!({}), url("ext::sh"), [URL]),
        build(json!({}), url("https://git.example.com"), [URL]),
        build(json!({}), url("https://git.example.com/a b"), [URL]),
        build(by_ssh("ssh://git@git.example.com:2222/shop/web.git"), by_ssh("ssh://-oProxyCommand=x/web.git"), [URL]),
        build(by_ssh("git@git.example.com:shop/web.git"), by_ssh("git@git.example.com:-web.git"), [URL]),
        build(json!({}), by_ssh("git:word@git.example.com:web.git"), [URL]),
        build(json!({}), url("https://user:word@git.example.com/web.git"), [PASSWORD]),
        build(json!({}), url("https://token@git.example.com/web.git"), [PASSWORD]),
        build(json!({}), by_ssh("ssh://git:word@git.example.com/web.git"), [PASSWORD]),
        build(url(&longest), url(&format!("{longest}p")), ["Too long: may not be more than 2048 bytes", UNCHECKED]),
        build(json!({}), url("ssh://git@git.example.com/shop/web.git"), [SSH]),
        build(json!({}), url("git@git.example.com:shop/web.git"), [SSH]),
        build(json!({}), by_ssh("git://mirror/web.git"), [GIT]),
        build(revision("release/1.2+x@y"), revision("--upload-pack=x"), [REVISION]),
        build(revision(&"0f".repeat(32)), revision("main@{1}"), [REVISION]),
        build(json!({}), revision("a..b"), [REVISION]),
        build(json!({}), revision("a//b"), [REVISION]),
        build(json!({}), revision("a/"), [REVISION]),
        build(json!({}), revision("a.lock"), [REVISION]),
        build(json!({}), revision("a^"), [REVISION]),
        build(
            revision(&"r".repeat(255)),
            revision(&"r".repeat(256)),
            ["Too long: may not be more than 255 bytes", UNCHECKED],
        ),
    ]
}

pub fn paths_and_values() -> Vec<Case> {
    const CONTEXT: &str =
        "spec.context must be a folder of the source: relative, without `..` and not starting with / or -";
    const DOCKERFILE: &str =
        "spec.dockerfile must be a file in the context: relative, without `..` and not starting with / or -";
    const BUILD_ARG: &str = "each name in spec.buildArgs must start with a letter or `_` and hold only letters, digits and `_`, at most 128 characters";
    const PROJECT: &str = "spec.project must be a DNS label: lower-case letters, digits and `-`, such as storefront";
    vec![
        build(json!({"project": "storefront-2"}), json!({"project": "Store_front"}), [PROJECT]),
        build(
            json!({"project": "p".repeat(63)}),
            json!({"project": "p".repeat(64)}),
            ["Too long: may not be more than 63 bytes", UNCHECKED],
        ),
        build(json!({"context": "./web/app..old/"}), json!({"context": "web/../.."}), [CONTEXT]),
        build(json!({"context": "."}), json!({"context": "/web"}), [CONTEXT]),
        build(json!({}), json!({"context": "--output"}), [CONTEXT]),
        build(json!({"dockerfile": "docker/web.Dockerfile"}), json!({"dockerfile": "../Dockerfile"}), [DOCKERFILE]),
        build(json!({}), json!({"dockerfile": "/etc/Dockerfile"}), [DOCKERFILE]),
        build(json!({}), json!({"dockerfile": "docker/"}), [DOCKERFILE]),
        build(
            json!({"target": "release-1.2_a"}),
            json!({"target": "--help"}),
            ["spec.target must be the name of a stage: letters, digits, `_`, `.` and `-`"],
        ),
        build(json!({"buildArgs": {"VERSION": "1.2", "_x": ""}}), json!({"buildArgs": {"1x": ""}}), [BUILD_ARG]),
        build(json!({"buildArgs": {"V".repeat(128): ""}}), json!({"buildArgs": {"V".repeat(129): ""}}), [BUILD_ARG]),
        build(
            json!({"buildArgs": {"V": "two\nlines"}}),
            json!({"buildArgs": {"V": "nul\0"}}),
            ["a value in spec.buildArgs has a NUL character; remove it"],
        ),
    ]
}

pub fn outputs_and_caches() -> Vec<Case> {
    const IMAGE: &str = "spec.output.image must be host[:port]/path[:tag] with the path in lower case and no digest, such as registry.example.com/shop/web:1.2";
    const HOST: &str = "spec.output.image must start with the registry's host, one with a dot or a port, or localhost: builders take `shop/web` for `docker.io/shop/web`";
    const REPO: &str =
        "spec.cache.repo must be host[:port]/path without tag or digest, such as registry.example.com/shop/cache";
    let image = |image: &str| json!({"output": {"image": image}});
    let digest = format!("localhost:5000/web@sha256:{}", "0".repeat(64));
    let longest = format!("localhost:5000/{}", "w".repeat(240));
    vec![
        build(
            image("registry.example.com/shop/web_app/api--v2:1.2-rc.1"),
            image("registry.example.com/Shop/web"),
            [IMAGE],
        ),
        build(image("10.245.0.1:5000/web"), image(&digest), [IMAGE]),
        build(image("[fd00::1]:5000/web:a"), image("localhost:5000/web:"), [IMAGE]),
        build(image("localhost/web"), image("localhost:5000/web:-a"), [IMAGE]),
        build(image("registry:5000/web"), image("web:1"), [IMAGE]),
        build(json!({}), image("https://localhost:5000/web"), [IMAGE]),
        build(json!({}), image("--push.example.com/web"), [IMAGE]),
        build(image("docker.io/shop/web"), image("shop/web"), [HOST]),
        build(json!({}), image(""), ["spec.output.image in body should be at least 1 chars long", IMAGE]),
        build(image(&longest), image(&format!("{longest}w")), ["Too long: may not be more than 255 bytes", UNCHECKED]),
        build(
            json!({"output": {"tags": ["latest", "_1.2-rc"]}}),
            json!({"output": {"tags": ["latest", "-x"]}}),
            [
                "each of spec.output.tags must start with a letter, digit or `_` and hold only letters, digits, `_`, `.` and `-`",
            ],
        ),
        build(json!({}), json!({"output": {"tags": ["twice", "twice"]}}), ["Duplicate value: \"twice\""]),
        build(
            json!({"output": {"labels": {"org.opencontainers.image.source": "a=b c"}}}),
            json!({"output": {"labels": {"a=b": "c"}}}),
            [
                "each key of spec.output.labels must hold only letters, digits, `.`, `_`, `/` and `-`, at most 128 characters",
            ],
        ),
        build(
            json!({}),
            json!({"output": {"labels": {"a": "nul\0"}}}),
            ["a value in spec.output.labels has a NUL character; remove it"],
        ),
        build(
            json!({"method": "container", "cache": {"repo": "localhost:5000/shop/cache"}}),
            json!({"method": "container", "cache": {"repo": "localhost:5000/shop/cache:tag"}}),
            [REPO],
        ),
        build(
            json!({}),
            json!({"method": "container", "cache": {"repo": "shop/cache"}}),
            [
                "spec.cache.repo must start with the registry's host, one with a dot or a port, or localhost: builders take `shop/cache` for `docker.io/shop/cache`",
            ],
        ),
        build(
            json!({"cache": {"from": ["type=registry,ref=localhost:5000/shop/web:cache"]}}),
            json!({"cache": {"from": ["--push"]}}),
            [
                "each entry of spec.cache.from must be one word in buildx's own syntax, such as type=registry,ref=registry.example.com/shop/web:cache",
            ],
        ),
        build(
            json!({"cache": {"to": ["type=registry,ref=localhost:5000/shop/web:cache,mode=min"]}}),
            json!({"cache": {"to": ["type=inline --push"]}}),
            [
                "each entry of spec.cache.to must be one word in buildx's own syntax, such as type=registry,ref=registry.example.com/shop/web:cache",
            ],
        ),
    ]
}

pub fn limits_of_a_run() -> Vec<Case> {
    const TIMEOUT: &str = "spec.timeout must be a duration from 1s to 24h, such as 90s, 15m or 1h30m";
    const JOB_TTL: &str = "spec.retention.jobTtl must be a duration of at most 24h, such as 30s, 10m or 1h30m";
    const REQUEST: &str = "each of spec.resources.requests must be a quantity of at least 0, such as 500m or 1Gi";
    const LIMIT: &str = "each of spec.resources.limits must be a quantity above 0, such as 2 or 4Gi";
    vec![
        build(json!({"timeout": "1s"}), json!({"timeout": "0s"}), [TIMEOUT]),
        build(json!({"timeout": "24h"}), json!({"timeout": "24h1s"}), [TIMEOUT]),
        build(json!({"timeout": "1h30m5s"}), json!({"timeout": "30m1h"}), [TIMEOUT]),
        build(json!({}), json!({"timeout": "3600"}), [TIMEOUT]),
        build(json!({}), json!({"timeout": "-5m"}), [TIMEOUT]),
        build(json!({"retention": {"jobTtl": "0s"}}), json!({"retention": {"jobTtl": "2 days"}}), [JOB_TTL]),
        build(
            json!({"retention": {"jobTtl": "24h", "artifacts": "days_365"}}),
            json!({"retention": {"jobTtl": "25h"}}),
            [JOB_TTL],
        ),
        build(
            json!({"resources": {"requests": {"cpu": 1, "memory": "1Gi", "ephemeral-storage": "0"}}}),
            json!({"resources": {"requests": {"nvidia.com/gpu": 1}}}),
            ["spec.resources.requests takes only cpu, memory and ephemeral-storage"],
        ),
        build(
            json!({"resources": {"limits": {"cpu": "1500m", "memory": "4Gi", "ephemeral-storage": "20G"}}}),
            json!({"resources": {"limits": {"pods": 1}}}),
            ["spec.resources.limits takes only cpu, memory and ephemeral-storage"],
        ),
        build(json!({}), json!({"resources": {"requests": {"memory": "-1Gi"}}}), [REQUEST]),
        build(json!({}), json!({"resources": {"requests": {"memory": "lots"}}}), [REQUEST]),
        build(json!({}), json!({"resources": {"limits": {"cpu": 0}}}), [LIMIT]),
        build(
            json!({"resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "0.5"}}}),
            json!({"resources": {"requests": {"cpu": 2}, "limits": {"cpu": "1999m"}}}),
            ["each of spec.resources.requests must be at most its limit in spec.resources.limits"],
        ),
        build(
            json!({"priority": -1000}),
            json!({"priority": 1001}),
            ["spec.priority in body should be less than or equal to 1000"],
        ),
        build(
            json!({"cancel": true}),
            json!({"cancel": "yes"}),
            ["spec.cancel in body must be of type boolean: \"string\"", UNCHECKED],
        ),
    ]
}

pub fn methods_and_their_fields() -> Vec<Case> {
    let packer = json!({"template": "source {}"});
    vec![
        build(
            json!({"method": "kaniko"}),
            json!({"method": "docker"}),
            [
                "Unsupported value: \"docker\": supported values: \"kaniko\", \"buildx\", \"container\", \"paketo\", \"packer\"",
                UNCHECKED,
            ],
        ),
        build(
            json!({"method": "container", "target": "release"}),
            json!({"method": "paketo", "target": "release"}),
            ["spec.target works only with the methods kaniko, buildx, container; remove it or change spec.method"],
        ),
        build(
            json!({"method": "kaniko", "dockerfile": "a"}),
            json!({"method": "packer", "packer": packer, "dockerfile": "a"}),
            ["spec.dockerfile works only with the methods kaniko, buildx, container; remove it or change spec.method"],
        ),
        build(
            json!({"method": "paketo", "buildArgs": {}}),
            json!({"method": "paketo", "buildArgs": {"A": "b"}}),
            ["spec.buildArgs works only with the methods kaniko, buildx, container; remove it or change spec.method"],
        ),
        build(
            json!({"method": "container", "cache": {"from": []}}),
            json!({"method": "container", "cache": {"from": ["type=inline"]}}),
            ["spec.cache.from works only with method buildx; remove it or change spec.method"],
        ),
        build(
            json!({"method": "container", "cache": {"to": []}}),
            json!({"method": "container", "cache": {"to": ["type=inline"]}}),
            ["spec.cache.to works only with method buildx; remove it or change spec.method"],
        ),
        build(
            json!({"method": "paketo", "cache": {"repo": "localhost:5000/cache"}}),
            json!({"method": "buildx", "cache": {"repo": "localhost:5000/cache"}}),
            ["spec.cache.repo works only with the methods kaniko, container, paketo; remove it or change spec.method"],
        ),
        build(
            json!({"method": "paketo", "builder": "localhost:5000/builder"}),
            json!({"method": "buildx", "builder": "localhost:5000/builder"}),
            ["spec.builder works only with method paketo; remove it or change spec.method"],
        ),
        build(
            json!({"method": "paketo", "buildpacks": ["localhost:5000/buildpack:1"]}),
            json!({"method": "buildx", "buildpacks": ["localhost:5000/buildpack:1"]}),
            ["spec.buildpacks works only with method paketo; remove it or change spec.method"],
        ),
        build(
            json!({"method": "paketo", "builder": "paketobuildpacks/builder-jammy-base:latest"}),
            json!({"method": "paketo", "builder": "--registry.example.com/builder"}),
            [
                "spec.builder must be an image, [host[:port]/]path[:tag][@sha256:digest], such as docker.io/paketobuildpacks/builder-jammy-base:latest",
            ],
        ),
        build(
            json!({"method": "paketo", "buildpacks": ["registry.example.com:5000/a/b:1.2", "paketobuildpacks/nodejs"]}),
            json!({"method": "paketo", "buildpacks": ["docker://registry.example.com/a"]}),
            [
                "each of spec.buildpacks must be an image, [host[:port]/]path[:tag][@sha256:digest], such as docker.io/paketobuildpacks/nodejs:latest",
            ],
        ),
        build(
            json!({"method": "packer", "packer": packer}),
            json!({"method": "buildx", "packer": packer}),
            ["spec.packer works only with method packer; remove it or change spec.method"],
        ),
        build(
            json!({"method": "packer", "packer": {"path": "image.pkr.hcl"}}),
            json!({"method": "packer", "packer": {"path": "image.pkr.hcl", "template": "source {}"}}),
            ["spec.packer must have exactly one of template and path"],
        ),
        build(
            json!({}),
            json!({"method": "packer", "packer": {"path": "../image.pkr.hcl"}}),
            ["spec.packer.path must be a path in the source: relative, without `..` and not starting with / or -"],
        ),
        build(
            json!({"method": "packer", "packer": {"path": "images"}}),
            json!({"method": "packer"}),
            ["method packer needs spec.packer with a template, or the path of one in the source"],
        ),
        build(
            json!({"method": "packer", "packer": {"template": "é".repeat(32_768)}}),
            json!({"method": "packer", "packer": {"template": "é".repeat(32_769)}}),
            ["spec.packer.template is larger than 64 KiB; put it into the source and name it by spec.packer.path"],
        ),
        build(
            json!({"method": "packer", "packer": {"path": "a", "variables": {"region-1": "", "_a": "b\nc"}}}),
            json!({"method": "packer", "packer": {"path": "a", "variables": {"1a": ""}}}),
            [
                "each name in spec.packer.variables must start with a letter or `_` and hold only letters, digits, `_` and `-`, at most 128 characters",
            ],
        ),
        build(
            json!({"method": "packer", "packer": {"path": "a", "variables": {"a": "\u{1}"}}}),
            json!({"method": "packer", "packer": {"path": "a", "variables": {"a": "\0"}}}),
            ["a value in spec.packer.variables has a NUL character; remove it"],
        ),
    ]
}

pub fn secrets_and_environment() -> Vec<Case> {
    let secret =
        |id: &str, name: &str, key: &str| json!({"secrets": [{"id": id, "secretRef": {"name": name, "key": key}}]});
    let name_rule = "the name of a Secret must hold only lower-case letters, digits, `-` and `.`, and start and end with a letter or digit";
    let environment_rule = "spec.environment must not set what the builder's isolation and credentials rest on: PATH, HOME, USER, TMPDIR, \
         REGISTRY_AUTH_FILE and names starting with LD_, SSL_CERT_, XDG_, DOCKER_, BUILDX_, BUILDKIT_, BUILDAH_, STORAGE_, \
         CONTAINERS_, KANIKO_, FF_KANIKO_, PACKER_CACHE, PACKER_CONFIG, PACKER_PLUGIN or IMAGE_FACTORY_";
    let mut cases = vec![
        build(
            secret("npmrc", "npm", "npmrc"),
            secret("--id", "npm", "npmrc"),
            ["spec.secrets[].id must start with a letter or digit and hold only letters, digits, `_`, `.` and `-`"],
        ),
        build(secret("npmrc", "n.p-m", ".npmrc"), secret("npmrc", "Npm", ".npmrc"), [name_rule]),
        build(
            secret("npmrc", "npm", "a_B.c-1"),
            secret("npmrc", "npm", "../npmrc"),
            ["the key of a Secret must hold only letters, digits, `-`, `_` and `.`, and not start with `..`"],
        ),
        build(
            secret("npmrc", "npm", "npmrc"),
            json!({"method": "paketo", "secrets": [{"id": "npmrc", "secretRef": {"name": "npm", "key": "npmrc"}}]}),
            [
                "spec.secrets works only with the methods kaniko, buildx, container, packer; remove it or change spec.method",
            ],
        ),
        build(
            json!({"output": {"credentialsSecret": {"name": "push"}}}),
            json!({"output": {"credentialsSecret": {"name": "push/../x"}}}),
            [name_rule],
        ),
        build(
            json!({"environment": {"CI": "\u{1}"}}),
            json!({"environment": {"CI": "\0"}}),
            ["a value in spec.environment has a NUL character; remove it"],
        ),
        build(
            json!({"environment": {"CI": "true", "HTTPS_PROXY": "http://proxy.example.com", "PATHS": "a"}}),
            json!({"environment": {"1A": "x"}}),
            [
                "each name in spec.environment must start with a letter or `_` and hold only letters, digits and `_`, at most 128 characters",
            ],
        ),
    ];
    for name in
        ["PATH", "LD_PRELOAD", "DOCKER_CONFIG", "BUILDAH_ISOLATION", "_CONTAINERS_USERNS_CONFIGURED", "FF_KANIKO_X"]
    {
        cases.push(build(json!({"environment": {}}), json!({"environment": {name: "x"}}), [environment_rule]));
    }
    cases
}

pub fn buildx_alone() -> Vec<Case> {
    const PLATFORM: &str = "each of spec.platforms must be os/architecture[/variant], such as linux/amd64";
    let key = |key: &str| json!({"secretRef": {"name": "deploy", "key": key}});
    let mut cases = vec![
        build(json!({"platforms": ["linux/amd64", "linux/arm64/v8"]}), json!({"platforms": ["amd64"]}), [PLATFORM]),
        build(json!({"platforms": []}), json!({"platforms": ["linux/amd64,linux/arm64"]}), [PLATFORM]),
    ];
    for (field, value, because) in [
        (
            "platforms",
            json!(["linux/amd64"]),
            "spec.platforms works only with method buildx; remove it or change spec.method",
        ),
        ("ssh", key("ssh-privatekey"), "spec.ssh works only with method buildx; remove it or change spec.method"),
        ("sbom", json!(true), "spec.sbom works only with method buildx; remove it or change spec.method"),
        ("provenance", json!(true), "spec.provenance works only with method buildx; remove it or change spec.method"),
    ] {
        let with = |method: &str| json!({"method": method, field: value});
        cases.push(build(with("buildx"), with("container"), [because]));
    }
    cases
}

pub fn not_available_yet() -> Vec<Case> {
    vec![
        build(json!({}), json!({"scan": {"tool": "trivy"}}), ["spec.scan is not available in this version; remove it"]),
        build(
            json!({"retention": {"deleteFromRegistry": false}}),
            json!({"retention": {"deleteFromRegistry": true}}),
            ["spec.retention.deleteFromRegistry is not available in this version; remove it"],
        ),
        build(
            json!({"retention": {"artifacts": "days_30"}}),
            json!({"retention": {"artifacts": "delete_on_success"}}),
            ["spec.retention.artifacts delete_on_success is not available in this version; remove it"],
        ),
    ]
}
