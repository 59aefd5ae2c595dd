//! The rules of Image Factory: pure functions over plain data.
//!
//! Nothing here reads a clock, the environment, a cluster or a database; what a rule needs is an
//! argument, and what it decides is a value. The operator, the agent and the Pods share it.

pub mod base;
pub mod builder_images;
pub mod commit_status;
pub mod conditions;
pub mod cost;
pub mod destination;
pub mod environment;
pub mod git;
pub mod ids;
pub mod inputs;
pub mod inspection;
pub mod labels;
pub mod layers;
pub mod lifecycle;
pub mod loglevel;
pub mod method;
pub mod mirrors;
pub mod notification;
pub mod outcome;
pub mod packer;
pub mod patience;
pub mod placement;
pub mod platform;
pub mod pod;
pub mod pod_security;
pub mod push;
pub mod queue;
pub mod reason;
pub mod reference;
pub mod report;
pub mod retention;
pub mod retry;
pub mod schedule;
pub mod signature;
pub mod status;
pub mod steps;
pub mod storable;
pub mod trigger;
pub mod worker_health;
