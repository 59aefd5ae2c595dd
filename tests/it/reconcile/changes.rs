//! What becomes of a change of inputs that more than one operator sees, and of one that comes together with `cancel`.

use image_factory::db::queue::claim;
use image_factory_core::reason::Reason;

use super::*;
use crate::attempts::{broken_histories, failure, finish, limits};

impl Fixture {
    /// Another operator on the same cluster and database.
    fn another(&self) -> Self {
        let controlled = Arc::new(Controlled::new(self.server.context(&self.pool)));
        Self { server: self.server.clone(), controlled, pool: self.pool.clone() }
    }

    /// Reconciles a Build as this operator does that has read its rows, and stands still before it reads the Build:
    /// `meanwhile` happens then.
    async fn seen_late(&self, build: &Value, meanwhile: impl Future<Output = ()>) {
        let open = self.server.holds_up(BUILD);
        let meanwhile = async {
            until(async || self.server.has_held_up(BUILD).then_some(())).await;
            meanwhile.await;
            drop(open);
        };
        tokio::join!(self.seen(build), meanwhile);
    }

    /// Of each run: status, the stage that is built, why it was stopped.
    async fn runs(&self) -> Vec<[String; 3]> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let rows = self.rows().await;
        rows.iter().map(|row| [&row["status"], &row["spec"]["target"], &row["cancel_reason"]].map(text)).collect()
    }
}

fn target(generation: i64, target: &str) -> Value {
    build(generation, &json!({"target": target}))
}

fn cancelled(generation: i64, target: &str) -> Value {
    build(generation, &json!({"target": target, "cancel": true}))
}

async fn claimed(pool: &PgPool) -> uuid::Uuid {
    limits(pool, 10, 10).await;
    claim(pool).await.expect("no error").pop().expect("the build is taken")
}

#[sqlx::test(migrations = "./migrations")]
async fn two_operators_that_see_the_same_change_make_one_run_of_it(pool: PgPool) {
    let first = Fixture::new(&pool);
    let second = first.another();
    first.applied(&target(1, "press")).await;
    first.server.holds(BUILD, Some(target(2, "barrel")));
    let meanwhile = async {
        first.seen(&target(2, "barrel")).await;
    };
    Box::pin(second.seen_late(&target(2, "barrel"), meanwhile)).await;
    assert_eq!(first.runs().await, [["cancelled", "press", "Superseded"], ["queued", "barrel", ""]]);
    assert_eq!(first.server.status(BUILD)["run"], 2);

    // The same where the run before is not to be ended at once.
    claimed(&pool).await;
    first.server.holds(BUILD, Some(target(3, "bottle")));
    let meanwhile = async {
        first.seen(&target(3, "bottle")).await;
    };
    Box::pin(second.seen_late(&target(3, "bottle"), meanwhile)).await;
    let runs = first.runs().await;
    assert_eq!(runs[1..], [["in_progress", "barrel", "Superseded"], ["queued", "bottle", ""]]);
    let numbers: Vec<i32> =
        sqlx::query_scalar("select build_number from builds order by run").fetch_all(&pool).await.expect("numbers");
    assert_eq!(numbers, [1, 2, 3], "what was not made took no number");
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
}

#[sqlx::test(migrations = "./migrations")]
async fn an_operator_whose_look_at_the_rows_is_old_makes_no_run_and_stops_none(pool: PgPool) {
    let first = Fixture::new(&pool);
    let stale = first.another();
    first.applied(&target(1, "press")).await;
    first.server.holds(BUILD, Some(target(2, "barrel")));
    let meanwhile = async {
        first.seen(&target(2, "barrel")).await;
        first.applied(&target(3, "bottle")).await;
    };
    Box::pin(stale.seen_late(&target(2, "barrel"), meanwhile)).await;
    let runs = [["cancelled", "press", "Superseded"], ["cancelled", "barrel", "Superseded"], ["queued", "bottle", ""]];
    assert_eq!(first.runs().await, runs);
    assert_eq!(stale.server.status(BUILD)["run"], 3, "it tells of the newest all the same");
    stale.seen(&target(3, "bottle")).await;
    assert_eq!(first.runs().await, runs);
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
}

#[sqlx::test(migrations = "./migrations")]
async fn a_cancel_together_with_new_inputs_stops_what_runs_and_holds_them_back_until_it_is_lifted(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    fixture.applied(&target(1, "press")).await;
    let running = claimed(&pool).await;
    fixture.applied(&cancelled(2, "barrel")).await;
    assert_eq!(fixture.runs().await, [["in_progress", "press", "Cancelled"]]);
    assert!(finish(&pool, running, &failure(Reason::Cancelled)).await);
    fixture.seen(&cancelled(2, "barrel")).await;
    assert_eq!(fixture.runs().await, [["cancelled", "press", "Cancelled"]]);
    let conditions = fixture.server.status(BUILD)["conditions"].to_string();
    assert!(conditions.contains("HeldBack"), "{conditions}");

    fixture.applied(&target(3, "barrel")).await;
    assert_eq!(fixture.runs().await, [["cancelled", "press", "Cancelled"], ["queued", "barrel", ""]]);
    assert_eq!(fixture.server.status(BUILD)["run"], 2);
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
}

#[sqlx::test(migrations = "./migrations")]
async fn a_cancel_that_is_lifted_before_the_run_has_ended_stays_its_reason(pool: PgPool) {
    let fixture = Fixture::new(&pool);
    fixture.applied(&target(1, "press")).await;
    let running = claimed(&pool).await;
    fixture.applied(&cancelled(2, "barrel")).await;
    fixture.applied(&target(3, "barrel")).await;
    assert_eq!(fixture.runs().await, [["in_progress", "press", "Cancelled"], ["queued", "barrel", ""]]);
    assert_eq!(
        claim(&pool).await.expect("no error"),
        Vec::<uuid::Uuid>::new(),
        "two runs of a Build never run at once"
    );
    assert!(finish(&pool, running, &failure(Reason::Cancelled)).await);
    assert_eq!(claim(&pool).await.expect("no error").len(), 1);
    assert_eq!(fixture.runs().await, [["cancelled", "press", "Cancelled"], ["in_progress", "barrel", ""]]);

    // Lifted with the same inputs: what was stopped stays stopped.
    fixture.applied(&cancelled(4, "barrel")).await;
    fixture.applied(&target(5, "barrel")).await;
    assert_eq!(fixture.runs().await[1..], [["in_progress", "barrel", "Cancelled"]]);
    assert_eq!(broken_histories(&pool).await, Vec::<String>::new());
}
