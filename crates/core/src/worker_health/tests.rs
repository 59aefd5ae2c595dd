use proptest::prelude::*;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn node(name: &str, pool: &str) -> Node {
    Node { name: name.to_owned(), labels: labels(&[("pool", pool)]), ready: true, ..Node::default() }
}

fn taint(key: &str, value: &str, effect: Effect) -> Taint {
    Taint { key: key.to_owned(), value: value.to_owned(), effect }
}

fn tolerates(key: Option<&str>, value: Option<&str>, effect: Option<Effect>) -> Toleration {
    Toleration { key: key.map(str::to_owned), value: value.map(str::to_owned), effect }
}

fn of_pool(nodes: &[Node], tolerations: &[Toleration]) -> Health {
    health(nodes, &labels(&[("pool", "builds")]), tolerations)
}

#[test]
fn a_worker_is_as_well_as_its_nodes() {
    let pear = node("pear", "builds");
    let cordoned = Node { name: "quince".to_owned(), unschedulable: true, ..pear.clone() };
    let silent = Node { name: "fig".to_owned(), ready: false, ..pear.clone() };
    let other = node("plum", "web");
    let one_of_two = "1 of 2 nodes can't take Jobs: quince (cordoned)".to_owned();
    let none = "no node of the worker can take Jobs: fig (not ready), quince (cordoned)".to_owned();
    let nothing = "no node matches spec.nodeSelector (pool=builds)".to_owned();
    for (nodes, expected) in [
        (vec![pear.clone()], Health::Healthy),
        (vec![pear.clone(), Node { ready: false, ..other.clone() }], Health::Healthy),
        (vec![cordoned.clone(), pear], Health::Degraded(one_of_two)),
        (vec![cordoned, silent], Health::Offline(none)),
        (vec![other], Health::Offline(nothing.clone())),
        (vec![], Health::Offline(nothing)),
    ] {
        assert_eq!(of_pool(&nodes, &[]), expected);
    }
}

#[test]
fn a_node_short_of_something_takes_no_jobs() {
    for (pressure, said) in [
        (Pressure::Memory, "short of memory"),
        (Pressure::Disk, "short of disk space"),
        (Pressure::Pid, "short of process ids"),
    ] {
        let pear = Node { pressures: vec![pressure], ..node("pear", "builds") };
        let expected = format!("no node of the worker can take Jobs: pear ({said})");
        assert_eq!(of_pool(&[pear], &[]), Health::Offline(expected));
    }
}

#[test]
fn a_node_with_a_taint_that_is_not_tolerated_is_not_the_workers() {
    let pear = node("pear", "builds");
    let tainted = |effect| Node { taints: vec![taint("gpu", "yes", effect)], ..node("quince", "builds") };
    for (effect, tolerations, expected) in [
        (Effect::NoSchedule, vec![], false),
        (Effect::NoExecute, vec![], false),
        (Effect::PreferNoSchedule, vec![], true),
        (Effect::NoSchedule, vec![tolerates(Some("gpu"), Some("yes"), Some(Effect::NoSchedule))], true),
        (Effect::NoExecute, vec![tolerates(Some("gpu"), Some("yes"), Some(Effect::NoSchedule))], false),
        (Effect::NoSchedule, vec![tolerates(Some("gpu"), Some("no"), None)], false),
        (Effect::NoSchedule, vec![tolerates(Some("gpu"), None, None)], true),
        (Effect::NoSchedule, vec![tolerates(Some("cpu"), None, None)], false),
        (Effect::NoExecute, vec![tolerates(None, None, None)], true),
    ] {
        let alone = of_pool(&[tainted(effect)], &tolerations);
        assert_eq!(alone == Health::Healthy, expected, "{effect:?} {tolerations:?}: {alone:?}");
        // Beside a node of its own it is no reason to worry: a control plane is no sick node.
        assert_eq!(of_pool(&[tainted(effect), pear.clone()], &tolerations), Health::Healthy);
    }
    let Health::Offline(message) = of_pool(&[tainted(Effect::NoSchedule)], &[]) else { unreachable!("it has no node") };
    let expected =
        "every node that spec.nodeSelector (pool=builds) matches has a taint that spec.tolerations don't tolerate";
    assert_eq!(message, expected);
}

#[test]
fn a_taint_of_kubernetes_own_is_a_trouble_of_the_workers_node_unless_it_is_tolerated() {
    let key = "node.kubernetes.io/network-unavailable";
    let pear = Node { taints: vec![taint(key, "", Effect::NoSchedule)], ..node("pear", "builds") };
    let expected = "no node of the worker can take Jobs: pear (without a network)".to_owned();
    assert_eq!(of_pool(std::slice::from_ref(&pear), &[]), Health::Offline(expected));
    assert_eq!(of_pool(&[pear], &[tolerates(Some(key), None, None)]), Health::Healthy);
}

#[test]
fn who_tolerates_everything_still_needs_a_kubelet() {
    let all = [tolerates(None, None, None)];
    let cordoned = Node { unschedulable: true, pressures: vec![Pressure::Disk], ..node("pear", "builds") };
    assert_eq!(of_pool(std::slice::from_ref(&cordoned), &all), Health::Healthy);
    let silent = Node { ready: false, ..cordoned };
    assert_eq!(
        of_pool(&[silent], &all),
        Health::Offline("no node of the worker can take Jobs: pear (not ready)".to_owned())
    );
}

#[test]
fn a_message_names_some_nodes_and_counts_the_rest() {
    let nodes: Vec<Node> =
        (0..7).map(|number| Node { ready: false, ..node(&format!("node-{number}"), "builds") }).collect();
    let Health::Offline(message) = of_pool(&nodes, &[]) else { unreachable!("no node is ready") };
    assert!(message.ends_with("node-4 (not ready) and 2 more"), "{message}");
}

fn any_effect() -> impl Strategy<Value = Effect> {
    prop_oneof![Just(Effect::NoSchedule), Just(Effect::PreferNoSchedule), Just(Effect::NoExecute)]
}

fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![Just("gpu"), Just("team"), Just("node.kubernetes.io/disk-pressure")].prop_map(str::to_owned)
}

fn any_node() -> impl Strategy<Value = Node> {
    let taints = prop::collection::vec((any_key(), "[ab]", any_effect()), 0..3);
    let pressures = prop::sample::subsequence(Pressure::ALL.map(|(pressure, _)| pressure).to_vec(), 0..=1);
    ("[a-h]", "[xy]", prop::bool::weighted(0.8), prop::bool::weighted(0.2), pressures, taints).prop_map(
        |(name, pool, ready, unschedulable, pressures, taints)| Node {
            name,
            labels: labels(&[("pool", &pool)]),
            ready,
            unschedulable,
            pressures,
            taints: taints.into_iter().map(|(key, value, effect)| Taint { key, value, effect }).collect(),
        },
    )
}

fn any_toleration() -> impl Strategy<Value = Toleration> {
    (prop::option::of(any_key()), prop::option::of("[ab]".prop_map(String::from)), prop::option::of(any_effect()))
        .prop_map(|(key, value, effect)| Toleration { key, value, effect })
}

fn is_offline(health: &Health) -> bool {
    matches!(health, Health::Offline(_))
}

proptest! {
    #[test]
    fn one_more_node_or_toleration_never_takes_a_worker_offline(
        nodes in prop::collection::vec(any_node(), 0..8),
        tolerations in prop::collection::vec(any_toleration(), 0..3),
        node in any_node(),
        toleration in any_toleration(),
    ) {
        let selector = labels(&[("pool", "x")]);
        let before = health(&nodes, &selector, &tolerations);
        let more_nodes: Vec<Node> = nodes.iter().cloned().chain([node]).collect();
        let more_tolerations: Vec<Toleration> = tolerations.iter().cloned().chain([toleration]).collect();
        prop_assert!(is_offline(&before) || !is_offline(&health(&more_nodes, &selector, &tolerations)));
        prop_assert!(is_offline(&before) || !is_offline(&health(&nodes, &selector, &more_tolerations)));
    }

    #[test]
    fn the_order_of_the_nodes_and_the_nodes_of_others_change_nothing(
        nodes in prop::collection::vec(any_node(), 0..8),
        tolerations in prop::collection::vec(any_toleration(), 0..3),
    ) {
        let selector = labels(&[("pool", "x")]);
        let found = health(&nodes, &selector, &tolerations);
        let backwards: Vec<Node> = nodes.iter().rev().cloned().collect();
        prop_assert_eq!(&health(&backwards, &selector, &tolerations), &found);
        let own: Vec<Node> = nodes.into_iter().filter(|node| node.labels["pool"] == "x").collect();
        prop_assert_eq!(&health(&own, &selector, &tolerations), &found);
    }

    #[test]
    fn a_worker_is_healthy_exactly_when_each_of_its_nodes_alone_makes_it_so(
        nodes in prop::collection::vec(any_node(), 0..8),
        tolerations in prop::collection::vec(any_toleration(), 0..3),
    ) {
        let selector = labels(&[("pool", "x")]);
        let alone: Vec<Health> = nodes.iter().map(|node| health(std::slice::from_ref(node), &selector, &tolerations)).collect();
        let well = alone.iter().filter(|health| **health == Health::Healthy).count();
        let ailing = alone.iter().filter(|health| matches!(health, Health::Offline(why) if why.starts_with("no node of"))).count();
        let expected = (well > 0, ailing > 0);
        let found = match health(&nodes, &selector, &tolerations) {
            Health::Healthy => (true, false),
            Health::Degraded(_) => (true, true),
            Health::Offline(why) => (false, why.starts_with("no node of")),
        };
        prop_assert_eq!(found, expected);
    }
}
