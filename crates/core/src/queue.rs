//! Which queued builds start now, and where: the claim's plan.
//!
//! Between tenants the one with the fewest running builds for its weight goes first; inside a
//! tenant the order is priority (where its policy says so), then age. Builds that wait for the same
//! room, those of one project, method and placement, are a group, and a group without room holds up no other.
//! Nothing here exceeds a limit.

mod asks;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

pub use asks::{Ask, asks};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    method::Method,
    placement::{self, Placement, Wish, Worker},
};

/// A queued build that could start, if there is room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub build: Uuid,
    pub priority: i32,
    pub queued_at: Timestamp,
    pub wish: Wish,
}

/// The first builds of a tenant that wait for the same room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub tenant: Uuid,
    pub project: Uuid,
    pub method: Method,
    pub placement: Placement,
    /// In any order.
    pub heads: Vec<Head>,
    /// Whether there may be more of them than these.
    pub more: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tenant {
    pub id: Uuid,
    /// Share between tenants, at least 1.
    pub weight: i32,
    /// Whether `priority` orders the tenant's builds.
    pub by_priority: bool,
    /// Most builds at once, and of them those that run.
    pub limit: i32,
    pub running: i32,
    /// Most builds of a project at once; `None` for no limit.
    pub project_limit: Option<i32>,
    pub running_by_project: HashMap<Uuid, i32>,
    /// Most builds of a method at once; no limit where a method is missing.
    pub method_limits: BTreeMap<Method, i32>,
    pub running_by_method: BTreeMap<Method, i32>,
}

impl Tenant {
    /// How many more builds it may start.
    fn room(&self) -> i32 {
        self.limit.saturating_sub(self.running).max(0)
    }

    /// And how many of this project and method.
    fn room_for(&self, project: Uuid, method: Method) -> i32 {
        let room =
            |limit: i32, running: Option<&i32>| limit.saturating_sub(running.copied().unwrap_or_default()).max(0);
        let of_project = self.project_limit.map(|limit| room(limit, self.running_by_project.get(&project)));
        let of_method = self.method_limits.get(&method).map(|limit| room(*limit, self.running_by_method.get(&method)));
        self.room().min(of_project.unwrap_or(i32::MAX)).min(of_method.unwrap_or(i32::MAX))
    }

    fn takes_up(&mut self, project: Uuid, method: Method) {
        self.running += 1;
        *self.running_by_project.entry(project).or_default() += 1;
        *self.running_by_method.entry(method).or_default() += 1;
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub build: Uuid,
    pub worker: Uuid,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order of their turns.
    pub assignments: Vec<Assignment>,
    /// Whether it ends before a turn that could be of a build it was not told: there is more to plan.
    pub cut: bool,
}

/// Plans the claim, as far as the heads tell. Groups of tenants that are not in `tenants` are left alone;
/// `workers` are all there are, also those that take nothing now.
pub fn plan(tenants: Vec<Tenant>, mut workers: Vec<Worker>, groups: Vec<Group>) -> Plan {
    let mut lines: Vec<Line> = tenants.into_iter().map(Line::new).collect();
    let places: HashMap<Uuid, usize> = lines.iter().enumerate().map(|(place, line)| (line.tenant.id, place)).collect();
    for group in groups {
        if let Some(place) = places.get(&group.tenant) {
            lines[*place].join(group, &workers);
        }
    }
    for line in &mut lines {
        line.look(&workers);
    }
    let mut assignments = Vec::new();
    loop {
        match first(&mut lines) {
            None => return Plan { assignments, cut: false },
            Some((_, Next::Unknown)) => return Plan { assignments, cut: true },
            Some((line, Next::Build { queue, .. })) => {
                let started = line.start(queue, &mut workers);
                line.next = line.first();
                let Some(started) = started else { continue };
                // Whose turn it is follows from what can start: builds that only this worker fits no longer can.
                if workers.iter().any(|worker| worker.id == started.worker && !worker.has_room()) {
                    for line in &mut lines {
                        line.look(&workers);
                    }
                }
                assignments.push(started);
            }
        }
    }
}

/// A tenant and what it has waiting.
struct Line {
    tenant: Tenant,
    queues: Vec<Queue>,
    /// `None` where none may start.
    next: Option<Next>,
}

/// Whose turn it is in a line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    /// Perhaps a build that stands behind those that were told.
    Unknown,
    Build {
        rank: Rank,
        queue: usize,
    },
}

/// A group with its heads in order, the first to start last.
struct Queue {
    project: Uuid,
    method: Method,
    heads: Vec<Head>,
    more: bool,
    /// Workers that fit.
    fitting: Vec<usize>,
}

type Rank = (Reverse<i32>, Timestamp, Uuid);

impl Line {
    const fn new(tenant: Tenant) -> Self {
        Self { tenant, queues: Vec::new(), next: None }
    }

    fn join(&mut self, group: Group, workers: &[Worker]) {
        let Group { tenant, project, method, placement, mut heads, more } = group;
        heads.sort_by_key(|head| Reverse(self.rank(head)));
        let fitting = placement::fitting(workers, tenant, method, &placement);
        self.queues.push(Queue { project, method, heads, more, fitting });
    }

    fn rank(&self, head: &Head) -> Rank {
        (Reverse(if self.tenant.by_priority { head.priority } else { 0 }), head.queued_at, head.build)
    }

    /// Queues for which no worker has room are out of this plan.
    fn look(&mut self, workers: &[Worker]) {
        for queue in &mut self.queues {
            if !queue.fitting.iter().any(|worker| workers[*worker].has_room()) {
                queue.heads.clear();
                queue.more = false;
            }
        }
        self.next = self.first();
    }

    /// What `next` is as things stand.
    fn first(&self) -> Option<Next> {
        let next = |(index, queue): (usize, &Queue)| match queue.heads.last() {
            Some(head) => Some(Next::Build { rank: self.rank(head), queue: index }),
            None => queue.more.then_some(Next::Unknown),
        };
        let with_room = |(_, queue): &(usize, &Queue)| self.tenant.room_for(queue.project, queue.method) > 0;
        self.queues.iter().enumerate().filter(with_room).filter_map(next).min()
    }

    /// Starts the first build of a queue.
    fn start(&mut self, queue: usize, workers: &mut [Worker]) -> Option<Assignment> {
        let queue = &mut self.queues[queue];
        let head = queue.heads.pop()?;
        let worker = placement::choose(workers, &queue.fitting, head.wish)?;
        workers[worker].running += 1;
        self.tenant.takes_up(queue.project, queue.method);
        Some(Assignment { build: head.build, worker: workers[worker].id })
    }
}

/// The tenant with room and a waiting build that has the least running ÷ weight; the older head
/// where that is equal. Compared by cross-multiplication: no floating point.
fn first(lines: &mut [Line]) -> Option<(&mut Line, Next)> {
    lines.iter_mut().filter_map(|line| line.next.map(|next| (line, next))).min_by(|(a, next_a), (b, next_b)| {
        let load_a = i64::from(a.tenant.running) * i64::from(b.tenant.weight.max(1));
        let load_b = i64::from(b.tenant.running) * i64::from(a.tenant.weight.max(1));
        load_a.cmp(&load_b).then_with(|| next_a.age().cmp(&next_b.age()))
    })
}

impl Next {
    /// One that is not known may be older than any.
    const fn age(self) -> Option<(Timestamp, Uuid)> {
        match self {
            Self::Unknown => None,
            Self::Build { rank: (_, queued_at, build), .. } => Some((queued_at, build)),
        }
    }
}

#[cfg(test)]
mod tests;
