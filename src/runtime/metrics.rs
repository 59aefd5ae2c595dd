//! The metrics of the operator, all named `image_factory_…`, served in OpenMetrics text.

use std::sync::Arc;

use image_factory_core::{method::Method, outcome::Outcome};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Ended {
    pub method: String,
    /// `build_results.status`.
    pub status: String,
    /// The failure's reason; empty on success.
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Failure {
    /// The part of the operator: build, events, policies, dispatcher, collector, a task's name.
    pub part: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Answered {
    /// The route, with its parameters' names in the place of their values; `none` for any other path.
    pub route: String,
    /// The HTTP status.
    pub code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Delivered {
    /// What was answered: accepted, unsigned, no_json, unreadable, too_large, too_many or unavailable.
    pub answer: &'static str,
}

#[derive(Clone)]
pub struct Metrics {
    pub builds_ended: Family<Ended, Counter>,
    pub builds_claimed: Counter,
    pub log_lines: Counter,
    pub failures: Family<Failure, Counter>,
    pub panics: Family<Failure, Counter>,
    pub http_answers: Family<Answered, Counter>,
    pub http_log_viewers: Gauge,
    pub http_log_tails: Gauge,
    pub webhook_deliveries: Family<Delivered, Counter>,
    registry: Arc<Registry>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("image_factory");
        let builds_ended = Family::default();
        let builds_claimed = Counter::default();
        let log_lines = Counter::default();
        let failures = Family::default();
        let panics = Family::default();
        let http_answers = Family::default();
        let http_log_viewers = Gauge::default();
        let http_log_tails = Gauge::default();
        let webhook_deliveries = Family::default();
        registry.register("builds_ended", "Attempts that ended, by method, result and reason", builds_ended.clone());
        registry.register("builds_claimed", "Attempts claimed for a worker", builds_claimed.clone());
        registry.register("log_lines", "Log lines stored", log_lines.clone());
        registry.register("failures", "Work that failed and is tried again, by part of the operator", failures.clone());
        registry.register("panics", "Panics that were caught, by part of the operator", panics.clone());
        registry.register("http_answers", "Answers to HTTP requests, by route and status", http_answers.clone());
        registry.register("http_log_viewers", "Viewers that logs are being sent to", http_log_viewers.clone());
        registry.register("http_log_tails", "Builds whose log is read for viewers as it grows", http_log_tails.clone());
        let help = "Requests to webhooks, by what was answered";
        registry.register("webhook_deliveries", help, webhook_deliveries.clone());
        Self {
            builds_ended,
            builds_claimed,
            log_lines,
            failures,
            panics,
            http_answers,
            http_log_viewers,
            http_log_tails,
            webhook_deliveries,
            registry: Arc::new(registry),
        }
    }
}

impl Metrics {
    /// Counts the end of an attempt.
    pub fn ended(&self, method: Method, outcome: &Outcome) {
        let labels = Ended {
            method: method.to_string(),
            status: outcome.result_status().to_owned(),
            reason: outcome.failure.as_ref().map_or("", |failure| failure.reason.as_str()).to_owned(),
        };
        self.builds_ended.get_or_create(&labels).inc();
    }

    pub fn failed(&self, part: &'static str) {
        self.failures.get_or_create(&Failure { part }).inc();
    }

    /// A panic is a failure too, and a fault of the operator besides.
    pub fn panicked(&self, part: &'static str) {
        self.panics.get_or_create(&Failure { part }).inc();
    }

    pub fn answered(&self, route: String, code: u16) {
        self.http_answers.get_or_create(&Answered { route, code }).inc();
    }

    pub fn delivered(&self, answer: &'static str) {
        self.webhook_deliveries.get_or_create(&Delivered { answer }).inc();
    }

    /// In OpenMetrics text.
    ///
    /// # Errors
    /// When the text can't be written, which a `String` never does.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use image_factory_core::{outcome::Failure, reason::Reason, status::Status};

    use super::{Method, Metrics, Outcome};

    #[test]
    fn a_counted_end_is_served_with_its_labels() {
        let metrics = Metrics::default();
        let reason = Reason::BuildFailed;
        let failure = Failure { reason, class: reason.class(), stage: reason.stage(), message: String::new() };
        let outcome = Outcome { status: Status::Failed, exit_code: Some(1), failure: Some(failure), image: None };
        metrics.ended(Method::Buildx, &outcome);
        let text = metrics.text().unwrap();
        let line = "image_factory_builds_ended_total{method=\"buildx\",status=\"failed\",reason=\"BuildFailed\"} 1";
        assert!(text.contains(line), "{text}");
    }
}
