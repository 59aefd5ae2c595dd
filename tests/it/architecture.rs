//! The direction of the code, read from its own text: who may name whom, where SQL may stand, and what must
//! never be linked. A module that is not in the table fails, so that the table stays whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// What each module of the library may name beside itself and core.
///
/// cli → {controllers, dispatcher, collector, tasks, http} → {jobs, db, kube_ext} → crd → core: the five in
/// the middle never name each other, they meet in rows. `runtime` is what they share,
/// `verify` looks at all of it from beside.
const MAY_NAME: [(&str, &[&str]); 18] = [
    (
        "cli",
        &[
            "clock",
            "collector",
            "config",
            "controllers",
            "crd",
            "db",
            "dispatcher",
            "failpoint",
            "http",
            "jobs",
            "registry",
            "runtime",
            "source",
            "tasks",
            "verify",
        ],
    ),
    ("verify", &["controllers", "crd", "db", "kube_ext"]),
    ("controllers", &["clock", "config", "crd", "db", "failpoint", "jobs", "kube_ext", "runtime", "source"]),
    ("dispatcher", &["clock", "config", "crd", "db", "failpoint", "jobs", "kube_ext", "runtime"]),
    ("collector", &["clock", "config", "crd", "db", "failpoint", "jobs", "kube_ext", "runtime"]),
    ("tasks", &["clock", "config", "crd", "db", "failpoint", "jobs", "kube_ext", "runtime"]),
    ("http", &["clock", "config", "crd", "db", "jobs", "kube_ext", "runtime"]),
    ("runtime", &["clock", "config", "db", "jobs", "kube_ext"]),
    ("jobs", &["config", "crd", "source"]),
    ("db", &["clock", "config", "crd", "failpoint"]),
    ("kube_ext", &["crd"]),
    ("crd", &[]),
    ("registry", &[]),
    ("source", &[]),
    ("config", &[]),
    ("clock", &[]),
    ("failpoint", &[]),
    ("main", &["cli"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a folder of the repository, by its path there.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut left = vec![root().join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source can be read");
                found.push((path.strip_prefix(root()).expect("it is below").to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has sources");
    found
}

/// Without comments: they may name whom they like.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The top-level module a file belongs to.
fn module(path: &Path) -> String {
    let first = path.components().nth(1).expect("a file of src").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The first names behind every `prefix` (`crate::`), also inside braces: `crate::{a, b::{c, d}}` gives a and b.
fn named_behind(prefix: &str, code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let part_of_a_name =
            code[..at].chars().next_back().is_some_and(|before| before.is_alphanumeric() || "_:".contains(before));
        if part_of_a_name {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let Some(inside) = rest.strip_prefix('{') else {
            names.insert(identifier(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = 0;
        for (index, letter) in inside.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    names.insert(identifier(inside[start..index].trim_start()));
                    start = index + 1;
                }
                _ => {}
            }
            if letter == '}' && depth == 0 && start == index + 1 {
                break;
            }
        }
    }
    names.remove("");
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

#[test]
fn names_are_found_wherever_they_stand_in_a_path() {
    let text = "use crate::{\n    alpha,\n    beta::{self, gamma::{D, E}},\n    delta::F,\n};\nuse crate::epsilon::G;\nfn f() { crate::zeta::h(); other_crate::eta::i() }\nuse theta;";
    let found = named_behind("crate::", text);
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, ["alpha", "beta", "delta", "epsilon", "zeta"]);
}

#[test]
fn no_module_names_one_above_it() {
    let table: BTreeMap<&str, &[&str]> = MAY_NAME.into_iter().collect();
    let mut wrong = Vec::new();
    let mut edges = BTreeSet::new();
    for (path, text) in sources("src") {
        let module = module(&path);
        if module == "lib" {
            continue;
        }
        let Some(allowed) = table.get(module.as_str()) else {
            wrong.push(format!("{}: module {module} is not in the table", path.display()));
            continue;
        };
        let code = code(&text);
        // Enough `super::` also lead to the root.
        let depth = path.components().count() - 1;
        let mut names = named_behind("crate::", &code);
        names.extend(named_behind("image_factory::", &code));
        names.extend(
            named_behind(&"super::".repeat(depth), &code).into_iter().filter(|name| table.contains_key(name.as_str())),
        );
        for name in names.into_iter().filter(|name| *name != module) {
            if allowed.contains(&name.as_str()) {
                edges.insert((module.clone(), name));
            } else {
                wrong.push(format!("{}: {module} must not name {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The reading works: edges that are known to be there were found.
    for (from, to) in [("cli", "dispatcher"), ("dispatcher", "db"), ("collector", "runtime"), ("jobs", "crd")] {
        assert!(edges.contains(&(from.to_owned(), to.to_owned())), "{from} → {to} in {edges:?}");
    }
}

#[test]
fn only_db_says_sql() {
    let words = [
        "sqlx::query",
        "query!(",
        "query_as!(",
        "query_scalar!(",
        "query_file!(",
        "query_file_as!(",
        "query_with",
        "raw_sql",
        "copy_in_raw",
        ".fetch_one(",
        ".fetch_all(",
        ".fetch_optional(",
    ];
    let mut found_in_db = false;
    for (path, text) in sources("src") {
        let code = code(&text);
        let says: Vec<&str> = words.into_iter().filter(|word| code.contains(word)).collect();
        let is_db = module(&path) == "db";
        found_in_db |= is_db && !says.is_empty();
        assert!(is_db || says.is_empty(), "{} says {says:?}", path.display());
    }
    assert!(found_in_db, "db says SQL");
}

#[test]
fn core_knows_no_runtime_no_cluster_no_database_and_no_clock() {
    for (path, text) in sources("crates/core/src") {
        let code = code(&text);
        for word in [
            "std::env::",
            "SystemTime::now",
            "Timestamp::now",
            "Instant::now",
            "std::fs::",
            "std::net::",
            "tokio",
            "kube::",
            "sqlx",
        ] {
            assert!(!code.contains(word), "{} says {word}", path.display());
        }
    }
    let lock = lock();
    let below = needed_by("image-factory-core", &lock);
    for package in ["tokio", "kube", "kube-client", "k8s-openapi", "sqlx", "sqlx-core", "reqwest", "hyper"] {
        assert!(lock.contains_key(package), "{package} is one we use elsewhere");
        assert!(!below.contains(package), "core needs {package}");
    }
    assert!(below.contains("serde"), "the reading works");
}

#[test]
fn one_library_for_tls_and_none_in_c() {
    let lock = lock();
    for package in ["aws-lc-sys", "aws-lc-rs", "openssl-sys", "openssl", "native-tls"] {
        assert!(!lock.contains_key(package), "{package} is linked");
    }
    assert!(lock.contains_key("rustls") && lock.contains_key("ring"), "the reading works");
}

/// Cargo.lock: each package with the packages it needs. Versions apart, which is enough here.
fn lock() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock can be read");
    let mut packages: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in text.split("[[package]]").skip(1) {
        let name = package.lines().find_map(|line| line.strip_prefix("name = "));
        let name = name.expect("a package has a name").trim_matches('"').to_owned();
        let needs =
            package.lines().skip_while(|line| *line != "dependencies = [").skip(1).take_while(|line| *line != "]");
        let needs = needs.filter_map(|line| line.trim().trim_matches(['"', ',']).split(' ').next().map(str::to_owned));
        packages.entry(name).or_default().extend(needs);
    }
    packages
}

fn needed_by(package: &str, lock: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let mut needed = BTreeSet::new();
    let mut left = vec![package.to_owned()];
    while let Some(package) = left.pop() {
        for need in lock.get(&package).into_iter().flatten() {
            if needed.insert(need.clone()) {
                left.push(need.clone());
            }
        }
    }
    needed
}
