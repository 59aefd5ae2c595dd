//! A million lines, while the operator is killed again and again and the kubelet rotates the log under
//! it: what is stored is what was printed, in its order and never twice; and where the kubelet had
//! thrown lines away before they could be read, a row says exactly how many.

use std::path::Path;

use kube::ResourceExt;
use uuid::Uuid;

use super::{
    cluster, history,
    operator::{Operator, Settings},
    stage::stage,
    tenant::{Tenant, phase, status, tenant},
    watching,
};

const LINES: usize = 1_000_000;
const KILLS: usize = 5;
/// Bytes of a line, without its newline.
const LENGTH: usize = 100;
const ROTATIONS: usize = 3;
/// What a kill may cost at most: the kubelet gives what is in the present file of a log alone, so what it rotates away
/// while nobody follows is lost. It looks every ten seconds.
const LOST_BY_A_KILL: usize = 10 * 10 * BETWEEN_PAUSES;
/// So many are stored at least.
const STORED: usize = LINES - KILLS * LOST_BY_A_KILL;
/// Lines printed before the next pause of a tenth of a second. The kubelet looks every ten seconds
/// whether a log is over 10 MiB: this is twice as much in that time, and more than a minute in all.
const BETWEEN_PAUSES: usize = 1_500;

fn line(number: usize) -> String {
    let text = format!("plank {number:07} ");
    format!("{text}{}", "=".repeat(LENGTH - text.len()))
}

#[tokio::test]
async fn a_long_log_is_stored_once_and_in_order_though_the_operator_is_killed_and_the_log_rotated() {
    let stage = stage().await;
    tenant("crash-long-log", "baseline", async |tenant| {
        let rest = "=".repeat(LENGTH - "plank 0000000 ".len());
        let dockerfile = format!(
            "FROM BASE\nRUN awk 'BEGIN {{ for (i = 1; i <= {LINES}; i++) {{ printf \"plank %07d {rest}\\n\", i; \
             if (i % {BETWEEN_PAUSES} == 0) {{ fflush(); system(\"sleep 0.1\") }} }} }}'\n"
        );
        let mut manifest = tenant.manifest("fence", "container", &dockerfile);
        manifest["spec"]["timeout"] = "15m".into();
        let mut operator = Operator::start(&stage, &Settings::default());
        let build = tenant.apply(&manifest).await;
        let id = tenant.prints(&build, &line(1)).await;
        for kill in 1..=KILLS {
            let printed = kill * LINES / (KILLS + 1);
            watching::eventually(&format!("line {printed}"), async || {
                (last(tenant, id).await >= printed).then_some(())
            })
            .await;
            operator.signal("KILL").await;
            operator = Operator::start(&stage, &Settings::default());
        }
        let build = tenant.finished("fence", 1).await;
        let rotations = rotations(tenant, id).await;
        assert_eq!(phase(&build), "Success", "{:#}", status(&build));
        assert!(rotations >= ROTATIONS, "the log was rotated {rotations} times");

        let stored = planks(tenant, id).await;
        assert!(stored.is_sorted_by(|(one, _), (next, _)| one < next), "in order, and never twice");
        assert!(stored.iter().all(|(number, content)| *content == line(*number)), "as it was printed");
        let lost = lost(tenant, id).await;
        assert_eq!(stored.len() + lost, LINES, "a gap is told exactly");
        assert!(stored.len() >= STORED, "{} of {LINES} lines are stored, {lost} are lost", stored.len());
        eprintln!("{} of {LINES} lines stored, {lost} lost on the node, {rotations} rotations", stored.len());
        history::holds().await;
        operator.stop().await;
    })
    .await;
}

/// The number in the newest line that is stored.
async fn last(tenant: &Tenant, id: Uuid) -> usize {
    let line: Option<String> = sqlx::query_scalar(
        "select log_content from build_logs where build_id = $1 and log_content like 'plank %' order by line_number desc limit 1",
    )
    .bind(id)
    .fetch_optional(&tenant.pool)
    .await
    .expect("the log can be read");
    line.map_or(0, |line| number(&line))
}

fn number(line: &str) -> usize {
    line.split(' ').nth(1).and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// The lines that the build itself printed, as stored, with the number in each.
async fn planks(tenant: &Tenant, id: Uuid) -> Vec<(usize, String)> {
    let lines: Vec<String> = sqlx::query_scalar(
        "select log_content from build_logs where build_id = $1 and log_content like 'plank %' order by line_number",
    )
    .bind(id)
    .fetch_all(&tenant.pool)
    .await
    .expect("the log can be read");
    lines.into_iter().map(|line| (number(&line), line)).collect()
}

/// What the rows that tell of a gap add up to.
async fn lost(tenant: &Tenant, id: Uuid) -> usize {
    let rows: Vec<String> = sqlx::query_scalar(
        "select log_content from build_logs where build_id = $1 and log_level = 'WARN' and log_content like '%lost on the node'",
    )
    .bind(id)
    .fetch_all(&tenant.pool)
    .await
    .expect("the log can be read");
    rows.iter().map(|row| row.split(' ').next().and_then(|count| count.parse::<usize>().ok()).expect("a number")).sum()
}

/// How often the kubelet has rotated the log, as far as it keeps the old files, which are four beside the present one.
async fn rotations(tenant: &Tenant, id: Uuid) -> usize {
    let pod = tenant.pods_of(id).await.pop().expect("the Pod is still there");
    let folder = format!("{}_{}_{}/build", tenant.namespace, pod.name_any(), pod.uid().expect("a Pod has a UID"));
    let files =
        std::fs::read_dir(Path::new(&cluster::variable("POD_LOGS")).join(folder)).expect("the node is this machine");
    files.count() - 1
}
