//! Which queued builds start now, and where: the claim's plan.
//!
//! Between tenants the one with the fewest running builds for its weight goes first; inside a
//! tenant the order is priority (where its policy says so), then age. Builds that wait for the same
//! room, those of one project, method and placement, are a group, and a group without room holds up no other.
//! Nothing here exceeds a limit.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

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
    fn has_room_for(&self, project: Uuid, method: Method) -> bool {
        let running = |count: Option<&i32>| count.copied().unwrap_or_default();
        self.project_limit.is_none_or(|limit| running(self.running_by_project.get(&project)) < limit)
            && self.method_limits.get(&method).is_none_or(|limit| running(self.running_by_method.get(&method)) < *limit)
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

/// Plans the claim. Groups of tenants that are not in `tenants` are left alone; `workers` are all
/// there are, also those that take nothing now.
pub fn plan(tenants: Vec<Tenant>, mut workers: Vec<Worker>, groups: Vec<Group>) -> Vec<Assignment> {
    let mut lines: Vec<Line> = tenants.into_iter().map(Line::new).collect();
    let places: HashMap<Uuid, usize> = lines.iter().enumerate().map(|(place, line)| (line.tenant.id, place)).collect();
    for group in groups {
        if let Some(place) = places.get(&group.tenant) {
            lines[*place].join(group, &workers);
        }
    }
    for line in &mut lines {
        line.next = line.first();
    }
    let mut plan = Vec::new();
    while let Some(line) = next(&mut lines) {
        plan.extend(line.start(&mut workers));
        line.next = line.first();
    }
    plan
}

/// A tenant and what it has waiting.
struct Line {
    tenant: Tenant,
    queues: Vec<Queue>,
    /// The queue whose head is the tenant's next, with that head's rank; `None` where none may start.
    next: Option<(usize, Rank)>,
}

/// A group with its heads in order, the first to start last.
struct Queue {
    project: Uuid,
    method: Method,
    heads: Vec<Head>,
    /// Workers that fit.
    fitting: Vec<usize>,
}

type Rank = (Reverse<i32>, Timestamp, Uuid);

impl Line {
    const fn new(tenant: Tenant) -> Self {
        Self { tenant, queues: Vec::new(), next: None }
    }

    fn join(&mut self, group: Group, workers: &[Worker]) {
        let Group { tenant, project, method, placement, mut heads } = group;
        heads.sort_by_key(|head| Reverse(self.rank(head)));
        let fitting = placement::fitting(workers, tenant, method, &placement);
        self.queues.push(Queue { project, method, heads, fitting });
    }

    fn rank(&self, head: &Head) -> Rank {
        (Reverse(if self.tenant.by_priority { head.priority } else { 0 }), head.queued_at, head.build)
    }

    /// What `next` is as things stand.
    fn first(&self) -> Option<(usize, Rank)> {
        if self.tenant.running >= self.tenant.limit {
            return None;
        }
        let with_rank = |(index, queue): (usize, &Queue)| queue.heads.last().map(|head| (index, self.rank(head)));
        self.queues
            .iter()
            .enumerate()
            .filter(|(_, queue)| self.tenant.has_room_for(queue.project, queue.method))
            .filter_map(with_rank)
            .min_by_key(|(_, rank)| *rank)
    }

    /// Starts the next build, where a worker has room for it; otherwise that build is out of this
    /// plan, and with it its whole group unless it alone is choosy.
    fn start(&mut self, workers: &mut [Worker]) -> Option<Assignment> {
        let (index, _) = self.next?;
        let queue = &mut self.queues[index];
        let head = queue.heads.pop()?;
        let Some(worker) = placement::choose(workers, &queue.fitting, head.wish) else {
            if head.wish.avoid.is_none() {
                queue.heads.clear();
            }
            return None;
        };
        workers[worker].running += 1;
        self.tenant.takes_up(queue.project, queue.method);
        Some(Assignment { build: head.build, worker: workers[worker].id })
    }
}

/// The tenant with room and a waiting build that has the least running ÷ weight; the older head
/// where that is equal. Compared by cross-multiplication: no floating point.
fn next(lines: &mut [Line]) -> Option<&mut Line> {
    lines
        .iter_mut()
        .filter_map(|line| line.next.map(|(_, (_, queued_at, build))| (line, (queued_at, build))))
        .min_by(|(a, head_a), (b, head_b)| {
            let load_a = i64::from(a.tenant.running) * i64::from(b.tenant.weight.max(1));
            let load_b = i64::from(b.tenant.running) * i64::from(a.tenant.weight.max(1));
            load_a.cmp(&load_b).then_with(|| head_a.cmp(head_b))
        })
        .map(|(line, _)| line)
}

#[cfg(test)]
mod tests;
