//! The heads of a repository's branches, as a look at them finds them: which of them count, how a Pod says them in its
//! log, and what has moved since the look before. A move is an event as a push is one, so that the same rules decide.

use std::collections::BTreeMap;

use super::{Event, glob};
use crate::git;

/// Branches and their commits.
pub type Heads = BTreeMap<String, String>;

/// Branches that one webhook may look at.
pub const MOST: usize = 1_000;
/// As a Build's revision.
const MAX_NAME: usize = 255;
/// Bytes of a log in which [`MOST`] heads surely have room.
pub const MAX_BYTES: usize = 512 * 1_024;

const HEAD: &str = "head ";
const END: &str = "heads ";

/// So many branches fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} branches fit spec.branches, and at most {MOST} can be looked at: name fewer in spec.branches")]
pub struct TooMany(pub usize);

/// The log does not hold all heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to read the heads: the log of the look at them is not whole")]
pub struct NotWhole;

/// Those heads of a listing by `git ls-remote` that are branches and fit one of the patterns; without patterns all.
///
/// # Errors
/// When there are too many.
pub fn chosen(references: &[git::Reference], patterns: &[String]) -> Result<Heads, TooMany> {
    let heads: Heads = references
        .iter()
        .filter(|reference| git::is_commit(&reference.object))
        .filter_map(|reference| Some((reference.name.strip_prefix("refs/heads/")?, &reference.object)))
        .filter(|(branch, _)| {
            is_name(branch) && (patterns.is_empty() || patterns.iter().any(|one| glob::fits(one, branch)))
        })
        .map(|(branch, commit)| (branch.to_owned(), commit.clone()))
        .collect();
    if heads.len() > MOST { Err(TooMany(heads.len())) } else { Ok(heads) }
}

/// What can't be the name of a branch would break the log.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME
        && !text.contains(|letter: char| letter.is_whitespace() || letter.is_control())
}

/// The heads as lines of a log; the last says how many there are.
pub fn written(heads: &Heads) -> String {
    let mut lines: Vec<String> = heads.iter().map(|(branch, commit)| format!("{HEAD}{commit} {branch}\n")).collect();
    lines.push(format!("{END}{}\n", heads.len()));
    lines.concat()
}

/// The heads that a log holds, beside whatever else git has said in it.
///
/// # Errors
/// When not all of them are there.
pub fn read(log: &str) -> Result<Heads, NotWhole> {
    let mut heads = Heads::new();
    for line in log.lines() {
        if let Some(head) = line.strip_prefix(HEAD) {
            let (commit, branch) = head.split_once(' ').ok_or(NotWhole)?;
            if !git::is_commit(commit) || !is_name(branch) {
                return Err(NotWhole);
            }
            heads.insert(branch.to_owned(), commit.to_owned());
        } else if let Some(number) = line.strip_prefix(END) {
            return if number.parse() == Ok(heads.len()) && heads.len() <= MOST { Ok(heads) } else { Err(NotWhole) };
        }
    }
    Err(NotWhole)
}

/// What has moved between two looks, each as the push that it came from. A branch that is gone is none.
pub fn moved(before: &Heads, now: &Heads, repository: Option<&str>) -> Vec<Event> {
    now.iter()
        .filter(|(branch, commit)| before.get(*branch) != Some(commit))
        .map(|(branch, commit)| Event {
            repository: repository.map(str::to_owned),
            ..Event::push(Some(format!("refs/heads/{branch}")), before.get(branch).cloned(), Some(commit.clone()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trigger::{GitEvent, Rules, decide};

    const OLD: &str = "1111111111111111111111111111111111111111";
    const NEW: &str = "2222222222222222222222222222222222222222";

    fn heads(list: &[(&str, &str)]) -> Heads {
        list.iter().map(|(branch, commit)| ((*branch).to_owned(), (*commit).to_owned())).collect()
    }

    fn listing(lines: &[(&str, &str)]) -> Vec<git::Reference> {
        let lines: Vec<String> = lines.iter().map(|(object, name)| format!("{object}\t{name}\n")).collect();
        git::references(&lines.concat())
    }

    #[test]
    fn only_branches_that_fit_count() {
        let listed = listing(&[
            (OLD, "refs/heads/main"),
            (NEW, "refs/heads/release/1"),
            (NEW, "refs/tags/v1"),
            (NEW, "refs/heads/side"),
            ("no commit", "refs/heads/odd"),
        ]);
        assert_eq!(chosen(&listed, &[]), Ok(heads(&[("main", OLD), ("release/1", NEW), ("side", NEW)])));
        let patterns = ["main".to_owned(), "release/*".to_owned()];
        assert_eq!(chosen(&listed, &patterns), Ok(heads(&[("main", OLD), ("release/1", NEW)])));
        let many: Vec<git::Reference> = (0..=MOST)
            .map(|number| git::Reference { object: OLD.to_owned(), name: format!("refs/heads/b{number}") })
            .collect();
        assert_eq!(chosen(&many, &[]), Err(TooMany(MOST + 1)));
        assert_eq!(chosen(&many, &["b1".to_owned()]), Ok(heads(&[("b1", OLD)])));
    }

    #[test]
    fn a_log_is_read_whole_or_not_at_all() {
        let some = heads(&[("main", OLD), ("side/graft", NEW)]);
        let log = format!("remote: welcome\n{}and more\n", written(&some));
        assert_eq!(read(&log), Ok(some));
        assert_eq!(read(&written(&Heads::new())), Ok(Heads::new()), "a repository may be empty");
        for log in [
            "",
            &format!("head {OLD} main\n"),
            &format!("head {OLD} main\nheads 2\n"),
            &format!("head {OLD} main\nhead {OLD}\nheads 1\n"),
            "head --upload-pack main\nheads 1\n",
            "heads many\n",
        ] {
            assert_eq!(read(log), Err(NotWhole), "{log}");
        }
    }

    #[test]
    fn what_has_moved_is_a_push_and_what_is_gone_is_nothing() {
        let (before, now) = (
            heads(&[("main", OLD), ("gone", OLD), ("same", OLD)]),
            heads(&[("main", NEW), ("new", OLD), ("same", OLD)]),
        );
        let moved = moved(&before, &now, Some("shop/web"));
        let told: Vec<_> = moved
            .iter()
            .map(|event| {
                (
                    event.kind,
                    event.git_ref.as_deref(),
                    event.branch.as_deref(),
                    event.before.as_deref(),
                    event.commit.as_deref(),
                )
            })
            .collect();
        let push = Some(GitEvent::Push);
        assert_eq!(
            told,
            [
                (push, Some("refs/heads/main"), Some("main"), Some(OLD), Some(NEW)),
                (push, Some("refs/heads/new"), Some("new"), None, Some(OLD)),
            ]
        );
        let rules = Rules {
            events: &[],
            branches: &[],
            paths: &["src/**".to_owned()],
            repository: "shop/web",
            auto_build: true,
        };
        assert_eq!(decide(&moved[0], rules, false).as_deref(), Ok(NEW), "which paths have changed it does not know");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(heads in prop::collection::btree_map("[a-zß/._-]{1,60}", "[0-9a-f]{40}", 0..20)) {
            prop_assert_eq!(read(&written(&heads)), Ok(heads));
        }

        #[test]
        fn no_log_breaks_the_reader(log in "(head [0-9a-f]{40} a\n|heads [0-9]\n|.*\n){0,6}") {
            let _ = read(&log);
        }
    }

    #[test]
    fn the_most_heads_have_room_in_a_log() {
        let longest: Heads = (0..MOST).map(|number| (format!("{number:0>MAX_NAME$}"), "a".repeat(64))).collect();
        assert!(written(&longest).len() < MAX_BYTES);
    }
}
