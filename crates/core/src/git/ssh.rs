//! What git asks of ssh: which host and port it wants, and the command for it. Read before a key is offered to anybody,
//! so what is not plainly such a request is none.

use super::{Origin, Protocol, is_host, is_user};

/// One request of git's, as its arguments for ssh say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Who would be spoken to.
    pub origin: Origin,
    pub port: u16,
    /// `user@host`, or the host alone.
    pub destination: String,
    /// For the shell of the other side.
    pub command: String,
    /// Whether it tells the server which version of the protocol it speaks.
    pub tells_protocol: bool,
}

/// Reads `[-o SendEnv=GIT_PROTOCOL] [-p port] [user@]host command`.
pub fn call(arguments: &[String]) -> Option<Call> {
    let mut rest = arguments;
    let (mut port, mut tells_protocol) = (Protocol::Ssh.default_port(), false);
    while let [option, value, more @ ..] = rest {
        match option.as_str() {
            "-p" => port = value.parse().ok().filter(|port| *port > 0)?,
            "-o" if value == "SendEnv=GIT_PROTOCOL" => tells_protocol = true,
            _ => break,
        }
        rest = more;
    }
    let [destination, command] = rest else { return None };
    let host = match destination.rsplit_once('@') {
        Some((user, host)) => Some(host).filter(|_| is_user(user))?,
        None => destination,
    };
    // git takes the brackets from an IPv6 address.
    let host = if is_host(host) { host.to_owned() } else { format!("[{host}]") };
    let origin = Origin::asking(Protocol::Ssh.as_str(), &format!("{host}:{port}"))?;
    Some(Call { origin, port, destination: destination.clone(), command: command.clone(), tells_protocol })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::Url;

    fn called(arguments: &[&str]) -> Option<Call> {
        call(&arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn each_address_is_asked_for_as_what_its_credential_is_bound_to() {
        for (url, arguments) in [
            ("ssh://git@git.example.com/web.git", &["git@git.example.com"][..]),
            ("git@Git.Example.com:web.git", &["git@Git.Example.com"]),
            ("ssh://git.example.com:2222/web.git", &["-p", "2222", "git.example.com"]),
            ("ssh://git@[fd00::1]/web.git", &["git@fd00::1"]),
            ("ssh://git@[fd00::1]:2222/web.git", &["-o", "SendEnv=GIT_PROTOCOL", "-p", "2222", "git@fd00::1"]),
        ] {
            let call = called(&[arguments, &["git-upload-pack '/web.git'"]].concat()).expect(url);
            assert_eq!(call.origin, Url::parse(url).expect(url).origin(), "{url}");
            assert_eq!(arguments.last(), Some(&call.destination.as_str()));
            assert_eq!(
                (call.command.as_str(), call.tells_protocol),
                ("git-upload-pack '/web.git'", arguments.len() == 5)
            );
        }
    }

    #[test]
    fn what_is_no_request_of_gits_is_none() {
        for arguments in [
            &[][..],
            &["git@host"],
            &["git@host", "a", "b"],
            &["-p", "0", "git@host", "a"],
            &["-p", "65536", "git@host", "a"],
            &["-p", "22", "-oProxyCommand=id", "a"],
            &["-oProxyCommand=id", "git@host", "a"],
            &["-o", "ProxyCommand=id", "git@host", "a"],
            &["-J", "evil.test", "git@host", "a"],
            &["-lroot@host", "a"],
            &["git@-host", "a"],
            &["-git@host", "a"],
            &["git@evil@host", "a"],
            &["ssh://git@host", "a"],
            &["git@host]:22", "a"],
            &["", "a"],
        ] {
            assert_eq!(called(arguments), None, "{arguments:?}");
        }
    }
}
