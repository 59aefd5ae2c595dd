//! Which of a repository's references a revision means, from what `git ls-remote --symref` lists. A name is a branch
//! before it is a tag; no revision is the branch that HEAD points to.

/// One line of the listing: an object and the name it has there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub object: String,
    pub name: String,
}

/// What to fetch, and how it is called in the build's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Full name of the reference.
    pub name: String,
    /// The branch or tag; none for another kind of reference.
    pub short: Option<String>,
    /// What it stands for now: a commit, or the tag of one.
    pub object: String,
}

const BRANCHES: &str = "refs/heads/";
const TAGS: &str = "refs/tags/";

/// The names that `ls-remote` is asked for.
pub fn patterns(revision: Option<&str>) -> Vec<String> {
    match revision {
        None | Some("HEAD") => vec!["HEAD".to_owned()],
        Some(name) if name.starts_with("refs/") => vec![name.to_owned()],
        Some(name) => vec![format!("{BRANCHES}{name}"), format!("{TAGS}{name}")],
    }
}

/// Reads the listing; `HEAD` carries the name of the branch it points to where the server tells.
pub fn references(listing: &str) -> Vec<Reference> {
    let mut found = Vec::new();
    let mut head = None;
    for line in listing.lines() {
        let Some((object, name)) = line.split_once('\t') else { continue };
        match object.strip_prefix("ref: ") {
            Some(target) if name == "HEAD" => head = Some(target.to_owned()),
            Some(_) => {}
            None => {
                let target = head.clone().filter(|_| name == "HEAD");
                found.push(Reference { object: object.to_owned(), name: target.unwrap_or_else(|| name.to_owned()) });
            }
        }
    }
    found
}

/// The reference that the revision means. The listing matches ends of names (`x/refs/heads/main` too), so each is
/// compared whole.
pub fn choose(revision: Option<&str>, references: &[Reference]) -> Option<Chosen> {
    let named = |name: &str| references.iter().find(|reference| reference.name == name);
    let Reference { object, name } = match revision {
        None | Some("HEAD") => {
            references.iter().find(|reference| reference.name.starts_with(BRANCHES) || reference.name == "HEAD")?
        }
        Some(revision) => patterns(Some(revision)).iter().find_map(|name| named(name))?,
    };
    let short = [BRANCHES, TAGS].into_iter().find_map(|prefix| name.strip_prefix(prefix)).map(str::to_owned);
    Some(Chosen { name: name.clone(), short, object: object.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(revision: Option<&str>, listing: &[&str]) -> Option<(String, Option<String>)> {
        choose(revision, &references(&listing.join("\n"))).map(|chosen| (chosen.name, chosen.short))
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is what `chosen` is compared with")]
    fn some(name: &str, short: Option<&str>) -> Option<(String, Option<String>)> {
        Some((name.to_owned(), short.map(str::to_owned)))
    }

    #[test]
    fn a_name_is_a_branch_before_a_tag_and_always_the_whole_name() {
        let both = ["1\trefs/heads/x/refs/heads/one", "2\trefs/heads/one", "3\trefs/tags/one", "4\trefs/tags/one^{}"];
        assert_eq!(chosen(Some("one"), &both), some("refs/heads/one", Some("one")));
        let object =
            |listing: &[&str]| choose(Some("one"), &references(&listing.join("\n"))).map(|chosen| chosen.object);
        assert_eq!((object(&both), object(&both[2..])), (Some("2".to_owned()), Some("3".to_owned())));
        assert_eq!(chosen(Some("one"), &both[2..]), some("refs/tags/one", Some("one")));
        assert_eq!(chosen(Some("one"), &both[..1]), None);
        assert_eq!(chosen(Some("refs/tags/one"), &both), some("refs/tags/one", Some("one")));
        let pull = ["5\trefs/pull/7/head"];
        assert_eq!(chosen(Some("refs/pull/7/head"), &pull), some("refs/pull/7/head", None));
        assert_eq!(chosen(Some("two"), &both), None);
    }

    #[test]
    fn no_revision_is_the_branch_that_head_points_to() {
        let listing = ["ref: refs/heads/trunk\tHEAD", "1\tHEAD"];
        assert_eq!(chosen(None, &listing), some("refs/heads/trunk", Some("trunk")));
        assert_eq!(chosen(Some("HEAD"), &listing), some("refs/heads/trunk", Some("trunk")));
        // A server that is too old to tell, or a HEAD that is no branch.
        assert_eq!(chosen(None, &listing[1..]), some("HEAD", None));
        assert_eq!(chosen(None, &[]), None);
    }

    #[test]
    fn the_names_asked_for_are_few() {
        assert_eq!(patterns(None), ["HEAD"]);
        assert_eq!(patterns(Some("v1")), ["refs/heads/v1", "refs/tags/v1"]);
        assert_eq!(patterns(Some("refs/pull/1/head")), ["refs/pull/1/head"]);
    }
}
