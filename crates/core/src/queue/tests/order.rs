//! Which build goes before which: inside a tenant none starts before another that had room, and so none starves.

use super::*;

/// Where a build stands, and what it would take.
fn place_of(world: &World, build: Uuid) -> (&Group, &Head) {
    let mut all = world.groups.iter().flat_map(|group| group.heads.iter().map(move |head| (group, head)));
    all.find(|(_, head)| head.build == build).unwrap()
}

/// Builds that wait although others of their tenant that stand behind them have started, and that would have had room
/// without those.
fn overtaken(world: &World, made: &[Assignment]) -> Vec<Uuid> {
    let started: HashSet<Uuid> = made.iter().map(|assignment| assignment.build).collect();
    let mut found = Vec::new();
    for group in &world.groups {
        let Some(tenant) = world.tenants.iter().find(|tenant| tenant.id == group.tenant) else { continue };
        let line = Line::new(tenant.clone());
        for head in group.heads.iter().filter(|head| !started.contains(&head.build)) {
            let stands_behind = |assignment: &Assignment| {
                let (of, other) = place_of(world, assignment.build);
                of.tenant == group.tenant && line.rank(other) > line.rank(head)
            };
            let before: Vec<Assignment> = made.iter().filter(|one| !stands_behind(one)).cloned().collect();
            if before.len() == made.len() {
                continue;
            }
            let then = world.after(&before);
            let tenant = then.tenants.iter().find(|tenant| tenant.id == group.tenant).unwrap();
            let fitting = placement::fitting(&then.workers, group.tenant, group.method, &group.placement);
            let had_a_worker = placement::choose(&then.workers, &fitting, head.wish).is_some();
            if tenant.room_for(group.project, group.method) > 0 && had_a_worker {
                found.push(head.build);
            }
        }
    }
    found
}

/// Groups of a tenant whose limits all let something run, at workers of which one is near.
fn open_world(by_priority: bool, limits: (i32, i32, i32)) -> World {
    let (of_all, of_project, of_method) = limits;
    let tenant = Tenant {
        by_priority,
        project_limit: Some(of_project),
        method_limits: [(Method::Buildx, of_method)].into(),
        ..tenant(1, 0, of_all)
    };
    let near = Worker { zone: Some("near".to_owned()), ..worker(8, 0, 1) };
    let kaniko = Worker { methods: vec![Method::Kaniko], ..worker(9, 0, 2) };
    let mut groups = Vec::new();
    for project in 50..52 {
        for method in METHODS {
            for zone in [None, Some("near".to_owned()), Some("moon".to_owned())] {
                let placement = Placement { zone, ..Placement::default() };
                groups.push(Group { project: id(project), method, placement, ..group(1, Vec::new()) });
            }
        }
    }
    World { tenants: vec![tenant], workers: vec![near, kaniko], groups }
}

proptest! {
    #[test]
    fn none_starts_before_one_of_its_tenant_that_had_room(world in any_world()) {
        prop_assert_eq!(overtaken(&world, &world.plan()), Vec::<Uuid>::new());
    }

    /// However builds of every kind come and go, all that some worker fits have started once no more come, those of a
    /// group in their order, and none has let one behind it go first while it had room.
    #[test]
    fn no_build_starves_within_its_tenant(
        by_priority in any::<bool>(),
        limits in (1..4i32, 1..3i32, 1..3i32),
        arrivals in prop::collection::vec(prop::collection::vec((0..12usize, -2..3i32), 0..4), 1..12),
        ends in prop::collection::vec(any::<prop::sample::Index>(), 60),
    ) {
        let mut world = open_world(by_priority, limits);
        let mut running: Vec<(usize, Uuid)> = Vec::new();
        let mut next_build = 1000;
        for (second, end) in (0..).zip(ends) {
            for (place, priority) in arrivals.get(usize::try_from(second).unwrap()).into_iter().flatten() {
                world.groups[*place].heads.push(Head { priority: *priority, ..head(next_build, second) });
                next_build += 1;
            }
            if !running.is_empty() {
                let (place, worker) = running.swap_remove(end.index(running.len()));
                let (project, method) = (world.groups[place].project, world.groups[place].method);
                let tenant = &mut world.tenants[0];
                tenant.running -= 1;
                *tenant.running_by_project.get_mut(&project).unwrap() -= 1;
                *tenant.running_by_method.get_mut(&method).unwrap() -= 1;
                world.workers.iter_mut().find(|one| one.id == worker).unwrap().running -= 1;
            }
            let made = world.plan();
            prop_assert_eq!(overtaken(&world, &made), Vec::<Uuid>::new());
            for Assignment { build, worker } in &made {
                let has = |group: &Group| group.heads.iter().any(|head| head.build == *build);
                running.push((world.groups.iter().position(has).unwrap(), *worker));
            }
            world = world.after(&made);
        }
        for group in &world.groups {
            let is_for_nobody = group.placement.zone.as_deref() == Some("moon");
            prop_assert!(is_for_nobody || group.heads.is_empty(), "{group:?} waits for ever");
        }
    }
}
