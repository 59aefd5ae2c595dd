//! Waiting for a condition, never for a time: objects are watched, rows are asked again. Each wait has
//! a deadline, generous because the machine may be busy, and says at it what it saw last.

use std::{fmt::Debug, time::Duration};

use kube::{Api, Resource, runtime::wait::await_condition};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// A build takes about 5 s on an idle machine.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Watches one object until `reached`; `what` completes the sentence "waited in vain for …".
pub async fn until<K>(api: &Api<K>, name: &str, what: &str, reached: impl Fn(Option<&K>) -> bool) -> Option<K>
where
    K: Clone + Debug + Send + Serialize + DeserializeOwned + Resource + 'static,
{
    let watching = await_condition(api.clone(), name, |found: Option<&K>| reached(found));
    if let Ok(found) = timeout(PATIENCE, watching).await {
        return found.expect("the object can be watched");
    }
    let last = api.get_opt(name).await.expect("the object can be read");
    let last = serde_yaml::to_string(&last).expect("an object is YAML");
    unreachable!("waited in vain for {what}; {name} is\n{last}")
}

/// Asks again until there is an answer; for what nobody announces.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        let mut turn = interval(Duration::from_millis(100));
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    };
    match timeout(PATIENCE, asking).await {
        Ok(answer) => answer,
        Err(_) => unreachable!("waited in vain for {what}"),
    }
}
