//! What git is given and what is shown of it.

use super::*;
use crate::source::scratch::Folder;

fn git(folder: &Folder) -> Command {
    let wanted = Wanted {
        url: "https://git.example.com/web.git".to_owned(),
        revision: None,
        depth: 1,
        submodules: false,
        insecure_protocols: Vec::new(),
        credentials: None,
        authorities: None,
        helper: "/bin/image-factory".into(),
        deadline: Instant::now() + Duration::from_mins(1),
        max_bytes: 1024 * 1024,
    };
    Command::new(&folder.0, &wanted, &Url::parse(&wanted.url).expect("an address"), Vec::new())
}

#[test]
fn git_has_these_variables_and_no_others() {
    let folder = Folder::new();
    let environment = git(&folder).environment;
    let above = folder.0.parent().expect("a folder").display().to_string();
    let mut variables: Vec<_> =
        environment.iter().filter(|(name, _)| !name.starts_with("GIT_CONFIG_KEY_")).cloned().collect();
    variables.retain(|(name, _)| !name.starts_with("GIT_CONFIG_VALUE_"));
    let expected = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/nonexistent"),
        ("LC_ALL", "C"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_ATTR_NOSYSTEM", "1"),
        ("GIT_CEILING_DIRECTORIES", &above),
        ("GIT_ALLOW_PROTOCOL", "https:ssh"),
        ("GIT_SSH_VARIANT", "ssh"),
        ("GIT_SSH_COMMAND", "'/bin/image-factory' git-ssh --origin='https://git.example.com:443' --"),
        ("GIT_CONFIG_COUNT", "16"),
    ];
    assert_eq!(variables, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn what_a_repository_is_set_up_with_starts_nothing() {
    let folder = Folder::new();
    let git = git(&folder);
    let run = |argv: &[&str]| git.capture(argv).unwrap_or_else(|failure| panic!("{argv:?}: {failure:?}"));
    run(&["init", "--quiet", "--template=", "--", "."]);
    let (mark, hooks) = (folder.0.join("mark"), folder.0.join(".git/hooks"));
    let program = hooks.join("post-checkout");
    fs::create_dir(&hooks).expect("makes the folder");
    fs::write(&program, format!("#!/bin/sh\ntouch '{}'\n", mark.display())).expect("writes");
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("is a program");
    run(&["config", "core.fsmonitor", &program.display().to_string()]);
    run(&["config", "core.hooksPath", &hooks.display().to_string()]);
    run(&["-c", "user.name=a", "-c", "user.email=b", "commit", "--quiet", "--allow-empty", "--message=first"]);
    run(&["checkout", "--quiet", "--force", "--detach", "HEAD", "--"]);
    run(&["status"]);
    assert!(!mark.exists(), "a program of the repository was run");
    // git alone would have run it.
    let alone =
        process::Command::new("git").args(["checkout", "--quiet", "HEAD", "--"]).current_dir(&folder.0).status();
    assert!(alone.expect("git runs").success() && mark.exists());
}

#[test]
fn no_password_is_ever_shown() {
    let hidden = vec![b"hunter22".to_vec(), b"S\xfc\xdfmost".to_vec()];
    for (line, expected) in [
        ("remote: your password hunter22 is weak", "remote: your password *** is weak"),
        ("Cloning 'https://me:word@host/x.git'...", "Cloning 'https://***@host/x.git'..."),
        ("From https://token@host:8443/a and http://b/c@d", "From https://***@host:8443/a and http://b/c@d"),
        ("ssh://git@host/x, ssh://git:word@host/y", "ssh://git@host/x, ssh://***@host/y"),
        ("fatal: a@b://", "fatal: a@b://"),
        ("nothing to hide", "nothing to hide"),
    ] {
        assert_eq!(shown(line.as_bytes(), &hidden), expected);
    }
    assert_eq!(shown(b"remote: S\xfc\xdfmost or S\xfcss?", &hidden), "remote: *** or S\u{fffd}ss?");
}

#[test]
fn lines_end_where_progress_would_overwrite_them_and_where_they_are_too_long() {
    let mut lines = Vec::new();
    each_line(&b"one\rtwo\r\n\nthree"[..], |line| lines.push(line.to_vec()));
    assert_eq!(lines, [&b"one"[..], b"two", b"three"]);
    let mut lengths = Vec::new();
    each_line(&vec![b'x'; 2 * MAX_LINE_BYTES + 1][..], |line| lengths.push(line.len()));
    assert_eq!(lengths, [MAX_LINE_BYTES, MAX_LINE_BYTES, 1]);
}
