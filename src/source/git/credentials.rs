//! The Secret of a Git source, as `prepare` finds it: a folder with a file a key. User and password reach git through a
//! credential helper, which is this program again and tells them to one scheme, host and port; a private key reaches ssh
//! as a file, for one host and port as well.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use image_factory_core::git::{Origin, Protocol, Url};

use super::{super::SourceError, Wanted};

const USERNAME: &str = "username";
const PASSWORD: &str = "password";
pub(super) const PRIVATE_KEY: &str = "ssh-privatekey";
pub(super) const KNOWN_HOSTS: &str = "known_hosts";
/// A Secret holds at most 1 MiB; a key or a list of hosts is far smaller.
const MAX_BYTES: u64 = 1024 * 1024;
/// Hiding a shorter one would blacken every line.
const MIN_HIDDEN_BYTES: usize = 4;

/// Where a Secret is mounted, and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub secret: String,
    pub folder: PathBuf,
}

impl Credentials {
    /// Whether the Secret has what this protocol needs; gives the values that must never be shown. It is mounted whether
    /// it exists or not, since the operator has no right to look.
    pub(super) fn check(&self, protocol: Protocol) -> Result<Vec<Vec<u8>>, SourceError> {
        if protocol == Protocol::Ssh {
            self.read(PRIVATE_KEY, "")?;
            self.read(KNOWN_HOSTS, ": add the server's host keys, which ssh-keyscan prints")?;
            return Ok(Vec::new());
        }
        self.read(USERNAME, ": any word will do for a server that wants only a token")?;
        let password = self.read(PASSWORD, "")?;
        Ok(Some(password).filter(|password| password.len() >= MIN_HIDDEN_BYTES).into_iter().collect())
    }

    fn read(&self, key: &str, remedy: &str) -> Result<Vec<u8>, SourceError> {
        let missing = |problem: String| SourceError::git("SecretNotFound", problem);
        let named = format!("Secret {:?}, which spec.source.git.credentialsSecret names,", self.secret);
        let value = match value(&self.folder, key) {
            Ok(Some(value)) => value,
            Ok(None) if is_empty(&self.folder) => {
                return Err(missing(format!("{named} does not exist in the Build's namespace, or is empty")));
            }
            Ok(None) => return Err(missing(format!("{named} has no key {key:?}{remedy}"))),
            Err(error) => return Err(SourceError::io("read the key of a Secret", &self.folder.join(key), error)),
        };
        if value.is_empty() {
            return Err(missing(format!("{named} has nothing in its key {key:?}{remedy}")));
        }
        if matches!(key, USERNAME | PASSWORD) && value.iter().any(|byte| matches!(byte, b'\n' | b'\r' | 0)) {
            return Err(missing(format!("{named} has more than one line in its key {key:?}")));
        }
        Ok(value)
    }
}

/// The entry of a mounted Secret, without the line break that an editor left at its end. It may be no UTF-8: a server
/// takes a password byte by byte.
fn value(folder: &Path, key: &str) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(folder.join(key)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut value = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut value)?;
    while value.pop_if(|last| matches!(last, b'\n' | b'\r')).is_some() {}
    Ok(Some(value))
}

/// The kubelet puts the links by which it renews a Secret, `..data` and the like, even where there is no Secret.
fn is_empty(folder: &Path) -> bool {
    let is_key = |entry: fs::DirEntry| !entry.file_name().as_encoded_bytes().starts_with(b"..");
    folder.read_dir().map_or(true, |entries| !entries.flatten().any(is_key))
}

/// What a credential helper answers to git's question; nothing unless it is asked for `origin`.
pub fn answer(origin: &Origin, folder: &Path, question: &str) -> Option<Vec<u8>> {
    let asked = |name: &str| question.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    if Origin::asking(asked("protocol")?, asked("host")?).as_ref() != Some(origin) {
        return None;
    }
    let username = value(folder, USERNAME).ok()??;
    let password = value(folder, PASSWORD).ok()??;
    Some([b"username=", &*username, b"\npassword=", &*password, b"\n"].concat())
}

/// The helper as git is configured with it; none for a protocol that knows no passwords.
pub(super) fn helper(wanted: &Wanted, url: &Url) -> Option<String> {
    let credentials = wanted.credentials.as_ref()?;
    let asks = matches!(url.protocol(), Protocol::Https | Protocol::Http);
    asks.then(|| {
        let (program, folder) = (quoted(&wanted.helper), quoted(&credentials.folder));
        format!("!{program} git-credential --origin={} --folder={folder}", quoted(Path::new(&url.origin().to_string())))
    })
}

/// One word for the shell.
pub(super) fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::super::super::scratch::Folder;
    use super::*;

    fn secret(entries: &[(&str, &str)]) -> (Folder, Credentials) {
        let folder = Folder::new();
        for (key, value) in entries {
            fs::write(folder.0.join(key), value).expect("writes");
        }
        let credentials = Credentials { secret: "git".into(), folder: folder.0.clone() };
        (folder, credentials)
    }

    #[test]
    fn a_missing_secret_or_key_is_named() {
        for (protocol, entries, sentence) in [
            (Protocol::Https, &[][..], "does not exist in the Build's namespace, or is empty"),
            (Protocol::Https, &[("..data", "")], "does not exist in the Build's namespace, or is empty"),
            (Protocol::Https, &[("password", "x")], "has no key \"username\": any word will do"),
            (Protocol::Https, &[("username", "x")], "has no key \"password\""),
            (Protocol::Https, &[("username", "x"), ("password", "\n")], "has nothing in its key \"password\""),
            (Protocol::Http, &[("username", "x"), ("password", "a\nhost=evil")], "has more than one line"),
            (Protocol::Ssh, &[("username", "x"), ("password", "y")], "has no key \"ssh-privatekey\""),
            (Protocol::Ssh, &[("ssh-privatekey", "k")], "has no key \"known_hosts\": add the server's host keys"),
        ] {
            let (_folder, credentials) = secret(entries);
            let error = credentials.check(protocol).expect_err(sentence);
            assert_eq!(error.reason(), "SecretNotFound");
            let text = error.to_string();
            assert!(text.starts_with("Secret \"git\", which spec.source.git.credentialsSecret names,"), "{text}");
            assert!(text.contains(sentence), "{text}");
        }
    }

    #[test]
    fn the_password_is_told_to_its_own_server_only() {
        let (_folder, credentials) = secret(&[("username", "builder\n"), ("password", "hunter22\r\n")]);
        assert_eq!(credentials.check(Protocol::Https).expect("is complete"), [b"hunter22"]);
        let origin: Origin = "https://git.example.com:443".parse().expect("an origin");
        let asked = |question: &str| answer(&origin, &credentials.folder, question);
        let told = Some(b"username=builder\npassword=hunter22\n".to_vec());
        assert_eq!(asked("protocol=https\nhost=git.example.com\npath=shop/web.git\n"), told);
        for question in [
            "",
            "protocol=https\n",
            "protocol=http\nhost=git.example.com\n",
            "protocol=https\nhost=git.example.com:8443\n",
            "protocol=https\nhost=evil.test\n",
        ] {
            assert_eq!(asked(question), None, "{question:?}");
        }
    }
}
