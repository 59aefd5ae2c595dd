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
};
use kube::{Api, Client, api::PostParams};
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, time::timeout};

use super::{Served, refusal::Refusal};
use crate::kube_ext;

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
/// Of tokens that were not valid lately, beside those: anybody can make up as many as they like.
const AT_ONCE_OF_STRANGERS: usize = 2;
/// How long a token is known that was valid.
const KNOWN: Duration = Duration::from_hours(1);
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
    users: Kept<TokenHash, Arc<UserInfo>>,
    /// Tokens that are not valid, kept apart: they push out nobody.
    refused: Kept<TokenHash, ()>,
    /// Tokens that were valid lately.
    known: Kept<TokenHash, ()>,
    rights: Kept<Right, Answer>,
    turns: Semaphore,
    turns_of_strangers: Semaphore,
}

impl Access {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            users: Kept::default(),
            refused: Kept::default(),
            known: Kept::default(),
            rights: Kept::default(),
            turns: Semaphore::new(AT_ONCE),
            turns_of_strangers: Semaphore::new(AT_ONCE_OF_STRANGERS),
        }
    }

    /// # Errors
    /// A refusal for a token that is not valid, or where the API server does not answer.
    pub async fn caller(&self, token: &str) -> Result<Caller, Refusal> {
        let hash: TokenHash = Sha256::digest(token.as_bytes()).into();
        let known = || {
            let user = self.users.get(&hash).map(Some);
            user.or_else(|| self.refused.get(&hash).map(|()| None))
        };
        let user = if let Some(user) = known() {
            user
        } else {
            let is_known = self.known.get(&hash).is_some();
            let _turn = if is_known { &self.turns } else { &self.turns_of_strangers }.acquire().await;
            match known() {
                Some(user) => user,
                None => self.reviewed(hash, token).await?,
            }
        };
        let user = user.ok_or(Refusal::NotAuthenticated("the token is not valid, or no longer"))?;
        Ok(Caller { token: hash, user })
    }

    /// The API server's answer for a token, kept from now on.
    async fn reviewed(&self, hash: TokenHash, token: &str) -> Result<Option<Arc<UserInfo>>, Refusal> {
        let user = answered(self.review(token)).await?;
        if let Some(user) = &user {
            self.users.keep(hash, user.clone(), KEPT);
            self.known.keep(hash, (), KNOWN);
        } else {
            self.refused.keep(hash, (), KEPT_REFUSAL);
        }
        Ok(user)
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
        match self.answer(caller, right).await? {
            Answer::Tenant(uid) => Ok(uid),
            Answer::NotAllowed => Err(Refusal::NotAllowed(format!(
                "{} may not {} builds in namespace {namespace}",
                caller.user.username.as_deref().unwrap_or("the caller"),
                verb.as_str()
            ))),
            Answer::NoNamespace => Err(Refusal::NotFound(format!("there is no namespace {namespace}"))),
        }
    }

    /// What is kept, else the API server's answer.
    async fn answer(&self, caller: &Caller, right: Right) -> Result<Answer, Refusal> {
        if let Some(answer) = self.rights.get(&right) {
            return Ok(answer);
        }
        let _turn = self.turns.acquire().await;
        if let Some(answer) = self.rights.get(&right) {
            return Ok(answer);
        }
        let answer = answered(self.ask(caller, &right)).await?;
        let lasts = if matches!(answer, Answer::Tenant(_)) { KEPT } else { KEPT_REFUSAL };
        self.rights.keep(right, answer.clone(), lasts);
        Ok(answer)
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
        let before = kube_ext::live_uid_of_namespace(&self.client, &right.namespace).await?;
        let status = reviews.create(&PostParams::default(), &review).await?.status.unwrap_or_default();
        if !status.allowed {
            return Ok(Answer::NotAllowed);
        }
        // The right is one in this very namespace, and not in one of the same name before or after it.
        let after = kube_ext::live_uid_of_namespace(&self.client, &right.namespace).await?;
        let same = if before == after { after } else { None };
        Ok(same.map_or(Answer::NoNamespace, Answer::Tenant))
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
    use axum::{
        body::Body,
        http::{Request, Response},
    };
    use http_body_util::BodyExt;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn however_many_tokens_are_made_up_those_that_are_known_have_their_turn() {
        // An API server that says nothing of tokens it does not know.
        let service = tower::service_fn(|request: Request<kube::client::Body>| async move {
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            if !String::from_utf8_lossy(&body).contains("\"good\"") {
                std::future::pending::<()>().await;
            }
            let answer = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {},
                "status": {"authenticated": true, "user": {"username": "orchard"}}});
            Ok::<_, kube::Error>(Response::new(Body::from(answer.to_string())))
        });
        let access = Arc::new(Access::new(Client::new(service, "default")));
        access.caller("good").await.expect("it is valid");
        let made_up: Vec<_> = (0..3 * AT_ONCE)
            .map(|number| {
                let access = access.clone();
                tokio::spawn(async move { access.caller(&format!("made up {number}")).await.is_ok() })
            })
            .collect();
        while access.turns_of_strangers.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        // As after a minute.
        access.users.0.lock().unwrap().clear();
        let answer = timeout(PATIENCE / 2, access.caller("good")).await.expect("there is a turn for it");
        answer.expect("it is still valid");
        assert!(made_up.iter().all(|task| !task.is_finished()), "the others still wait");
        for task in made_up {
            task.abort();
        }
    }

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
