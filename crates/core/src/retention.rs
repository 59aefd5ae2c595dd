//! Which finished Builds of a schedule or a webhook are deleted: the oldest beyond what it keeps, of those that succeeded and of
//! those that did not. A Build that Argo CD, Flux or Helm says is its own is never one of them: they would make it
//! again, and so build again.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// A Build whose newest run has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub uid: String,
    pub succeeded: bool,
    pub at: Timestamp,
}

/// How many are kept of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub successful: usize,
    pub failed: usize,
}

impl Limits {
    /// As a specification has them.
    pub fn of(successful: Option<i32>, failed: Option<i32>) -> Self {
        let limit = |set: Option<i32>, default| set.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(default);
        Self { successful: limit(successful, 3), failed: limit(failed, 5) }
    }
}

/// The Builds beyond the limits, by their UIDs; the newest stay.
pub fn surplus(mut ended: Vec<Ended>, limits: Limits) -> Vec<String> {
    ended.sort_by(|a, b| (b.at, &b.uid).cmp(&(a.at, &a.uid)));
    let (mut succeeded, mut failed) = (0, 0);
    ended.retain(|build| {
        let (kept, most) =
            if build.succeeded { (&mut succeeded, limits.successful) } else { (&mut failed, limits.failed) };
        *kept += 1;
        *kept > most
    });
    ended.into_iter().map(|build| build.uid).collect()
}

const LABELS: [&str; 4] = [
    "argocd.argoproj.io/instance",
    "kustomize.toolkit.fluxcd.io/name",
    "helm.toolkit.fluxcd.io/name",
    "app.kubernetes.io/managed-by",
];
const ANNOTATIONS: [&str; 4] = [
    "argocd.argoproj.io/tracking-id",
    "argocd.argoproj.io/instance",
    "meta.helm.sh/release-name",
    "kustomize.toolkit.fluxcd.io/name",
];

/// Whether these labels and annotations say that a tool keeps the object as its sources have it.
pub fn is_tracked(labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> bool {
    let managed = |key: &str, value: &str| key != "app.kubernetes.io/managed-by" || value == "Helm";
    labels.iter().any(|(key, value)| LABELS.contains(&key.as_str()) && managed(key, value))
        || annotations.keys().any(|key| ANNOTATIONS.contains(&key.as_str()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ended(name: &str, succeeded: bool, second: i64) -> Ended {
        Ended { uid: name.to_owned(), succeeded, at: Timestamp::from_second(second).unwrap() }
    }

    #[test]
    fn the_oldest_of_each_kind_go() {
        let all = vec![
            ended("s1", true, 10),
            ended("f1", false, 20),
            ended("s3", true, 50),
            ended("f2", false, 40),
            ended("s2", true, 30),
        ];
        for (successful, failed, expected) in [
            (3, 5, vec![]),
            (2, 5, vec!["s1"]),
            (1, 1, vec!["s2", "f1", "s1"]),
            (0, 2, vec!["s3", "s2", "s1"]),
            (0, 0, vec!["s3", "f2", "s2", "f1", "s1"]),
        ] {
            assert_eq!(surplus(all.clone(), Limits { successful, failed }), expected, "{successful} {failed}");
        }
    }

    #[test]
    fn what_a_tool_tracks_is_known_by_its_labels_and_annotations() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        for (labels, annotations, tracked) in [
            (&[][..], &[][..], false),
            (&[("app.kubernetes.io/name", "cider"), ("imagefactory.dev/schedule", "nightly")], &[], false),
            (&[("app.kubernetes.io/managed-by", "image-factory")], &[], false),
            (&[("app.kubernetes.io/managed-by", "Helm")], &[], true),
            (&[("argocd.argoproj.io/instance", "orchard")], &[], true),
            (&[("kustomize.toolkit.fluxcd.io/name", "orchard")], &[], true),
            (&[("helm.toolkit.fluxcd.io/name", "orchard")], &[], true),
            (&[], &[("argocd.argoproj.io/tracking-id", "orchard:imagefactory.dev/Build:a/b")], true),
            (&[], &[("meta.helm.sh/release-name", "orchard")], true),
            (&[], &[("kubectl.kubernetes.io/last-applied-configuration", "{}")], false),
        ] {
            assert_eq!(is_tracked(&map(labels), &map(annotations)), tracked, "{labels:?} {annotations:?}");
        }
    }

    proptest! {
        #[test]
        fn exactly_as_many_stay_as_the_limits_say_and_none_that_stays_is_older_than_one_that_goes(
            builds in prop::collection::vec((any::<bool>(), 0_i64..1000), 0..40),
            successful in 0_usize..6,
            failed in 0_usize..6,
        ) {
            let all: Vec<Ended> = builds
                .iter()
                .enumerate()
                .map(|(at, (succeeded, second))| ended(&at.to_string(), *succeeded, *second))
                .collect();
            let gone = surplus(all.clone(), Limits { successful, failed });
            for (kind, most) in [(true, successful), (false, failed)] {
                let (go, stay): (Vec<&Ended>, Vec<&Ended>) =
                    all.iter().filter(|build| build.succeeded == kind).partition(|build| gone.contains(&build.uid));
                prop_assert_eq!(stay.len(), most.min(go.len() + stay.len()));
                let newest_gone = go.iter().map(|build| build.at).max();
                let oldest_kept = stay.iter().map(|build| build.at).min();
                prop_assert!(oldest_kept.is_none() || newest_gone.is_none() || newest_gone <= oldest_kept);
            }
        }
    }
}
