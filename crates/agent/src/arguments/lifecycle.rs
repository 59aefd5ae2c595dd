//! What a build by buildpacks is told beside what every run is: `image-factory-agent lifecycle`.

use std::ffi::OsString;
use std::path::PathBuf;

use image_factory_core::lifecycle::Request;

/// Where what the lifecycle needs comes from.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lifecycle {
    pub request: Request,
    /// The folder that is built.
    pub source: PathBuf,
    /// The registries' `config.json`; it is read once and taken away.
    pub registry_auth: Option<PathBuf>,
}

impl Lifecycle {
    /// Takes the flag, or says that it is not one of these.
    pub fn set(&mut self, flag: &str, value: &OsString) -> Result<bool, String> {
        let request = &mut self.request;
        match flag {
            "--image" => request.images.push(text(flag, value)?),
            "--cache-image" => request.cache_image = Some(text(flag, value)?),
            "--cold" => request.is_cold = text(flag, value)? == "true",
            "--insecure-registry" => request.insecure_registries.push(text(flag, value)?),
            "--label" => request.labels.push(pair(flag, value)?),
            "--env" => request.environment.push(pair(flag, value)?),
            "--buildpack" => request.buildpacks.push(text(flag, value)?),
            "--source" => self.source = value.into(),
            "--registry-auth" => self.registry_auth = Some(value.into()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether all is there without which nothing can be built.
    pub fn check(&self) -> Result<(), String> {
        if self.request.images.is_empty() {
            return Err("--image is missing".into());
        }
        if self.source.as_os_str().is_empty() {
            return Err("--source is missing".into());
        }
        Ok(())
    }
}

fn text(flag: &str, value: &OsString) -> Result<String, String> {
    value.to_str().map(str::to_owned).ok_or_else(|| format!("{flag} takes plain text"))
}

fn pair(flag: &str, value: &OsString) -> Result<(String, String), String> {
    let text = text(flag, value)?;
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| format!("{flag} takes NAME=VALUE"))
}
