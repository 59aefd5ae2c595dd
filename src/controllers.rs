//! The controllers: what people apply becomes rows, and rows become statuses.

pub mod build;
pub mod policies;
pub mod webhooks;
pub mod workers;
