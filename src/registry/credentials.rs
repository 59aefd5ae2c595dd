//! Which login of a Docker `config.json` is for a registry. A login is bound to the exact host and port it was written
//! for: another port, a longer name that begins alike or a subdomain is another registry, and gets nothing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image_factory_core::reference::registry_name;
use serde::Deserialize;
use std::collections::BTreeMap;

use super::RegistryError;

/// No Debug: it must not reach a log.
#[derive(Clone)]
pub struct Login {
    pub username: String,
    pub password: String,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// The login for `registry` (`host` or `host:port`), none where the document has none for it. Errors never repeat what the
/// document says.
pub fn login_for(document: &[u8], registry: &str) -> Result<Option<Login>, RegistryError> {
    let config: Config = serde_json::from_slice(document).map_err(|error| {
        RegistryError::Credentials(format!(
            "failed to read the push credentials: config.json is malformed at line {}, column {}",
            error.line(),
            error.column()
        ))
    })?;
    let Some(entry) = config.auths.iter().find(|(key, _)| is_for(key, registry)).map(|(_, entry)| entry) else {
        return Ok(None);
    };
    if entry.auth.is_empty() {
        let login = Login { username: entry.username.clone(), password: entry.password.clone() };
        return Ok((!login.username.is_empty()).then_some(login));
    }
    let decoded = STANDARD.decode(entry.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
    let (username, password) = pair.ok_or_else(|| {
        RegistryError::Credentials(format!(
            "failed to read the push credentials: the entry for {registry} is not base64 of user:password"
        ))
    })?;
    Ok(Some(Login { username: username.to_owned(), password: password.to_owned() }))
}

/// Keys are written as `host:port`, or as the URL that `docker login` of old wrote.
fn is_for(key: &str, registry: &str) -> bool {
    let host = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let host = ["/v1/", "/v2/", "/v1", "/v2", "/"].iter().find_map(|end| host.strip_suffix(end)).unwrap_or(host);
    host.eq_ignore_ascii_case(registry) || registry_name(host) == registry_name(registry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(key: &str, registry: &str) -> Option<(String, String)> {
        let document = serde_json::json!({"auths": {key: {"auth": STANDARD.encode("robot:p:ss")}}}).to_string();
        let login = login_for(document.as_bytes(), registry).expect("reads");
        login.map(|login| (login.username, login.password))
    }

    #[test]
    fn a_login_is_for_its_exact_host_and_port() {
        for (key, registry) in [
            ("reg.example", "reg.example"),
            ("reg.example:5000", "reg.example:5000"),
            ("https://reg.example/v2/", "reg.example"),
            ("https://reg.example:5000", "reg.example:5000"),
            ("Reg.Example", "reg.example"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "index.docker.io"),
        ] {
            assert_eq!(found(key, registry), Some(("robot".into(), "p:ss".into())), "{key} for {registry}");
        }
        for (key, registry) in [
            ("reg.example", "reg.example:5000"),
            ("reg.example:5000", "reg.example"),
            ("reg.example:500", "reg.example:5000"),
            ("reg.example", "reg.example.evil.example"),
            ("reg.example.evil.example", "reg.example"),
            ("example", "reg.example"),
            ("reg.example/shop", "reg.example"),
            ("https://user@reg.example", "reg.example"),
        ] {
            assert_eq!(found(key, registry), None, "{key} for {registry}");
        }
    }

    #[test]
    fn user_and_password_may_stand_apart() {
        let document = br#"{"auths": {"reg.example": {"username": "robot", "password": "secret"}}}"#;
        let login = login_for(document, "reg.example").expect("reads").expect("is there");
        assert_eq!((login.username.as_str(), login.password.as_str()), ("robot", "secret"));
        assert!(login_for(br#"{"auths": {"reg.example": {}}}"#, "reg.example").expect("reads").is_none());
        assert!(login_for(b"{}", "reg.example").expect("reads").is_none());
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        for document in [r#"{"auths": "hunter2"}"#, r#"{"auths": {"reg.example": {"auth": "hunter2"}}}"#, "hunter2"] {
            let Err(error) = login_for(document.as_bytes(), "reg.example") else { unreachable!("{document}") };
            assert_eq!(error.reason(), "PushDenied");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
