//! The execution trace: which steps a build of two stages had, cold, from a cache and failing, by each
//! method that reads a Dockerfile; compared with the Dockerfile, the status and the registry.

use image_factory::crd::Build;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use super::{
    cluster,
    failing_builds::failure,
    registry::pushed,
    rows,
    tenant::{Tenant, phase, status, tenant},
};

const PRESS: &str = "FROM BASE AS press\n\
    COPY apples.txt /apples.txt\n\
    RUN echo \"pressing\" && tr a-z A-Z < /apples.txt > /juice.txt\n\
    \n\
    FROM BASE\n\
    WORKDIR /cellar\n\
    COPY --from=press /juice.txt /cellar/juice.txt\n\
    RUN echo \"tasting\" && cat /cellar/juice.txt\n\
    CMD [\"cat\", \"/cellar/juice.txt\"]\n";
const COPY: &str = "COPY apples.txt /apples.txt";
const RUN: &str = "RUN echo \"pressing\" && tr a-z A-Z < /apples.txt > /juice.txt";
const COPY_STAGE: &str = "COPY --from=press /juice.txt /cellar/juice.txt";
const TASTE: &str = "RUN echo \"tasting\" && cat /cellar/juice.txt";
const BROKEN: &str = "RUN echo \"expected 4, found 5\" && exit 3";

/// A step as the rows have it; FROM's name without what each builder adds.
#[derive(Debug, PartialEq, sqlx::FromRow)]
struct Step {
    name: String,
    instruction_type: String,
    status: String,
    cached: bool,
    stdout: Option<String>,
    layer_digest: Option<String>,
    layer_size_bytes: Option<i64>,
}

async fn steps(pool: &PgPool, id: Uuid) -> Vec<Step> {
    let rows = sqlx::query_as(
        "select case when instruction_type = 'FROM' then 'FROM' else step_name end as name, instruction_type, status, cached,
             case when instruction_type = 'RUN' then stdout end as stdout, layer_digest, layer_size_bytes
         from build_steps where build_id = $1 order by step_number",
    );
    rows.bind(id).fetch_all(pool).await.expect("steps can be read")
}

async fn newest(tenant: &Tenant, build: &Build) -> Uuid {
    rows::id(tenant.attempts(build).await.last().expect("a row"))
}

/// Names in their order, those from the cache with a star; which stage a builder does first is its own business.
fn outline(steps: &[Step]) -> Vec<String> {
    let mut names: Vec<String> =
        steps.iter().map(|step| format!("{}{}", step.name, if step.cached { " *" } else { "" })).collect();
    names.sort();
    names
}

fn expected(names: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn the_steps_of_buildx_are_those_that_make_layers() {
    let cache = |repo: &str| json!({"from": [format!("type=registry,ref={repo}")], "to": [format!("type=registry,ref={repo},mode=max")]});
    traced("buildx", "privileged", cache, &["FROM"], &[COPY, RUN, "WORKDIR /cellar", COPY_STAGE, TASTE], &[]).await;
}

#[tokio::test]
async fn the_steps_of_container_are_all_instructions() {
    let command = "CMD [\"cat\", \"/cellar/juice.txt\"]";
    let cached = [COPY, RUN, "WORKDIR /cellar", COPY_STAGE, TASTE, command];
    traced("container", "baseline", |repo| json!({"repo": repo}), &["FROM", "FROM"], &cached, &[]).await;
}

#[tokio::test]
async fn the_steps_of_kaniko_are_all_instructions_and_it_caches_what_runs() {
    if cluster::kaniko_image().await.is_none() {
        eprintln!("skipped: the operator has no image of kaniko; start it with KANIKO_EXECUTOR=<file> make up");
        return;
    }
    let others = [COPY, COPY_STAGE, "CMD [\"cat\", \"/cellar/juice.txt\"]"];
    traced(
        "kaniko",
        "baseline",
        |repo| json!({"repo": repo}),
        &["FROM", "FROM"],
        &[RUN, "WORKDIR /cellar", TASTE],
        &others,
    )
    .await;
}

#[tokio::test]
async fn the_step_that_runs_is_told_while_it_runs_and_skipped_when_the_build_is_cancelled() {
    tenant("live-steps", "baseline", async |tenant| {
        let mut manifest =
            tenant.manifest("cider", "container", "FROM BASE\nENV A=b\nRUN echo at work && sleep 300\nCMD true\n");
        tenant.apply(&manifest).await;
        let running = |build: &Build| status(build)["step"]["current"] == "RUN echo at work && sleep 300";
        let build = tenant.until("cider", "its step in the status", running).await;
        let told = json!({"current": "RUN echo at work && sleep 300", "done": 2, "total": 4, "cached": 0});
        assert_eq!(status(&build)["step"], told);
        assert_eq!(phase(&build), "InProgress");
        let id = newest(tenant, &build).await;
        assert_eq!(steps(&tenant.pool, id).await[2].status, "running");

        manifest["spec"]["cancel"] = json!(true);
        tenant.apply(&manifest).await;
        tenant.finished("cider", 1).await;
        let statuses: Vec<String> = steps(&tenant.pool, id).await.into_iter().map(|step| step.status).collect();
        assert_eq!(statuses, ["success", "success", "skipped"]);
    })
    .await;
}

/// Builds cold, again from the cache (`cached` comes from there, `others` do not), and then with a step that fails.
async fn traced(
    method: &str,
    level: &str,
    cache: impl Fn(&str) -> Value,
    bases: &[&str],
    cached: &[&str],
    others: &[&str],
) {
    tenant(&format!("{method}-steps"), level, async |tenant| {
        let mut manifest = tenant.manifest("cider", method, PRESS);
        manifest["spec"]["source"]["inline"]["files"]["apples.txt"] = json!("gala\n");
        manifest["spec"]["cache"] = cache(&format!("{}/{}/cache", cluster::registry(), tenant.namespace));
        tenant.apply(&manifest).await;
        let build = tenant.finished("cider", 1).await;
        assert_eq!(phase(&build), "Success");
        let cold = steps(&tenant.pool, newest(tenant, &build).await).await;
        assert_eq!(outline(&cold), expected(&[bases, cached, others].concat()), "{cold:#?}");
        for step in &cold {
            assert_eq!(step.status, "success", "{step:?}");
            assert_eq!(step.instruction_type, step.name.split(' ').next().unwrap_or_default());
        }
        let printed = |name: &str| cold.iter().find(|step| step.name == name).and_then(|step| step.stdout.clone());
        assert_eq!((printed(RUN).as_deref(), printed(TASTE).as_deref()), (Some("pressing"), Some("tasting\nGALA")));
        let told = json!({"done": cold.len(), "total": cold.len(), "cached": 0});
        assert_eq!(status(&build)["step"], told);
        of_final_stage(tenant, &cold).await;

        manifest["metadata"]["annotations"] = json!({"imagefactory.dev/rerun": "again"});
        tenant.apply(&manifest).await;
        let build = tenant.finished("cider", 2).await;
        assert_eq!(phase(&build), "Success");
        let warm = steps(&tenant.pool, newest(tenant, &build).await).await;
        let starred: Vec<String> = cached.iter().map(|name| format!("{name} *")).collect();
        let starred: Vec<&str> = starred.iter().map(String::as_str).collect();
        assert_eq!(outline(&warm), expected(&[bases, &starred, others].concat()), "{warm:#?}");
        let told = json!({"done": warm.len(), "total": warm.len(), "cached": cached.len()});
        assert_eq!(status(&build)["step"], told);
        of_final_stage(tenant, &warm).await;

        fails(tenant, &mut manifest).await;
    })
    .await;
}

async fn fails(tenant: &Tenant, manifest: &mut Value) {
    let dockerfile = &mut manifest["spec"]["source"]["inline"]["files"]["Dockerfile"];
    *dockerfile = json!(dockerfile.as_str().expect("a text").replace(TASTE, BROKEN));
    tenant.apply(manifest).await;
    let build = tenant.finished("cider", 3).await;
    let failure = failure(tenant, &build).await;
    let message = failure["message"].as_str().expect("a message");
    assert!(message.starts_with(&format!("{BROKEN}: ")), "the step that failed is named: {failure:#}");
    assert_eq!((&failure["reason"], &failure["exitCode"]), (&json!("BuildFailed"), &json!(3)));
    let tail: Vec<&str> = failure["logTail"].as_array().expect("a tail").iter().filter_map(Value::as_str).collect();
    assert_eq!(tail.first(), Some(&"expected 4, found 5"), "its own last lines: {failure:#}");
    assert_eq!(status(&build)["step"]["current"], BROKEN);
    let id = newest(tenant, &build).await;
    let failed: Vec<Value> = sqlx::query_scalar(
        "select jsonb_build_array(step_name, split_part(stdout, E'\\n', 1), error_code, stderr like '%3')
         from build_steps where build_id = $1 and status <> 'success'",
    )
    .bind(id)
    .fetch_all(&tenant.pool)
    .await
    .expect("steps can be read");
    assert_eq!(failed, [json!([BROKEN, "expected 4, found 5", "3", true])]);
    let last = steps(&tenant.pool, id).await;
    assert_eq!(last.last().map(|step| step.name.as_str()), Some(BROKEN), "nothing comes after it: {last:#?}");
}

/// The instructions of the final stage that made layers have those of the registry, in their order.
async fn of_final_stage(tenant: &Tenant, steps: &[Step]) {
    let pushed = pushed(&tenant.image("cider", "1")).await.layers;
    let layer = |name: &str| {
        let step = steps.iter().find(|step| step.name == name).expect("a step");
        (step.layer_digest.clone().unwrap_or_default(), step.layer_size_bytes.unwrap_or_default())
    };
    let made = [layer(COPY_STAGE), layer(TASTE)];
    let place = |layer: &(String, i64)| pushed.iter().position(|pushed| pushed == layer);
    let places: Vec<usize> = made.iter().filter_map(place).collect();
    assert!(places.len() == 2 && places[0] < places[1], "{made:?} are among {pushed:?}");
    for step in steps.iter().filter(|step| [COPY, RUN, "FROM"].contains(&step.name.as_str())) {
        assert_eq!((&step.layer_digest, step.layer_size_bytes), (&None, None), "{step:?} made no layer of this image");
    }
}
