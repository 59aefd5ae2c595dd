//! How many heads of each group a claim reads: what it costs follows the builds that may start, whatever stands in the
//! queue. A group whose tenant, project, method or workers have no room has none; one of a tenant that may start one
//! build has one, however much room there is for others.

use std::collections::HashMap;

use uuid::Uuid;

use super::{Group, Tenant};
use crate::placement::{self, Worker};

/// Most heads that a claim reads for the turns of one tenant; it is made again where they are too few.
const MOST: u64 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// So many of its first builds.
    pub heads: i32,
    /// Whether no more of them could start in this plan, however many wait.
    pub is_all: bool,
}

const NONE: Ask = Ask { heads: 0, is_all: true };

/// What to ask of each group, in their order. Tenants and their groups are told as many heads as `spread` even
/// shares hold, at least 1: the greater, the seldomer a plan is cut.
pub fn asks(tenants: &[Tenant], workers: &[Worker], groups: &[Group], spread: u32) -> Vec<Ask> {
    let spread = u64::from(spread.max(1));
    let rooms: Vec<u64> = workers.iter().map(|worker| u64::from(worker.room().unsigned_abs())).collect();
    let room_of = |workers: &mut dyn Iterator<Item = usize>| workers.map(|worker| rooms[worker]).sum::<u64>();
    let even = |room: u64, parts: usize| spread.max(spread.saturating_mul(room).div_ceil(parts.max(1) as u64));
    let tenants: HashMap<Uuid, &Tenant> = tenants.iter().map(|tenant| (tenant.id, tenant)).collect();
    let mut askers: HashMap<Uuid, Asker> = HashMap::new();
    let mut most_of_group = Vec::with_capacity(groups.len());
    for group in groups {
        let allowed = tenants.get(&group.tenant).map_or(0, |tenant| tenant.room_for(group.project, group.method));
        let mut most = 0;
        if allowed > 0 {
            let fitting = placement::fitting(workers, group.tenant, group.method, &group.placement);
            most = room_of(&mut fitting.iter().copied()).min(u64::from(allowed.unsigned_abs()));
            if most > 0 {
                let asker = askers.entry(group.tenant).or_insert_with(|| Asker::new(workers.len()));
                asker.groups += 1;
                for worker in fitting {
                    asker.fits[worker] = true;
                }
            }
        }
        most_of_group.push(most);
    }

    let is_shared = |worker: &usize| workers[*worker].tenant.is_none();
    let shared = room_of(&mut (0..workers.len()).filter(is_shared));
    let share = even(shared, askers.len());
    let most_of_tenant: HashMap<Uuid, u64> = askers
        .iter()
        .map(|(id, asker)| {
            let fitting = |wanted: bool| {
                room_of(&mut (0..workers.len()).filter(|worker| asker.fits[*worker] && is_shared(worker) == wanted))
            };
            let (shared, own) = (fitting(true), fitting(false));
            let allowed = tenants.get(id).map_or(0, |tenant| u64::from(tenant.room().unsigned_abs()));
            (*id, allowed.min(own + shared.min(share)).min(MOST))
        })
        .collect();

    let ask = |(group, most): (&Group, u64)| {
        let Some(asker) = askers.get(&group.tenant).filter(|_| most > 0) else { return NONE };
        let of_tenant = most_of_tenant.get(&group.tenant).copied().unwrap_or_default();
        let heads = of_tenant.min(even(of_tenant, asker.groups)).min(most);
        Ask { heads: i32::try_from(heads).unwrap_or(i32::MAX), is_all: heads == most }
    };
    groups.iter().zip(most_of_group).map(ask).collect()
}

/// What of a tenant has room.
struct Asker {
    groups: usize,
    /// Which workers fit one of them.
    fits: Vec<bool>,
}

impl Asker {
    fn new(workers: usize) -> Self {
        Self { groups: 0, fits: vec![false; workers] }
    }
}
