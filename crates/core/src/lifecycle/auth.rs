//! The logins of a Docker `config.json` in the form in which the lifecycle takes them from its environment:
//! `CNB_REGISTRY_AUTH`, a JSON object from a registry's host to an `Authorization` header.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::Refusal;
use crate::reference::{HUB, HUB_INDEX, registry_name};

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// The value of `CNB_REGISTRY_AUTH`. A key with a path below the host has no meaning to registries and is left out, as
/// it is where the push is confirmed.
///
/// # Errors
/// Where the document can't be read; what it says is never repeated.
pub fn registry_auth(document: &[u8]) -> Result<String, Refusal> {
    let config: Config = serde_json::from_slice(document).map_err(|error| {
        Refusal(format!(
            "spec.output.credentialsSecret: its config.json is malformed at line {}, column {}",
            error.line(),
            error.column()
        ))
    })?;
    let headers: BTreeMap<String, String> =
        config.auths.iter().filter_map(|(key, entry)| Some((host(key)?, header(entry)?))).collect();
    Ok(serde_json::json!(headers).to_string())
}

/// The host by which the lifecycle knows the registry.
fn host(key: &str) -> Option<String> {
    let host = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let host = ["/v1/", "/v2/", "/v1", "/v2", "/"].iter().find_map(|end| host.strip_suffix(end)).unwrap_or(host);
    match host {
        "" => None,
        host if registry_name(host) == HUB => Some(HUB_INDEX.to_owned()),
        host if host.contains(['/', '@']) => None,
        host => Some(host.to_ascii_lowercase()),
    }
}

fn header(entry: &Entry) -> Option<String> {
    if !entry.identitytoken.is_empty() {
        Some(format!("X-Identity {}", entry.identitytoken))
    } else if !entry.registrytoken.is_empty() {
        Some(format!("Bearer {}", entry.registrytoken))
    } else if !entry.auth.is_empty() {
        Some(format!("Basic {}", entry.auth.trim()))
    } else if !entry.username.is_empty() {
        Some(format!("Basic {}", STANDARD.encode(format!("{}:{}", entry.username, entry.password))))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(auths: &serde_json::Value) -> serde_json::Value {
        let text = registry_auth(serde_json::json!({"auths": auths}).to_string().as_bytes()).expect("reads");
        serde_json::from_str(&text).expect("is JSON")
    }

    #[test]
    fn every_kind_of_login_is_a_header_of_its_host() {
        let found = auth(&serde_json::json!({
            "registry.test:5000": {"auth": "cm9ib3Q6cA=="},
            "https://Registry.Test/v2/": {"username": "robot", "password": "p"},
            "https://index.docker.io/v1/": {"auth": "aHVi"},
            "token.test": {"identitytoken": "t", "auth": "aWdub3JlZA=="},
            "bearer.test": {"registrytoken": "b"},
            "registry.test/shop": {"auth": "cGF0aA=="},
            "empty.test": {},
        }));
        assert_eq!(
            found,
            serde_json::json!({
                "registry.test:5000": "Basic cm9ib3Q6cA==",
                "registry.test": "Basic cm9ib3Q6cA==",
                "index.docker.io": "Basic aHVi",
                "token.test": "X-Identity t",
                "bearer.test": "Bearer b",
            })
        );
        assert_eq!(auth(&serde_json::json!({"docker.io": {"auth": "aHVi"}}))["index.docker.io"], "Basic aHVi");
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        for document in [r#"{"auths": "hunter2"}"#, "hunter2"] {
            let refused = registry_auth(document.as_bytes()).expect_err("is refused").0;
            assert!(refused.contains("malformed") && !refused.contains("hunter2"), "{refused}");
        }
    }
}
