//! How a Git host is told the state of a commit's build: which request its API takes. The host is that of the source's
//! own address, never one that somebody delivered.

use serde_json::{Value, json};

use crate::{
    git::{self, Url},
    status::Status,
    trigger::Provider,
};

/// Hosts cut it, or refuse it.
const MAX_DESCRIPTION: usize = 140;

/// What is to be told.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// Of the source that was built.
    pub source: &'a str,
    /// Full name.
    pub repository: &'a str,
    pub commit: &'a str,
    /// Tells states of one commit apart.
    pub context: &'a str,
    pub status: Status,
    pub description: &'a str,
    /// Where more is told of it.
    pub link: Option<&'a str>,
}

/// A request that tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub url: String,
    /// The header that shows the token, and what stands before it there.
    pub token: (&'static str, &'static str),
    pub body: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("commit states can't be written at this provider")]
    Provider,
    #[error("the address of the source is none")]
    Source,
    #[error("the repository has no name that can be told")]
    Repository,
    #[error("there is no full commit id to tell of")]
    Commit,
}

/// The request for a provider.
///
/// # Errors
/// Why there is none.
pub fn request(provider: Provider, state: &State<'_>) -> Result<Request, Problem> {
    let State { source, repository, commit, context, status, description, link } = *state;
    let web = Url::parse(source).map_err(|_| Problem::Source)?.web();
    if !git::is_commit(commit) {
        return Err(Problem::Commit);
    }
    // It becomes a path.
    let is_plain = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    if !repository.split('/').all(is_plain) {
        return Err(Problem::Repository);
    }
    let description: String = description.chars().take(MAX_DESCRIPTION).collect();
    let body = |state: &str| {
        let mut body = json!({"state": state, "context": context, "description": description});
        if let Some(link) = link {
            body["target_url"] = json!(link);
        }
        body
    };
    let like_github = match status {
        Status::Queued | Status::InProgress => "pending",
        Status::Success => "success",
        Status::Failed => "failure",
        Status::Cancelled => "error",
    };
    match provider {
        Provider::Github => {
            let api =
                if web == "https://github.com" { "https://api.github.com".to_owned() } else { format!("{web}/api/v3") };
            Ok(Request {
                url: format!("{api}/repos/{repository}/statuses/{commit}"),
                token: ("authorization", "Bearer "),
                body: body(like_github),
            })
        }
        Provider::Gitea | Provider::Forgejo => Ok(Request {
            url: format!("{web}/api/v1/repos/{repository}/statuses/{commit}"),
            token: ("authorization", "token "),
            body: body(like_github),
        }),
        Provider::Gitlab => {
            let state = match status {
                Status::Queued => "pending",
                Status::InProgress => "running",
                Status::Success => "success",
                Status::Failed => "failed",
                Status::Cancelled => "canceled",
            };
            Ok(Request {
                url: format!("{web}/api/v4/projects/{}/statuses/{commit}", repository.replace('/', "%2F")),
                token: ("private-token", ""),
                body: body(state),
            })
        }
        Provider::Bitbucket | Provider::Generic => Err(Problem::Provider),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "6113728f27ae82c7b1a177c8d03f9e96e0adf246";

    fn state(source: &'static str, status: Status) -> State<'static> {
        State {
            source,
            repository: "shop/web",
            commit: COMMIT,
            context: "image-factory/web",
            status,
            description: "it waits",
            link: None,
        }
    }

    #[test]
    fn each_host_is_told_by_its_own_api() {
        for (provider, source, url) in [
            (Provider::Github, "https://github.com/shop/web.git", "https://api.github.com/repos/shop/web/statuses/"),
            (Provider::Github, "git@github.com:shop/web.git", "https://api.github.com/repos/shop/web/statuses/"),
            (
                Provider::Github,
                "https://git.example.com/shop/web",
                "https://git.example.com/api/v3/repos/shop/web/statuses/",
            ),
            (
                Provider::Gitlab,
                "https://gitlab.com/shop/web.git",
                "https://gitlab.com/api/v4/projects/shop%2Fweb/statuses/",
            ),
            (
                Provider::Gitea,
                "http://10.0.0.1:3000/shop/web.git",
                "http://10.0.0.1:3000/api/v1/repos/shop/web/statuses/",
            ),
            (
                Provider::Forgejo,
                "ssh://git@example.com:2222/shop/web",
                "https://example.com/api/v1/repos/shop/web/statuses/",
            ),
        ] {
            let request = request(provider, &state(source, Status::Queued)).unwrap();
            assert_eq!(request.url, format!("{url}{COMMIT}"));
            assert_eq!(
                request.body,
                json!({"state": "pending", "context": "image-factory/web", "description": "it waits"})
            );
        }
    }

    #[test]
    fn each_host_is_given_the_link_where_there_is_one() {
        for provider in [Provider::Github, Provider::Gitlab, Provider::Gitea, Provider::Forgejo] {
            let mut told = state("https://git.example.com/shop/web", Status::Failed);
            assert_eq!(request(provider, &told).unwrap().body.get("target_url"), None);
            told.link = Some("https://builds.example.com/api/v1/builds/1");
            assert_eq!(request(provider, &told).unwrap().body["target_url"], told.link.unwrap(), "{provider:?}");
        }
    }

    #[test]
    fn each_status_has_a_word_of_the_host() {
        let words = |provider| {
            Status::ALL.map(|status| {
                let request = request(provider, &state("https://git.example.com/shop/web", status)).unwrap();
                request.body["state"].as_str().unwrap().to_owned()
            })
        };
        assert_eq!(Status::ALL.map(Status::as_str), ["queued", "in_progress", "success", "failed", "cancelled"]);
        assert_eq!(words(Provider::Github), ["pending", "pending", "success", "failure", "error"]);
        assert_eq!(words(Provider::Gitea), words(Provider::Github));
        assert_eq!(words(Provider::Gitlab), ["pending", "running", "success", "failed", "canceled"]);
    }

    #[test]
    fn nothing_is_told_that_leads_elsewhere() {
        let right = state("https://github.com/shop/web", Status::Success);
        for (provider, state, problem) in [
            (Provider::Bitbucket, right, Problem::Provider),
            (Provider::Generic, right, Problem::Provider),
            (Provider::Github, State { source: "--upload-pack=x", ..right }, Problem::Source),
            (Provider::Github, State { commit: "main", ..right }, Problem::Commit),
            (Provider::Github, State { commit: &COMMIT[..12], ..right }, Problem::Commit),
            (Provider::Github, State { repository: "shop/../admin", ..right }, Problem::Repository),
            (Provider::Github, State { repository: "shop/web?x=", ..right }, Problem::Repository),
            (Provider::Github, State { repository: "", ..right }, Problem::Repository),
        ] {
            assert_eq!(request(provider, &state), Err(problem), "{state:?}");
        }
        let long = "x".repeat(1_000);
        let cut = request(Provider::Github, &State { description: &long, ..right }).unwrap();
        assert_eq!(cut.body["description"].as_str().map(str::len), Some(MAX_DESCRIPTION));
    }
}
