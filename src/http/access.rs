//! Who asks, and whether they may: the API server's answers to a TokenReview and to a
//! SubjectAccessReview for a verb on `builds`, kept for a minute. Nothing is decided here, and rights
//! are given in the cluster alone.
//!
//! A right is one in a namespace as it is now: with it comes the namespace's UID, by which rows are
//! looked up. So whoever reads a namespace that was made again sees nothing of the one before.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    core::v1::Namespace,
};
use kube::{Api, Client, api::PostParams};
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, time::timeout};

use super::{Served, refusal::Refusal};

/// For whom tokens can be made that are of no use anywhere else. One made for the API server counts too.
pub const AUDIENCE: &str = "image-factory";

const KEPT: Duration = Duration::from_mins(1);
/// A right that was just given, or a token that has just become valid, is not waited for as long.
const KEPT_REFUSAL: Duration = Duration::from_secs(5);
/// Answers kept of each kind.
const ANSWERS: usize = 4_096;
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions put to the API server at once; whoever waits for its turn often finds its answer there.
const AT_ONCE: usize = 8;
/// Longer than any token: with many groups, those of an identity provider reach some KiB.
const TOKEN_BYTES: usize = 64 * 1024;

const AWAY: Refusal = Refusal::Unavailable("the API server does not answer, so rights can't be checked; try again");

/// SHA-256 of a token: tokens themselves are not kept.
type TokenHash = [u8; 32];

/// An authenticated caller.
#[derive(Clone, Debug)]
pub struct Caller {
    token: TokenHash,
    user: Arc<UserInfo>,
}

/// `list` where many builds are asked for, `get` for one and all that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    List,
    Get,
}

impl Verb {
    const fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Get => "get",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Right {
    token: TokenHash,
    verb: Verb,
    namespace: String,
    name: Option<String>,
}

/// What a caller may read of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// `tenants.uid`.
    Tenant(String),
    NotAllowed,
    NoNamespace,
}

pub struct Access {
    client: Client,
    users: Kept<TokenHash, Option<Arc<UserInfo>>>,
    rights: Kept<Right, Answer>,
    turns: Semaphore,
}

impl Access {
    pub fn new(client: Client) -> Self {
        Self { client, users: Kept::default(), rights: Kept::default(), turns: Semaphore::new(AT_ONCE) }
    }

    /// # Errors
    /// A refusal for a token that is not valid, or where the API server does not answer.
    pub async fn caller(&self, token: &str) -> Result<Caller, Refusal> {
        let hash: TokenHash = Sha256::digest(token.as_bytes()).into();
        let lasts = |user: &Option<_>| if user.is_some() { KEPT } else { KEPT_REFUSAL };
        let user = self.answer(&self.users, hash, self.review(token), lasts).await?;
        let user = user.ok_or(Refusal::NotAuthenticated("the token is not valid, or no longer"))?;
        Ok(Caller { token: hash, user })
    }

    /// What is kept, else the API server's answer.
    async fn answer<K: Eq + Hash, V: Clone>(
        &self,
        kept: &Kept<K, V>,
        key: K,
        question: impl Future<Output = Result<V, kube::Error>>,
        lasts: impl Fn(&V) -> Duration,
    ) -> Result<V, Refusal> {
        if let Some(answer) = kept.get(&key) {
            return Ok(answer);
        }
        let _turn = self.turns.acquire().await;
        if let Some(answer) = kept.get(&key) {
            return Ok(answer);
        }
        let answer = answered(question).await?;
        kept.keep(key, answer.clone(), lasts(&answer));
        Ok(answer)
    }

    /// A token for the API server, else one for us.
    async fn review(&self, token: &str) -> Result<Option<Arc<UserInfo>>, kube::Error> {
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        for audience in [None, Some(AUDIENCE)] {
            let audiences = audience.map(|audience| vec![audience.to_owned()]);
            let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences };
            let review = TokenReview { spec, ..TokenReview::default() };
            let status = reviews.create(&PostParams::default(), &review).await?.status.unwrap_or_default();
            // An API server that knows nothing of audiences would leave them out.
            let for_us = audience
                .is_none_or(|audience| status.audiences.iter().flatten().any(|confirmed| confirmed == audience));
            if status.authenticated == Some(true) && for_us {
                return Ok(status.user.map(Arc::new));
            }
        }
        Ok(None)
    }

    /// The tenant's UID, where the caller has this right in the namespace.
    ///
    /// # Errors
    /// A refusal where it has not, where there is no such namespace, or where the API server does not
    /// answer.
    pub async fn tenant(
        &self,
        caller: &Caller,
        verb: Verb,
        namespace: &str,
        name: Option<&str>,
    ) -> Result<String, Refusal> {
        let right = Right { token: caller.token, verb, namespace: namespace.to_owned(), name: name.map(str::to_owned) };
        let lasts = |answer: &Answer| if matches!(answer, Answer::Tenant(_)) { KEPT } else { KEPT_REFUSAL };
        let answer = self.answer(&self.rights, right.clone(), self.ask(caller, &right), lasts).await?;
        match answer {
            Answer::Tenant(uid) => Ok(uid),
            Answer::NotAllowed => Err(Refusal::NotAllowed(format!(
                "{} may not {} builds in namespace {namespace}",
                caller.user.username.as_deref().unwrap_or("the caller"),
                verb.as_str()
            ))),
            Answer::NoNamespace => Err(Refusal::NotFound(format!("there is no namespace {namespace}"))),
        }
    }

    async fn ask(&self, caller: &Caller, right: &Right) -> Result<Answer, kube::Error> {
        let user = caller.user.as_ref();
        let spec = SubjectAccessReviewSpec {
            user: user.username.clone(),
            groups: user.groups.clone(),
            uid: user.uid.clone(),
            extra: user.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some("imagefactory.dev".to_owned()),
                resource: Some("builds".to_owned()),
                verb: Some(right.verb.as_str().to_owned()),
                namespace: Some(right.namespace.clone()),
                name: right.name.clone(),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let before = self.uid(&right.namespace).await?;
        let status = reviews.create(&PostParams::default(), &review).await?.status.unwrap_or_default();
        if !status.allowed {
            return Ok(Answer::NotAllowed);
        }
        // The right is one in this very namespace, and not in one of the same name before or after it.
        let after = self.uid(&right.namespace).await?;
        let same = if before == after { after } else { None };
        Ok(same.map_or(Answer::NoNamespace, Answer::Tenant))
    }

    async fn uid(&self, namespace: &str) -> Result<Option<String>, kube::Error> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        Ok(namespaces.get_metadata_opt(namespace).await?.and_then(|found| found.metadata.uid))
    }
}

async fn answered<T>(question: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Refusal> {
    match timeout(PATIENCE, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            tracing::warn!(%error, "rights could not be checked");
            Err(AWAY)
        }
        Err(_) => {
            tracing::warn!("rights could not be checked: the API server does not answer");
            Err(AWAY)
        }
    }
}

impl FromRequestParts<Served> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, served: &Served) -> Result<Self, Refusal> {
        const NO_TOKEN: Refusal =
            Refusal::NotAuthenticated("a token is needed, one that the cluster knows: Authorization: Bearer …");
        let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return Err(NO_TOKEN) };
        let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(NO_TOKEN)?;
        let token = token.trim();
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.len() > TOKEN_BYTES {
            return Err(NO_TOKEN);
        }
        served.access.caller(token).await
    }
}

/// Answers with the time until which they hold; never more than `ANSWERS` of them.
struct Kept<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Kept<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, value)| value.clone())
    }

    fn keep(&self, key: K, value: V, lifetime: Duration) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= ANSWERS {
            let now = Instant::now();
            kept.retain(|_, (until, _)| *until > now);
        }
        // Someone asks with ever new tokens: what is kept saves nothing then.
        if kept.len() >= ANSWERS {
            kept.clear();
        }
        kept.insert(key, (Instant::now() + lifetime, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_for_its_time_and_no_longer() {
        let kept = Kept::default();
        kept.keep("new", 1, KEPT);
        kept.keep("old", 2, Duration::ZERO);
        assert_eq!((kept.get(&"new"), kept.get(&"old"), kept.get(&"other")), (Some(1), None, None));
    }

    #[test]
    fn however_many_tokens_are_tried_what_is_kept_is_bounded() {
        let kept = Kept::default();
        for token in 0..3 * ANSWERS {
            kept.keep(token, (), KEPT);
        }
        assert!(kept.0.lock().unwrap().len() <= ANSWERS);
        assert_eq!(kept.get(&(3 * ANSWERS - 1)), Some(()));
    }
}
