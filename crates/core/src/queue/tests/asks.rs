//! What a claim reads is enough, and no more than that.

use super::*;

fn asked(tenants: &[Tenant], workers: &[Worker], groups: &[Group]) -> Vec<i32> {
    asks(tenants, workers, groups, 2).iter().map(|ask| ask.heads).collect()
}

fn many(groups: usize, change: fn(&mut Group)) -> Vec<Group> {
    let one = |number: usize| {
        let mut group = Group { project: id(5_000 + number as u128), ..group(1, Vec::new()) };
        change(&mut group);
        group
    };
    (0..groups).map(one).collect()
}

#[test]
fn nothing_is_asked_of_a_group_that_could_not_start() {
    let workers = [worker(8, 4, 4), worker(9, 0, 4), Worker { takes: false, ..worker(10, 0, 4) }];
    let workers = workers.map(|worker| Worker { zone: Some(worker.id.as_u128().to_string()), ..worker });
    let of = |change: &dyn Fn(&mut Tenant, &mut Group)| {
        let (mut tenant, mut group) = (tenant(1, 0, 9), group(1, Vec::new()));
        change(&mut tenant, &mut group);
        asked(&[tenant], &workers, &[group])[0]
    };
    let zone =
        |zone: &'static str| move |_: &mut Tenant, group: &mut Group| group.placement.zone = Some(zone.to_owned());
    assert_eq!(of(&|_, _| {}), 4, "as many as workers take");
    assert_eq!(of(&zone("9")), 4);
    assert_eq!(of(&zone("8")), 0, "its worker is full");
    assert_eq!(of(&zone("10")), 0, "its worker takes nothing");
    assert_eq!(of(&zone("moon")), 0, "no worker fits");
    assert_eq!(of(&|tenant, _| tenant.running = 9), 0);
    assert_eq!(of(&|tenant, _| tenant.running = 7), 2);
    assert_eq!(of(&|tenant, _| tenant.project_limit = Some(0)), 0);
    assert_eq!(of(&|tenant, _| tenant.project_limit = Some(3)), 3);
    assert_eq!(of(&|tenant, _| tenant.method_limits = [(Method::Buildx, 1)].into()), 1);
    assert_eq!(of(&|_, group| group.tenant = id(2)), 0, "a tenant that is not told");
}

#[test]
fn groups_without_room_take_nothing_from_those_with_room() {
    let stuck = many(10_000, |group| group.placement.zone = Some("moon".to_owned()));
    let of_other = Group { tenant: id(2), ..group(2, Vec::new()) };
    let groups: Vec<Group> = stuck.into_iter().chain([group(1, Vec::new()), of_other]).collect();
    let asked = asked(&[tenant(1, 0, 50), tenant(2, 0, 50)], &[worker(9, 0, 40)], &groups);
    assert!(asked[..10_000].iter().all(|heads| *heads == 0));
    assert_eq!(asked[10_000..], [40, 40]);
}

#[test]
fn many_groups_of_a_tenant_make_no_other_wait_for_another_plan() {
    let groups: Vec<Group> = many(10_000, |_| {}).into_iter().chain([group(2, Vec::new())]).collect();
    let asked = asked(&[tenant(1, 0, 50), tenant(2, 0, 50)], &[worker(9, 0, 40)], &groups);
    assert_eq!(asked[9_999..], [2, 40], "all that it could start");
}

#[test]
fn a_worker_of_one_tenant_makes_no_other_read_its_backlog() {
    let own = Worker { tenant: Some(id(1)), ..worker(8, 0, 100_000) };
    let groups = [group(1, Vec::new()), group(2, Vec::new()), group(3, Vec::new())];
    let tenants = [tenant(1, 0, 200_000), tenant(2, 9, 10), tenant(3, 0, 200_000)];
    assert_eq!(asked(&tenants, &[own, worker(9, 0, 40)], &groups), [1_000, 1, 27]);
}

#[test]
fn numbers_as_great_as_can_be_are_no_overflow() {
    let workers: Vec<Worker> = (1..9).map(|number| worker(number, 0, i32::MAX)).collect();
    let tenants = [Tenant { project_limit: Some(i32::MAX), ..tenant(1, 0, i32::MAX) }];
    assert_eq!(asks(&tenants, &workers, &[group(1, Vec::new())], u32::MAX)[0].heads, 1_000);
}

/// Each group as a claim would be told it.
fn told(world: &World, spread: u32) -> World {
    let asks = asks(&world.tenants, &world.workers, &world.groups, spread);
    let mut told = world.clone();
    for (group, ask) in told.groups.iter_mut().zip(asks) {
        if let Some(tenant) = world.tenants.iter().find(|tenant| tenant.id == group.tenant) {
            let line = Line::new(tenant.clone());
            group.heads.sort_by_key(|head| line.rank(head));
        }
        let heads = usize::try_from(ask.heads).unwrap();
        group.more = !ask.is_all && group.heads.len() >= heads;
        group.heads.truncate(heads);
    }
    told
}

proptest! {
    /// However few heads of each group are told at a time, claims made one after another come to the same.
    #[test]
    fn plans_from_what_is_asked_add_up_to_the_plan_from_the_whole(world in any_world(), spread in 1..4u32) {
        let mut left = world.clone();
        let mut made = Vec::new();
        loop {
            let World { tenants, workers, groups } = told(&left, spread);
            let Plan { assignments, cut } = plan(tenants, workers, groups);
            prop_assert!(!cut || !assignments.is_empty(), "it would be made for ever");
            left = left.after(&assignments);
            made.extend(assignments);
            if !cut { break; }
        }
        prop_assert_eq!(made, world.plan());
    }

    /// What is read follows what may start, and the groups that have room.
    #[test]
    fn no_more_is_asked_than_could_start_twice_over(world in any_world(), spread in 1..4u32) {
        let asks = asks(&world.tenants, &world.workers, &world.groups, spread);
        for tenant in &world.tenants {
            let of_tenant = || world.groups.iter().zip(&asks).filter(|(group, ask)| group.tenant == tenant.id && ask.heads > 0);
            let groups = i32::try_from(of_tenant().count()).unwrap();
            let sum: i32 = of_tenant().map(|(_, ask)| ask.heads).sum();
            prop_assert!(sum <= i32::try_from(spread).unwrap() * ((tenant.limit - tenant.running).max(0) + groups) + groups);
            for (group, ask) in of_tenant() {
                prop_assert!(ask.heads <= tenant.room_for(group.project, group.method));
            }
        }
    }
}
