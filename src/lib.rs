//! The operator of Image Factory, and what runs of it inside a build's Pod.

pub mod cli;
pub mod clock;
pub mod collector;
pub mod config;
pub mod controllers;
pub mod crd;
pub mod db;
pub mod dispatcher;
mod failpoint;
pub mod http;
pub mod jobs;
pub mod kube_ext;
pub mod registry;
pub mod runtime;
pub mod source;
pub mod tasks;
pub mod verify;
