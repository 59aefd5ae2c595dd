//! Every Build's status against the projection of its newest row, by the function that writes it; page by page, so that
//! neither specs nor statements add up.

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
    kube_ext,
};

pub async fn check(pool: &PgPool, client: &Client) -> Result<Checked, Error> {
    let api: Api<DeserializeGuard<Build>> = Api::all(client.clone());
    let mut checked = Checked::default();
    let mut page = ListParams::default().limit(kube_ext::BUILDS);
    loop {
        let list = api.list(&page).await?;
        // An object that can't be read as a Build has no row, and no status.
        let builds = list.items.into_iter().filter_map(|build| build.0.ok()).collect();
        check_page(pool, builds, &mut checked).await?;
        match kube_ext::next_page(page, &list.metadata) {
            Some(next) => page = next,
            None => return Ok(checked),
        }
    }
}

async fn check_page(pool: &PgPool, page: Vec<Build>, checked: &mut Checked) -> Result<(), Error> {
    let uids: Vec<String> = page.iter().filter_map(ResourceExt::uid).collect();
    let newest = builds::newest_of(pool, &uids).await?;
    for build in page {
        checked.examined += 1;
        let found = build.status.clone().unwrap_or_default();
        // What is no JSON is no Build either.
        let Ok(build) = Watched::try_from(build) else { continue };
        let expected = report::status(&build, newest.get(&build.uid().unwrap_or_default()));
        checked.broken.extend(problem(&found, expected).map(|problem| Broken { subject: subject(&build), problem }));
    }
    Ok(())
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
