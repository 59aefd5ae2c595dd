//! What went wrong, from the lines git printed: its exit code says only that something did. Lines are those of git, of
//! the ssh it runs and of the server behind it, with `LC_ALL=C`.

/// What a failed command of git means to who named the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The server wants a credential, or refused the one it was given.
    Denied,
    /// The server's host key is not among those known.
    UnknownHostKey,
    /// The server's certificate is not signed by an authority that is trusted, or is not for its name, or is over.
    UntrustedCertificate,
    /// ssh could not read the private key.
    UnreadableKey,
    /// No such host, or no such repository on it.
    NotFound,
    /// The repository has no such reference or commit.
    NoRevision,
    /// The server gives commits only by a reference's name.
    OnlyReferences,
    /// The address, or a submodule's, is of a protocol that is not allowed.
    ForbiddenProtocol,
    /// The server did not answer, or answered with an error of its own.
    Unavailable,
    Other,
}

/// The marks of each trouble, the more telling first: a refused login also ends with "could not read from remote
/// repository".
const MARKS: &[(Trouble, &[&str])] = &[
    (Trouble::ForbiddenProtocol, &["transport '", "not allowed"]),
    (Trouble::UnknownHostKey, &["host key verification failed"]),
    (Trouble::UntrustedCertificate, &["ssl certificate"]),
    (Trouble::UntrustedCertificate, &["certificate verification failed"]),
    (Trouble::UntrustedCertificate, &["certificate subject name", "does not match"]),
    (Trouble::UnreadableKey, &["load key "]),
    // Said by ourselves, in place of ssh.
    (Trouble::Denied, &["the credentials of this source are for", " alone, not for "]),
    (Trouble::Denied, &["permission denied (publickey"]),
    (Trouble::Denied, &["permission denied, please try again"]),
    (Trouble::Denied, &["authentication failed"]),
    (Trouble::Denied, &["could not read username"]),
    (Trouble::Denied, &["could not read password"]),
    (Trouble::Denied, &["returned error: 401"]),
    (Trouble::Denied, &["returned error: 403"]),
    (Trouble::NotFound, &["could not resolve host"]),
    (Trouble::NotFound, &["repository", "not found"]),
    (Trouble::NotFound, &["returned error: 404"]),
    (Trouble::NotFound, &["returned error: 410"]),
    (Trouble::NotFound, &["does not appear to be a git repository"]),
    (Trouble::NotFound, &["not valid: is this a git repository"]),
    (Trouble::NotFound, &["repository not exported"]),
    (Trouble::OnlyReferences, &["does not allow request for unadvertised object"]),
    (Trouble::NoRevision, &["couldn't find remote ref"]),
    (Trouble::NoRevision, &["not our ref"]),
    (Trouble::NoRevision, &["no such remote ref"]),
    // Its ids are of another hash than the one that was asked for.
    (Trouble::NoRevision, &["mismatched algorithms"]),
    (Trouble::NoRevision, &["protocol error: expected sha/ref"]),
    (Trouble::NoRevision, &["does not support this repository's object format"]),
    (Trouble::Unavailable, &["returned error: 5"]),
    (Trouble::Unavailable, &["returned error: 429"]),
    (Trouble::Unavailable, &["failed to connect"]),
    (Trouble::Unavailable, &["couldn't connect"]),
    (Trouble::Unavailable, &["connection refused"]),
    (Trouble::Unavailable, &["connection reset"]),
    (Trouble::Unavailable, &["connection timed out"]),
    (Trouble::Unavailable, &["connection closed"]),
    (Trouble::Unavailable, &["operation timed out"]),
    (Trouble::Unavailable, &["operation too slow"]),
    (Trouble::Unavailable, &["no route to host"]),
    (Trouble::Unavailable, &["network is unreachable"]),
    (Trouble::Unavailable, &["ssl_connect"]),
    (Trouble::Unavailable, &["empty reply from server"]),
    (Trouble::Unavailable, &["early eof"]),
    (Trouble::Unavailable, &["hung up unexpectedly"]),
    (Trouble::Unavailable, &["rpc failed"]),
];

/// The most telling trouble of all lines, and the line that tells it. Of lines that tell none it is the last that names
/// itself an error.
pub fn trouble(lines: &[String]) -> (Trouble, &str) {
    let lowered: Vec<String> = lines.iter().map(|line| line.to_lowercase()).collect();
    let telling = |words: &[&str]| lowered.iter().position(|line| words.iter().all(|word| line.contains(word)));
    if let Some((trouble, at)) = MARKS.iter().find_map(|(trouble, words)| Some((*trouble, telling(words)?))) {
        return (trouble, lines[at].trim());
    }
    let error = lowered.iter().rposition(|line| line.contains("fatal:") || line.contains("error:"));
    let last = error.or_else(|| lowered.iter().rposition(|line| !line.trim().is_empty()));
    (Trouble::Other, last.map_or("", |at| lines[at].trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_ssh_and_servers_print_is_understood() {
        for (lines, expected) in [
            (&["fatal: could not read Username for 'https://host': terminal prompts disabled"][..], Trouble::Denied),
            (&["fatal: Authentication failed for 'https://host/web.git/'"], Trouble::Denied),
            (
                &["fatal: unable to access 'https://host/web.git/': The requested URL returned error: 403"],
                Trouble::Denied,
            ),
            (
                &["git@host: Permission denied (publickey,password).", "fatal: Could not read from remote repository."],
                Trouble::Denied,
            ),
            (
                &[
                    "Load key \"/key\": error in libcrypto",
                    "git@host: Permission denied (publickey).",
                    "fatal: Could not read from remote repository.",
                ],
                Trouble::UnreadableKey,
            ),
            (
                &[
                    "No ED25519 host key is known for host and you have requested strict checking.",
                    "Host key verification failed.",
                ],
                Trouble::UnknownHostKey,
            ),
            (&["remote: Repository not found.", "fatal: repository 'https://host/x/' not found"], Trouble::NotFound),
            (&["fatal: unable to access 'https://host/x/': Could not resolve host: host"], Trouble::NotFound),
            (
                &[
                    "ssh: Could not resolve hostname host: Name or service not known",
                    "fatal: Could not read from remote repository.",
                ],
                Trouble::NotFound,
            ),
            (&["fatal: '/srv/x.git' does not appear to be a git repository"], Trouble::NotFound),
            (&["ERROR: Repository not found."], Trouble::NotFound),
            (&["fatal: https://host/x/info/refs not valid: is this a git repository?"], Trouble::NotFound),
            (&["fatal: couldn't find remote ref refs/heads/x"], Trouble::NoRevision),
            (&["fatal: remote error: upload-pack: not our ref 0f0f"], Trouble::NoRevision),
            (&["fatal: mismatched algorithms: client sha256; server sha1"], Trouble::NoRevision),
            (&["fatal: protocol error: expected sha/ref, got '0f0f 0f0f'"], Trouble::NoRevision),
            (&["fatal: Server does not support this repository's object format"], Trouble::NoRevision),
            (
                &[
                    "the credentials of this source are for ssh://host:22 alone, not for ssh://other:22",
                    "fatal: Could not read from remote repository.",
                ],
                Trouble::Denied,
            ),
            (&["error: Server does not allow request for unadvertised object 0f0f"], Trouble::OnlyReferences),
            (&["fatal: transport 'file' not allowed"], Trouble::ForbiddenProtocol),
            (
                &["fatal: unable to access 'http://host/': Failed to connect to host port 80: Connection refused"],
                Trouble::Unavailable,
            ),
            (&["fatal: unable to access 'https://host/': The requested URL returned error: 502"], Trouble::Unavailable),
            (
                &[
                    "fatal: unable to access 'https://host/': SSL certificate problem: unable to get local issuer certificate",
                ],
                Trouble::UntrustedCertificate,
            ),
            (
                &[
                    "fatal: unable to access 'https://host/': server certificate verification failed. CAfile: none CRLfile: none",
                    "x",
                ],
                Trouble::UntrustedCertificate,
            ),
            (
                &[
                    "fatal: unable to access 'https://host/': SSL: certificate subject name (a) does not match target hostname 'host'",
                ],
                Trouble::UntrustedCertificate,
            ),
            (&["fatal: write error: No space left on device"], Trouble::Other),
            (&[], Trouble::Other),
        ] {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(trouble(&lines).0, expected, "{lines:?}");
        }
    }

    #[test]
    fn the_line_that_is_quoted_is_the_one_that_tells() {
        for (lines, quoted) in [
            (&["git@host: Permission denied (publickey).", "fatal: Could not read from remote repository."][..], 0),
            (&["remote: hello", "fatal: no space", "and then"], 1),
            (&["one", " two ", ""], 1),
        ] {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(trouble(&lines).1, lines[quoted].trim());
        }
        assert_eq!(trouble(&[]), (Trouble::Other, ""));
    }
}
