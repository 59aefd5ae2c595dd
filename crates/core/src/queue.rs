//! Which queued builds start now, and where: the claim's plan.
//!
//! Between tenants the one with the fewest running builds for its weight goes first; inside a
//! tenant the order is priority (where its policy says so), then age. A build goes to the
//! least loaded healthy worker that serves its tenant. Nothing here exceeds a limit, and a tenant
//! that has no room holds up no other.

use jiff::Timestamp;
use uuid::Uuid;

/// A queued build that could start, if there is room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub build: Uuid,
    pub tenant: Uuid,
    pub priority: i32,
    pub queued_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    pub id: Uuid,
    pub running: i32,
    /// Most builds at once.
    pub limit: i32,
    /// Share between tenants, at least 1.
    pub weight: i32,
    /// Whether `priority` orders the tenant's builds.
    pub by_priority: bool,
}

/// A worker that takes builds: one that is cordoned or offline is not handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    pub id: Uuid,
    /// `None`: serves every tenant.
    pub tenant: Option<Uuid>,
    pub running: i32,
    pub limit: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub build: Uuid,
    pub worker: Uuid,
}

/// Plans the claim. Builds of tenants that are not in `tenants` are left alone.
pub fn plan(mut tenants: Vec<Tenant>, mut workers: Vec<Worker>, heads: &[Head]) -> Vec<Assignment> {
    let mut queues: Vec<Vec<Head>> = tenants
        .iter()
        .map(|tenant| {
            let mut queue: Vec<Head> = heads.iter().filter(|head| head.tenant == tenant.id).cloned().collect();
            // Popped from the end: the first to start stands last.
            queue.sort_by_key(|head| {
                let priority = if tenant.by_priority { head.priority } else { 0 };
                (priority, std::cmp::Reverse((head.queued_at, head.build)))
            });
            queue
        })
        .collect();

    let mut plan = Vec::new();
    while let Some(index) = next_tenant(&tenants, &queues) {
        let tenant = &mut tenants[index];
        let Some(worker) = least_loaded(&mut workers, tenant.id) else {
            // No worker has room for this tenant: it is out, the others go on.
            queues[index].clear();
            continue;
        };
        let Some(head) = queues[index].pop() else { continue };
        worker.running += 1;
        tenant.running += 1;
        plan.push(Assignment { build: head.build, worker: worker.id });
    }
    plan
}

/// The tenant with room and a waiting build that has the least running ÷ weight; the older head
/// where that is equal. Compared by cross-multiplication: no floating point.
fn next_tenant(tenants: &[Tenant], queues: &[Vec<Head>]) -> Option<usize> {
    tenants
        .iter()
        .enumerate()
        .filter(|(_, tenant)| tenant.running < tenant.limit)
        .filter_map(|(index, tenant)| queues[index].last().map(|head| (index, tenant, head)))
        .min_by(|(_, a, head_a), (_, b, head_b)| {
            let load_a = i64::from(a.running) * i64::from(b.weight.max(1));
            let load_b = i64::from(b.running) * i64::from(a.weight.max(1));
            load_a.cmp(&load_b).then_with(|| (head_a.queued_at, head_a.build).cmp(&(head_b.queued_at, head_b.build)))
        })
        .map(|(index, _, _)| index)
}

/// The worker with the smallest filled share among those with room; ids break ties, so that a plan
/// made twice is the same.
fn least_loaded(workers: &mut [Worker], tenant: Uuid) -> Option<&mut Worker> {
    workers
        .iter_mut()
        .filter(|worker| worker.running < worker.limit && worker.tenant.is_none_or(|own| own == tenant))
        .min_by(|a, b| {
            let load_a = i64::from(a.running) * i64::from(b.limit);
            let load_b = i64::from(b.running) * i64::from(a.limit);
            load_a.cmp(&load_b).then(a.id.cmp(&b.id))
        })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn tenant(number: u128, running: i32, limit: i32) -> Tenant {
        Tenant { id: id(number), running, limit, weight: 1, by_priority: false }
    }

    fn worker(number: u128, running: i32, limit: i32) -> Worker {
        Worker { id: id(number), tenant: None, running, limit }
    }

    fn head(build: u128, tenant: u128, queued_at: i64) -> Head {
        Head { build: id(build), tenant: id(tenant), priority: 0, queued_at: at(queued_at) }
    }

    fn builds(plan: &[Assignment]) -> Vec<u128> {
        plan.iter().map(|assignment| assignment.build.as_u128()).collect()
    }

    #[test]
    fn the_oldest_build_of_a_tenant_starts_first_and_its_limit_holds() {
        let heads = vec![head(13, 1, 30), head(11, 1, 10), head(12, 1, 20)];
        assert_eq!(builds(&plan(vec![tenant(1, 0, 2)], vec![worker(9, 0, 10)], &heads)), [11, 12]);
    }

    #[test]
    fn priority_counts_only_where_the_policy_says_so() {
        let mut heads = vec![head(11, 1, 10), head(12, 1, 20)];
        heads[1].priority = 5;
        assert_eq!(builds(&plan(vec![tenant(1, 0, 9)], vec![worker(9, 0, 1)], &heads)), [11]);
        let mut ordered = tenant(1, 0, 9);
        ordered.by_priority = true;
        assert_eq!(builds(&plan(vec![ordered], vec![worker(9, 0, 1)], &heads)), [12]);
    }

    #[test]
    fn the_tenant_that_runs_less_for_its_weight_goes_first() {
        let mut heavy = tenant(1, 2, 10);
        heavy.weight = 3;
        let light = tenant(2, 1, 10);
        // 2 ÷ 3 < 1 ÷ 1, then 3 ÷ 3 = 1 ÷ 1 and the older head decides.
        let heads = vec![head(11, 1, 10), head(12, 1, 11), head(21, 2, 5)];
        assert_eq!(builds(&plan(vec![heavy, light], vec![worker(9, 0, 10)], &heads)), [11, 21, 12]);
    }

    #[test]
    fn a_tenant_without_room_holds_up_no_other() {
        let heads = vec![head(11, 1, 1), head(21, 2, 9)];
        assert_eq!(builds(&plan(vec![tenant(1, 4, 4), tenant(2, 0, 4)], vec![worker(9, 0, 10)], &heads)), [21]);
    }

    #[test]
    fn a_worker_of_one_tenant_takes_nothing_of_another() {
        let mut own = worker(9, 0, 10);
        own.tenant = Some(id(1));
        let heads = vec![head(11, 1, 5), head(21, 2, 1)];
        assert_eq!(builds(&plan(vec![tenant(1, 0, 4), tenant(2, 0, 4)], vec![own], &heads)), [11]);
    }

    proptest! {
        #[test]
        fn no_limit_is_exceeded_no_build_twice_and_no_room_is_left_unused(
            limits in prop::collection::vec((0..4i32, 0..5i32, 1..4i32, any::<bool>()), 1..6),
            places in prop::collection::vec((0..3i32, 0..5i32, any::<bool>()), 1..4),
            queued in prop::collection::vec((0..6usize, -3..3i32, 0..50i64), 0..40),
        ) {
            let tenants: Vec<Tenant> = limits.iter().enumerate().map(|(index, &(running, limit, weight, by_priority))| Tenant {
                id: id(index as u128), running, limit, weight, by_priority,
            }).collect();
            let workers: Vec<Worker> = places.iter().enumerate().map(|(index, &(running, limit, shared))| Worker {
                id: id(100 + index as u128), tenant: (!shared).then(|| id(0)), running, limit,
            }).collect();
            let heads: Vec<Head> = queued.iter().enumerate().map(|(index, &(owner, priority, second))| Head {
                build: id(1000 + index as u128), tenant: id(owner as u128), priority, queued_at: at(second),
            }).collect();
            let made = plan(tenants.clone(), workers.clone(), &heads);
            prop_assert_eq!(&made, &plan(tenants.clone(), workers.clone(), &heads));

            let owner: HashMap<Uuid, Uuid> = heads.iter().map(|head| (head.build, head.tenant)).collect();
            let mut seen = std::collections::HashSet::new();
            prop_assert!(made.iter().all(|assignment| seen.insert(assignment.build)));
            let started = |tenant: Uuid| made.iter().filter(|one| owner[&one.build] == tenant).count();
            for tenant in &tenants {
                prop_assert!(i32::try_from(started(tenant.id)).unwrap() <= (tenant.limit - tenant.running).max(0));
            }
            for worker in &workers {
                let taken = made.iter().filter(|one| one.worker == worker.id);
                prop_assert!(i32::try_from(taken.clone().count()).unwrap() <= (worker.limit - worker.running).max(0));
                prop_assert!(taken.clone().all(|one| worker.tenant.is_none_or(|own| own == owner[&one.build])));
            }
            // What still waits has a reason: its tenant is full, or every worker that serves it is.
            for head in heads.iter().filter(|head| !seen.contains(&head.build)) {
                let Some(tenant) = tenants.iter().find(|tenant| tenant.id == head.tenant) else { continue };
                let tenant_full = tenant.running + i32::try_from(started(tenant.id)).unwrap() >= tenant.limit;
                let workers_full = workers.iter().filter(|worker| worker.tenant.is_none_or(|own| own == tenant.id)).all(|worker| {
                    let taken = made.iter().filter(|one| one.worker == worker.id).count();
                    worker.running + i32::try_from(taken).unwrap() >= worker.limit
                });
                prop_assert!(tenant_full || workers_full);
            }
        }
    }
}
