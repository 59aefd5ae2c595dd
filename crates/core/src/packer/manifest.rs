//! What Packer says that it has made: the document of its post-processor `manifest`, which keeps what earlier runs made
//! before that of the last one. <https://developer.hashicorp.com/packer/docs/post-processors/manifest>

use serde::Deserialize;

/// What one source of the template has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The source's name in the template.
    pub name: String,
    /// The builder's type: `amazon-ebs`.
    pub builder: String,
    /// What it is called elsewhere, such as `eu-central-1:ami-0abc`; `None` for what is files alone.
    pub id: Option<String>,
    /// Paths as Packer has them: absolute, or relative to the folder that it ran in.
    pub files: Vec<String>,
}

/// Of the last run, in the order in which Packer was done with them. What has left nothing is left out.
///
/// # Errors
/// With what is wrong with the document.
pub fn read(text: &[u8]) -> Result<Vec<Made>, String> {
    let Manifest { builds, last_run_uuid } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    Ok(builds
        .into_iter()
        .filter(|build| build.packer_run_uuid == last_run_uuid)
        .map(|Build { name, builder_type, artifact_id, files, .. }| {
            let files: Vec<String> = files.unwrap_or_default().into_iter().map(|file| file.name).collect();
            // Artifacts that are files, and that of the builder null, are called by a word that names nothing.
            let has_name = files.is_empty() && builder_type != "null";
            let id = artifact_id.filter(|id| has_name && !id.is_empty());
            Made { name, builder: builder_type, id, files }
        })
        .filter(|made| made.id.is_some() || !made.files.is_empty())
        .collect())
}

#[derive(Deserialize)]
struct Manifest {
    builds: Vec<Build>,
    last_run_uuid: String,
}

#[derive(Deserialize)]
struct Build {
    name: String,
    builder_type: String,
    artifact_id: Option<String>,
    files: Option<Vec<File>>,
    packer_run_uuid: String,
}

#[derive(Deserialize)]
struct File {
    name: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(name: &str, builder: &str, id: Option<&str>, files: &[&str]) -> Made {
        Made {
            name: name.to_owned(),
            builder: builder.to_owned(),
            id: id.map(str::to_owned),
            files: files.iter().map(|&file| file.to_owned()).collect(),
        }
    }

    /// Two runs wrote it.
    #[test]
    fn a_real_manifest_tells_the_files_of_the_last_run_alone() {
        let text = include_str!("../../../../tests/fixtures/packer/packer-manifest.json");
        let expected = [
            made("note", "file", None, &["out/note.txt"]),
            made("web", "null", None, &["out/disk.img", "out/disk.sha256"]),
        ];
        assert_eq!(text.matches("disk.img").count(), 2);
        assert_eq!(read(text.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn what_is_elsewhere_has_a_name_and_what_left_nothing_is_left_out() {
        let build = |name: &str, builder: &str, id: &str, files: serde_json::Value| json!({"name": name, "builder_type": builder, "artifact_id": id, "files": files, "packer_run_uuid": "a"});
        let manifest = json!({"last_run_uuid": "a", "builds": [
            build("machine", "amazon-ebs", "eu-central-1:ami-0f1e2d3c", json!(null)),
            build("nothing", "null", "Null", json!(null)),
            build("note", "file", "File", json!([{"name": "/a/note.txt", "size": 3}])),
        ]});
        let expected = [
            made("machine", "amazon-ebs", Some("eu-central-1:ami-0f1e2d3c"), &[]),
            made("note", "file", None, &["/a/note.txt"]),
        ];
        assert_eq!(read(manifest.to_string().as_bytes()).unwrap(), expected);
    }

    #[test]
    fn what_is_no_manifest_is_told() {
        for text in ["", "[]", "{\"builds\": []}", "{\"builds\": [{}], \"last_run_uuid\": \"a\"}"] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
