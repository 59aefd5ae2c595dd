//! What of an image's configuration looks like a secret, so that it is not copied into a database: its variables, its
//! labels, and the words of its entrypoint and command. All of it is public to whoever can pull the image; that is no
//! reason to spread a password that got into it.
//!
//! A value is hidden as a whole where its name says that it is a secret. Of any other text those parts are hidden that
//! have the form of one: a word with the prefix that issuers give their tokens, a signed web token, what is assigned to
//! a name as above (`Password=…;`, `?token=…&`, `"secret": "…"`), and the login of a URL, but for the user's name. A
//! text with a private key in it goes whole. All else stays: digests and versions, which images have many of, are no
//! secrets.

const MASK: &str = "***";

/// A variable `NAME=value` as it may be kept.
pub fn masked(variable: &str) -> String {
    match variable.split_once('=') {
        Some((name, value)) => format!("{name}={}", masked_value(name, value)),
        None => masked_text(variable),
    }
}

/// The value of a variable or label of this name as it may be kept.
pub fn masked_value(name: &str, value: &str) -> String {
    if !value.is_empty() && is_named_secret(name) { MASK.to_owned() } else { masked_text(value) }
}

/// The words of a command as they may be kept. What follows `--password` is one, too.
pub fn masked_command(words: &[String]) -> Vec<String> {
    let mut is_secret = false;
    let masked = words.iter().map(|word| {
        let is_flag = word.starts_with('-');
        let kept = if is_secret && !is_flag { MASK.to_owned() } else { masked_text(word) };
        is_secret = is_flag && !word.contains('=') && is_named_secret(word);
        kept
    });
    masked.collect()
}

fn masked_text(text: &str) -> String {
    if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") {
        return MASK.to_owned();
    }
    without_tokens(&without_assigned(&without_login(text)))
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
        || ["password", "passwd", "secret", "token", "apikey", "accesskey", "accountkey"]
            .iter()
            .any(|part| name.contains(part))
}

/// Whether a word has the form of a secret, whatever it is called.
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
    is_token || is_web_token(value)
}

/// A JSON Web Token: three parts of base64url, the first of which begins with `{"` (RFC 7519).
fn is_web_token(value: &str) -> bool {
    let parts: Vec<&str> = value.split('.').collect();
    let base64url = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    };
    parts.len() == 3 && value.starts_with("eyJ") && parts.into_iter().all(base64url)
}

const fn is_in_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.')
}

/// Text without the words that are secrets.
fn without_tokens(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_in_word) {
        let (before, from) = rest.split_at(start);
        let (word, after) = from.split_at(from.find(|character| !is_in_word(character)).unwrap_or(from.len()));
        let is_secret = is_secret(word.trim_matches(['-', '.']));
        kept.extend([before, if is_secret { MASK } else { word }]);
        rest = after;
    }
    kept + rest
}

/// Text without what is assigned to secrets: `name=value`, as in a command, a connection string or the query of a URL,
/// and `"name": value` of JSON.
fn without_assigned(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['=', ':']) {
        let (before, after) = rest.split_at(at + 1);
        kept.push_str(before);
        rest = after;
        let named = before[..at].trim_end_matches(' ');
        let named = if before.ends_with('=') { named } else { named.strip_suffix('"').unwrap_or_default() };
        let before_name = named.trim_end_matches(is_in_word);
        let name = &named[before_name.len()..];
        if !is_named_secret(name) {
            continue;
        }
        let value = after.trim_start_matches(' ');
        let length = if before_name.ends_with(['?', '&']) {
            value.find(|character: char| character.is_whitespace() || "&#\"'".contains(character))
        } else if let Some(quote) = value.chars().next().filter(|first| "\"'".contains(*first)) {
            closing(value, quote)
        } else if text.contains(';') {
            // A connection string: the value may have spaces.
            value.find(';')
        } else {
            value.find(char::is_whitespace)
        };
        let (value, following) = value.split_at(length.unwrap_or(value.len()));
        if !value.is_empty() {
            kept.push_str(MASK);
        }
        rest = following;
    }
    kept + rest
}

/// Where the text in quotes ends with which `text` begins; a backslash is before a quote that does not end it.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        if character == quote && !is_escaped {
            return Some(at + 1);
        }
        is_escaped = character == '\\' && !is_escaped;
    }
    None
}

/// Text whose URLs have no password, nor a user that is one: `scheme://user:password@host`.
fn without_login(text: &str) -> String {
    /// What is given as the password where the user is the secret.
    const NO_PASSWORD: &str = "x-oauth-basic";
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        kept.push_str(before);
        let end = after.find(|character: char| character.is_whitespace() || "/?#,\"'".contains(character));
        let (authority, following) = after.split_at(end.unwrap_or(after.len()));
        match authority.rsplit_once('@') {
            Some((login, host)) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                let is_secret = is_secret(user) || password == NO_PASSWORD;
                kept.push_str(if is_secret { MASK } else { user });
                match password {
                    "" | NO_PASSWORD => kept.push_str(&login[user.len()..]),
                    _ => kept.extend([":", MASK]),
                }
                kept.extend(["@", host]);
            }
            None => kept.push_str(authority),
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

    const TOKEN: &str = "ghp_0123456789abcdefghijklmnopqrstuvwxyz";

    #[test]
    fn a_secret_within_a_longer_text_goes_and_the_rest_stays() {
        for (text, expected) in [
            ("https://TOKEN@github.com/a/b", "https://***@github.com/a/b"),
            ("https://TOKEN:x-oauth-basic@github.com/a", "https://***:x-oauth-basic@github.com/a"),
            ("https://0123abcd:x-oauth-basic@github.com/a", "https://***:x-oauth-basic@github.com/a"),
            ("https://TOKEN:@github.com/a", "https://***:@github.com/a"),
            ("https://TOKEN:TOKEN@github.com/a", "https://***:***@github.com/a"),
            ("https://x-access-token:abc@github.com/a", "https://x-access-token:***@github.com/a"),
            ("Bearer TOKEN", "Bearer ***"),
            ("a,TOKEN;b", "a,***;b"),
            ("Authorization: token TOKEN.", "Authorization: token ***"),
            ("https://git.example/?private=TOKEN&a=b", "https://git.example/?private=***&a=b"),
            (
                "Server=db.example;User Id=shop;Password=hunter 2=;Encrypt=yes",
                "Server=db.example;User Id=shop;Password=***;Encrypt=yes",
            ),
            ("Server=db.example;Pwd=hunter 2", "Server=db.example;Pwd=***"),
            (
                "AccountName=shop;AccountKey=aGk=;EndpointSuffix=example",
                "AccountName=shop;AccountKey=***;EndpointSuffix=example",
            ),
            ("host=db.example password=hunter2 user=shop", "host=db.example password=*** user=shop"),
            ("host=db.example password = 'hunter \\' 2' user=shop", "host=db.example password =*** user=shop"),
            (
                "jdbc:postgresql://db.example/shop?user=shop&password=hunter2&ssl=true",
                "jdbc:postgresql://db.example/shop?user=shop&password=***&ssl=true",
            ),
            (r#"{"user":"shop","password": "hunter\"2","port":1}"#, r#"{"user":"shop","password":***,"port":1}"#),
            ("mysql --password=hunter2 --user=shop", "mysql --password=*** --user=shop"),
            ("Ünïcode password=ß", "Ünïcode password=***"),
            ("password= ", "password="),
            ("-Dfile.encoding=UTF-8 -Xmx1g", "-Dfile.encoding=UTF-8 -Xmx1g"),
            ("sha256:e3b0c44298fc1c149afbf4c8996fb924", "sha256:e3b0c44298fc1c149afbf4c8996fb924"),
            ("/usr/local/bin:/usr/bin", "/usr/local/bin:/usr/bin"),
            ("listen: 0.0.0.0:80; key: value", "listen: 0.0.0.0:80; key: value"),
        ] {
            let text = text.replace("TOKEN", TOKEN);
            assert_eq!(masked(&format!("A={text}")), format!("A={expected}"));
            assert_eq!(masked_value("org.example.a", &text), expected, "of a label");
            assert_eq!(masked_command(&["sh".to_owned(), text.clone()]), ["sh", expected], "of a command");
        }
    }

    #[test]
    fn a_label_whose_name_looks_secret_is_masked() {
        for (name, expected) in [
            ("org.example.api-key", "***"),
            ("org.example.deploy.token", "***"),
            ("org.opencontainers.image.authors", "plain"),
        ] {
            assert_eq!(masked_value(name, "plain"), expected, "{name}");
        }
    }

    #[test]
    fn what_a_flag_gives_as_a_password_is_masked() {
        for (command, expected) in [
            ("serve --password hunter2 --port 80", "serve --password *** --port 80"),
            ("serve --password=hunter2 --port 80", "serve --password=*** --port 80"),
            ("serve --auth --port 80", "serve --auth --port 80"),
            ("serve --auth-token hunter2", "serve --auth-token ***"),
            ("serve password hunter2", "serve password hunter2"),
            ("nginx -g daemon", "nginx -g daemon"),
        ] {
            let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
            assert_eq!(masked_command(&words).join(" "), expected);
        }
    }

    proptest! {
        #[test]
        fn a_password_in_a_url_never_stays(text in "[ -~]{0,20}", password in "[A-Za-z0-9]{8,20}") {
            let kept = masked(&format!("A={text} redis://u:{password}@host/0"));
            prop_assert!(!kept.contains(&format!(":{password}@")), "{kept}");
        }

        #[test]
        fn a_token_never_stays(before in "([ -~]{0,20}[ =:@/;,])?", after in "([ =:@/;,][ -~]{0,20})?") {
            let kept = masked_command(&[format!("{before}{TOKEN}{after}")]).concat();
            prop_assert!(!kept.contains(TOKEN), "{kept}");
        }

        #[test]
        fn any_text_can_be_masked(text in "([ -~é]|://|password|token|[=:;\"'@&?]){0,20}") {
            masked_command(&[text]);
        }

        #[test]
        fn any_variable_can_be_masked_and_keeps_its_name(name in "[A-Z_]{1,12}", value in any::<String>()) {
            let kept = masked(&format!("{name}={value}"));
            let beginning = format!("{name}=");
            prop_assert!(kept.starts_with(&beginning));
        }
    }
}
