//! Whoever changes what may run wakes the dispatchers, which would look only seconds later; whoever changes nothing does
//! not.

use std::time::Duration;

use image_factory::db::{
    policies::{self, Policy},
    workers::{self as rows, Declared},
};
use image_factory_core::worker_health::Health;
use sqlx::{PgPool, postgres::PgListener};

use crate::{
    attempts::{limits, policy},
    workers::worker,
};

/// How often the dispatchers are woken by this.
async fn wakes(pool: &PgPool, change: impl AsyncFnOnce()) -> usize {
    let mut listener = PgListener::connect_with(pool).await.expect("it connects");
    listener.listen("image_factory_status").await.expect("it listens");
    change().await;
    // What comes after it has come when this has.
    sqlx::query("select pg_notify('image_factory_status', 'the end')").execute(pool).await.expect("it can be sent");
    let mut wakes = 0;
    loop {
        let next = tokio::time::timeout(Duration::from_secs(20), listener.recv()).await;
        let notification = next.expect("it comes in time").expect("the connection holds");
        match notification.payload() {
            "the end" => return wakes,
            _ => wakes += 1,
        }
    }
}

#[sqlx::test(migrations = "./migrations")]
async fn a_change_of_policies_wakes_the_dispatchers_and_the_same_again_does_not(pool: PgPool) {
    limits(&pool, 1, 1).await;
    let policy = |most| Policy { max_concurrent_builds: Some(most), ..policy("green") };
    for (version, declared, expected) in
        [(1, vec![policy(1)], 1), (2, vec![policy(1)], 0), (3, vec![policy(2)], 1), (4, vec![], 1), (5, vec![], 0)]
    {
        let woken = wakes(&pool, async || {
            assert!(policies::declare(&pool, &declared, version).await.expect("they can be declared"));
        });
        assert_eq!(woken.await, expected, "version {version}");
    }
}

#[sqlx::test(migrations = "./migrations")]
async fn a_worker_that_takes_builds_again_wakes_the_dispatchers(pool: PgPool) {
    let worker = |health| Declared { health, ..worker("brush") };
    let offline = || Health::Offline("no node".to_owned());
    for (version, health, expected) in
        [(1, Health::Healthy, true), (2, Health::Healthy, false), (3, offline(), true), (4, Health::Healthy, true)]
    {
        let woken = wakes(&pool, async || {
            assert!(rows::declare(&pool, &[worker(health)], version).await.expect("it can be declared"));
        });
        assert_eq!(woken.await > 0, expected, "version {version}");
    }
}
