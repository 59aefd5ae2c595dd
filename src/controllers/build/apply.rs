//! Carries out a plan in Postgres.
//!
//! A new run is made in an order that keeps a stale operator from bringing old inputs back: the
//! newest run is read first, then the Build itself from the API server, then the row is inserted
//! under a unique key.

use super::{
    Error,
    load::Live,
    plan::{Desired, Plan},
};
use crate::{
    crd::{Build, BuildSpec, execution::Placement, template},
    db::builds::{self, NewAttempt, NewConfig, Newest, Resource, Trigger},
    runtime::Context,
};
use image_factory_core::{labels, reason::Reason, reference::Reference, storable};
use kube::ResourceExt;
use serde_json::json;

pub async fn apply(
    context: &Context,
    live: &Live,
    newest: Option<&Newest>,
    plan: Plan,
    refused: Option<(Reason, String)>,
) -> Result<(), Error> {
    let (uid, pool) = (live.build.uid().unwrap_or_default(), &context.pool);
    match plan {
        Plan::Nothing => {}
        Plan::Cancel => {
            builds::request_cancel_of(pool, &uid, live.build.metadata.generation.unwrap_or_default()).await?;
        }
        Plan::Amend => {
            let spec = stored_spec(&live.build)?;
            let amended = builds::Amendment {
                priority: spec.priority,
                placement: spec.worker.clone().and_then(Placement::into_core),
                spec: serde_json::to_value(&spec)?,
                generation: live.build.metadata.generation.unwrap_or_default(),
            };
            builds::amend(pool, &uid, &amended).await?;
        }
        Plan::NewRun { run } => {
            let attempt = new_attempt(live, newest, run, refused, context.records_users)?;
            if builds::enqueue(pool, &attempt).await?.is_some() {
                tracing::info!(
                    build.namespace = live.namespace.name,
                    build.name = live.build.name_any(),
                    run,
                    "a run was queued"
                );
            }
        }
    }
    Ok(())
}

fn new_attempt(
    Live { build, namespace }: &Live,
    newest: Option<&Newest>,
    run: i32,
    refused: Option<(Reason, String)>,
    records_users: bool,
) -> Result<NewAttempt, serde_json::Error> {
    // The hash is of the spec as it is written, or one with text that no row holds would run for ever.
    let desired = Desired::of(build)?;
    let spec = stored_spec(build)?;
    let output = Reference::new(&spec.output.image);
    Ok(NewAttempt {
        tenant_uid: namespace.uid.clone(),
        resource: Resource {
            namespace: namespace.name.clone(),
            name: build.name_any(),
            uid: build.uid().unwrap_or_default(),
            generation: build.metadata.generation.unwrap_or_default(),
        },
        project: spec.project.clone(),
        repository: output.repository.to_owned(),
        tag: output.tag.to_owned(),
        run,
        attempt: 1,
        inputs_hash: desired.inputs_hash,
        // A value that was taken away is remembered: to put it back is no change either.
        observed_rerun: desired.rerun.or_else(|| newest?.observed_rerun.clone()),
        priority: spec.priority,
        placement: spec.worker.clone().and_then(Placement::into_core),
        config: config(&spec)?,
        trigger: trigger(build, records_users),
        origin: template::origin(build),
        refused,
    })
}

/// The spec as a row can hold it.
fn stored_spec(build: &Build) -> Result<BuildSpec, serde_json::Error> {
    serde_json::from_value(storable::json(serde_json::to_value(&build.spec)?))
}

fn config(spec: &BuildSpec) -> Result<NewConfig, serde_json::Error> {
    let cache = spec.cache.as_ref();
    let list = |items: &[String]| (!items.is_empty()).then(|| json!(items));
    Ok(NewConfig {
        method: spec.method,
        dockerfile: spec.dockerfile().map(|path| inline_dockerfile(spec, path).unwrap_or(path).to_owned()),
        context: spec.method.reads_dockerfile().then(|| spec.context.clone()),
        cache_enabled: spec.cache_enabled(),
        cache_repo: cache.and_then(|cache| cache.repo.clone()),
        metadata: json!(spec.options),
        platforms: list(&spec.platforms),
        cache_from: cache.and_then(|cache| list(&cache.from)),
        cache_to: cache.and_then(|cache| list(&cache.to)),
        target: spec.target.clone(),
        builder: spec.builder.clone(),
        buildpacks: list(&spec.buildpacks),
        packer_template: spec.packer.as_ref().and_then(|packer| packer.template.clone().or(packer.path.clone())),
        build_args: json!(spec.build_args),
        environment: json!(spec.environment),
        secrets: json!(spec.secrets),
        spec: serde_json::to_value(spec)?,
    })
}

/// The text of the Dockerfile where the source is inline.
fn inline_dockerfile<'a>(spec: &'a BuildSpec, dockerfile: &str) -> Option<&'a str> {
    let files = &spec.source.inline.as_ref()?.files;
    let path = match spec.context.trim_start_matches("./").trim_matches('/') {
        "" | "." => dockerfile.to_owned(),
        context => format!("{context}/{dockerfile}"),
    };
    files.get(path.trim_start_matches("./")).map(String::as_str)
}

/// Who asked for it: the user, where the admission policy writes them onto every Build; the field manager otherwise.
fn trigger(build: &Build, records_users: bool) -> Trigger {
    let user = build.annotations().get(labels::REQUESTED_BY).filter(|user| records_users && !user.is_empty()).cloned();
    Trigger { kind: "manual".to_owned(), source: user.clone().unwrap_or_else(|| field_manager(build)), user }
}

/// Who last wrote the spec, as far as the cluster tells without help.
fn field_manager(build: &Build) -> String {
    build
        .managed_fields()
        .iter()
        .filter(|entry| entry.subresource.as_deref().unwrap_or_default().is_empty())
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0))
        .and_then(|entry| entry.manager.clone())
        .unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(context: &str, path: &str) -> BuildSpec {
        serde_json::from_value(json!({
            "method": "container",
            "context": context,
            "source": {"inline": {"files": {path: "FROM scratch"}}},
            "output": {"image": "registry.test/a/b"},
        }))
        .unwrap()
    }

    #[test]
    fn a_user_is_believed_only_where_the_policy_stands_and_else_the_field_manager_is_told() {
        let mut build = Build::new("cider", spec(".", "Dockerfile"));
        build.metadata.managed_fields = serde_json::from_value(json!([{"manager": "kubectl"}])).unwrap();
        let told = |build: &Build, records_users| {
            let Trigger { source, user, .. } = trigger(build, records_users);
            (source, user)
        };
        assert_eq!(told(&build, true), ("kubectl".to_owned(), None), "from before the policy");
        for (name, user) in [("pomona", Some("pomona".to_owned())), ("", None)] {
            build.annotations_mut().insert(labels::REQUESTED_BY.to_owned(), name.to_owned());
            assert_eq!(told(&build, true), (user.clone().unwrap_or("kubectl".to_owned()), user));
            assert_eq!(told(&build, false), ("kubectl".to_owned(), None), "anybody may have written it");
        }
    }

    #[test]
    fn the_row_holds_the_dockerfiles_text_for_an_inline_source_and_else_its_path() {
        for (context, path, expected) in [
            (".", "Dockerfile", "FROM scratch"),
            ("app", "app/Dockerfile", "FROM scratch"),
            ("./app/", "app/Dockerfile", "FROM scratch"),
            ("app", "Dockerfile", "Dockerfile"),
        ] {
            let config = config(&spec(context, path)).unwrap();
            assert_eq!(config.dockerfile.as_deref(), Some(expected), "{context} {path}");
        }
    }
}
