//! Which variables of an image's environment look like secrets, so that their values are not copied into a database. An
//! image's environment is public to whoever can pull it; that is no reason to spread a password that got into it.
//!
//! A value is hidden as a whole where the variable's name says that it is a secret, or where the value has the form of
//! one: a token with the prefix its issuer gives it, a private key, a signed web token. Of a URL with a login in it only
//! the password is hidden. All else stays: digests and versions, which an image has many of, are no secrets.

const MASK: &str = "***";

/// `NAME=value` as it may be kept.
pub fn masked(variable: &str) -> String {
    match variable.split_once('=') {
        Some((name, value)) if !value.is_empty() && (is_named_secret(name) || is_secret(value)) => {
            format!("{name}={MASK}")
        }
        Some((name, value)) => format!("{name}={}", without_password(value)),
        None => variable.to_owned(),
    }
}

/// Whether one of the words of a variable's name says that its value is a secret.
fn is_named_secret(name: &str) -> bool {
    const WORDS: [&str; 12] = [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "credential",
        "credentials",
        "apikey",
        "auth",
        "pwd",
        "pass",
        "key",
    ];
    let name = name.to_ascii_lowercase();
    name.split(|character: char| !character.is_ascii_alphanumeric()).any(|word| WORDS.contains(&word))
        || ["password", "passwd", "secret", "token", "apikey"].iter().any(|part| name.contains(part))
}

/// Whether a value has the form of a secret, whatever it is called.
fn is_secret(value: &str) -> bool {
    /// What issuers let their tokens begin with so that they are found: GitHub, GitLab, Slack, npm, Docker Hub, PyPI,
    /// AWS access keys, Google API keys, Stripe, Hugging Face, HashiCorp Vault, DigitalOcean.
    const PREFIXES: [&str; 22] = [
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
        "ghr_",
        "github_pat_",
        "glpat-",
        "xoxb-",
        "xoxp-",
        "xoxa-",
        "npm_",
        "dckr_pat_",
        "pypi-",
        "AKIA",
        "ASIA",
        "AIza",
        "sk_live_",
        "rk_live_",
        "hf_",
        "hvs.",
        "dop_v1_",
        "whsec_",
    ];
    /// Shorter words that begin alike (`npm_config`) are no tokens.
    const LEAST_TOKEN_CHARACTERS: usize = 12;
    let is_token = PREFIXES.iter().filter_map(|prefix| value.strip_prefix(prefix)).any(|rest| {
        rest.len() >= LEAST_TOKEN_CHARACTERS
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
    });
    is_token || is_web_token(value) || (value.contains("-----BEGIN ") && value.contains("PRIVATE KEY-----"))
}

/// A JSON Web Token: three parts of base64url, the first of which begins with `{"` (RFC 7519).
fn is_web_token(value: &str) -> bool {
    let parts: Vec<&str> = value.split('.').collect();
    let base64url = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    parts.len() == 3 && value.starts_with("eyJ") && parts.into_iter().all(base64url)
}

/// `scheme://user:password@host` without the password, each that the value holds.
fn without_password(value: &str) -> String {
    let mut kept = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        kept.push_str(before);
        let end = after.find(|character: char| character.is_whitespace() || "/?#,\"'".contains(character));
        let (authority, following) = after.split_at(end.unwrap_or(after.len()));
        match authority.rsplit_once('@').and_then(|(login, host)| Some((login.split_once(':')?, host))) {
            Some(((user, password), host)) if !password.is_empty() => {
                kept.extend([user, ":", MASK, "@", host]);
            }
            _ => kept.push_str(authority),
        }
        rest = following;
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_whose_names_look_secret_are_masked() {
        for (variable, expected) in [
            ("DB_PASSWORD=hunter2", "DB_PASSWORD=***"),
            ("GITHUB_TOKEN=abc", "GITHUB_TOKEN=***"),
            ("npm_token=abc", "npm_token=***"),
            ("MYSECRET=x", "MYSECRET=***"),
            ("AWS_SECRET_ACCESS_KEY=a=b", "AWS_SECRET_ACCESS_KEY=***"),
            ("API_KEY=k", "API_KEY=***"),
            ("PATH=/usr/bin", "PATH=/usr/bin"),
            ("KEYBOARD=us", "KEYBOARD=us"),
            ("AUTHOR=team", "AUTHOR=team"),
            ("EMPTY_TOKEN=", "EMPTY_TOKEN="),
            ("no equals sign", "no equals sign"),
        ] {
            assert_eq!(masked(variable), expected);
        }
    }

    #[test]
    fn values_that_look_secret_are_masked_whatever_they_are_called() {
        for value in [
            "ghp_0123456789abcdefghijklmnopqrstuvwxyz",
            "glpat-0123456789abcdefghij",
            "AKIAIOSFODNN7EXAMPLE",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
            "hvs.CAESIJ0123456789",
        ] {
            assert_eq!(masked(&format!("HARMLESS={value}")), "HARMLESS=***", "{value}");
        }
        for value in [
            "npm_config",
            "3.14.0",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "AIR",
            "https://registry.example/ghp",
            "eyJ.a",
            "a.b.c",
        ] {
            assert_eq!(masked(&format!("HARMLESS={value}")), format!("HARMLESS={value}"));
        }
    }

    #[test]
    fn of_a_url_with_a_login_only_the_password_goes() {
        for (value, expected) in [
            ("postgres://shop:hunter2@db.example:5432/shop?a=b", "postgres://shop:***@db.example:5432/shop?a=b"),
            ("http://a:p@x, http://b:q@y/z", "http://a:***@x, http://b:***@y/z"),
            ("amqp://shop:p@ss@mq.example", "amqp://shop:***@mq.example"),
            ("https://user@git.example/a", "https://user@git.example/a"),
            ("https://:@host", "https://:@host"),
            ("https://proxy.example:3128", "https://proxy.example:3128"),
            ("https://docs.example/a:b@c", "https://docs.example/a:b@c"),
            ("://", "://"),
        ] {
            assert_eq!(masked(&format!("ADDRESS={value}")), format!("ADDRESS={expected}"));
        }
    }

    proptest! {
        #[test]
        fn a_password_in_a_url_never_stays(text in "[ -~]{0,20}", password in "[A-Za-z0-9]{8,20}") {
            let kept = masked(&format!("A={text} redis://u:{password}@host/0"));
            prop_assert!(!kept.contains(&format!(":{password}@")), "{kept}");
        }

        #[test]
        fn any_variable_can_be_masked_and_keeps_its_name(name in "[A-Z_]{1,12}", value in any::<String>()) {
            let kept = masked(&format!("{name}={value}"));
            let beginning = format!("{name}=");
            prop_assert!(kept.starts_with(&beginning));
        }
    }
}
