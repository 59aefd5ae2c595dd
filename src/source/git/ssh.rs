//! ssh for git: this program stands between the two, and lets no key be used but for the host and port that it is for,
//! whatever `known_hosts` has. A submodule or a link in a repository may name any.

use std::path::Path;

use image_factory_core::git::{Call, Origin, Protocol, Url, call};

use super::{
    Wanted,
    credentials::{KNOWN_HOSTS, PRIVATE_KEY, quoted},
};

/// The command as git is configured with it; a source that has no key is given one that lets nobody through.
pub(super) fn command(wanted: &Wanted, url: &Url) -> String {
    let credentials = wanted.credentials.as_ref().filter(|_| url.protocol() == Protocol::Ssh);
    let folder =
        credentials.map(|credentials| format!(" --folder={}", quoted(&credentials.folder))).unwrap_or_default();
    let origin = quoted(Path::new(&url.origin().to_string()));
    format!("{} git-ssh --origin={origin}{folder} --", quoted(&wanted.helper))
}

/// The arguments of ssh for what git asks, with the key in `folder`; a sentence where the credentials are not for it.
pub fn arguments(origin: &Origin, folder: Option<&Path>, asked: &[String]) -> Result<Vec<String>, String> {
    let call = call(asked).ok_or_else(|| format!("git asks ssh for what is not understood: {asked:?}"))?;
    match folder {
        Some(folder) if call.origin == *origin => Ok(of(&call, folder)),
        _ => {
            let other = &call.origin;
            Err(format!("the credentials of this source are for {origin} alone, not for {other}"))
        }
    }
}

/// ssh with nothing of its surroundings: one key, and only hosts that are known.
fn of(call: &Call, folder: &Path) -> Vec<String> {
    let mut arguments = vec!["-F".to_owned(), "/dev/null".to_owned()];
    let mut option = |name: &str, value: &str| arguments.extend(["-o".to_owned(), format!("{name}={value}")]);
    option("IdentityFile", &in_settings(&folder.join(PRIVATE_KEY)));
    option("IdentitiesOnly", "yes");
    option("IdentityAgent", "none");
    option("BatchMode", "yes");
    option("PreferredAuthentications", "publickey");
    option("StrictHostKeyChecking", "yes");
    option("UserKnownHostsFile", &in_settings(&folder.join(KNOWN_HOSTS)));
    option("GlobalKnownHostsFile", "/dev/null");
    option("UpdateHostKeys", "no");
    option("ConnectTimeout", "30");
    option("ServerAliveInterval", "15");
    option("ServerAliveCountMax", "4");
    if call.tells_protocol {
        option("SendEnv", "GIT_PROTOCOL");
    }
    arguments.extend(["-p".to_owned(), call.port.to_string(), "--".to_owned()]);
    arguments.extend([call.destination.clone(), call.command.clone()]);
    arguments
}

/// One word of ssh's settings, in which `%` stands for something.
fn in_settings(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(origin: &str, folder: Option<&str>, arguments: &[&str]) -> Result<Vec<String>, String> {
        let arguments_of_git: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        super::arguments(&origin.parse().expect("an origin"), folder.map(Path::new), &arguments_of_git)
    }

    #[test]
    fn a_key_is_for_one_host_and_port_and_a_source_without_one_reaches_nobody() {
        const SSH: &str = "ssh://git.example.com:22";
        let fetch = "git-upload-pack '/web.git'";
        let argv = asked(SSH, Some("/se cret"), &["-o", "SendEnv=GIT_PROTOCOL", "git@git.example.com", fetch]);
        let argv = argv.expect("it is for this host").join(" ");
        for part in ["IdentityFile=\"/se cret/ssh-privatekey\"", "UserKnownHostsFile=\"/se cret/known_hosts\""] {
            assert!(argv.contains(part), "{part}: {argv}");
        }
        assert!(
            argv.ends_with("-o SendEnv=GIT_PROTOCOL -p 22 -- git@git.example.com git-upload-pack '/web.git'"),
            "{argv}"
        );
        for (origin, folder, arguments) in [
            (SSH, Some("/secret"), &["-p", "2222", "git@git.example.com", fetch][..]),
            (SSH, Some("/secret"), &["git@evil.test", fetch]),
            (SSH, None, &["git@git.example.com", fetch]),
            ("https://git.example.com:443", None, &["git@git.example.com", fetch]),
            ("https://git.example.com:22", Some("/secret"), &["git@git.example.com", fetch]),
        ] {
            let sentence = asked(origin, folder, arguments).expect_err("it is for another");
            assert!(
                sentence.starts_with(&format!("the credentials of this source are for {origin} alone, not for ssh://"))
            );
        }
        assert!(asked(SSH, Some("/secret"), &["-oProxyCommand=id", "git@git.example.com", fetch]).is_err());
    }
}
