//! Which Git repository and revision a Build may name: the address and the revision are text of a stranger that becomes
//! arguments of `git`, so only what is plainly an address or a name passes. The rules stand in the API's definition too,
//! where a Build is first refused by them; here they are asked again where the text is used.

mod refs;
mod ssh;
mod trouble;

use std::fmt;
use std::str::FromStr;

pub use refs::{Chosen, Reference, choose, patterns, references};
pub use ssh::{Call, call};
pub use trouble::{Trouble, trouble};

const MAX_URL_BYTES: usize = 2_048;
const MAX_REVISION_BYTES: usize = 255;

/// How a repository is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Https,
    Ssh,
    Http,
    Git,
}

impl Protocol {
    pub const ALL: [Self; 4] = [Self::Https, Self::Ssh, Self::Http, Self::Git];

    /// As it stands in an address.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Ssh => "ssh",
            Self::Http => "http",
            Self::Git => "git",
        }
    }

    /// Whether nobody on the way can read or change what is fetched. Those that can't say so need the operator's consent.
    pub const fn is_secure(self) -> bool {
        matches!(self, Self::Https | Self::Ssh)
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Ssh => 22,
            Self::Http => 80,
            Self::Git => 9418,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no protocol of Git that is known here: https, ssh, http or git")]
pub struct UnknownProtocol(pub String);

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        Self::ALL.into_iter().find(|protocol| protocol.as_str() == text).ok_or_else(|| UnknownProtocol(text.to_owned()))
    }
}

/// Why an address is refused; each reads on from the name of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlProblem {
    #[error("must be https://host/path, ssh://user@host/path or user@host:path")]
    Form,
    #[error(
        "must have no password in it, and over https no user either; put them into the Secret that credentialsSecret names"
    )]
    Credentials,
    #[error("must be at most 2048 bytes")]
    TooLong,
}

/// An address that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    text: String,
    protocol: Protocol,
    host: String,
    port: u16,
}

impl Url {
    pub fn parse(text: &str) -> Result<Self, UrlProblem> {
        if text.len() > MAX_URL_BYTES {
            return Err(UrlProblem::TooLong);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(UrlProblem::Form);
        }
        match text.split_once("://") {
            Some((scheme, rest)) => Self::with_scheme(text, scheme, rest),
            None => Self::like_scp(text),
        }
    }

    fn with_scheme(text: &str, scheme: &str, rest: &str) -> Result<Self, UrlProblem> {
        let protocol: Protocol = scheme.parse().map_err(|_| UrlProblem::Form)?;
        let (authority, path) = rest.split_once('/').ok_or(UrlProblem::Form)?;
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        let (host, port) = host_and_port(address).ok_or(UrlProblem::Form)?;
        if path.is_empty() {
            return Err(UrlProblem::Form);
        }
        match (protocol, user) {
            (_, None) => {}
            (Protocol::Ssh, Some(user)) if user.contains([':', '@']) => return Err(UrlProblem::Credentials),
            (Protocol::Ssh, Some(user)) if is_user(user) => {}
            (Protocol::Ssh, Some(_)) => return Err(UrlProblem::Form),
            // A token is often put where the user stands.
            (_, Some(_)) => return Err(UrlProblem::Credentials),
        }
        let port = port.unwrap_or_else(|| protocol.default_port());
        Ok(Self { text: text.to_owned(), protocol, host: host.to_ascii_lowercase(), port })
    }

    /// `user@host:path`, ssh without saying so.
    fn like_scp(text: &str) -> Result<Self, UrlProblem> {
        let (address, path) = text.split_once(':').ok_or(UrlProblem::Form)?;
        let host = match address.split_once('@') {
            Some((user, host)) if is_user(user) => host,
            Some(_) => return Err(UrlProblem::Form),
            None => address,
        };
        // `x::y` is for git "the helper x", and `a:b@c:d` a password.
        let first = path.strip_prefix('/').unwrap_or(path);
        let name = first.split('/').next().unwrap_or_default();
        let plain = name.starts_with(|first: char| first.is_ascii_alphanumeric() || matches!(first, '_' | '~' | '.'));
        if !is_host(host) || !plain || name.contains('@') {
            return Err(UrlProblem::Form);
        }
        let port = Protocol::Ssh.default_port();
        Ok(Self { text: text.to_owned(), protocol: Protocol::Ssh, host: host.to_ascii_lowercase(), port })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Where the same host is reached by HTTP: as the repository is, or over https where it is reached otherwise.
    pub fn web(&self) -> String {
        match self.protocol {
            Protocol::Https | Protocol::Http if self.port != self.protocol.default_port() => {
                format!("{}://{}:{}", self.protocol, self.host, self.port)
            }
            Protocol::Https | Protocol::Http => format!("{}://{}", self.protocol, self.host),
            Protocol::Ssh | Protocol::Git => format!("https://{}", self.host),
        }
    }

    /// What a credential for this address is bound to.
    pub fn origin(&self) -> Origin {
        Origin { protocol: self.protocol, host: self.host.clone(), port: self.port }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_user(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
        && text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
}

/// A name or an IPv4 address. It begins with a letter, digit or `_`: never with the `-` of an option.
fn is_host(text: &str) -> bool {
    is_user(text)
}

fn host_and_port(address: &str) -> Option<(&str, Option<u16>)> {
    let (host, rest) = if let Some(bracketed) = address.strip_prefix('[') {
        let (inside, rest) = bracketed.split_once(']')?;
        let is_address =
            inside.contains(':') && inside.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
        (is_address.then(|| &address[..inside.len() + 2])?, rest)
    } else {
        let end = address.find(':').unwrap_or(address.len());
        (Some(&address[..end]).filter(|host| is_host(host))?, &address[end..])
    };
    if rest.is_empty() {
        return Some((host, None));
    }
    let digits = rest.strip_prefix(':')?;
    if digits.is_empty() || digits.len() > 5 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let port: u16 = digits.parse().ok()?;
    (port > 0).then_some((host, Some(port)))
}

/// Scheme, host and port: a credential is shown to the one it is for, whatever a redirect or a submodule asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    protocol: Protocol,
    host: String,
    port: u16,
}

impl Origin {
    /// As git describes to a credential helper who asks: `protocol=https`, `host=git.example.com:8443`.
    pub fn asking(protocol: &str, host: &str) -> Option<Self> {
        let protocol: Protocol = protocol.parse().ok()?;
        let (host, port) = host_and_port(host)?;
        Some(Self { protocol, host: host.to_ascii_lowercase(), port: port.unwrap_or_else(|| protocol.default_port()) })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.protocol, self.host, self.port)
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not scheme://host:port")]
pub struct NoOrigin(String);

impl FromStr for Origin {
    type Err = NoOrigin;

    fn from_str(text: &str) -> Result<Self, NoOrigin> {
        text.split_once("://")
            .and_then(|(protocol, host)| Self::asking(protocol, host))
            .ok_or_else(|| NoOrigin(text.to_owned()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be a branch, a tag or a full commit id: at most 255 letters, digits and ._/+@- that start with a letter, digit or `_`, without `..` or `//` and not ending with `/` or `.lock`"
)]
pub struct RevisionProblem;

/// Whether a revision may be named to git: never an option, an expression or a path.
pub fn check_revision(text: &str) -> Result<(), RevisionProblem> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'/' | b'+' | b'@' | b'-');
    let fits = text.len() <= MAX_REVISION_BYTES
        && text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
        && text.bytes().all(allowed)
        && !text.contains("..")
        && !text.contains("@{")
        && !text.contains("//")
        && !text.ends_with('/')
        && text.strip_suffix(".lock").is_none();
    if fits { Ok(()) } else { Err(RevisionProblem) }
}

/// Whether a revision is a commit's full id, of SHA-1 or SHA-256.
pub fn is_commit(revision: &str) -> bool {
    matches!(revision.len(), 40 | 64)
        && revision.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
}

/// How a repository names its objects, by the id of one: as `git init --object-format` takes it.
pub fn object_format(id: &str) -> &'static str {
    if id.len() == 64 { "sha256" } else { "sha1" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_by_https_and_ssh_pass_with_what_a_credential_is_bound_to() {
        for (text, origin) in [
            ("https://git.example.com/shop/web.git", "https://git.example.com:443"),
            ("https://Git.Example.com:8443/shop/web", "https://git.example.com:8443"),
            ("https://[fd00::1]:3000/web.git", "https://[fd00::1]:3000"),
            ("https://git_server/~me/a%20b.git", "https://git_server:443"),
            ("http://10.245.0.1:3080/git/web.git", "http://10.245.0.1:3080"),
            ("git://mirror/web.git", "git://mirror:9418"),
            ("ssh://git@git.example.com/shop/web.git", "ssh://git.example.com:22"),
            ("ssh://git.example.com:2222/~/web.git", "ssh://git.example.com:2222"),
            ("git@git.example.com:shop/web.git", "ssh://git.example.com:22"),
            ("git.example.com:/srv/x@y.git", "ssh://git.example.com:22"),
        ] {
            let url = Url::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
            assert_eq!((url.as_str(), url.origin().to_string().as_str()), (text, origin));
            assert_eq!(origin.parse(), Ok(url.origin()));
        }
    }

    #[test]
    fn what_is_no_address_or_more_than_one_is_refused() {
        for text in [
            "",
            "/srv/git/web.git",
            "./web.git",
            "web.git",
            "file:///srv/git/web.git",
            "ftp://host/web.git",
            "HTTPS://host/web.git",
            "ext::sh -c id",
            "ext::sh",
            "https::host/web.git",
            "--upload-pack=touch:/tmp/x",
            "-oProxyCommand=id:web.git",
            "https://-host/web.git",
            "https:///web.git",
            "https://host",
            "https://host/",
            "https://host:/web.git",
            "https://host:0/web.git",
            "https://host:65536/web.git",
            "https://host:1:2/web.git",
            "https://[fd00::1/web.git",
            "https://[host]/web.git",
            "https://ho st/web.git",
            "https://host/a b",
            "https://host/a\nb",
            "https://höst/web.git",
            "ssh://-oProxyCommand=id/web.git",
            "ssh://git@-oProxyCommand=id/web.git",
            "ssh://-l@host/web.git",
            "ssh://@host/web.git",
            "-git@host:web.git",
            "git@-host:web.git",
            "git@host:-web.git",
            "git@host:",
            "git@host:/",
            "git@host://web.git",
            "git:word@host:web.git",
            "a/b:web.git",
            "git@[host:22]:web.git",
        ] {
            assert_eq!(Url::parse(text), Err(UrlProblem::Form), "{text:?}");
        }
        for text in [
            "https://user:password@host/web.git",
            "https://token@host/web.git",
            "https://:@host/web.git",
            "http://a@b@host/web.git",
            "ssh://git:password@host/web.git",
        ] {
            assert_eq!(Url::parse(text), Err(UrlProblem::Credentials), "{text:?}");
        }
        let at_limit = format!("https://host/{}", "p".repeat(2_048 - 13));
        assert!(Url::parse(&at_limit).is_ok());
        assert_eq!(Url::parse(&format!("{at_limit}p")), Err(UrlProblem::TooLong));
    }

    #[test]
    fn a_credential_is_for_one_scheme_host_and_port() {
        let origin = Url::parse("https://git.example.com/shop/web.git").expect("an address").origin();
        for (protocol, host, same) in [
            ("https", "git.example.com", true),
            ("https", "GIT.example.com:443", true),
            ("https", "git.example.com:8443", false),
            ("http", "git.example.com", false),
            ("http", "git.example.com:443", false),
            ("https", "git.example.com.evil.test", false),
            ("https", "evil.test", false),
            ("https", "git.example.com@evil.test", false),
            ("", "git.example.com", false),
            ("https", "", false),
        ] {
            assert_eq!(Origin::asking(protocol, host).as_ref() == Some(&origin), same, "{protocol} {host}");
        }
    }

    #[test]
    fn a_revision_is_a_name_and_nothing_that_git_would_interpret() {
        let longest = "r".repeat(255);
        for text in ["main", "release/1.2", "v1.0.0+build.7", "_x", "user@feature", "refs/pull/1/head", "1", &longest] {
            assert_eq!(check_revision(text), Ok(()), "{text:?}");
        }
        let (sha1, sha256, longer) = ("0f".repeat(20), "0f".repeat(32), "r".repeat(256));
        assert!(check_revision(&sha1).is_ok() && check_revision(&sha256).is_ok());
        assert!(is_commit(&sha1) && is_commit(&sha256));
        assert_eq!((object_format(&sha1), object_format(&sha256)), ("sha1", "sha256"));
        assert!(!is_commit(&"0F".repeat(20)) && !is_commit(&"0f".repeat(10)) && !is_commit(&"0g".repeat(20)));
        for text in [
            "",
            "--upload-pack=x",
            "-b",
            "/main",
            ".hidden",
            "@",
            "a..b",
            "main@{1}",
            "a//b",
            "a/",
            "a.lock",
            "a b",
            "a:b",
            "a^",
            "a~1",
            "a*",
            "a?",
            "a[b",
            "a\\b",
            "a\nb",
            "ä",
            &longer,
        ] {
            assert_eq!(check_revision(text), Err(RevisionProblem), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_taken_for_an_address_that_git_would_take_for_something_else(text in "[-a-z0-9:/@.\\[\\]%_~ ]{0,40}") {
            let Ok(url) = Url::parse(&text) else { return Ok(()) };
            prop_assert!(!text.starts_with(['-', '/', '.']));
            prop_assert!(!text.contains("::") || text.contains("://"), "a remote helper");
            prop_assert!(!text.contains(' '));
            let origin = url.origin().to_string();
            prop_assert!(!origin.contains("://-"));
            prop_assert_eq!(origin.parse(), Ok(url.origin()));
            if let Some((_, rest)) = text.split_once("://") {
                let authority = rest.split('/').next().unwrap_or_default();
                prop_assert!(authority.rsplit_once('@').is_none_or(|(user, _)| !user.contains(':')), "a password");
            }
        }

        #[test]
        fn an_accepted_revision_is_one_word_that_is_no_option(text in "\\PC{0,60}|[-a-zA-Z0-9._/+@{]{0,60}") {
            if check_revision(&text).is_ok() {
                prop_assert!(!text.starts_with('-') && !text.contains(char::is_whitespace));
                let special = ['*', '?', '[', '^', '~', ':', '\\', '{'];
                prop_assert!(!text.contains(special) && !text.contains(".."));
            }
        }
    }
}
