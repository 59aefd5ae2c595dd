//! The status of a WebhookConfig as a projection of its row: where to deliver, how the newest delivery went, and whether
//! the Secrets it names can be used at all.

use image_factory_core::{conditions, signature};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;

use super::Settings;
use crate::{
    clock,
    crd::{
        WebhookConfig, WebhookConfigSpec,
        reference::SecretKeyReference,
        webhook_config::{LastDelivery, LastPoll, WebhookConfigStatus},
    },
    db::webhooks::{Newest, Told},
    kube_ext,
    runtime::Context,
};

/// Why no delivery can be verified: the reason and the sentence of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    reason: &'static str,
    message: String,
}

/// Patches the status where there is something to tell, and remembers it.
pub async fn report(
    context: &Context,
    webhook: &mut WebhookConfig,
    told: &Told,
    trouble: Option<&Trouble>,
    settings: &Settings,
) -> Result<(), kube::Error> {
    let status = status(webhook, told, trouble, settings, clock::now());
    if webhook.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let namespace = webhook.namespace().unwrap_or_default();
    kube_ext::apply_status::<WebhookConfig>(&context.client, &namespace, &webhook.name_any(), &status).await?;
    webhook.status = Some(status);
    Ok(())
}

/// Why nothing is sent, whatever the Secrets are.
pub fn refused(spec: &WebhookConfigSpec, told: &Told, settings: &Settings) -> Option<Trouble> {
    let notify = spec.notify.as_ref()?;
    if told.is_disabled {
        let message = "the receiver at spec.notify.url answered 410 and is sent nothing until spec.notify changes";
        return Some(Trouble { reason: "ReceiverGone", message: message.to_owned() });
    }
    let is_refused = notify.url.starts_with("http:") && !settings.sends_unencrypted;
    is_refused.then(|| Trouble {
        reason: "NotEncrypted",
        message: "spec.notify.url is not https, and this installation sends nothing unencrypted".to_owned(),
    })
}

/// Why the Secrets can't be used, if they can't. The one that was used before need not be there any more.
pub fn trouble(spec: &WebhookConfigSpec, entries: &[(SecretKeyReference, Option<Vec<u8>>)]) -> Option<Trouble> {
    let notify = spec.notify.as_ref().map(|notify| &notify.secret_ref);
    entries.iter().find_map(|(entry, value)| {
        let is_old = Some(entry) == spec.previous_secret_ref.as_ref();
        let is_needed = !is_old || Some(entry) == spec.secret_ref.as_ref() || Some(entry) == notify;
        let Some(value) = value else {
            let message = format!("{entry} is not there");
            return is_needed.then_some(Trouble { reason: "SecretNotFound", message });
        };
        // Without headers nothing is verified, and only the secret can be wrong.
        let received = spec.signing_secrets().any(|signing| signing == entry);
        let scheme = spec.scheme().filter(|_| received);
        let receiving = scheme.and_then(|scheme| signature::verify(scheme, &NoHeaders, b"", &[value], 0).err());
        let sending = (Some(entry) == notify).then(|| signature::sign(value, "", 0, b"").err()).flatten();
        let problem = receiving.or(sending)?;
        Some(Trouble { reason: "SecretUnusable", message: format!("{entry} {problem}") })
    })
}

struct NoHeaders;

impl signature::Headers for NoHeaders {
    fn values(&self, _: &str) -> Vec<&[u8]> {
        Vec::new()
    }
}

fn status(
    webhook: &WebhookConfig,
    told: &Told,
    trouble: Option<&Trouble>,
    settings: &Settings,
    now: jiff::Timestamp,
) -> WebhookConfigStatus {
    let before = webhook.status.as_ref();
    let namespace = webhook.namespace().unwrap_or_default();
    let url = settings.url(&namespace, &webhook.name_any()).filter(|_| webhook.spec.provider.is_some());
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        let same = before
            .into_iter()
            .flat_map(|before| &before.conditions)
            .find(|one| one.type_ == kind && one.status == status);
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: same.map_or(Time(clock::whole_second(now)), |same| same.last_transition_time.clone()),
            observed_generation: webhook.metadata.generation,
        }
    };
    let conditions = match trouble {
        _ if webhook.spec.suspend => vec![condition("Ready", "False", "Suspended", "spec.suspend is true")],
        Some(Trouble { reason, message }) => {
            vec![condition("Ready", "False", reason, message), condition(conditions::STALLED, "True", reason, message)]
        }
        None if webhook.spec.provider.is_none() => {
            vec![condition("Ready", "True", "Sending", "it sends what becomes of the namespace's builds")]
        }
        None if url.is_none() => {
            let sentence = "it takes deliveries; the installation has no externalUrl to tell where from outside";
            vec![condition("Ready", "True", "Receiving", sentence)]
        }
        None => vec![condition("Ready", "True", "Receiving", "it takes deliveries at status.url")],
    };
    WebhookConfigStatus {
        observed_generation: webhook.metadata.generation,
        url,
        verified: Some(told.is_verified),
        last_delivery: told.newest.as_ref().map(|newest| LastDelivery {
            at: clock::whole_second(newest.at),
            id: Some(newest.delivery_id.clone()),
            outcome: outcome(newest),
        }),
        last_poll: told
            .polled
            .as_ref()
            .map(|(at, error)| LastPoll { at: clock::whole_second(*at), error: error.clone() }),
        conditions,
    }
}

fn outcome(newest: &Newest) -> String {
    let Newest { event_type, build_name, error_message, next_retry_at, .. } = newest;
    match (build_name, error_message) {
        (None, None) => format!("{event_type}: it was received"),
        (None, Some(cause)) => format!("{event_type}: no Build, since {cause}"),
        (Some(build), None) if next_retry_at.is_some() => format!("{event_type}: Build {build} is to be made"),
        (Some(build), None) => format!("{event_type}: Build {build} was made"),
        (Some(build), Some(error)) => format!("{event_type}: Build {build} could not be made: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    fn webhook(spec: &serde_json::Value) -> WebhookConfig {
        serde_json::from_value(json!({
            "apiVersion": "imagefactory.dev/v1alpha1", "kind": "WebhookConfig",
            "metadata": {"name": "hook", "namespace": "orchard", "generation": 3},
            "spec": spec,
        }))
        .unwrap()
    }

    fn newest(build: Option<&str>, error: Option<&str>, is_due: bool) -> Newest {
        Newest {
            at: Timestamp::UNIX_EPOCH,
            delivery_id: "1".to_owned(),
            event_type: "push".to_owned(),
            build_name: build.map(str::to_owned),
            error_message: error.map(str::to_owned),
            next_retry_at: is_due.then_some(Timestamp::UNIX_EPOCH),
        }
    }

    #[test]
    fn the_newest_delivery_is_told_as_a_sentence() {
        for (newest, expected) in [
            (newest(None, None, true), "push: it was received"),
            (newest(None, Some("spec.autoBuild is false"), false), "push: no Build, since spec.autoBuild is false"),
            (newest(Some("hook-1"), None, true), "push: Build hook-1 is to be made"),
            (newest(Some("hook-1"), None, false), "push: Build hook-1 was made"),
            (newest(Some("hook-1"), Some("quota"), false), "push: Build hook-1 could not be made: quota"),
        ] {
            assert_eq!(outcome(&newest), expected);
        }
    }

    #[test]
    fn a_secret_that_can_not_be_used_is_told_with_its_name() {
        let entry = |key: &str| SecretKeyReference { name: "hook".to_owned(), key: key.to_owned() };
        let of = |provider: &str, entries: &[(&str, Option<&str>)]| {
            let entries: Vec<_> =
                entries.iter().map(|(key, value)| (entry(key), value.map(|value| value.as_bytes().to_vec()))).collect();
            let spec = json!({"provider": provider, "secretRef": {"name": "hook", "key": "now"},
                "previousSecretRef": {"name": "hook", "key": "before"}});
            trouble(&webhook(&spec).spec, &entries).map(|trouble| trouble.reason)
        };
        assert_eq!(of("github", &[("now", Some("s"))]), None);
        assert_eq!(of("github", &[("now", None)]), Some("SecretNotFound"));
        assert_eq!(of("github", &[("now", Some(""))]), Some("SecretUnusable"));
        assert_eq!(of("gitlab", &[("now", Some("whsec_ "))]), Some("SecretUnusable"));
        assert_eq!(of("github", &[("now", Some("s")), ("before", Some(""))]), Some("SecretUnusable"));
        assert_eq!(of("github", &[("now", Some("s")), ("before", None)]), None, "it may be gone");
    }

    #[test]
    fn what_is_sent_needs_a_secret_a_receiver_and_encryption() {
        let spec =
            |url: &str| webhook(&json!({"notify": {"url": url, "secretRef": {"name": "hook", "key": "out"}}})).spec;
        let settings = |sends_unencrypted| Settings { external_url: None, sends_unencrypted };
        let told = |is_disabled| Told { is_verified: false, is_disabled, newest: None, polled: None };
        let reason = |trouble: Option<Trouble>| trouble.map(|trouble| trouble.reason);
        let (https, http) = (spec("https://example.com/"), spec("http://example.com/"));
        assert_eq!(reason(refused(&https, &told(false), &settings(false))), None);
        assert_eq!(reason(refused(&https, &told(true), &settings(false))), Some("ReceiverGone"));
        assert_eq!(reason(refused(&http, &told(false), &settings(false))), Some("NotEncrypted"));
        assert_eq!(reason(refused(&http, &told(false), &settings(true))), None);
        let entry = SecretKeyReference { name: "hook".to_owned(), key: "out".to_owned() };
        for (value, expected) in [
            (Some("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"), None),
            (Some("no base64"), Some("SecretUnusable")),
            (Some(""), Some("SecretUnusable")),
            (None, Some("SecretNotFound")),
        ] {
            let entries = [(entry.clone(), value.map(|value| value.as_bytes().to_vec()))];
            assert_eq!(reason(trouble(&https, &entries)), expected, "{value:?}");
        }
    }

    #[test]
    fn conditions_say_whether_deliveries_are_taken() {
        let told = Told { is_verified: true, is_disabled: false, newest: None, polled: None };
        let settings =
            Settings { external_url: Some("https://builds.example.com".to_owned()), sends_unencrypted: false };
        let shown = |webhook: &WebhookConfig, trouble: Option<&Trouble>| {
            let status = status(webhook, &told, trouble, &settings, Timestamp::UNIX_EPOCH);
            assert_eq!(status.url.as_deref(), Some("https://builds.example.com/hooks/orchard/hook"));
            let conditions = status.conditions.into_iter();
            conditions.map(|one| format!("{} {} {}", one.type_, one.status, one.reason)).collect::<Vec<_>>()
        };
        let receiving = webhook(&json!({"provider": "github"}));
        assert_eq!(shown(&receiving, None), ["Ready True Receiving"]);
        let trouble = Trouble { reason: "SecretNotFound", message: String::new() };
        assert_eq!(shown(&receiving, Some(&trouble)), ["Ready False SecretNotFound", "Stalled True SecretNotFound"]);
        let suspended = webhook(&json!({"provider": "github", "suspend": true}));
        assert_eq!(shown(&suspended, Some(&trouble)), ["Ready False Suspended"]);
    }
}
