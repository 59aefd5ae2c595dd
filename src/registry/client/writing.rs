//! Writes to one repository: blobs in one piece each, since not every registry takes them in several, and manifests.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#push>

use std::time::Duration;

use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Body, Response, Url};

use super::{RETRY_AFTER, Repository, client, unexpected, unreachable_registry};
use crate::registry::RegistryError;

/// A disk at the pace of a slow line. The Pod's own deadline ends what takes longer.
const UPLOAD_TIMEOUT: Duration = Duration::from_hours(6);

/// What is pushed under a digest, as often as it is asked for.
pub trait Content {
    fn size(&self) -> u64;

    /// # Errors
    /// When it can't be read.
    fn body(&self) -> Result<Body, RegistryError>;
}

impl Content for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn body(&self) -> Result<Body, RegistryError> {
        Ok(self.to_vec().into())
    }
}

impl Repository {
    /// The same, with the right to push.
    #[must_use]
    pub fn for_pushing(self) -> Self {
        Self { actions: "pull,push", authorization: None, ..self }
    }

    /// Leaves alone what the registry has.
    pub async fn push_blob(&mut self, digest: &str, content: &(impl Content + ?Sized)) -> Result<(), RegistryError> {
        let mut delays = RETRY_AFTER.iter();
        loop {
            match self.try_push_blob(digest, content).await {
                Err(RegistryError::Unavailable(sentence)) => match delays.next() {
                    Some(delay) => tokio::time::sleep(*delay).await,
                    None => return Err(RegistryError::Unavailable(sentence)),
                },
                other => return other,
            }
        }
    }

    /// `reference` is a tag.
    pub async fn push_manifest(
        &mut self,
        reference: &str,
        media_type: &str,
        manifest: &[u8],
    ) -> Result<(), RegistryError> {
        let mut delays = RETRY_AFTER.iter();
        loop {
            let response = self
                .exchange(|client, repository| {
                    let request = client.put(format!("{repository}/manifests/{reference}"));
                    request.header(CONTENT_TYPE, media_type).body(manifest.to_vec())
                })
                .await;
            match response.and_then(|response| self.accepted(&response, StatusCode::CREATED)) {
                Err(RegistryError::Unavailable(sentence)) => match delays.next() {
                    Some(delay) => tokio::time::sleep(*delay).await,
                    None => return Err(RegistryError::Unavailable(sentence)),
                },
                other => return other,
            }
        }
    }

    async fn try_push_blob(&mut self, digest: &str, content: &(impl Content + ?Sized)) -> Result<(), RegistryError> {
        let found = self.exchange(|client, repository| client.head(format!("{repository}/blobs/{digest}"))).await?;
        if found.status() == StatusCode::OK {
            return Ok(());
        }
        let begun = self.exchange(|client, repository| client.post(format!("{repository}/blobs/uploads/"))).await?;
        self.accepted(&begun, StatusCode::ACCEPTED)?;
        let place = self.place(&begun, digest)?;
        // A login is for this host and port: an address elsewhere brings its own.
        let ours = self.is_at(&place) && self.scheme == Some(place.scheme());
        let client = if ours { self.client.clone() } else { client(false)? };
        let mut request = client
            .put(place)
            .timeout(UPLOAD_TIMEOUT)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, content.size());
        if let Some(authorization) = self.authorization.as_ref().filter(|_| ours) {
            request = request.header(AUTHORIZATION, authorization);
        }
        let response = request.body(content.body()?).send().await;
        let response = response.map_err(|error| unreachable_registry(&self.registry, &error))?;
        self.accepted(&response, StatusCode::CREATED)
    }

    /// Where the registry wants the blob to be put.
    fn place(&self, begun: &Response, digest: &str) -> Result<Url, RegistryError> {
        let location = begun.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let mut place = location.and_then(|location| begun.url().join(location).ok()).ok_or_else(|| {
            RegistryError::Unreadable(format!("the registry {} names no place for an upload", self.registry))
        })?;
        place.query_pairs_mut().append_pair("digest", digest);
        Ok(place)
    }

    fn accepted(&self, response: &Response, expected: StatusCode) -> Result<(), RegistryError> {
        match response.status() {
            status if status == expected => Ok(()),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Err(self.denied(status)),
            status => Err(unexpected(&self.registry, status)),
        }
    }
}
