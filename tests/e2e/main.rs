//! Tests against a real cluster, the one KUBECONFIG names: `make up` starts it and installs the chart.
//!
//! Each test that builds has a namespace of its own (`tenant`), waits by watching (`watching`), and
//! compares three witnesses: the cluster, the rows in Postgres (`rows`), and the registry (`registry`).

mod audit;
mod budgets;
mod chart;
mod cluster;
mod nodes;
mod registry;
mod rows;
mod tenant;
mod users;
mod watching;

mod api;
mod buildx;
mod crd_rules;
mod credentials;
mod deleted_builds;
mod examples;
mod failing_builds;
mod git;
mod hostile_objects;
mod image_facts;
mod job_ttl;
mod kaniko;
mod killed_operator;
mod limits;
mod memory;
mod methods;
mod odd_output;
mod options;
mod outcomes;
mod packer;
mod paketo;
mod pod_security;
mod polling;
mod refused_specs;
mod retries;
mod rights;
mod runs;
mod schedules;
mod steps;
mod stopped_builds;
mod successful_builds;
mod waiting_pods;
mod webhooks;
mod workers;
