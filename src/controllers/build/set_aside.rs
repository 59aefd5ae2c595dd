//! A reconcile that panics is that object's error and not the operator's end: it is counted, and
//! after three panics the Build is set aside until something else is asked of it.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures::FutureExt;
use kube::ResourceExt;

use super::watched::{Guarded, asked};

const PANICS: u32 = 3;

/// By UID: the last panic's [`asked`] and the number of panics at it.
#[derive(Debug, Default)]
pub struct SetAside(Mutex<HashMap<String, (Option<u64>, u32)>>);

impl SetAside {
    /// Does the work, and gives `None` where it panicked. A Build that comes through is forgotten here.
    pub async fn guard<T>(&self, build: &Guarded, work: impl Future<Output = T>) -> Option<T> {
        let outcome = AssertUnwindSafe(work).catch_unwind().await.ok();
        let uid = build.uid().unwrap_or_default();
        if outcome.is_some() {
            self.forget(&uid);
        } else {
            let asked = asked(build);
            let mut panics = self.panics();
            let (at, count) = panics.entry(uid).or_default();
            *count = if *at == asked { *count + 1 } else { 1 };
            *at = asked;
        }
        outcome
    }

    pub fn holds(&self, build: &Guarded) -> bool {
        let uid = build.uid().unwrap_or_default();
        self.panics().get(&uid).is_some_and(|(at, count)| *count >= PANICS && *at == asked(build))
    }

    pub fn forget(&self, uid: &str) {
        self.panics().remove(uid);
    }

    fn panics(&self) -> MutexGuard<'_, HashMap<String, (Option<u64>, u32)>> {
        // Whoever holds it only counts: what a panic leaves behind is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn build(generation: i64) -> Guarded {
        serde_json::from_value(json!({
            "metadata": {"name": "cider", "namespace": "orchard", "uid": "u", "generation": generation},
            "spec": {
                "method": "container",
                "source": {"inline": {"files": {"Dockerfile": "FROM scratch"}}},
                "output": {"image": "registry.test/orchard/cider:1"},
            },
        }))
        .unwrap()
    }

    async fn panic_at(set_aside: &SetAside, generation: i64) -> bool {
        let outcome = set_aside.guard(&build(generation), async { panic!("as a test wants it") }).await;
        assert_eq!(outcome, None::<()>);
        set_aside.holds(&build(generation))
    }

    #[tokio::test]
    async fn a_build_that_panics_three_times_is_set_aside_until_it_changes() {
        let set_aside = SetAside::default();
        assert_eq!([panic_at(&set_aside, 1).await, panic_at(&set_aside, 1).await], [false, false]);
        assert!(panic_at(&set_aside, 1).await);
        assert!(!set_aside.holds(&build(2)), "it has changed");
        assert!(!panic_at(&set_aside, 2).await, "it is counted anew");
    }

    #[tokio::test]
    async fn a_build_that_comes_through_is_counted_anew() {
        let set_aside = SetAside::default();
        panic_at(&set_aside, 1).await;
        panic_at(&set_aside, 1).await;
        assert_eq!(set_aside.guard(&build(1), async { 7 }).await, Some(7));
        assert!(!panic_at(&set_aside, 1).await);
    }
}
