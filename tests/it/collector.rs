//! What the collector believes, and when it ends an attempt: on a real Postgres, against an API
//! server that shows what each test is about.

use std::time::Duration;

use image_factory::{
    collector,
    db::{launches, queue},
};
use image_factory_core::{ids, labels, patience::Wait, reason::Reason, report::AgentReport};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, PgPool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    attempts::{attempt, limits, queued},
    cluster::Cluster,
};

/// A running attempt of the Build `name` in `green`, whose Job was made long ago.
async fn running(pool: &PgPool, cluster: &Cluster, name: &str) -> Uuid {
    let attempt = attempt("green", name);
    let id = queued(pool, &attempt).await;
    limits(pool, 10, 10).await;
    queue::claim(pool).await.expect("it can be claimed");
    sqlx::query(
        "update builds set job_created_at = now() - interval '1 hour' where id = $1 and status = 'in_progress'",
    )
    .bind(id)
    .execute(pool)
    .await
    .expect("it runs");
    let metadata = json!({"name": name, "namespace": "green", "uid": attempt.resource.uid});
    cluster.has(
        &format!("/apis/imagefactory.dev/v1alpha1/namespaces/green/builds/{name}"),
        &json!({"apiVersion": "imagefactory.dev/v1alpha1", "kind": "Build", "metadata": metadata}),
    );
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "green"}});
    cluster.has("/api/v1/namespaces/green", &namespace);
    id
}

fn has_ended_job(cluster: &Cluster, build: &str, id: Uuid, condition: &str) {
    let name = ids::job_name(build, id);
    let condition =
        json!({"type": condition, "status": "True", "reason": "TheReason", "message": "the Job's own words"});
    cluster.has(
        &format!("/apis/batch/v1/namespaces/green/jobs/{name}"),
        &json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "status": {"conditions": [condition]}}),
    );
}

/// The Pod `pod` of the attempt's Job, with its containers as given.
fn pod_of(build: &str, id: Uuid, pod: &str, status: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "status": status,
        "metadata": {
            "name": pod, "namespace": "green", "uid": format!("uid-{pod}"), "labels": {labels::BUILD_ID: id.to_string()},
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": ids::job_name(build, id), "uid": "uid-job", "controller": true}],
        },
    })
}

fn ended(container: &str, code: i32, message: &str) -> Value {
    json!({"name": container, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": code, "reason": "Error", "message": message}}})
}

/// `build` ended with `code` and says that it printed `lines` lines.
fn built(code: i32, lines: u64) -> Value {
    let report = AgentReport { exit_code: code, lines, ..AgentReport::default() }.encode();
    json!({"phase": "Pending", "initContainerStatuses": [ended("prepare", 0, ""), ended("build", code, &report)]})
}

/// Runs the collector until `found` gives something.
async fn collect_until<T>(pool: &PgPool, cluster: &Cluster, found: impl AsyncFn() -> Option<T>) -> T {
    let stop = CancellationToken::new();
    let collector = tokio::spawn(collector::run(cluster.context(pool).await, stop.clone()));
    let found = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            if let Some(found) = found().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let found = found.await.expect("it came to that in time");
    stop.cancel();
    collector.await.expect("no error");
    found
}

/// Reason, exit code and sentence of an attempt that has ended.
async fn end(pool: &PgPool, id: Uuid) -> Option<(String, Option<i32>, String)> {
    sqlx::query_as(
        "select failure_reason, exit_code, error_message from builds b join build_results r on r.build_id = b.id where b.id = $1",
    )
    .bind(id)
    .fetch_optional(pool)
    .await
    .expect("no error")
}

async fn log(pool: &PgPool, id: Uuid) -> Vec<String> {
    sqlx::query_scalar("select log_content from build_logs where build_id = $1 order by line_number")
        .bind(id)
        .fetch_all(pool)
        .await
        .expect("no error")
}

#[sqlx::test(migrations = "./migrations")]
async fn what_ended_while_no_operator_ran_ends_as_its_pod_says(pool: PgPool) {
    let cluster = Cluster::default();
    let id = running(&pool, &cluster, "web").await;
    has_ended_job(&cluster, "web", id, "Failed");
    let pod = pod_of("web", id, "web-pod", &built(3, 2));
    cluster.has_pods(std::slice::from_ref(&pod), "green", std::slice::from_ref(&pod));
    cluster.has_log("green", "web-pod", "build", &["one", "two"]);

    let (reason, code, _) = collect_until(&pool, &cluster, async || end(&pool, id).await).await;
    assert_eq!((reason.as_str(), code), ("BuildFailed", Some(3)));
    assert_eq!(log(&pool, id).await, ["one", "two"]);
}

#[sqlx::test(migrations = "./migrations")]
async fn an_attempt_is_lost_only_when_the_cluster_has_no_pod_of_it(pool: PgPool) {
    let cluster = Cluster::default();
    let ending = running(&pool, &cluster, "ending").await;
    let lost = running(&pool, &cluster, "lost").await;
    let collected = running(&pool, &cluster, "collected").await;
    has_ended_job(&cluster, "collected", collected, "Complete");
    // Its Job was deleted, it is in its grace period, and the watch has not shown it yet.
    let pod = pod_of("ending", ending, "ending-pod", &json!({"phase": "Running"}));
    cluster.has_pods(&[], "green", &[pod]);

    let ends = async || end(&pool, lost).await.zip(end(&pool, collected).await);
    let (lost_end, collected_end) = collect_until(&pool, &cluster, ends).await;
    assert_eq!(lost_end.0, "JobDeleted");
    let sentence = "the Pod was gone before its end could be read; its Job says: the Job's own words";
    assert_eq!((collected_end.0.as_str(), collected_end.2.as_str()), ("Internal", sentence));
    assert!(log(&pool, lost).await[0].contains("an unknown number of lines is lost"));
    assert_eq!(end(&pool, ending).await, None, "its Pod may still push");
}

#[sqlx::test(migrations = "./migrations")]
async fn a_pod_that_is_not_of_the_attempts_job_counts_for_nothing(pool: PgPool) {
    let cluster = Cluster::default();
    let id = running(&pool, &cluster, "web").await;
    let confirmed = json!({"phase": "Succeeded", "initContainerStatuses": [ended("build", 0, "")],
        "containerStatuses": [ended("inspect", 0, "")]});
    let mut without_owner = pod_of("web", id, "forged", &confirmed);
    without_owner["metadata"]["ownerReferences"] = json!([]);
    let mut elsewhere = pod_of("web", id, "elsewhere", &confirmed);
    elsewhere["metadata"]["namespace"] = json!("amber");
    let pod = pod_of("web", id, "web-pod", &built(3, 0));
    cluster.has_pods(&[without_owner, elsewhere, pod.clone()], "green", &[pod]);
    for (namespace, pod) in [("green", "forged"), ("amber", "elsewhere")] {
        cluster.has_log(namespace, pod, "inspect", &["an inspection"]);
        cluster.has_log(namespace, pod, "build", &["not ours"]);
    }

    let (reason, code, _) = collect_until(&pool, &cluster, async || end(&pool, id).await).await;
    assert_eq!((reason.as_str(), code), ("BuildFailed", Some(3)));
    assert_eq!(log(&pool, id).await, Vec::<String>::new());
}

#[sqlx::test(migrations = "./migrations")]
async fn an_evicted_pod_whose_agent_could_still_report_has_lost_no_line(pool: PgPool) {
    let cluster = Cluster::default();
    let id = running(&pool, &cluster, "web").await;
    let mut status = built(143, 2);
    (status["phase"], status["reason"]) = (json!("Failed"), json!("Evicted"));
    let pod = pod_of("web", id, "web-pod", &status);
    cluster.has_pods(std::slice::from_ref(&pod), "green", std::slice::from_ref(&pod));
    cluster.has_log("green", "web-pod", "build", &["one", "two"]);

    let (reason, ..) = collect_until(&pool, &cluster, async || end(&pool, id).await).await;
    assert_eq!((reason.as_str(), log(&pool, id).await), ("Evicted", vec!["one".to_owned(), "two".to_owned()]));
}

#[sqlx::test(migrations = "./migrations")]
async fn what_the_kubelet_can_not_give_is_told_and_counted_right(pool: PgPool) {
    let cluster = Cluster::default();
    let id = running(&pool, &cluster, "web").await;
    let pod = pod_of("web", id, "web-pod", &built(3, 4));
    cluster.has_pods(std::slice::from_ref(&pod), "green", std::slice::from_ref(&pod));
    cluster.has_log("green", "web-pod", "prepare", &["source: 1 file"]);
    // Of `build` it has none any more.
    collect_until(&pool, &cluster, async || end(&pool, id).await).await;
    assert_eq!(log(&pool, id).await, ["source: 1 file", "4 lines of this log were lost on the node"]);

    let id = running(&pool, &cluster, "door").await;
    let pod = pod_of("door", id, "door-pod", &built(3, 2));
    cluster.has_pods(std::slice::from_ref(&pod), "green", &[]);
    cluster.has_log("green", "door-pod", "build", &["one", "two"]);
    collect_until(&pool, &cluster, async || end(&pool, id).await).await;
    let log = log(&pool, id).await;
    assert!(log[0].starts_with("an unknown number of lines of the container prepare is lost: "), "{log:?}");
    assert_eq!(log[1..], ["one", "two"]);
}

/// What it refused while the container ran does not count.
#[sqlx::test(migrations = "./migrations")]
async fn a_log_that_the_kubelet_has_late_is_given_up_only_after_three_refusals_from_the_end_on(pool: PgPool) {
    let cluster = Cluster::default();
    let id = running(&pool, &cluster, "web").await;
    let mut status = built(3, 1);
    status["initContainerStatuses"][1]["state"] = json!({"running": {"startedAt": "2026-11-24T10:00:00Z"}});
    let pod = pod_of("web", id, "web-pod", &status);
    cluster.has_pods(std::slice::from_ref(&pod), "green", std::slice::from_ref(&pod));
    cluster.has_late_log("green", "web-pod", "build", "one", 5);
    let watched = cluster.watched();
    collect_until(&pool, &cluster, async || {
        if cluster.refusals("green", "web-pod", "build") <= 2 {
            let mut ended = pod_of("web", id, "web-pod", &built(3, 1));
            ended["metadata"]["resourceVersion"] = json!("2");
            let _ = watched.send(format!("{}\n", json!({"type": "MODIFIED", "object": ended})));
        }
        end(&pool, id).await
    })
    .await;
    assert_eq!(log(&pool, id).await, ["one"]);
}

#[sqlx::test(migrations = "./migrations")]
async fn a_log_over_its_cap_stays_so_whoever_reads_on(pool: PgPool) {
    let cluster = Cluster::default();
    let id = running(&pool, &cluster, "web").await;
    // Another operator has stored "one" and left out "two", which did not fit.
    sqlx::query(
        "with line as (
             insert into build_logs (id, build_id, line_number, log_content, log_level, logged_at)
             values (gen_random_uuid(), $1, 1, 'one', 'INFO', '2026-11-24 10:00:00Z'))
         insert into build_log_cursors (build_id, container, last_timestamp, lines_at_timestamp, line_number, finished, bytes, capped)
         values ($1, 'prepare', null, 0, 0, true, 0, false), ($1, 'build', '2026-11-24 10:00:01Z', 1, 1, false, 4, true)",
    )
    .bind(id)
    .execute(&pool)
    .await
    .expect("no error");
    let pod = pod_of("web", id, "web-pod", &built(3, 3));
    cluster.has_pods(std::slice::from_ref(&pod), "green", &[]);
    cluster.has_log("green", "web-pod", "build", &["one", "two", "three"]);

    collect_until(&pool, &cluster, async || end(&pool, id).await).await;
    let sentence = "2 more lines were printed and not stored: the log is over its size limit";
    assert_eq!(log(&pool, id).await, ["one", sentence]);
}

/// What another operator has stored of the builder's log, of which the first `printed` were printed; the others are
/// its own.
async fn has_stored(pool: &PgPool, id: Uuid, lines: &[&str], printed: usize) {
    let bytes: usize = lines[..printed].iter().map(|line| line.len() + 1).sum();
    sqlx::query(
        "with lines as (
             insert into build_logs (id, build_id, line_number, log_content, log_level, logged_at)
             select gen_random_uuid(), $1, number, line, 'INFO', timestamptz '2026-11-24 10:00:00Z' + make_interval(secs => number - 1)
             from unnest($2::text[]) with ordinality as lines (line, number))
         insert into build_log_cursors (build_id, container, last_timestamp, lines_at_timestamp, line_number, finished, bytes, capped)
         values ($1, 'prepare', null, 0, 0, true, 0, false),
                ($1, 'build', timestamptz '2026-11-24 10:00:00Z' + make_interval(secs => $3 - 1), 1, cardinality($2), cardinality($2) > $3, $4, false)",
    )
    .bind(id)
    .bind(lines)
    .bind(i32::try_from(printed).expect("few"))
    .bind(i64::try_from(bytes).expect("few"))
    .execute(pool)
    .await
    .expect("no error");
}

/// How often stored lines were read to have the steps again, and how many lines that were, as Postgres counts.
async fn readings(pool: &PgPool) -> (i64, i64) {
    let options = pool.connect_options();
    let database = options.get_database().expect("a name").to_owned();
    let mut server = PgConnection::connect_with(&(*options).clone().database("postgres")).await.expect("connects");
    sqlx::query_as(
        "select coalesce(sum(s.calls), 0)::bigint, coalesce(sum(s.rows), 0)::bigint from pg_stat_statements s join pg_database d on d.oid = s.dbid
         where d.datname = $1 and s.query like '-- Stored lines, to be read again%'",
    )
    .bind(database)
    .fetch_one(&mut server)
    .await
    .expect("pg_stat_statements can be read")
}

#[sqlx::test(migrations = "./migrations")]
async fn a_stream_that_breaks_costs_no_second_reading_of_what_is_stored(pool: PgPool) {
    let cluster = Cluster::default();
    let id = running(&pool, &cluster, "web").await;
    has_stored(&pool, id, &["STEP 1/1: RUN make", "one"], 2).await;
    let pod = pod_of("web", id, "web-pod", &built(3, 4));
    cluster.has_pods(std::slice::from_ref(&pod), "green", std::slice::from_ref(&pod));
    let lines = ["STEP 1/1: RUN make", "one", "two", "three"];
    cluster.has_breaking_log("green", "web-pod", "build", &lines, 2);

    collect_until(&pool, &cluster, async || end(&pool, id).await).await;
    assert_eq!(log(&pool, id).await, lines);
    assert_eq!(readings(&pool).await.0, 1);
    let output: Option<String> = sqlx::query_scalar("select stdout from build_steps where build_id = $1")
        .bind(id)
        .fetch_one(&pool)
        .await
        .expect("a step");
    assert_eq!(output.as_deref(), Some("one\ntwo\nthree"), "no line was read twice");
}

/// However long the lines are, what is held of them at once is a page.
#[sqlx::test(migrations = "./migrations")]
async fn a_long_log_is_read_again_in_pages_of_bytes(pool: PgPool) {
    let cluster = Cluster::default();
    let id = running(&pool, &cluster, "web").await;
    let long: Vec<String> = (1..=200).map(|number| format!("{number:03} {}", "x".repeat(14_996))).collect();
    let lines: Vec<&str> = std::iter::once("STEP 1/1: RUN make").chain(long.iter().map(String::as_str)).collect();
    has_stored(&pool, id, &lines, lines.len()).await;
    let pod = pod_of("web", id, "web-pod", &built(3, 201));
    cluster.has_pods(std::slice::from_ref(&pod), "green", std::slice::from_ref(&pod));

    collect_until(&pool, &cluster, async || end(&pool, id).await).await;
    // Of 15,000 bytes a line 17 make 256 KiB, and one that begins within them is still read.
    let (pages, read) = readings(&pool).await;
    assert_eq!((pages, read), (12, 201), "each line is read once");
    let output: Option<String> = sqlx::query_scalar("select stdout from build_steps where build_id = $1")
        .bind(id)
        .fetch_one(&pool)
        .await
        .expect("a step");
    assert!(output.is_some_and(|output| output.ends_with(&long[199])), "the last page was read, too");
}

/// What came after the clock went back stands before the cursor's time, and what came before it at or after that: the
/// second reading passes over both.
#[sqlx::test(migrations = "./migrations")]
async fn a_clock_that_goes_back_doubles_no_line_when_the_log_is_taken_up_again(pool: PgPool) {
    let cluster = Cluster::default();
    let id = running(&pool, &cluster, "web").await;
    let pod = pod_of("web", id, "web-pod", &built(3, 5));
    cluster.has_pods(std::slice::from_ref(&pod), "green", std::slice::from_ref(&pod));
    let lines = [(30, "one"), (40, "two"), (10, "three"), (40, "four"), (20, "five")];
    cluster.has_breaking_log_at("green", "web-pod", "build", &lines, 2);

    collect_until(&pool, &cluster, async || end(&pool, id).await).await;
    assert_eq!(log(&pool, id).await, ["one", "two", "three", "four", "five"]);
}

#[sqlx::test(migrations = "./migrations")]
async fn the_row_that_tells_a_gap_is_no_output_of_the_builder(pool: PgPool) {
    let cluster = Cluster::default();
    let id = running(&pool, &cluster, "web").await;
    // Another operator had told the gap, and crashed before it could end the build.
    let gap = "2 lines of this log were lost on the node";
    has_stored(&pool, id, &["STEP 1/1: RUN make", "one", gap], 2).await;
    let pod = pod_of("web", id, "web-pod", &built(3, 4));
    cluster.has_pods(std::slice::from_ref(&pod), "green", std::slice::from_ref(&pod));

    collect_until(&pool, &cluster, async || end(&pool, id).await).await;
    assert_eq!(log(&pool, id).await, ["STEP 1/1: RUN make", "one", gap]);
    let output: Option<String> = sqlx::query_scalar("select stdout from build_steps where build_id = $1")
        .bind(id)
        .fetch_one(&pool)
        .await
        .expect("a step");
    assert_eq!(output.as_deref(), Some("one"));
}

#[sqlx::test(migrations = "./migrations")]
async fn a_pod_that_waits_for_too_long_is_given_up_and_ends_for_that_reason_once_it_is_gone(pool: PgPool) {
    type Waits = (Option<String>, Option<String>, bool);
    let cluster = Cluster::default();
    let id = running(&pool, &cluster, "web").await;
    let recorded: Value =
        serde_json::from_str(include_str!("../fixtures/pods/image-not-found.json")).expect("a recorded Pod");
    let pod = pod_of("web", id, "web-pod", &recorded["status"]);
    cluster.has_pods(std::slice::from_ref(&pod), "green", std::slice::from_ref(&pod));
    let row = async || -> Waits {
        sqlx::query_as(
            "select pod_waiting_reason, pod_waiting_message, pod_given_up_at is not null from builds where id = $1",
        )
        .bind(id)
        .fetch_one(&pool)
        .await
        .expect("no error")
    };

    let told = collect_until(&pool, &cluster, async || Some(row().await).filter(|row| row.0.is_some())).await;
    assert_eq!((told.0.as_deref(), told.2), (Some("ImagePull"), false));
    assert!(told.1.is_some_and(|told| told.contains("registry.test/orchard/never-pushed:7")));

    // An hour later another operator is there.
    sqlx::query("update builds set pod_waiting_since = now() - interval '1 hour' where id = $1")
        .bind(id)
        .execute(&pool)
        .await
        .expect("no error");
    collect_until(&pool, &cluster, async || row().await.2.then_some(())).await;
    let stopping = launches::stopping(&pool).await.expect("no error");
    assert_eq!(stopping.iter().map(|attempt| attempt.id).collect::<Vec<_>>(), [id]);
    assert_eq!(end(&pool, id).await, None, "its Pod is still there");

    // Job and Pod are gone, and who deleted them, too.
    cluster.has_pods(&[], "green", &[]);
    let (reason, code, message) = collect_until(&pool, &cluster, async || end(&pool, id).await).await;
    assert_eq!((reason.as_str(), code), ("ImagePull", None));
    assert!(message.ends_with("not found (given up after 5m)"), "{message}");
}

#[sqlx::test(migrations = "./migrations")]
async fn a_wait_that_is_over_is_told_no_more_and_begins_anew(pool: PgPool) {
    let cluster = Cluster::default();
    let id = running(&pool, &cluster, "web").await;
    let waits = |reason, message: &str| Wait { reason, message: message.to_owned() };
    let note = async |wait: Option<&Wait>| launches::pod_waits(&pool, id, wait).await.expect("no error").as_secs();
    assert_eq!(note(Some(&waits(Reason::ImagePull, "one"))).await, 0);
    sqlx::query("update builds set pod_waiting_since = now() - interval '1 minute' where id = $1")
        .bind(id)
        .execute(&pool)
        .await
        .expect("no error");
    assert_eq!(note(Some(&waits(Reason::ImagePull, "other words"))).await, 60, "it is the same wait");
    assert_eq!(note(Some(&waits(Reason::Unschedulable, "two"))).await, 0, "it is another");
    assert_eq!(note(None).await, 0);
    assert_eq!(note(Some(&waits(Reason::Unschedulable, "two"))).await, 0, "it was over meanwhile");
}

/// Its kubelet is silent: the Pod stays as it was, and the API server waits for the kubelet's log for ever.
#[sqlx::test(migrations = "./migrations")]
async fn an_attempt_ends_with_its_node_though_its_pod_stays(pool: PgPool) {
    let cluster = Cluster::default();
    let id = running(&pool, &cluster, "web").await;
    let mut pod = pod_of(
        "web",
        id,
        "web-pod",
        &json!({"phase": "Pending", "startTime": "2026-11-24T10:00:00Z",
        "initContainerStatuses": [ended("prepare", 0, ""), {"name": "build", "image": "i", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"running": {"startedAt": "2026-11-24T10:00:01Z"}}}],
        "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint"}]}),
    );
    pod["metadata"]["deletionTimestamp"] = json!("2026-11-24T10:05:30Z");
    pod["spec"] = json!({"containers": [], "activeDeadlineSeconds": 3_600, "terminationGracePeriodSeconds": 30});
    cluster.has_pods(std::slice::from_ref(&pod), "green", std::slice::from_ref(&pod));
    cluster.has_endless_log("green", "web-pod", "build");

    let (reason, ..) = collect_until(&pool, &cluster, async || end(&pool, id).await).await;
    assert_eq!(reason, "NodeLost");
    let log = log(&pool, id).await;
    assert!(log.last().is_some_and(|line| line.contains("an unknown number of lines is lost")), "{log:?}");
}

/// The kubelet went silent after a container had ended, and before what it had printed could be read.
#[sqlx::test(migrations = "./migrations")]
async fn what_an_ended_container_printed_is_not_waited_for_when_its_node_is_lost(pool: PgPool) {
    let cluster = Cluster::default();
    let id = running(&pool, &cluster, "web").await;
    let mut inspected = pod_of("web", id, "web-pod", &built(0, 0));
    inspected["status"]["containerStatuses"] = json!([ended("inspect", 0, "")]);
    let failing = running(&pool, &cluster, "door").await;
    let failed = pod_of("door", failing, "door-pod", &built(3, 2));
    let pods = [inspected, failed].map(|mut pod| {
        pod["metadata"]["deletionTimestamp"] = json!("2026-11-24T10:05:30Z");
        pod["status"]["startTime"] = json!("2026-11-24T10:00:00Z");
        pod["spec"] = json!({"containers": [], "activeDeadlineSeconds": 3_600, "terminationGracePeriodSeconds": 30});
        pod
    });
    cluster.has_pods(&pods, "green", &pods);
    cluster.has_log("green", "web-pod", "build", &[]);
    cluster.has_endless_log("green", "web-pod", "inspect");
    cluster.has_endless_log("green", "door-pod", "build");

    let ends = async || end(&pool, id).await.zip(end(&pool, failing).await);
    let (inspected, failed) = collect_until(&pool, &cluster, ends).await;
    let sentence = "the inspection of the image could not be read: its output is gone";
    assert_eq!((inspected.0.as_str(), inspected.2.as_str()), ("Internal", sentence));
    assert_eq!((failed.0.as_str(), failed.1), ("BuildFailed", Some(3)));
    assert_eq!(log(&pool, failing).await, ["2 lines of this log were lost on the node"]);
}

/// The Job controller is refused by a quota or a policy, and tries again and again.
#[sqlx::test(migrations = "./migrations")]
async fn a_job_that_never_gets_a_pod_is_told_and_given_up(pool: PgPool) {
    let cluster = Cluster::default();
    let id = running(&pool, &cluster, "web").await;
    let name = ids::job_name("web", id);
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "status": {}});
    cluster.has(&format!("/apis/batch/v1/namespaces/green/jobs/{name}"), &job);
    cluster.has_pods(&[], "green", &[]);
    let waits = async |given_up: bool| -> Option<(String, bool)> {
        let given_up = if given_up { "not null" } else { "null" };
        let query = format!(
            "select pod_waiting_message, pod_given_up_at is not null from builds
             where id = $1 and pod_waiting_reason = 'Unschedulable' and pod_given_up_at is {given_up}"
        );
        sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(id).fetch_optional(&pool).await.expect("no error")
    };
    let told = collect_until(&pool, &cluster, async || waits(false).await).await;
    assert!(told.0.contains("Kubernetes does not make the Pod of Job web-") && !told.1, "{told:?}");
    sqlx::query("update builds set pod_waiting_since = now() - interval '1 hour' where id = $1")
        .bind(id)
        .execute(&pool)
        .await
        .expect("no error");
    let given_up = collect_until(&pool, &cluster, async || waits(true).await).await;
    assert!(given_up.0.contains("(given up after 10m)"), "{given_up:?}");
}
