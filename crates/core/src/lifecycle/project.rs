//! `project.toml` of a source, as far as it is honoured: the environment of the build. The lifecycle itself reads no such
//! file, a platform does: <https://buildpacks.io/docs/reference/config/project-descriptor/>.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Refusal;

/// What the file asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Project {
    pub environment: BTreeMap<String, String>,
    /// What it asks for and does not get.
    pub ignored: Vec<&'static str>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    /// Schema 0.1.
    build: Build,
    io: Io,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Io {
    /// Schema 0.2.
    buildpacks: Buildpacks,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Buildpacks {
    builder: Option<toml::Value>,
    include: Option<toml::Value>,
    exclude: Option<toml::Value>,
    group: Option<toml::Value>,
    pre: Option<toml::Value>,
    post: Option<toml::Value>,
    build: Build,
    env: Env,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Env {
    /// `[[io.buildpacks.env.build]]`, another name of the same.
    build: Vec<Variable>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Build {
    env: Vec<Variable>,
    include: Option<toml::Value>,
    exclude: Option<toml::Value>,
    buildpacks: Option<toml::Value>,
    builder: Option<toml::Value>,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    value: String,
}

/// From the text of the file.
///
/// # Errors
/// Where it can't be read, or a name of a variable can't be that of a file.
pub fn project(text: &str) -> Result<Project, Refusal> {
    let file: File =
        toml::from_str(text).map_err(|error| Refusal(format!("project.toml can't be read: {}", error.message())))?;
    let own = file.io.buildpacks;
    let asked = [
        ("io.buildpacks.builder", own.builder.is_some()),
        ("io.buildpacks.include", own.include.is_some()),
        ("io.buildpacks.exclude", own.exclude.is_some()),
        ("io.buildpacks.group", own.group.is_some()),
        ("io.buildpacks.pre", own.pre.is_some()),
        ("io.buildpacks.post", own.post.is_some()),
        ("build.builder", file.build.builder.is_some()),
        ("build.include", file.build.include.is_some()),
        ("build.exclude", file.build.exclude.is_some()),
        ("build.buildpacks", file.build.buildpacks.is_some()),
    ];
    let ignored = asked.into_iter().filter(|(_, is_asked)| *is_asked).map(|(name, _)| name).collect();
    let variables = file.build.env.into_iter().chain(own.build.env).chain(own.env.build);
    let mut environment = BTreeMap::new();
    for Variable { name, value } in variables {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if name.is_empty() || name.len() > 128 || !plain {
            return Err(Refusal(
                "project.toml names a variable of the build that is not made of letters, digits and `_`".to_owned(),
            ));
        }
        environment.insert(name, value);
    }
    Ok(Project { environment, ignored })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_read_from_every_schema() {
        for text in [
            "[_]\nschema-version = \"0.2\"\n[[io.buildpacks.build.env]]\nname = \"A\"\nvalue = \"b c\"\n",
            "[_]\nschema-version = \"0.2\"\n[[io.buildpacks.env.build]]\nname = \"A\"\nvalue = \"b c\"\n",
            "[project]\nid = \"x\"\n[[build.env]]\nname = \"A\"\nvalue = \"b c\"\n",
        ] {
            let found = project(text).expect("reads");
            assert_eq!(found.environment, BTreeMap::from([("A".to_owned(), "b c".to_owned())]), "{text}");
            assert_eq!(found.ignored, Vec::<&str>::new());
        }
        assert_eq!(project(""), Ok(Project::default()));
    }

    #[test]
    fn what_is_not_honoured_is_named() {
        let text = "[io.buildpacks]\nbuilder = \"x\"\nexclude = [\"*.md\"]\n[[io.buildpacks.group]]\nid = \"a\"\n";
        let ignored = project(text).expect("reads").ignored;
        assert_eq!(ignored, ["io.buildpacks.builder", "io.buildpacks.exclude", "io.buildpacks.group"]);
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for name in ["", "../x", "a/b", "a.append", "a b"] {
            let text = format!("[[io.buildpacks.build.env]]\nname = \"{name}\"\nvalue = \"x\"\n");
            assert!(project(&text).is_err(), "{name}");
        }
        assert!(project("[[[").is_err());
    }
}
