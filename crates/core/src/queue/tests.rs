mod asks;
mod order;

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const METHODS: [Method; 2] = [Method::Buildx, Method::Kaniko];

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn tenant(number: u128, running: i32, limit: i32) -> Tenant {
    Tenant { id: id(number), running, limit, weight: 1, ..Tenant::default() }
}

fn worker(number: u128, running: i32, limit: i32) -> Worker {
    Worker { id: id(number), running, limit, declared: true, takes: true, ..Worker::default() }
}

fn head(build: u128, queued_at: i64) -> Head {
    Head { build: id(build), priority: 0, queued_at: at(queued_at), wish: Wish::default() }
}

fn group(tenant: u128, heads: Vec<Head>) -> Group {
    Group {
        tenant: id(tenant),
        project: id(50),
        method: Method::Buildx,
        placement: Placement::default(),
        heads,
        more: false,
    }
}

fn builds(plan: &Plan) -> Vec<u128> {
    plan.assignments.iter().map(|assignment| assignment.build.as_u128()).collect()
}

#[test]
fn the_oldest_build_of_a_tenant_starts_first_and_its_limit_holds() {
    let heads = vec![head(13, 30), head(11, 10), head(12, 20)];
    assert_eq!(builds(&plan(vec![tenant(1, 0, 2)], vec![worker(9, 0, 10)], vec![group(1, heads)])), [11, 12]);
}

#[test]
fn priority_counts_only_where_the_policy_says_so() {
    let mut heads = vec![head(11, 10), head(12, 20)];
    heads[1].priority = 5;
    let start = |by_priority| {
        let tenant = Tenant { by_priority, ..tenant(1, 0, 9) };
        builds(&plan(vec![tenant], vec![worker(9, 0, 1)], vec![group(1, heads.clone())]))
    };
    assert_eq!(start(false), [11]);
    assert_eq!(start(true), [12]);
}

#[test]
fn age_orders_the_builds_of_a_tenant_across_its_groups() {
    let mut other = group(1, vec![head(12, 20), head(14, 40)]);
    other.method = Method::Kaniko;
    let groups = vec![group(1, vec![head(11, 10), head(13, 30)]), other];
    assert_eq!(builds(&plan(vec![tenant(1, 0, 9)], vec![worker(9, 0, 3)], groups)), [11, 12, 13]);
}

#[test]
fn the_tenant_that_runs_less_for_its_weight_goes_first() {
    let heavy = Tenant { weight: 3, ..tenant(1, 2, 10) };
    let light = tenant(2, 1, 10);
    // 2 ÷ 3 < 1 ÷ 1, then 3 ÷ 3 = 1 ÷ 1 and the older head decides.
    let groups = vec![group(1, vec![head(11, 10), head(12, 11)]), group(2, vec![head(21, 5)])];
    assert_eq!(builds(&plan(vec![heavy, light], vec![worker(9, 0, 10)], groups)), [11, 21, 12]);
}

#[test]
fn a_tenant_without_room_holds_up_no_other() {
    let groups = vec![group(1, vec![head(11, 1)]), group(2, vec![head(21, 9)])];
    assert_eq!(builds(&plan(vec![tenant(1, 4, 4), tenant(2, 0, 4)], vec![worker(9, 0, 10)], groups)), [21]);
}

#[test]
fn a_full_project_or_method_holds_up_no_other_of_its_tenant() {
    let full = |change: fn(&mut Tenant)| {
        let mut tenant = tenant(1, 1, 9);
        change(&mut tenant);
        let mut other = group(1, vec![head(12, 20)]);
        (other.project, other.method) = (id(51), Method::Kaniko);
        builds(&plan(vec![tenant], vec![worker(9, 0, 10)], vec![group(1, vec![head(11, 10)]), other]))
    };
    assert_eq!(full(|_| {}), [11, 12]);
    let project = |tenant: &mut Tenant| {
        tenant.project_limit = Some(1);
        tenant.running_by_project.insert(id(50), 1);
    };
    assert_eq!(full(project), [12]);
    let method = |tenant: &mut Tenant| {
        tenant.method_limits.insert(Method::Buildx, 1);
        tenant.running_by_method.insert(Method::Buildx, 1);
    };
    assert_eq!(full(method), [12]);
}

#[test]
fn a_group_that_no_worker_fits_holds_up_no_other() {
    let mut choosy = group(1, vec![head(11, 1)]);
    choosy.placement.zone = Some("moon".to_owned());
    let groups = vec![choosy, group(1, vec![head(12, 2)])];
    assert_eq!(builds(&plan(vec![tenant(1, 0, 9)], vec![worker(9, 0, 10)], groups)), [12]);
}

#[test]
fn a_plan_ends_before_a_turn_that_could_be_of_a_build_it_was_not_told() {
    let cut = |heads| Group { more: true, ..group(1, heads) };
    let of = |second: Group| {
        let mut groups = vec![cut(vec![head(11, 1)]), second];
        groups[1].project = id(51);
        builds(&plan(vec![tenant(1, 0, 9), tenant(2, 0, 9)], vec![worker(9, 0, 9)], groups))
    };
    assert_eq!(of(group(2, vec![head(21, 2), head(22, 3)])), [11, 21], "the next turn is of tenant 1");
    assert_eq!(of(group(1, vec![head(12, 2)])), [11], "another of its group may be older than 12");
    let full = Tenant { project_limit: Some(1), ..tenant(1, 0, 9) };
    let groups = vec![cut(vec![head(11, 1)]), Group { project: id(51), ..group(1, vec![head(12, 2)]) }];
    assert_eq!(builds(&plan(vec![full], vec![worker(9, 0, 9)], groups)), [11, 12], "its project is full now");
}

#[derive(Clone, Debug)]
struct World {
    tenants: Vec<Tenant>,
    workers: Vec<Worker>,
    groups: Vec<Group>,
}

prop_compose! {
    fn any_tenant(number: u128)(
        running in 0..4i32, limit in 0..6i32, weight in 1..4i32, by_priority in any::<bool>(),
        project_limit in prop::option::of(0..4i32), method_limit in prop::option::of(0..4i32),
        by_project in 0..3i32, by_method in 0..3i32,
    ) -> Tenant {
        Tenant {
            id: id(number), running, limit, weight, by_priority, project_limit,
            method_limits: method_limit.map(|limit| (Method::Buildx, limit)).into_iter().collect(),
            running_by_project: [(id(50), by_project)].into(),
            running_by_method: [(Method::Buildx, by_method)].into(),
        }
    }
}

prop_compose! {
    fn any_worker(number: u128)(
        running in 0..3i32, limit in 0..5i32, takes in any::<bool>(), declared in any::<bool>(), own in any::<bool>(),
        zone in prop::option::of(Just("near".to_owned())), method in prop::option::of(prop::sample::select(&METHODS[..])),
    ) -> Worker {
        Worker {
            tenant: own.then(|| id(0)), zone, methods: method.into_iter().collect(), takes, declared,
            ..worker(100 + number, running, limit)
        }
    }
}

prop_compose! {
    fn any_group(number: u128)(
        tenant in 0..5u128, project in 50..52u128, method in prop::sample::select(&METHODS[..]), near in any::<bool>(),
        heads in prop::collection::vec((-3..3i32, 0..50i64, prop::option::of(100..103u128), prop::option::of(100..103u128)), 0..12),
    ) -> Group {
        Group {
            tenant: id(tenant), project: id(project), method,
            placement: Placement { zone: near.then(|| "near".to_owned()), ..Placement::default() },
            heads: heads.into_iter().zip(0..).map(|((priority, second, warm, avoid), place)| Head {
                build: id(1000 * (number + 1) + place), priority, queued_at: at(second),
                wish: Wish { warm: warm.map(id), avoid: avoid.map(id) },
            }).collect(),
            more: false,
        }
    }
}

fn any_world() -> impl Strategy<Value = World> {
    let tenants: Vec<_> = (0..5).map(any_tenant).collect();
    let workers: Vec<_> = (0..4).map(any_worker).collect();
    let groups: Vec<_> = (0..8).map(any_group).collect();
    (tenants, workers, groups).prop_map(|(tenants, workers, groups)| World { tenants, workers, groups })
}

impl World {
    fn plan(&self) -> Vec<Assignment> {
        plan(self.tenants.clone(), self.workers.clone(), self.groups.clone()).assignments
    }

    /// What it is after the plan: counts raised, what started taken out of the groups.
    fn after(&self, made: &[Assignment]) -> Self {
        let mut after = self.clone();
        for Assignment { build, worker } in made {
            let group =
                after.groups.iter_mut().find(|group| group.heads.iter().any(|head| head.build == *build)).unwrap();
            group.heads.retain(|head| head.build != *build);
            let tenant = after.tenants.iter_mut().find(|tenant| tenant.id == group.tenant).unwrap();
            tenant.takes_up(group.project, group.method);
            after.workers.iter_mut().find(|one| one.id == *worker).unwrap().running += 1;
        }
        after
    }
}

proptest! {
    #[test]
    fn no_limit_is_exceeded_and_no_build_starts_twice(world in any_world()) {
        let made = world.plan();
        let mut seen = HashSet::new();
        prop_assert!(made.iter().all(|assignment| seen.insert(assignment.build)));
        let after = world.after(&made);
        for (before, now) in world.tenants.iter().zip(&after.tenants) {
            let within = |limit: Option<i32>, before: i32, now: i32| now == before || limit.is_none_or(|limit| now <= limit);
            prop_assert!(within(Some(now.limit), before.running, now.running));
            for (project, running) in &now.running_by_project {
                let before = before.running_by_project.get(project).copied().unwrap_or_default();
                prop_assert!(within(now.project_limit, before, *running));
            }
            for (method, running) in &now.running_by_method {
                let before = before.running_by_method.get(method).copied().unwrap_or_default();
                prop_assert!(within(now.method_limits.get(method).copied(), before, *running));
            }
        }
        for (before, now) in world.workers.iter().zip(&after.workers) {
            prop_assert!(now.running == before.running || (now.takes && now.running <= now.limit));
        }
    }

    #[test]
    fn a_build_runs_only_where_it_fits(world in any_world()) {
        for Assignment { build, worker } in world.plan() {
            let group = world.groups.iter().find(|group| group.heads.iter().any(|head| head.build == build)).unwrap();
            let fitting = placement::fitting(&world.workers, group.tenant, group.method, &group.placement);
            prop_assert!(fitting.iter().any(|index| world.workers[*index].id == worker));
        }
    }

    #[test]
    fn a_plan_leaves_nothing_that_could_start(world in any_world()) {
        let after = world.after(&world.plan());
        prop_assert_eq!(after.plan(), vec![]);
        for group in &after.groups {
            let Some(tenant) = after.tenants.iter().find(|tenant| tenant.id == group.tenant) else { continue };
            let fitting = placement::fitting(&after.workers, group.tenant, group.method, &group.placement);
            for head in &group.heads {
                let full = tenant.room_for(group.project, group.method) == 0;
                prop_assert!(full || placement::choose(&after.workers, &fitting, head.wish).is_none());
            }
        }
    }

    #[test]
    fn a_plan_does_not_depend_on_the_order_it_is_told_things_in(world in any_world()) {
        let mut turned = world.clone();
        turned.tenants.reverse();
        turned.workers.reverse();
        turned.groups.reverse();
        for group in &mut turned.groups {
            group.heads.reverse();
        }
        prop_assert_eq!(world.plan(), turned.plan());
    }

    #[test]
    fn builds_of_one_group_start_in_their_order(world in any_world()) {
        let made: HashSet<Uuid> = world.plan().into_iter().map(|assignment| assignment.build).collect();
        for group in &world.groups {
            let Some(tenant) = world.tenants.iter().find(|tenant| tenant.id == group.tenant) else { continue };
            let line = Line::new(tenant.clone());
            let mut heads: Vec<&Head> = group.heads.iter().collect();
            heads.sort_by_key(|head| line.rank(head));
            let started: Vec<bool> = heads.iter().map(|head| made.contains(&head.build)).collect();
            prop_assert!(started.is_sorted_by(|before, after| before >= after), "{started:?}");
        }
    }

    /// Tenants that always have something waiting hold shares of the workers like their weights, within
    /// a build, once the queue has turned over.
    #[test]
    fn weights_are_honoured_over_time(weights in prop::collection::vec(1..5i32, 2..5), ends in prop::collection::vec(any::<prop::sample::Index>(), 60..120)) {
        let room: i32 = weights.iter().sum::<i32>() * 3;
        let mut tenants: Vec<Tenant> = (0..).zip(&weights).map(|(number, weight)| Tenant { weight: *weight, ..tenant(number, 0, 1000) }).collect();
        let mut running: Vec<usize> = Vec::new();
        let mut next_build = 1000;
        for end in std::iter::once(None).chain(ends.iter().map(Some)) {
            if let Some(end) = end {
                let gone = running.swap_remove(end.index(running.len()));
                tenants[gone].running -= 1;
            }
            let groups = tenants.iter().map(|tenant| {
                next_build += 100;
                group(tenant.id.as_u128(), (0..i64::from(room)).map(|place| head(next_build + u128::try_from(place).unwrap(), place)).collect())
            }).collect();
            let taken = i32::try_from(running.len()).unwrap();
            for assignment in plan(tenants.clone(), vec![worker(9, taken, room)], groups).assignments {
                let owner = usize::try_from((assignment.build.as_u128() - 1000) / 100 - 1).unwrap() % tenants.len();
                tenants[owner].running += 1;
                running.push(owner);
            }
            prop_assert_eq!(i32::try_from(running.len()).unwrap(), room, "no room is left unused");
            for (tenant, weight) in tenants.iter().zip(&weights) {
                prop_assert!((tenant.running - 3 * weight).abs() <= 1, "{} of {}", tenant.running, 3 * weight);
            }
        }
    }
}
