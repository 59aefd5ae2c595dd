//! `/api/v1/…/builds`: the attempts of a namespace, one of them, and what happened to it. A name means
//! the newest attempt of the newest Build that had it, also when that Build is gone.

use axum::{Json, extract::State};
use image_factory_core::status::Status;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Served,
    access::{Caller, Verb},
    parameters::{Id, Named, Namespace, Parameters, Which},
    refusal::Refusal,
};
use crate::db::archive;

type Answer = Result<Json<Value>, Refusal>;

/// Builds of a page where the query does not say.
const PAGE: i64 = 50;
const PAGE_MOST: i64 = 500;

/// Steps of a page where the query does not say.
const STEPS: i64 = 100;
const STEPS_MOST: i64 = 1_000;
/// What the steps of a page have printed, but for its last: one alone may have 72 KiB.
const STEPS_BYTES: i64 = 1024 * 1024;

pub async fn list(
    State(served): State<Served>,
    caller: Caller,
    Namespace(namespace): Namespace,
    mut parameters: Parameters,
) -> Answer {
    let filter = archive::Filter {
        status: parameters.take::<Status>("status", "queued, in_progress, success, failed or cancelled")?,
        project: parameters.take_name("project")?,
        name: parameters.take_name("name")?,
        before: parameters.take::<Uuid>("cursor", "what the page before gave as next")?,
    };
    let limit = parameters.take_number("limit", 1, PAGE_MOST)?.unwrap_or(PAGE);
    parameters.end()?;
    let tenant = served.access.tenant(&caller, Verb::List, &namespace, None).await?;
    let pool = &served.context.pool;
    // One more tells whether there is a next page.
    let mut ids = archive::ids(pool, &tenant, &filter, limit + 1).await?;
    let is_more = i64::try_from(ids.len()).is_ok_and(|count| count > limit);
    ids.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = ids.last().filter(|_| is_more);
    Ok(Json(json!({"builds": archive::described(pool, &ids).await?, "next": next})))
}

/// An attempt that the caller may read.
pub struct Found {
    pub id: Uuid,
    /// `tenants.uid`.
    pub tenant: String,
}

/// Which attempt a path and a query name, once it is clear that the caller may read it.
pub async fn attempt(
    served: &Served,
    caller: &Caller,
    Named { namespace, name }: &Named,
    Which { run, attempt }: Which,
) -> Result<Found, Refusal> {
    let tenant = served.access.tenant(caller, Verb::Get, namespace, Some(name)).await?;
    let found = archive::newest(&served.context.pool, &tenant, name, run, attempt).await?;
    found.map(|id| Found { id, tenant }).ok_or_else(|| {
        let part = |what, number: Option<i32>| number.map_or_else(String::new, |number| format!("{what} {number} of "));
        let (attempt, run) = (part("attempt", attempt), part("run", run));
        Refusal::NotFound(format!("there is no {attempt}{run}build {name} in namespace {namespace}"))
    })
}

/// The attempt with this id. Whoever may not read it is not told that there is one.
pub async fn known(served: &Served, caller: &Caller, Id(id): &Id) -> Result<Found, Refusal> {
    let not_found = || Refusal::NotFound(format!("there is no build {id} that you may read"));
    let place = archive::place(&served.context.pool, *id).await?.ok_or_else(not_found)?;
    match served.access.tenant(caller, Verb::Get, &place.namespace, Some(&place.name)).await {
        Ok(tenant) if tenant == place.tenant_uid => Ok(Found { id: *id, tenant }),
        Ok(_) | Err(Refusal::NotAllowed(_) | Refusal::NotFound(_)) => Err(not_found()),
        Err(refusal) => Err(refusal),
    }
}

/// The two handlers of something that belongs to one attempt.
macro_rules! of_attempt {
    ($by_name:ident, $by_id:ident, $told:ident) => {
        pub async fn $by_name(
            State(served): State<Served>,
            caller: Caller,
            named: Named,
            mut parameters: Parameters,
        ) -> Answer {
            let which = parameters.take_attempt()?;
            parameters.end()?;
            $told(&served, attempt(&served, &caller, &named, which).await?.id).await
        }

        pub async fn $by_id(State(served): State<Served>, caller: Caller, id: Id, parameters: Parameters) -> Answer {
            parameters.end()?;
            $told(&served, known(&served, &caller, &id).await?.id).await
        }
    };
}

of_attempt! { by_name, by_id, build }
of_attempt! { history_by_name, history_by_id, history }
of_attempt! { results_by_name, results_by_id, results }

async fn build(served: &Served, id: Uuid) -> Answer {
    let pool = &served.context.pool;
    let mut build = described(served, id).await?;
    build["queue"] = archive::queue_place(pool, id).await?;
    Ok(Json(build))
}

/// The attempt as every answer tells of it.
pub async fn described(served: &Served, id: Uuid) -> Result<Value, Refusal> {
    let mut found = archive::described(&served.context.pool, &[id]).await?;
    found.pop().ok_or_else(|| Refusal::NotFound(format!("there is no build {id}")))
}

/// Which steps are asked for.
struct Page {
    after: i32,
    limit: i64,
}

impl Page {
    fn take(parameters: &mut Parameters) -> Result<Self, Refusal> {
        let after = parameters.take_number("after", 0, i64::from(i32::MAX))?;
        Ok(Self {
            after: after.and_then(|after| i32::try_from(after).ok()).unwrap_or_default(),
            limit: parameters.take_number("limit", 1, STEPS_MOST)?.unwrap_or(STEPS),
        })
    }
}

pub async fn steps_by_name(
    State(served): State<Served>,
    caller: Caller,
    named: Named,
    mut parameters: Parameters,
) -> Answer {
    let which = parameters.take_attempt()?;
    let page = Page::take(&mut parameters)?;
    parameters.end()?;
    steps(&served, attempt(&served, &caller, &named, which).await?.id, &page).await
}

pub async fn steps_by_id(State(served): State<Served>, caller: Caller, id: Id, mut parameters: Parameters) -> Answer {
    let page = Page::take(&mut parameters)?;
    parameters.end()?;
    steps(&served, known(&served, &caller, &id).await?.id, &page).await
}

async fn steps(served: &Served, id: Uuid, page: &Page) -> Answer {
    let found = archive::steps(&served.context.pool, id, page.after, page.limit, STEPS_BYTES).await?;
    Ok(Json(json!({"build_id": id, "steps": found.rows, "next": found.next})))
}

async fn history(served: &Served, id: Uuid) -> Answer {
    Ok(Json(json!({"build_id": id, "history": archive::history(&served.context.pool, id).await?})))
}

async fn results(served: &Served, id: Uuid) -> Answer {
    let mut results = archive::results(&served.context.pool, id).await?;
    results["build_id"] = json!(id);
    Ok(Json(results))
}
