//! Reads from one repository of a registry, and [writes](writing) to it: with a cap on every body, a login only where the
//! registry asks for one, and a few short retries where it is the registry that fails.
//!
//! An insecure registry is tried over TLS first, accepting any certificate, and over plain http where no TLS connection
//! comes about. Any other is only ever spoken to over verified TLS, redirects included.

mod writing;

pub use writing::Content;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http_auth::parser::ChallengeParser;
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, Url};
use serde::Deserialize;

use super::RegistryError;
use super::credentials::Login;

/// Manifests and configurations are kilobytes; a registry that sends more is not answered with memory.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;
const MAX_TOKEN_BYTES: usize = 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);
const RETRY_AFTER: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];

#[derive(Clone)]
pub struct Repository {
    client: Client,
    registry: String,
    name: String,
    login: Option<Login>,
    /// What a token is asked for.
    actions: &'static str,
    insecure: bool,
    /// Once a connection has come about: `https` or `http`.
    scheme: Option<&'static str>,
    authorization: Option<String>,
}

pub struct Body {
    pub bytes: Vec<u8>,
    pub content_type: Option<String>,
}

impl Repository {
    /// `registry` is `host` or `host:port`, `name` the repository in it.
    pub fn new(registry: &str, name: &str, insecure: bool, login: Option<Login>) -> Result<Self, RegistryError> {
        Ok(Self {
            client: client(insecure)?,
            registry: registry.to_owned(),
            name: name.to_owned(),
            login,
            actions: "pull",
            insecure,
            scheme: None,
            authorization: None,
        })
    }

    /// A manifest by tag or digest.
    pub async fn manifest(&mut self, reference: &str, accept: &str) -> Result<Body, RegistryError> {
        self.get(&format!("manifests/{reference}"), accept).await
    }

    pub async fn blob(&mut self, digest: &str) -> Result<Body, RegistryError> {
        self.get(&format!("blobs/{digest}"), "*/*").await
    }

    async fn get(&mut self, path: &str, accept: &str) -> Result<Body, RegistryError> {
        let mut delays = RETRY_AFTER.iter();
        loop {
            match self.try_get(path, accept).await {
                Err(RegistryError::Unavailable(sentence)) => match delays.next() {
                    Some(delay) => tokio::time::sleep(*delay).await,
                    None => return Err(RegistryError::Unavailable(sentence)),
                },
                other => return other,
            }
        }
    }

    async fn try_get(&mut self, path: &str, accept: &str) -> Result<Body, RegistryError> {
        let response = self.open(path, accept).await?;
        let header = response.headers().get(CONTENT_TYPE);
        let content_type = header.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let bytes = read(response, MAX_BODY_BYTES, &self.registry).await?;
        Ok(Body { bytes, content_type })
    }

    /// A blob of any size, to be read piece by piece; asked for once.
    pub async fn stream(&mut self, digest: &str) -> Result<Response, RegistryError> {
        self.open(&format!("blobs/{digest}"), "*/*").await
    }

    async fn open(&mut self, path: &str, accept: &str) -> Result<Response, RegistryError> {
        let response = self
            .exchange(|client, repository| client.get(format!("{repository}/{path}")).header(ACCEPT, accept))
            .await?;
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::NOT_FOUND => Err(RegistryError::NotFound(format!(
                "the registry does not have {path} of {}/{}",
                self.registry, self.name
            ))),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.denied(response.status())),
            status => Err(unexpected(&self.registry, status)),
        }
    }

    /// `request` is made of the client and the repository's address.
    async fn exchange(&mut self, request: impl Fn(&Client, &str) -> RequestBuilder) -> Result<Response, RegistryError> {
        let response = self.send(&request).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        // The first request is anonymous, and a token may run out: ask anew, once.
        self.authorization = Some(self.authorize(&response).await?);
        self.send(&request).await
    }

    async fn send(&mut self, request: impl Fn(&Client, &str) -> RequestBuilder) -> Result<Response, RegistryError> {
        let schemes = match (self.scheme, self.insecure) {
            (Some(scheme), _) => vec![scheme],
            (None, true) => vec!["https", "http"],
            (None, false) => vec!["https"],
        };
        let mut failure = None;
        for scheme in schemes {
            let mut request = request(&self.client, &format!("{scheme}://{}/v2/{}", self.registry, self.name));
            if let Some(authorization) = &self.authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            match request.send().await {
                Ok(response) => {
                    self.scheme = Some(scheme);
                    return Ok(response);
                }
                Err(error) if error.is_connect() => failure = Some(error),
                Err(error) => return Err(unreachable_registry(&self.registry, &error)),
            }
        }
        Err(failure.map_or_else(
            || RegistryError::Unavailable(format!("failed to reach the registry {}", self.registry)),
            |error| unreachable_registry(&self.registry, &error),
        ))
    }

    /// The value of the header that answers the registry's challenge.
    async fn authorize(&self, response: &Response) -> Result<String, RegistryError> {
        let headers = response.headers().get_all(WWW_AUTHENTICATE);
        let challenges: Vec<Challenge> =
            headers.iter().filter_map(|value| value.to_str().ok()).flat_map(challenges).collect();
        if let Some(bearer) = challenges.iter().find(|challenge| challenge.scheme.eq_ignore_ascii_case("bearer")) {
            return self.token(bearer).await.map(|token| format!("Bearer {token}"));
        }
        match &self.login {
            Some(login) if challenges.iter().any(|challenge| challenge.scheme.eq_ignore_ascii_case("basic")) => {
                Ok(basic(login))
            }
            _ => Err(self.denied(StatusCode::UNAUTHORIZED)),
        }
    }

    async fn token(&self, challenge: &Challenge) -> Result<String, RegistryError> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let unreadable = |what: &str| {
            RegistryError::Unreadable(format!("failed to log in to the registry {}: {what}", self.registry))
        };
        let realm = challenge.parameter("realm").and_then(|realm| Url::parse(realm).ok());
        let realm = realm.ok_or_else(|| unreadable("its challenge names no place to ask for a token"))?;
        // What is forgiven to this registry is not forgiven to another host it may point to.
        let client = if self.insecure && self.is_at(&realm) {
            self.client.clone()
        } else if realm.scheme() == "https" {
            client(false)?
        } else {
            return Err(RegistryError::Denied(format!(
                "the registry {} asks for a login at {}, a place without TLS",
                self.registry,
                realm.host_str().unwrap_or_default()
            )));
        };
        let mut query = vec![("scope", format!("repository:{}:{}", self.name, self.actions))];
        if let Some(service) = challenge.parameter("service") {
            query.push(("service", service.to_owned()));
        }
        let mut request = client.get(realm).query(&query);
        if let Some(login) = &self.login {
            request = request.header(AUTHORIZATION, basic(login));
        }
        let response = request.send().await.map_err(|error| unreachable_registry(&self.registry, &error))?;
        match response.status() {
            StatusCode::OK => {
                let bytes = read(response, MAX_TOKEN_BYTES, &self.registry).await?;
                let answer: Option<Answer> = serde_json::from_slice(&bytes).ok();
                let token = answer.and_then(|answer| answer.token.or(answer.access_token));
                token.ok_or_else(|| unreadable("its answer holds no token"))
            }
            status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => Err(self.denied(status)),
            status => Err(unexpected(&self.registry, status)),
        }
    }

    fn is_at(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let with_port = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        with_port.eq_ignore_ascii_case(&self.registry)
    }

    fn denied(&self, status: StatusCode) -> RegistryError {
        let as_whom = match &self.login {
            Some(_) => "with the push credentials",
            None => "without credentials: the Build names none for this host and port",
        };
        let what = if self.actions == "pull" { "show" } else { "take" };
        RegistryError::Denied(format!(
            "the registry {} refused to {what} {} ({}) {as_whom}",
            self.registry,
            self.name,
            status.as_u16()
        ))
    }
}

fn client(insecure: bool) -> Result<Client, RegistryError> {
    Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .redirect(Policy::limited(5))
        .https_only(!insecure)
        .tls_danger_accept_invalid_certs(insecure)
        .user_agent(concat!("image-factory/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| RegistryError::Unreadable(format!("failed to set up TLS: {}", with_causes(&error))))
}

async fn read(mut response: Response, limit: usize, registry: &str) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable_registry(registry, &error))? {
        if bytes.len() + chunk.len() > limit {
            return Err(RegistryError::Unreadable(format!(
                "the registry {registry} sent a document of more than {limit} bytes"
            )));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn unexpected(registry: &str, status: StatusCode) -> RegistryError {
    let sentence = format!("the registry {registry} answered {}", status.as_u16());
    if status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT) {
        RegistryError::Unavailable(sentence)
    } else {
        RegistryError::Unreadable(sentence)
    }
}

fn unreachable_registry(registry: &str, error: &reqwest::Error) -> RegistryError {
    RegistryError::Unavailable(format!("failed to reach the registry {registry}: {}", with_causes(error)))
}

/// An HTTP client's error says little; its causes say what happened (refused, unknown name, wrong certificate).
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn basic(login: &Login) -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{}", login.username, login.password)))
}

#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

fn challenges(header: &str) -> Vec<Challenge> {
    ChallengeParser::new(header)
        .map_while(Result::ok)
        .map(|challenge| Challenge {
            scheme: challenge.scheme.to_owned(),
            parameters: challenge.params.iter().map(|(key, value)| ((*key).to_owned(), value.to_unescaped())).collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_from_a_header() {
        let header = r#"Bearer realm="https://auth.example/token",service="reg.example",scope="repository:a:pull", Basic realm="x""#;
        let found = challenges(header);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].parameter("Realm"), Some("https://auth.example/token"));
        assert_eq!(found[0].parameter("service"), Some("reg.example"));
        assert_eq!((found[1].scheme.as_str(), found[1].parameter("realm")), ("Basic", Some("x")));
        assert_eq!(challenges("\""), vec![]);
    }
}
