//! A template before Packer reads it: which of it can't work in a build's Pod, which plugins it asks for, and where it
//! writes what it has made. Only what is written out is seen. What can't be parsed is left to Packer, which says better
//! what is wrong with it; nothing rests on its being read here but the sentence.

use hcl_edit::{
    expr::{Expression, Object},
    structure::{Block, Body},
};
use serde_json::Value;

use super::{Plan, Refusal};

/// Where a manifest is written that says nothing else.
const DEFAULT_MANIFEST: &str = "packer-manifest.json";
const MANIFEST: &str = "manifest";

/// Builders and post-processors by the first words of their names, and what they need on the machine that they run on.
const NEEDS: [(&str, &str); 9] = [
    ("docker", "a Docker daemon"),
    ("podman", "Podman"),
    ("lxd", "an LXD daemon"),
    ("incus", "an Incus daemon"),
    ("lxc", "LXC"),
    ("virtualbox", "VirtualBox"),
    ("vagrant", "Vagrant"),
    ("parallels", "Parallels"),
    ("hyperv", "Hyper-V"),
];

/// What is written out in the files of a template.
#[derive(Debug, Default)]
struct Facts {
    /// Type, and how it is told.
    builders: Vec<(String, String)>,
    post_processors: Vec<PostProcessor>,
    /// Addresses of plugins.
    plugins: Vec<String>,
    json: bool,
    /// One of the files could not be parsed.
    is_partial: bool,
}

#[derive(Debug)]
struct PostProcessor {
    kind: String,
    output: Output,
}

#[derive(Debug, PartialEq, Eq)]
enum Output {
    Default,
    At(String),
    Expression,
}

/// What follows from a template's files, given by name and text. `allowed`: the plugins that may be asked for, by the
/// first parts of their addresses.
///
/// # Errors
/// When Packer should not be started on it.
pub fn plan<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>, allowed: &[String]) -> Result<Plan, Refusal> {
    let mut facts = Facts::default();
    for (name, text) in files {
        if name.ends_with(".pkr.json") {
            return Err(Refusal::JsonHcl { name: name.to_owned() });
        }
        if is_json(name) { facts.read_json(text) } else { facts.read_hcl(text) }
    }
    for (kind, part) in &facts.builders {
        if let Some(what) = needs(kind) {
            return Err(Refusal::Needs { part: part.clone(), what });
        }
    }
    // Of `vagrant` there is also a post-processor, which only packs.
    let docker = |kind: &str| needs(kind).filter(|what| *what == "a Docker daemon");
    for PostProcessor { kind, .. } in &facts.post_processors {
        if let Some(what) = docker(kind) {
            return Err(Refusal::Needs { part: format!("post-processor {kind}"), what });
        }
    }
    for source in &facts.plugins {
        if !is_allowed(source, allowed) {
            return Err(Refusal::Plugin { source: source.clone(), allowed: allowed.to_vec() });
        }
    }
    Ok(Plan { manifests: manifests(&facts)?, needs_init: !facts.plugins.is_empty() })
}

/// Whether Packer takes a file of this name for one of its older templates.
pub fn is_json(name: &str) -> bool {
    !name.ends_with(".pkr.hcl")
}

/// The name under which a text that has none is understood by Packer.
pub fn name_of(text: &str) -> &'static str {
    if text.trim_start().starts_with('{') { "image-factory.json" } else { "image-factory.pkr.hcl" }
}

fn manifests(facts: &Facts) -> Result<Vec<String>, Refusal> {
    let mut places = Vec::new();
    for PostProcessor { output, .. } in facts.post_processors.iter().filter(|found| found.kind == MANIFEST) {
        let place = match output {
            Output::Default => DEFAULT_MANIFEST,
            Output::At(place) if is_inside(place) => place,
            Output::At(_) | Output::Expression => return Err(Refusal::ManifestOutput),
        };
        places.push(place.to_owned());
    }
    if places.is_empty() {
        if !facts.is_partial {
            return Err(Refusal::NoManifest { json: facts.json });
        }
        places.push(DEFAULT_MANIFEST.to_owned());
    }
    places.sort_unstable();
    places.dedup();
    Ok(places)
}

fn is_inside(path: &str) -> bool {
    !path.is_empty() && !path.starts_with('/') && !path.split('/').any(|part| part == "..")
}

fn needs(kind: &str) -> Option<&'static str> {
    if kind.ends_with("-chroot") {
        return Some("root on a machine of that cloud");
    }
    let is_of = |family: &str| kind.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    NEEDS.into_iter().find(|(family, _)| is_of(family)).map(|(_, what)| what)
}

/// `github.com/hashicorp` allows `github.com/hashicorp/amazon`, and not `github.com/hashicorpse/amazon`.
fn is_allowed(source: &str, allowed: &[String]) -> bool {
    allowed.iter().map(|prefix| prefix.trim_end_matches('/')).any(|prefix| {
        !prefix.is_empty() && source.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

impl Facts {
    fn read_hcl(&mut self, text: &str) {
        let Ok(body) = text.parse::<Body>() else {
            self.is_partial = true;
            return;
        };
        for block in body.blocks() {
            match block.ident.as_str() {
                "source" => {
                    let kind = label(block).to_owned();
                    let name = block.labels.get(1).map_or("", |label| label.as_str());
                    self.builders.push((kind.clone(), format!("source {kind}.{name}")));
                }
                "build" => self.read_build(&block.body),
                "packer" => {
                    for required in block.body.get_blocks("required_plugins") {
                        self.plugins.extend(required.body.attributes().map(|plugin| address(&plugin.value)));
                    }
                }
                _ => {}
            }
        }
    }

    fn read_build(&mut self, build: &Body) {
        for block in build.blocks() {
            match block.ident.as_str() {
                "post-processor" => self.post_processors.push(post_processor(block)),
                "post-processors" => {
                    self.post_processors.extend(block.body.get_blocks("post-processor").map(post_processor));
                }
                _ => {}
            }
        }
    }

    fn read_json(&mut self, text: &str) {
        self.json = true;
        let Ok(template) = serde_json::from_str::<Value>(text) else {
            self.is_partial = true;
            return;
        };
        for builder in template["builders"].as_array().into_iter().flatten() {
            let kind = builder["type"].as_str().unwrap_or_default();
            let name = builder["name"].as_str().unwrap_or(kind);
            self.builders.push((kind.to_owned(), format!("builder {name}")));
        }
        for step in template["post-processors"].as_array().into_iter().flatten() {
            // Each is one, or a chain of them; one may be its name alone.
            let chain = step.as_array().map_or(std::slice::from_ref(step), Vec::as_slice);
            self.post_processors.extend(chain.iter().map(|found| PostProcessor {
                kind: found.as_str().or(found["type"].as_str()).unwrap_or_default().to_owned(),
                output: match &found["output"] {
                    Value::Null => Output::Default,
                    Value::String(path) if !path.contains("{{") => Output::At(path.clone()),
                    _ => Output::Expression,
                },
            }));
        }
    }
}

fn label(block: &Block) -> &str {
    block.labels.first().map_or("", |label| label.as_str())
}

fn post_processor(block: &Block) -> PostProcessor {
    let output = block.body.get_attribute("output").map(|output| output.value.as_str().map(str::to_owned));
    PostProcessor {
        kind: label(block).to_owned(),
        output: match output {
            None => Output::Default,
            Some(Some(path)) => Output::At(path),
            Some(None) => Output::Expression,
        },
    }
}

/// Of a plugin in `required_plugins`. One that is not written out is none that is allowed.
fn address(plugin: &Expression) -> String {
    let source = |object: &Object| {
        let (_, value) = object.iter().find(|(key, _)| {
            key.as_ident().is_some_and(|name| name.as_str() == "source")
                || key.as_expr().and_then(Expression::as_str) == Some("source")
        })?;
        value.expr().as_str().map(str::to_owned)
    };
    plugin.as_object().and_then(source).unwrap_or_else(|| "without a source".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HCL: &str = r#"
        packer {
          required_plugins {
            amazon = { version = ">= 1.2", source = "github.com/hashicorp/amazon" }
            other = { "source" = "github.com/hashicorp/ansible" }
          }
        }
        variable "greeting" { default = "hello" }
        source "null" "web" {
          communicator = "none"
        }
        source "amazon-ebs" "web" {
          tags = { Name = "web ${var.greeting}" } // post-processor "docker-push" {}
        }
        build {
          sources = ["source.null.web"]
          provisioner "shell-local" {
            inline = [<<-EOT
              post-processor "docker-tag" { }
              EOT
            ]
          }
          post-processors {
            post-processor "artifice" { files = ["out/disk.img"] }
            post-processor "manifest" { output = "out/manifest.json" }
          }
          post-processor "manifest" { strip_time = true }
        }
    "#;

    fn hcl(text: &str, allowed: &[&str]) -> Result<Plan, Refusal> {
        let allowed: Vec<String> = allowed.iter().map(|&prefix| prefix.to_owned()).collect();
        plan([("image.pkr.hcl", text)], &allowed)
    }

    fn refused(name: &str, text: &str) -> String {
        plan([(name, text)], &[]).expect_err("it is refused").to_string()
    }

    #[test]
    fn manifests_and_plugins_are_found_where_hcl_has_them_and_in_no_string_or_comment() {
        let manifests = ["out/manifest.json", "packer-manifest.json"].map(str::to_owned).to_vec();
        let found = Plan { manifests, needs_init: true };
        assert_eq!(hcl(HCL, &["github.com/hashicorp"]), Ok(found));
    }

    #[test]
    fn files_of_a_folder_are_one_template() {
        let build = "build {\n  sources = [\"source.null.web\"]\n  post-processor \"manifest\" {}\n}\n";
        let source = "source \"null\" \"web\" {\n  communicator = \"none\"\n}\n";
        let found = plan([("a.pkr.hcl", build), ("b.pkr.hcl", source)], &[]).unwrap();
        assert_eq!(found, Plan { manifests: vec!["packer-manifest.json".to_owned()], needs_init: false });
        let docker = "source \"docker\" \"web\" {}\n";
        assert!(plan([("a.pkr.hcl", build), ("b.pkr.hcl", docker)], &[]).is_err());
    }

    #[test]
    fn a_plugin_is_allowed_by_whole_parts_of_its_address() {
        for (allowed, is_allowed) in [
            (&["github.com/hashicorp"][..], true),
            (&["example.test", "github.com/hashicorp/"], true),
            (&["github.com/hashicorp/amazon", "github.com/hashicorp/ansible"], true),
            (&["github.com/hashicorp/amazon"], false),
            (&["github.com/hashi"], false),
            (&[""], false),
            (&[], false),
        ] {
            assert_eq!(hcl(HCL, allowed).is_ok(), is_allowed, "{allowed:?}");
        }
        let refusal = hcl(HCL, &["example.test"]).unwrap_err().to_string();
        assert!(refusal.contains("github.com/hashicorp/amazon") && refusal.contains("example.test"), "{refusal}");
        let computed = "packer {\n  required_plugins {\n    a = { source = \"${local.x}\" }\n  }\n}\n";
        assert!(hcl(computed, &["github.com"]).unwrap_err().to_string().contains("without a source"));
    }

    #[test]
    fn what_a_pod_has_not_is_refused_by_name_and_other_builders_are_not() {
        for (kind, what) in [
            ("docker", Some("a Docker daemon")),
            ("lxd", Some("an LXD daemon")),
            ("lxc", Some("LXC")),
            ("virtualbox-iso", Some("VirtualBox")),
            ("vagrant", Some("Vagrant")),
            ("hyperv-vmcx", Some("Hyper-V")),
            ("amazon-chroot", Some("root on a machine of that cloud")),
            ("dockerish", None),
            ("amazon-ebs", None),
            ("vsphere-iso", None),
            ("qemu", None),
            ("null", None),
        ] {
            let text = format!("source {kind:?} \"pear\" {{}}\nbuild {{\n  post-processor \"manifest\" {{}}\n}}\n");
            let json = format!("{{\"builders\": [{{\"type\": {kind:?}}}], \"post-processors\": [\"manifest\"]}}");
            for (name, text) in [("a.pkr.hcl", text), ("a.json", json)] {
                match (plan([(name, text.as_str())], &[]), what) {
                    (Ok(_), None) => {}
                    (Err(Refusal::Needs { what: found, .. }), Some(what)) => assert_eq!(found, what, "{kind}"),
                    (other, _) => unreachable!("{name} {kind}: {other:?}"),
                }
            }
        }
        let refusal = refused("a.pkr.hcl", "source \"docker\" \"pear\" {}\n");
        assert!(refusal.contains("source docker.pear needs a Docker daemon"), "{refusal}");
        let json = r#"{"builders": [{"type": "null"}], "post-processors": [["manifest", "docker-push"]]}"#;
        assert!(refused("a.json", json).contains("post-processor docker-push needs a Docker daemon"));
    }

    #[test]
    fn a_template_says_by_a_manifest_what_it_makes() {
        for (name, text, sentence) in [
            ("a.pkr.hcl", "build {\n}\n", "add post-processor \"manifest\" {} to its build block"),
            ("a.json", "{\"builders\": []}", "add {\"type\": \"manifest\"} to its \"post-processors\""),
            ("a.pkr.hcl", "build {\n  post-processor \"manifest\" { output = var.x }\n}\n", "must be written out"),
            ("a.pkr.hcl", "build {\n  post-processor \"manifest\" { output = \"a/../b\" }\n}\n", "must be written out"),
            ("a.pkr.hcl", "build {\n  post-processor \"manifest\" { output = \"/tmp/m\" }\n}\n", "must be written out"),
            (
                "a.json",
                r#"{"post-processors": [{"type": "manifest", "output": "{{user `m`}}"}]}"#,
                "must be written out",
            ),
            ("a.pkr.json", "{}", "a.pkr.json is HCL in JSON"),
        ] {
            let refusal = refused(name, text);
            assert!(refusal.contains(sentence), "{text}: {refusal}");
        }
        let at = r#"{"post-processors": ["compress", [{"type": "manifest", "output": "m.json"}]]}"#;
        assert_eq!(plan([("a.json", at)], &[]).unwrap().manifests, ["m.json"]);
    }

    #[test]
    fn what_cannot_be_parsed_is_left_to_packer() {
        for (name, text) in [("a.pkr.hcl", "source \"null\" {"), ("a.json", "{\"builders\": [")] {
            let plan = plan([(name, text)], &[]).expect("it is not refused");
            assert_eq!(plan, Plan { manifests: vec!["packer-manifest.json".to_owned()], needs_init: false });
        }
    }

    #[test]
    fn a_text_is_told_from_the_other_form_by_its_beginning() {
        for (text, name) in [
            ("\n {\"builders\": []}", "image-factory.json"),
            ("build {}", "image-factory.pkr.hcl"),
            ("# {\nbuild {}", "image-factory.pkr.hcl"),
        ] {
            assert_eq!(name_of(text), name);
            assert_eq!(is_json(name), text.contains("builders"));
        }
    }

    proptest! {
        #[test]
        fn no_template_is_too_odd(text in "[a-z{}\\[\\]\"=$%<\\n #/*.-]{0,80}", other in ".{0,80}") {
            for text in [&text, &other] {
                let _ = plan([("a.pkr.hcl", text.as_str())], &[]);
                let _ = plan([("a.json", text.as_str())], &[]);
            }
        }
    }
}
