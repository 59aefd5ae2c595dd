//! Packer's template in the source: found, or put there where the Build brings its text, and read before Packer is started
//! on it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use image_factory_core::packer::{Plan, Refusal, template};

use super::SourceError;
use super::paths::{check_relative, listing, resolve};

/// What of each file is read.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
const MAX_FILES: usize = 256;

/// `spec.packer`, as far as it says what is built.
#[derive(Debug, Clone)]
pub enum Template {
    /// Its text.
    Inline(String),
    /// A file of the source, or a folder with such.
    Path(String),
}

/// What the template asks for. The text of an inline one is put into the context, where Packer runs: `context` is that
/// folder, checked before. `plugins`: what it may ask for.
pub fn check_template(
    source: &Path,
    context: &Path,
    template: &Template,
    plugins: &[String],
) -> Result<Plan, SourceError> {
    let files = match template {
        Template::Inline(text) => vec![put(context, text)?],
        Template::Path(path) => read(source, path)?,
    };
    let files = files.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    template::plan(files, plugins).map_err(|refusal| match refusal {
        Refusal::Plugin { .. } => SourceError::BuilderNotAllowed(refusal.to_string()),
        _ => SourceError::InvalidSpec(refusal.to_string()),
    })
}

fn put(context: &Path, text: &str) -> Result<(String, String), SourceError> {
    let name = template::name_of(text);
    let path = context.join(name);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Ok(()) => Ok((name.to_owned(), text.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(SourceError::InvalidSpec(format!(
            "the source has a file {name} in the context, where spec.packer.template is put: rename it, or name it by \
             spec.packer.path"
        ))),
        Err(error) => Err(SourceError::io("write", &path, error)),
    }
}

/// Every file that Packer would read.
fn read(source: &Path, path: &str) -> Result<Vec<(String, String)>, SourceError> {
    let source = source.canonicalize().map_err(|error| SourceError::io("find the source", source, error))?;
    check_relative("spec.packer.path", path)?;
    let Some(found) = resolve("spec.packer.path", path, &source, &source)? else {
        return Err(SourceError::InvalidSpec(format!(
            "spec.packer.path is {path:?}, which the source does not have; {}",
            listing("the source", &source)
        )));
    };
    if !found.is_dir() {
        return Ok(vec![(path.to_owned(), text(&found)?)]);
    }
    let mut names: Vec<String> = fs::read_dir(&found)
        .map_err(|error| SourceError::io("read", &found, error))?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".pkr.hcl") || name.ends_with(".pkr.json"))
        .collect();
    names.sort_unstable();
    if names.is_empty() || names.len() > MAX_FILES {
        return Err(SourceError::InvalidSpec(format!(
            "spec.packer.path is {path:?}, a folder with {} files that end with .pkr.hcl, and must have from 1 to \
             {MAX_FILES}; {}",
            names.len(),
            listing("it", &found)
        )));
    }
    names
        .into_iter()
        .map(|name| {
            // A link may lead out of the source.
            let file = resolve("spec.packer.path", &format!("{path}/{name}"), &source, &source)?;
            let text = file.as_deref().map(text).transpose()?.unwrap_or_default();
            Ok((name, text))
        })
        .collect()
}

fn text(path: &Path) -> Result<String, SourceError> {
    if !path.is_file() {
        return Err(SourceError::InvalidSpec(format!("the template {} is not a file", path.display())));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes))
        .map_err(|error| SourceError::io("read", path, error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::scratch::Folder;
    use super::*;

    const BUILD: &str = "build {\n  sources = [\"source.null.web\"]\n  post-processor \"manifest\" {}\n}\n";
    const DOCKER: &str = "source \"docker\" \"web\" {}\n";

    fn path(path: &str) -> Template {
        Template::Path(path.to_owned())
    }

    fn refused(source: &Folder, template: &Template) -> (&'static str, String) {
        let error = check_template(&source.0, &source.0, template, &[]).expect_err("it is refused");
        (error.reason(), error.to_string())
    }

    #[test]
    fn a_text_is_put_into_the_context_under_a_name_that_packer_knows() {
        for (text, name) in
            [(BUILD, "image-factory.pkr.hcl"), ("{\"post-processors\": [\"manifest\"]}", "image-factory.json")]
        {
            let source = Folder::new();
            let inline = Template::Inline(text.to_owned());
            let plan = check_template(&source.0, &source.0, &inline, &[]).expect("it is accepted");
            assert_eq!(plan.manifests, ["packer-manifest.json"]);
            assert_eq!(fs::read_to_string(source.0.join(name)).expect("reads"), text);
            let (reason, sentence) = refused(&source, &inline);
            assert!(reason == "InvalidSpec" && sentence.contains(&format!("has a file {name}")), "{sentence}");
        }
    }

    #[test]
    fn a_file_is_read_alone_and_a_folder_with_all_of_its_templates() {
        let source = Folder::new();
        fs::create_dir_all(source.0.join("images/more")).expect("makes folders");
        for (name, text) in [
            ("images/build.pkr.hcl", BUILD),
            ("images/docker.hcl", DOCKER),
            ("images/more/docker.pkr.hcl", DOCKER),
            ("build.pkr.hcl", BUILD),
            ("old.json", "{\"post-processors\": [{\"type\": \"manifest\", \"output\": \"m.json\"}]}"),
        ] {
            fs::write(source.0.join(name), text).expect("writes");
        }
        for (name, manifest) in [
            ("build.pkr.hcl", "packer-manifest.json"),
            ("images/build.pkr.hcl", "packer-manifest.json"),
            ("images", "packer-manifest.json"),
            ("./images/", "packer-manifest.json"),
            ("old.json", "m.json"),
        ] {
            let plan = check_template(&source.0, &source.0, &path(name), &[]).expect("it is accepted");
            assert_eq!(plan.manifests, [manifest], "{name}");
        }
        fs::write(source.0.join("images/web.pkr.hcl"), DOCKER).expect("writes");
        assert!(refused(&source, &path("images")).1.contains("needs a Docker daemon"));
    }

    #[test]
    fn a_refusal_names_the_field_and_stays_in_the_source() {
        let (source, outside) = (Folder::new(), Folder::new());
        fs::create_dir_all(source.0.join("empty")).expect("makes a folder");
        fs::write(outside.0.join("web.pkr.hcl"), BUILD).expect("writes");
        symlink(outside.0.join("web.pkr.hcl"), source.0.join("link.pkr.hcl")).expect("links");
        for (name, sentence) in [
            (
                "web.pkr.hcl",
                "spec.packer.path is \"web.pkr.hcl\", which the source does not have; the source has empty",
            ),
            ("../web.pkr.hcl", "which has a part \"..\""),
            ("empty", "a folder with 0 files that end with .pkr.hcl"),
            ("link.pkr.hcl", "which leads out of the source through a symlink"),
            (".", "which leads out of the source through a symlink"),
        ] {
            let (reason, found) = refused(&source, &path(name));
            assert!(reason == "InvalidSpec" && found.contains(sentence), "{name}: {found}");
        }
    }

    #[test]
    fn a_plugin_that_is_not_allowed_has_a_reason_of_its_own() {
        let source = Folder::new();
        let text =
            format!("packer {{\n  required_plugins {{\n    a = {{ source = \"example.test/a/b\" }}\n  }}\n}}\n{BUILD}");
        assert_eq!(refused(&source, &Template::Inline(text.clone())).0, "BuilderNotAllowed");
        let other = Folder::new();
        let plan = check_template(&other.0, &other.0, &Template::Inline(text), &["example.test/a".to_owned()]);
        assert!(plan.expect("it is accepted").needs_init);
    }
}
