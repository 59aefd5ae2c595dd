//! Every Build's status against the projection of its newest row, by the function that writes it.

use kube::{Api, Client, ResourceExt, api::ListParams, core::DeserializeGuard};
use sqlx::PgPool;

use super::Error;
use crate::{
    controllers::build::{report, watched::Watched},
    crd::{Build, BuildStatus, build_status::Phase},
    db::{
        builds,
        verify::{Broken, Checked},
    },
};

pub async fn check(pool: &PgPool, client: &Client) -> Result<Checked, Error> {
    let api: Api<DeserializeGuard<Build>> = Api::all(client.clone());
    let mut checked = Checked::default();
    // An object that can't be read as a Build has no row, and no status.
    for build in super::all(&api, ListParams::default()).await?.into_iter().filter_map(|build| build.0.ok()) {
        checked.examined += 1;
        let found = build.status.clone().unwrap_or_default();
        // What is no JSON is no Build either.
        let Ok(build) = Watched::try_from(build) else { continue };
        let newest = builds::newest(pool, &build.uid().unwrap_or_default()).await?;
        let expected = report::status(&build, newest.as_ref());
        checked.broken.extend(problem(&found, expected).map(|problem| Broken { subject: subject(&build), problem }));
    }
    Ok(checked)
}

fn subject(build: &Watched) -> String {
    format!("{}/{}", build.namespace().unwrap_or_default(), build.name_any())
}

fn problem(found: &BuildStatus, expected: Option<BuildStatus>) -> Option<String> {
    let Some(expected) = expected else { return Some("has no row".to_owned()) };
    if settled(found.clone()) == settled(expected.clone()) {
        return None;
    }
    let told = |status: &BuildStatus| {
        let phase = status.phase.map_or_else(|| "none".to_owned(), |phase| format!("{phase:?}"));
        format!("{phase} of build {}", status.build_id.as_deref().unwrap_or("none"))
    };
    let (found, expected) = (told(found), told(&expected));
    Some(if found == expected {
        format!("its status ({found}) differs from its newest row")
    } else {
        format!("its status says {found}, its newest row {expected}")
    })
}

/// Without what changes in the queue while the build stands still in it: its place, and whom it
/// waits for.
fn settled(mut status: BuildStatus) -> BuildStatus {
    if status.phase == Some(Phase::Queued) {
        status.queue = None;
        status.conditions.clear();
    }
    status
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(said: &Value) -> BuildStatus {
        serde_json::from_value(said.clone()).unwrap()
    }

    #[test]
    fn a_status_is_judged_whole_but_for_a_place_in_the_queue() {
        let said = json!({"phase": "Queued", "buildId": "b", "queue": {"position": 2}});
        for (expected, words) in [
            (json!({"phase": "Queued", "buildId": "b", "queue": {"position": 1}}), None),
            (json!({"phase": "Queued", "buildId": "b", "run": 2}), Some("its status (Queued of build b) differs")),
            (json!({"phase": "Queued", "buildId": "c"}), Some("its newest row Queued of build c")),
            (json!({"phase": "Success", "buildId": "b"}), Some("says Queued of build b, its newest row Success")),
        ] {
            let found = problem(&status(&said), Some(status(&expected)));
            match words {
                None => assert_eq!(found, None, "{expected}"),
                Some(words) => assert!(found.unwrap().contains(words), "{expected}"),
            }
        }
        assert_eq!(problem(&status(&said), None).unwrap(), "has no row");
    }
}
