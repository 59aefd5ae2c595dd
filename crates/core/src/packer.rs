//! Packer's own documents, as far as somebody beside Packer has to know them: what a template is made of, before Packer
//! is started on it, and what the manifest tells that it leaves behind.

pub mod manifest;
pub mod template;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// What `prepare` found out of a template, for the containers after it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Where the template's manifests are written, relative to the context.
    pub manifests: Vec<String>,
    /// Whether the template asks for plugins, which `packer init` installs.
    pub needs_init: bool,
}

/// A file that Packer left behind, as it was pushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    pub size_bytes: u64,
    /// `sha256:…` of its content.
    pub digest: String,
}

/// What Packer made, in the words of an image that holds it: no times and no ids of the run, so that the same files make
/// the same image.
pub fn document(made: &[manifest::Made], files: &BTreeMap<String, File>) -> String {
    #[derive(Serialize)]
    struct Artifact<'a> {
        name: &'a str,
        builder: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
        files: Vec<Entry<'a>>,
    }
    #[derive(Serialize)]
    struct Entry<'a> {
        path: &'a str,
        #[serde(flatten)]
        file: &'a File,
    }
    let mut artifacts: Vec<Artifact<'_>> = made
        .iter()
        .map(|made| Artifact {
            name: &made.name,
            builder: &made.builder,
            id: made.id.as_deref(),
            files: made.files.iter().filter_map(|path| Some(Entry { path, file: files.get(path)? })).collect(),
        })
        .collect();
    // Packer builds at once and writes down in the order in which it is done.
    artifacts.sort_by_key(|artifact| (artifact.builder, artifact.name));
    crate::report::json(&artifacts) + "\n"
}

/// Why Packer is not started on a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A builder or post-processor that needs something a build's Pod has not.
    Needs { part: String, what: &'static str },
    /// A plugin that this installation does not allow.
    Plugin { source: String, allowed: Vec<String> },
    /// Nothing would tell what was made.
    NoManifest { json: bool },
    /// The place of a manifest is an expression, or no place in the context.
    ManifestOutput,
    /// The JSON form of HCL.
    JsonHcl { name: String },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Needs { part, what: what @ "a Docker daemon" } => write!(
                f,
                "the template's {part} needs {what}, and a build's Pod has none: build container images by spec.method \
                 container, kaniko or buildx"
            ),
            Self::Needs { part, what } => write!(f, "the template's {part} needs {what}, which a build's Pod has not"),
            Self::Plugin { source, allowed } if allowed.is_empty() => write!(
                f,
                "the template asks for the plugin {source}, and this installation allows none \
                 (builders.packer.plugins of its chart)"
            ),
            Self::Plugin { source, allowed } => write!(
                f,
                "the template asks for the plugin {source}, and this installation allows only those of {} \
                 (builders.packer.plugins of its chart)",
                allowed.join(", ")
            ),
            Self::NoManifest { json } => {
                let (what, place) = if *json {
                    ("{\"type\": \"manifest\"}", "its \"post-processors\"")
                } else {
                    ("post-processor \"manifest\" {}", "its build block")
                };
                write!(
                    f,
                    "the template has no post-processor \"manifest\", by which Packer tells what it has made: add \
                     {what} to {place}, behind what makes the files that are to be kept"
                )
            }
            Self::ManifestOutput => f.write_str(
                "the output of the template's post-processor \"manifest\" must be written out, as a path in the \
                 context: leave it away, and it is packer-manifest.json",
            ),
            Self::JsonHcl { name } => write!(
                f,
                "{name} is HCL in JSON, which this version does not read: write it as .pkr.hcl, or as one of Packer's \
                 own .json templates"
            ),
        }
    }
}
