//! What a reconcile acts on: the BuildSchedule and its namespace as the API server has them now, its row, and the
//! database's clock, which is that of all operators.

use jiff::Timestamp;
use kube::{Api, ResourceExt};

use super::{Error, Watched};
use crate::{
    crd::BuildSchedule,
    db::schedules::{self, Stored},
    kube_ext,
    runtime::Context,
};

/// The tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    pub name: String,
    pub uid: String,
}

pub struct Live {
    pub schedule: BuildSchedule,
    pub namespace: Namespace,
    pub stored: Option<Stored>,
    pub now: Timestamp,
}

/// `None` where the schedule is gone, or another of its name has taken its place.
///
/// The namespace is read first: the schedule was there before and is there after, so its namespace was not another in
/// between. The row is read before the schedule: so what is written over it is never older than it.
pub async fn live(context: &Context, watched: &Watched) -> Result<Option<Live>, Error> {
    let name = watched.namespace().unwrap_or_default();
    let Some(uid) = kube_ext::live_uid_of_namespace(&context.client, &name).await? else { return Ok(None) };
    let stored = schedules::stored(&context.pool, &uid, &watched.name_any()).await?;
    let now = schedules::now(&context.pool).await?;
    let api: Api<BuildSchedule> = Api::namespaced(context.client.clone(), &name);
    let schedule = api.get_opt(&watched.name_any()).await?.filter(|schedule| schedule.uid() == watched.uid());
    Ok(schedule.map(|schedule| Live { schedule, namespace: Namespace { name, uid }, stored, now }))
}
