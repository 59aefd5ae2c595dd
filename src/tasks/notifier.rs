//! Sends what became of builds to whoever a tenant has named, by Standard Webhooks: signed, again and again under one id
//! until it is received, and to nobody inside the cluster's network. And tells the Git host of the commit, in the same
//! way. A receiver may see one notification twice, after an operator was killed while it sent, and tells them apart by
//! the id.

mod sender;

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use image_factory_core::{
    commit_status::{self, Request, State},
    notification::{self, Next},
    signature,
    status::UnknownStatus,
};
use tokio::time::timeout;
use uuid::Uuid;

use self::sender::Sent;
pub use self::sender::{Sender, Settings};
use super::{Error, given_up};
use crate::{
    clock,
    crd::{WebhookConfig, reference::SecretKeyReference},
    db::notifications::{self, Busy, COMMIT_STATUS, Taken, Tried},
    kube_ext,
    runtime::Context,
};

/// Sent at once, all and of one webhook: a receiver that is slow keeps no other waiting.
const AT_ONCE: usize = 64;
const OF_ONE: usize = 2;
/// How long what is new waits for what is being sent.
const LOOK: Duration = Duration::from_secs(1);

/// Sends what is due.
///
/// # Errors
/// When a statement fails; what was not noted is sent again.
pub async fn notify(context: &Context, sender: &Sender) -> Result<(), Error> {
    let mut sending = FuturesUnordered::new();
    let mut under_way = UnderWay::default();
    loop {
        let room = AT_ONCE.saturating_sub(sending.len());
        let taken = match room {
            0 => Vec::new(),
            _ => notifications::take(&context.pool, room, OF_ONE, &under_way.busy()).await?,
        };
        for notification in taken {
            under_way.begins(&notification);
            sending.push(async move {
                let tried = attempt(context, sender, &notification).await;
                notifications::tried(&context.pool, notification.id, &tried).await?;
                // That a commit has a newer state by now is no failure.
                if tried.error.is_some() && !notification.is_outdated {
                    tell(context, &notification, &tried).await;
                }
                Ok::<_, Error>(notification)
            });
        }
        // One that takes long keeps no newer one waiting.
        match timeout(LOOK, sending.next()).await {
            Ok(Some(ended)) => under_way.ends(&ended?),
            Ok(None) => return Ok(()),
            Err(_) => {}
        }
    }
}

/// What is being sent.
#[derive(Default)]
struct UnderWay {
    of_webhook: BTreeMap<Uuid, usize>,
    commits: Vec<String>,
}

impl UnderWay {
    fn begins(&mut self, notification: &Taken) {
        *self.of_webhook.entry(notification.webhook_id).or_default() += 1;
        self.commits.extend(notification.commit());
    }

    fn ends(&mut self, notification: &Taken) {
        if let Some(number) = self.of_webhook.get_mut(&notification.webhook_id) {
            *number = number.saturating_sub(1);
        }
        if let Some(commit) = notification.commit() {
            self.commits.retain(|told| *told != commit);
        }
    }

    fn busy(&self) -> Busy {
        let busy = self.of_webhook.iter().filter(|(_, number)| **number >= OF_ONE);
        Busy { webhooks: busy.map(|(webhook, _)| *webhook).collect(), commits: self.commits.clone() }
    }
}

async fn attempt(context: &Context, sender: &Sender, notification: &Taken) -> Tried {
    let never = |error: &str| Tried { error: Some(error.to_owned()), ..Tried::default() };
    if !notification.is_active {
        return never("the WebhookConfig is suspended, or no longer there");
    }
    let sent = if notification.event == COMMIT_STATUS {
        if notification.is_outdated {
            return never("the commit has a newer state");
        }
        tell_git_host(context, sender, notification).await
    } else {
        if notification.is_disabled {
            return never("the receiver wants nothing ever again");
        }
        tell_receiver(context, sender, notification).await
    };
    let Sent { status, retry_after, error } = match sent {
        Ok(sent) => sent,
        Err(error) => Sent { status: None, retry_after: None, error: Some(error) },
    };
    let attempt = u32::try_from(notification.attempt).unwrap_or(u32::MAX);
    let next = match notification::next(attempt, status, retry_after) {
        // A Git host says so of the commit or its repository.
        Next::Gone if notification.event == COMMIT_STATUS => Next::GivenUp,
        next => next,
    };
    Tried {
        status,
        error: match next {
            Next::Received => None,
            Next::Gone => Some("the receiver answered 410: it wants nothing ever again".to_owned()),
            Next::Again(_) | Next::GivenUp => error.or_else(|| Some("it was not received".to_owned())),
        },
        next: match next {
            Next::Again(wait) => Some(wait),
            _ => None,
        },
        is_gone: next == Next::Gone,
    }
}

async fn tell_receiver(context: &Context, sender: &Sender, notification: &Taken) -> Result<Sent, String> {
    let Taken { delivery_id: id, payload, namespace, spec, .. } = notification;
    let Some(notify) = &spec.notify else {
        return Err("the WebhookConfig no longer sends".to_owned());
    };
    let body = payload.to_string();
    let timestamp = clock::now().as_second();
    let secret = secret(context, namespace, &notify.secret_ref).await?;
    let signature = signature::sign(&secret, id, timestamp, body.as_bytes())
        .map_err(|problem| format!("{} {problem}", notify.secret_ref))?;
    let headers = [
        (signature::STANDARD_ID, id.clone()),
        (signature::STANDARD_TIMESTAMP, timestamp.to_string()),
        (signature::STANDARD_SIGNATURE, signature),
    ];
    Ok(sender.send(&notify.url, &headers, body).await)
}

async fn tell_git_host(context: &Context, sender: &Sender, notification: &Taken) -> Result<Sent, String> {
    let Taken { payload, namespace, webhook, spec, .. } = notification;
    let Some((commit_status, provider)) = spec.commit_status.as_ref().zip(spec.provider) else {
        return Err("the WebhookConfig no longer tells of commits".to_owned());
    };
    let source = spec.template.as_ref().and_then(|template| template.spec.source.git.as_ref());
    let text = |field: &str| payload[field].as_str().unwrap_or_default();
    let link = sender.link(notification.build);
    let state = State {
        source: source.map_or("", |source| &source.url),
        repository: spec.repository.as_deref().unwrap_or_default(),
        commit: text("commit"),
        context: &format!("image-factory/{webhook}"),
        status: text("status").parse().map_err(|error: UnknownStatus| error.to_string())?,
        description: text("description"),
        link: link.as_deref(),
    };
    let Request { url, token: (header, prefix), body } =
        commit_status::request(provider, &state).map_err(|problem| problem.to_string())?;
    let token = secret(context, namespace, &commit_status.token_secret_ref).await?;
    let token = String::from_utf8_lossy(&token);
    Ok(sender.send(&url, &[(header, format!("{prefix}{}", token.trim()))], body.to_string()).await)
}

async fn secret(context: &Context, namespace: &str, entry: &SecretKeyReference) -> Result<Vec<u8>, String> {
    match kube_ext::secret_entry(&context.client, namespace, entry).await {
        Ok(Some(value)) => Ok(value),
        Ok(None) => Err(format!("{entry} is not there")),
        Err(error) => Err(format!("{entry} could not be read: {error}")),
    }
}

/// A notification that was not received is said in the log, and one that never will be, in an Event.
async fn tell(context: &Context, notification: &Taken, tried: &Tried) {
    let error = tried.error.as_deref().unwrap_or_default();
    tracing::warn!(
        webhook.namespace = notification.namespace,
        webhook.name = notification.webhook,
        event = notification.event,
        attempt = notification.attempt,
        error,
        is_last = tried.next.is_none(),
        "a notification was not received"
    );
    context.metrics.failed("notifier");
    if tried.next.is_some() {
        return;
    }
    let Taken { namespace, webhook, webhook_uid, spec, .. } = notification;
    let webhook = WebhookConfig::known(namespace, webhook, webhook_uid, spec.clone());
    let note = format!("{} {} was given up: {error}", notification.event, notification.delivery_id);
    given_up(context, &webhook, "NotificationGivenUp", "Notify", &note).await;
}
