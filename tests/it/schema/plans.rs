//! How Postgres answers the statements that the operator sends: the statements are those of `src/db/sql`, the plans are
//! kept as snapshots. The planner is free in its choice, on rows enough that the choice matters; so a statement that
//! reads a table where an index was meant to serve it, or an index that is lost, is a plan that differs. The plans are
//! those of Postgres 15.

use std::{collections::BTreeSet, fmt::Write as _};

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row};

/// A statement under the name of its file.
macro_rules! statements {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../src/db/sql/", $name, ".sql")))),*]
    };
}

const STATEMENTS: [(&str, &str); 40] = statements! {
    // The queue and its claims.
    "places", "groups", "heads", "count_running", "overdue", "transition", "waiting", "queue_place",
    // Launching, following, ending.
    "unlaunched", "launched", "followed", "stopping", "stop_asked", "ending", "finish", "next_attempt", "unstarted", "expired",
    // What Builds say.
    "newest", "claim_origin",
    // Reading.
    "listed", "listed_by_status", "listed_by_project", "listed_by_project_and_status", "listed_by_name", "described",
    "steps_page", "first_line_since", "log_page", "log_lines",
    // Logs as they are stored.
    "last_line", "log_cursor",
    // Deliveries and notifications.
    "due_deliveries", "notifications", "superseded",
    // Days, workers.
    "rollup", "rollup_stale", "worker_heartbeat", "steps", "first_rows",
};

/// Indexes of builds that no statement here needs, and whom they serve.
const OTHERS: [(&str, &str); 2] = [
    ("builds_project_id_build_number_key", "numbers have no double"),
    ("builds_of_image_idx", "the view image_comparison"),
];

/// The plan for whatever the parameters are: what a connection has once it has asked a few times.
async fn plan(connection: &mut PgConnection, statement: &str) -> sqlx::Result<Value> {
    sqlx::raw_sql(AssertSqlSafe(format!("prepare asked as {statement}"))).execute(&mut *connection).await?;
    let types: Vec<String> =
        sqlx::query_scalar("select unnest(parameter_types)::text from pg_prepared_statements where name = 'asked'")
            .fetch_all(&mut *connection)
            .await?;
    // An id tells which partition of the log is read.
    let value = |kind: &String| if kind == "uuid" { "'016f5e66-2af8-7000-8000-000000002af8'" } else { "null" };
    let values: Vec<&str> = types.iter().map(value).collect();
    let values = if values.is_empty() { String::new() } else { format!("({})", values.join(", ")) };
    let explain = format!("explain (costs off, format json) execute asked{values}");
    let row = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_one(&mut *connection).await?;
    sqlx::raw_sql("deallocate asked").execute(&mut *connection).await?;
    let mut plan: Value = row.try_get(0)?;
    Ok(plan[0]["Plan"].take())
}

/// A line a node: what it does, of which table and by which index, and what it looks for there.
fn lines(node: &Value, depth: usize, into: &mut String) {
    let text = |key: &str| node[key].as_str().unwrap_or_default();
    let indent = "  ".repeat(depth);
    into.push_str(&indent);
    if let Some(name) = text("Subplan Name").strip_prefix("CTE ") {
        let _ = write!(into, "{name}: ");
    } else if let "InitPlan" | "SubPlan" = text("Parent Relationship") {
        let _ = write!(into, "{}: ", text("Parent Relationship"));
    }
    into.push_str(text(if node["Operation"].is_string() { "Operation" } else { "Node Type" }));
    for (key, words) in [
        ("Join Type", ""),
        ("Scan Direction", ""),
        ("Index Name", "by "),
        ("Relation Name", "of "),
        ("CTE Name", "of "),
    ] {
        match text(key) {
            "" | "Inner" | "Forward" | "NoMovement" => {}
            found => {
                let _ = write!(into, " {words}{}", without_week(found));
            }
        }
    }
    if !text("Index Cond").is_empty() {
        let _ = write!(into, " where {}", text("Index Cond"));
    }
    into.push('\n');
    let mut told = BTreeSet::new();
    for child in node["Plans"].as_array().into_iter().flatten() {
        let mut lines_of_child = String::new();
        lines(child, depth + 1, &mut lines_of_child);
        // Partitions are read alike.
        if told.insert(lines_of_child.clone()) || !lines_of_child.contains("<week>") {
            into.push_str(&lines_of_child);
        }
    }
}

/// A partition of the log without its date.
fn without_week(name: &str) -> String {
    match name.strip_prefix("build_logs_2") {
        Some(rest) => format!("build_logs_<week>{}", rest.get("026_11_23".len()..).unwrap_or_default()),
        None => name.to_owned(),
    }
}

#[sqlx::test(migrations = "./migrations")]
async fn every_statement_is_served_by_the_indexes_that_were_made_for_it(pool: PgPool) -> sqlx::Result<()> {
    sqlx::raw_sql(include_str!("plans/rows.sql")).execute(&pool).await?;
    let mut connection = pool.acquire().await?;
    sqlx::raw_sql("set plan_cache_mode = force_generic_plan; set max_parallel_workers_per_gather = 0")
        .execute(&mut *connection)
        .await?;
    let mut all = String::new();
    for (name, statement) in STATEMENTS {
        let mut plan_lines = String::new();
        lines(&plan(&mut connection, statement).await?, 0, &mut plan_lines);
        insta::assert_snapshot!(name, plan_lines);
        for table in [
            "builds",
            "build_configs",
            "build_results",
            "build_status_history",
            "build_steps",
            "build_logs",
            "build_log_cursors",
            "webhook_deliveries",
            "image_layers",
        ] {
            let whole = format!("Seq Scan of {table}");
            assert!(!plan_lines.lines().any(|line| line.ends_with(&whole)), "{name} reads all of {table}");
        }
        all.push_str(&plan_lines);
    }
    let indexes: Vec<String> =
        sqlx::query_scalar("select indexname::text from pg_indexes where tablename = 'builds' order by 1")
            .fetch_all(&mut *connection)
            .await?;
    let idle: Vec<&String> = indexes
        .iter()
        .filter(|index| !all.contains(&format!(" {index} ")) && !OTHERS.iter().any(|(other, _)| other == index))
        .collect();
    assert_eq!(idle, Vec::<&String>::new(), "each index of builds serves a statement");
    Ok(())
}
