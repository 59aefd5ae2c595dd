//! What a reconcile knows: the Build from its watch, its namespace, its newest attempt.

use image_factory_core::pod_security::ENFORCE_LABEL;
use kube::{ResourceExt, runtime::reflector::ObjectRef};

use super::{Controlled, Error};
use crate::{
    crd::Build,
    db::builds::{self, Newest},
};

/// The tenant, and what it allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    pub name: String,
    pub uid: String,
    /// The Pod Security level the namespace enforces, where it has the label.
    pub enforced: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Loaded {
    pub namespace: Namespace,
    pub newest: Option<Newest>,
}

pub async fn load(controlled: &Controlled, build: &Build) -> Result<Loaded, Error> {
    let name = build.namespace().unwrap_or_default();
    let namespace = controlled
        .namespaces
        .get(&ObjectRef::new(&name))
        .and_then(|namespace| {
            Some(Namespace {
                uid: namespace.uid()?,
                enforced: namespace.labels().get(ENFORCE_LABEL).cloned(),
                name: name.clone(),
            })
        })
        .ok_or(Error::NamespaceUnknown(name))?;
    let uid = build.uid().unwrap_or_default();
    let newest = builds::newest(&controlled.context.pool, &uid).await?;
    Ok(Loaded { namespace, newest })
}
