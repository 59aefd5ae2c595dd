//! Image Factory: builds container images on Kubernetes and keeps the whole history in Postgres.

pub mod cli;
pub mod crd;
