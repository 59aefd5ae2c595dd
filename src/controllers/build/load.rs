//! What a reconcile acts on: the Build and its namespace as the API server has them now. Nothing is
//! done from a cache: it may know another spec, another `cancel`, another label.

use image_factory_core::pod_security::ENFORCE_LABEL;
use k8s_openapi::api::core::v1;
use kube::{Api, Client, ResourceExt};

use super::{Error, watched::Watched};
use crate::crd::Build;

/// The tenant, and what it allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    pub name: String,
    pub uid: String,
    /// The Pod Security level the namespace enforces, where it has the label.
    pub enforced: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Live {
    pub build: Build,
    pub namespace: Namespace,
}

/// `None` where the Build is gone, or another of its name has taken its place.
///
/// The namespace is read first: the Build was there before and is there after, so its namespace was
/// not another in between.
pub async fn live(client: &Client, watched: &Watched) -> Result<Option<Live>, Error> {
    let name = watched.namespace().unwrap_or_default();
    let namespaces: Api<v1::Namespace> = Api::all(client.clone());
    let namespace = namespaces.get_metadata_opt(&name).await?.and_then(|namespace| {
        let enforced = namespace.labels().get(ENFORCE_LABEL).cloned();
        Some(Namespace { uid: namespace.uid()?, name: name.clone(), enforced })
    });
    let builds: Api<Build> = Api::namespaced(client.clone(), &name);
    let build = builds.get_opt(&watched.name_any()).await?.filter(|build| build.uid() == watched.uid());
    Ok(namespace.zip(build).map(|(namespace, build)| Live { build, namespace }))
}
