//! Makes Builds of what webhooks received. What is decided of a delivery is a row first, with the name of its Build; so
//! that however often it is begun, there is one Build, and one that is there already counts only if it was made for this
//! delivery. Woken by what is received, right by timer.

use std::time::Duration;

use futures::{StreamExt, stream};
use image_factory_core::{labels, reason::Reason};
use kube::{Api, api::PostParams};
use tokio::time::timeout;

use super::{Error, given_up};
use crate::{
    crd::{Build, WebhookConfig, template},
    db::{
        builds,
        deliveries::{self, Due},
    },
    failpoint,
    runtime::Context,
};

const BATCH: i64 = 100;
/// Builds that are made at once.
const AT_ONCE: usize = 8;
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// When a Build that could not be made is tried again. After the last it is given up.
const RETRIES: [Duration; 7] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_mins(2),
    Duration::from_mins(10),
    Duration::from_mins(30),
    Duration::from_hours(1),
    Duration::from_hours(2),
];

/// Decides of what has come, makes the Builds that are due, and ends those whose place they take.
///
/// # Errors
/// When a statement fails; what was done until then is noted.
pub async fn deliver(context: &Context) -> Result<(), Error> {
    let batch = usize::try_from(BATCH).unwrap_or(usize::MAX);
    loop {
        let decided = deliveries::decide(&context.pool, BATCH).await?;
        let made = make(context).await?;
        supersede(context).await?;
        if decided < batch && made < batch {
            return Ok(());
        }
    }
}

async fn make(context: &Context) -> Result<usize, Error> {
    let due = deliveries::due(&context.pool, BATCH).await?;
    let number = due.len();
    let tries = due.into_iter().map(|delivery| async move {
        let outcome = create(context, &delivery).await;
        (delivery, outcome)
    });
    let mut tries = stream::iter(tries).buffer_unordered(AT_ONCE);
    let mut made = Vec::with_capacity(number);
    while let Some((delivery, outcome)) = tries.next().await {
        match outcome {
            Ok(()) => made.push(delivery.id),
            Err(failure) => {
                note(context, &delivery, &failure).await?;
            }
        }
    }
    if !made.is_empty() {
        deliveries::made(&context.pool, &made).await?;
    }
    Ok(number)
}

/// Why a Build could not be made.
#[derive(Debug)]
struct Failure {
    message: String,
    /// Whether it may be made later.
    is_passing: bool,
}

async fn create(context: &Context, delivery: &Due) -> Result<(), Failure> {
    if delivery.is_made {
        return Ok(());
    }
    let build = build(delivery).ok_or_else(|| Failure {
        message: "spec.template is gone from the WebhookConfig".to_owned(),
        is_passing: false,
    })?;
    let api: Api<Build> = Api::namespaced(context.client.clone(), &delivery.namespace);
    let create = async {
        failpoint::request("webhook.before-create")?;
        let created = api.create(&PostParams::default(), &build).await?;
        failpoint::request("webhook.after-create")?;
        Ok(created)
    };
    let answer = timeout(PATIENCE, create)
        .await
        .map_err(|_| Failure { message: "the API server does not answer".to_owned(), is_passing: true })?;
    let error = match answer {
        Ok(_) => {
            tracing::info!(
                build.namespace = delivery.namespace,
                build.name = delivery.build_name,
                webhook = delivery.webhook,
                "a Build was made for a delivery"
            );
            return Ok(());
        }
        Err(kube::Error::Api(error)) if error.code == 409 && error.reason == "AlreadyExists" => {
            return is_ours(&api, delivery).await;
        }
        Err(error) => error,
    };
    Err(Failure {
        // What the API server refuses for what it is, it refuses again.
        is_passing: !matches!(&error, kube::Error::Api(error) if matches!(error.code, 400 | 404 | 422)),
        message: match error {
            kube::Error::Api(status) => status.message,
            other => other.to_string(),
        },
    })
}

/// A try before this one may have made it: then it says so.
async fn is_ours(api: &Api<Build>, delivery: &Due) -> Result<(), Failure> {
    let passing = |message: String| Failure { message, is_passing: true };
    let there = api.get_opt(&delivery.build_name).await.map_err(|error| passing(error.to_string()))?;
    let Some(there) = there else {
        return Err(passing("a Build of its name has just been deleted".to_owned()));
    };
    if template::origin(&there).is_some_and(|origin| delivery.origins.contains(&origin)) {
        return Ok(());
    }
    Err(Failure {
        message: format!("a Build {:?} is there that was not made for this delivery", delivery.build_name),
        is_passing: false,
    })
}

/// The template with its place filled in: the commit that was delivered, and whose Build it is.
fn build(delivery: &Due) -> Option<Build> {
    let template = delivery.spec.template.clone()?;
    let mut spec = template.spec;
    if let Some(git) = &mut spec.source.git {
        git.revision = Some(delivery.revision.clone());
    }
    let metadata = template.metadata.unwrap_or_default();
    Some(metadata.build(&webhook(delivery), labels::WEBHOOK, &delivery.build_name, delivery.id, spec))
}

fn webhook(delivery: &Due) -> WebhookConfig {
    WebhookConfig::known(&delivery.namespace, &delivery.webhook, &delivery.webhook_uid, delivery.spec.clone())
}

async fn note(context: &Context, delivery: &Due, failure: &Failure) -> Result<(), Error> {
    // What was delivered again has its tries anew.
    let tried = delivery.origins.len().saturating_sub(1);
    let next = RETRIES.get(tried).copied().filter(|_| failure.is_passing);
    tracing::warn!(
        build.namespace = delivery.namespace,
        build.name = delivery.build_name,
        webhook = delivery.webhook,
        error = failure.message,
        is_last = next.is_none(),
        "a Build could not be made for a delivery"
    );
    context.metrics.failed("deliverer");
    deliveries::failed(&context.pool, delivery.id, &failure.message, next).await?;
    if next.is_none() {
        let note = format!(
            "delivery {}: Build {} could not be made: {}",
            delivery.delivery_id, delivery.build_name, failure.message
        );
        given_up(context, &webhook(delivery), "BuildNotMade", "MakeBuild", &note).await;
    }
    Ok(())
}

/// Ends unfinished Builds of a branch for which a newer commit was delivered, where the webhook asks for it.
async fn supersede(context: &Context) -> Result<(), Error> {
    for old in deliveries::superseded(&context.pool).await? {
        let sentence = format!("Build {} of delivery {} takes its place", old.by_build, old.by_delivery);
        builds::request_cancel(&context.pool, &old.resource_uid, Reason::Superseded, &sentence).await?;
    }
    Ok(())
}
