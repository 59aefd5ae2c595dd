//! Which worker takes a build.
//!
//! A worker fits a build that it serves the tenant of, whose method it takes, and whose
//! `spec.worker` names it, its zone and labels it has. Of those that fit and have room, the one on which
//! the attempt before failed comes last; then the one that built the image last comes first, for its warm
//! cache; then the least loaded. The built-in worker takes what no declared worker fits.

use std::{cmp::Ordering, collections::BTreeMap};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::method::Method;

/// `spec.worker`: every field that is set must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Worker {
    pub id: Uuid,
    pub name: String,
    /// `None`: serves every tenant.
    pub tenant: Option<Uuid>,
    pub zone: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// Empty: all.
    pub methods: Vec<Method>,
    /// Builds it runs.
    pub running: i32,
    /// Most builds at once.
    pub limit: i32,
    /// Whether a BuildWorker declares it; otherwise it is the built-in one.
    pub declared: bool,
    /// Whether it takes new builds: neither cordoned nor offline.
    pub takes: bool,
}

impl Worker {
    /// How many more builds it takes.
    pub fn room(&self) -> i32 {
        if self.takes { self.limit.saturating_sub(self.running).max(0) } else { 0 }
    }

    pub fn has_room(&self) -> bool {
        self.room() > 0
    }

    fn fits(&self, tenant: Uuid, method: Method, placement: &Placement) -> bool {
        self.tenant.is_none_or(|own| own == tenant)
            && (self.methods.is_empty() || self.methods.contains(&method))
            && placement.name.as_ref().is_none_or(|name| *name == self.name)
            && placement.zone.as_ref().is_none_or(|zone| self.zone.as_ref() == Some(zone))
            && placement.selector.iter().all(|(label, value)| self.labels.get(label) == Some(value))
    }
}

/// What one build would rather have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The worker that last built the image.
    pub warm: Option<Uuid>,
    /// The worker on which the attempt before failed.
    pub avoid: Option<Uuid>,
}

/// The workers that fit such builds, as indices: the declared ones, or else the built-in one.
pub fn fitting(workers: &[Worker], tenant: Uuid, method: Method, placement: &Placement) -> Vec<usize> {
    let fits = |declared: bool| -> Vec<usize> {
        let of_kind = |(_, worker): &(usize, &Worker)| worker.declared == declared;
        let fitting = |(_, worker): &(usize, &Worker)| worker.fits(tenant, method, placement);
        workers.iter().enumerate().filter(of_kind).filter(fitting).map(|(index, _)| index).collect()
    };
    let declared = fits(true);
    if declared.is_empty() { fits(false) } else { declared }
}

/// Chooses among `fitting` workers; `None` while none has room. Ids break ties, so that a choice made
/// twice is the same.
pub fn choose(workers: &[Worker], fitting: &[usize], wish: Wish) -> Option<usize> {
    let with_room = fitting.iter().copied().filter(|index| workers[*index].has_room());
    with_room.min_by(|a, b| preference(&workers[*a], &workers[*b], wish))
}

/// Filled shares are compared by cross-multiplication: no floating point.
fn preference(a: &Worker, b: &Worker, wish: Wish) -> Ordering {
    let avoided = |worker: &Worker| wish.avoid == Some(worker.id);
    let cold = |worker: &Worker| wish.warm != Some(worker.id);
    let load_a = i64::from(a.running) * i64::from(b.limit);
    let load_b = i64::from(b.running) * i64::from(a.limit);
    (avoided(a), cold(a)).cmp(&(avoided(b), cold(b))).then(load_a.cmp(&load_b)).then(a.id.cmp(&b.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: Uuid = Uuid::from_u128(1);

    fn worker(number: u128, running: i32, limit: i32) -> Worker {
        Worker {
            id: Uuid::from_u128(number),
            name: format!("place-{number}"),
            running,
            limit,
            declared: true,
            takes: true,
            ..Worker::default()
        }
    }

    fn chosen(workers: &[Worker], placement: &Placement, wish: Wish) -> Option<u128> {
        let fitting = fitting(workers, TENANT, Method::Buildx, placement);
        choose(workers, &fitting, wish).map(|index| workers[index].id.as_u128())
    }

    #[test]
    fn every_field_that_is_set_must_fit() {
        let mut near = worker(8, 0, 4);
        near.zone = Some("eu-1".to_owned());
        near.labels = [("disk".to_owned(), "fast".to_owned())].into();
        let workers = [near, worker(9, 0, 4)];
        let selector = |value: &str| [("disk".to_owned(), value.to_owned())].into();
        for (placement, expected) in [
            (Placement { name: Some("place-9".to_owned()), ..Placement::default() }, Some(9)),
            (Placement { name: Some("place-7".to_owned()), ..Placement::default() }, None),
            (Placement { zone: Some("eu-1".to_owned()), ..Placement::default() }, Some(8)),
            (Placement { zone: Some("us-1".to_owned()), ..Placement::default() }, None),
            (Placement { selector: selector("fast"), ..Placement::default() }, Some(8)),
            (Placement { selector: selector("slow"), ..Placement::default() }, None),
            (Placement { name: Some("place-9".to_owned()), selector: selector("fast"), ..Placement::default() }, None),
        ] {
            assert_eq!(chosen(&workers, &placement, Wish::default()), expected, "{placement:?}");
        }
    }

    #[test]
    fn a_worker_takes_only_its_methods_and_its_tenant() {
        let mut other_method = worker(8, 0, 4);
        other_method.methods = vec![Method::Kaniko];
        let mut other_tenant = worker(9, 0, 4);
        other_tenant.tenant = Some(Uuid::from_u128(2));
        assert_eq!(chosen(&[other_method, other_tenant], &Placement::default(), Wish::default()), None);
    }

    #[test]
    fn the_built_in_worker_takes_what_no_declared_worker_fits() {
        let mut built_in = worker(7, 0, 4);
        built_in.declared = false;
        let mut only_kaniko = worker(8, 0, 4);
        only_kaniko.methods = vec![Method::Kaniko];
        assert_eq!(chosen(&[built_in.clone(), only_kaniko], &Placement::default(), Wish::default()), Some(7));
        // One that fits and is full or away is waited for.
        assert_eq!(chosen(&[built_in, worker(9, 4, 4)], &Placement::default(), Wish::default()), None);
    }

    #[test]
    fn the_warm_worker_goes_first_then_the_least_loaded() {
        let workers = [worker(7, 1, 2), worker(8, 1, 4), worker(9, 3, 4)];
        let warm = |number| Wish { warm: Some(Uuid::from_u128(number)), ..Wish::default() };
        assert_eq!(chosen(&workers, &Placement::default(), Wish::default()), Some(8));
        assert_eq!(chosen(&workers, &Placement::default(), warm(9)), Some(9));
        let full = [worker(8, 1, 4), worker(9, 4, 4)];
        assert_eq!(chosen(&full, &Placement::default(), warm(9)), Some(8), "a warm cache is not waited for");
    }

    #[test]
    fn a_retry_goes_to_another_worker_if_that_has_room() {
        let avoid = Wish { warm: Some(Uuid::from_u128(8)), avoid: Some(Uuid::from_u128(8)) };
        let place = |other: Worker| chosen(&[worker(8, 0, 4), other], &Placement::default(), avoid);
        assert_eq!(place(worker(9, 3, 4)), Some(9));
        assert_eq!(place(worker(9, 4, 4)), Some(8));
        assert_eq!(place(Worker { takes: false, ..worker(9, 0, 4) }), Some(8));
    }
}
