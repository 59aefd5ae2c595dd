//! One try to send: no redirect is followed, no proxy used, and no address connected to that is not public, unless the
//! installation allows it. Of an answer only its status and `Retry-After` are read.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use image_factory_core::{destination::Ranges, notification};
use reqwest::{
    Client, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{CONTENT_TYPE, RETRY_AFTER},
    redirect::Policy,
};
use uuid::Uuid;

use crate::clock;

/// From the connection to the answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the installation allows, and where it is.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Also http, which anybody on the way can read.
    pub unencrypted: bool,
    pub ranges: Ranges,
    /// Where this installation is reached from outside.
    pub external_url: Option<String>,
}

pub struct Sender {
    client: Client,
    settings: Arc<Settings>,
}

/// How it went; `error` says why it was not received.
#[derive(Debug)]
pub struct Sent {
    pub status: Option<u16>,
    pub retry_after: Option<Duration>,
    pub error: Option<String>,
}

impl Sender {
    /// # Errors
    /// When the client can't be made.
    pub fn new(settings: Settings) -> reqwest::Result<Self> {
        let settings = Arc::new(settings);
        let client = Client::builder()
            .timeout(PATIENCE)
            .redirect(Policy::none())
            .no_proxy()
            .https_only(!settings.unencrypted)
            .dns_resolver(Arc::new(Public(settings.clone())))
            // Each connection is checked when it is made, and none is kept for the next.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("image-factory/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, settings })
    }

    /// Where the API tells of a build.
    pub fn link(&self, build: Uuid) -> Option<String> {
        let url = self.settings.external_url.as_ref()?;
        Some(format!("{url}/api/v1/builds/{build}"))
    }

    /// Sends a JSON body with these headers.
    pub async fn send(&self, url: &str, headers: &[(&'static str, String)], body: String) -> Sent {
        let not_sent = |error: String| Sent { status: None, retry_after: None, error: Some(error) };
        let url: Url = match url.parse() {
            Ok(url) => url,
            Err(error) => return not_sent(format!("it is no address: {error}")),
        };
        if url.scheme() != "https" && !self.settings.unencrypted {
            return not_sent(format!("{} is not encrypted, and this installation does not allow it", url.scheme()));
        }
        // A name is asked for when connecting; an address is connected to as it is.
        let literal = url.host_str().unwrap_or_default().trim_matches(['[', ']']).parse::<IpAddr>();
        if let Ok(address) = literal
            && !self.settings.ranges.admit(address)
        {
            return not_sent(NotPublic(address).to_string());
        }
        let request = self.client.post(url).header(CONTENT_TYPE, "application/json").body(body);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        match request.send().await {
            Ok(answer) => {
                let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
                let status = answer.status();
                Sent {
                    status: Some(status.as_u16()),
                    retry_after: retry_after.and_then(|text| notification::retry_after(text, clock::now())),
                    error: (!status.is_success()).then(|| format!("the receiver answered {}", status.as_u16())),
                }
            }
            Err(error) => not_sent(cause(&error.without_url())),
        }
    }
}

/// The innermost cause says what is wrong; those around it say that something is.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} seconds", PATIENCE.as_secs());
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[derive(Debug, thiserror::Error)]
#[error("{0} is no public address, and this installation does not allow it")]
struct NotPublic(IpAddr);

/// Finds the addresses of a name, all of which must be public.
struct Public(Arc<Settings>);

impl Resolve for Public {
    fn resolve(&self, name: Name) -> Resolving {
        let settings = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if let Some(address) = found.iter().find(|address| !settings.ranges.admit(address.ip())) {
                return Err(NotPublic(address.ip()).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
