//! Which layer of the image each step made: the steps of the final stage, compared with the history in
//! the image's configuration, from the last instruction backwards.
//!
//! Every RUN, COPY and ADD of the stage must find its entry, in the same order and, where both tell it
//! in comparable words, with the same text; instructions that only change the configuration may be
//! missing on either side, as builders see fit. Where one does not fit, or a second stage fits as well,
//! no step has a layer: nothing is guessed. Steps of other stages made no layer of this image, and
//! FROM's layers are the base image's.

use std::collections::BTreeMap;

use crate::{
    inspection::{HistoryEntry, ImageFacts, LayerFacts},
    method::Method,
    steps::{Step, StepStatus},
};

/// A step and the layer it made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made<'a> {
    /// `build_steps.step_number`.
    pub step: i32,
    pub layer: &'a LayerFacts,
}

/// The layers that these steps made in these images (one a platform).
pub fn of_steps<'a>(method: Method, steps: &[Step], images: &'a [ImageFacts]) -> Vec<Made<'a>> {
    if method == Method::Paketo {
        return of_buildpacks(steps, images);
    }
    let mut stages: BTreeMap<&str, Vec<&Step>> = BTreeMap::new();
    for step in steps {
        stages.entry(step.stage.as_str()).or_default().push(step);
    }
    if method != Method::Buildx {
        // They build one stage after the other.
        let last = steps.last().map(|step| step.stage.as_str());
        stages.retain(|stage, _| Some(*stage) == last);
    }
    let stages: Vec<(&str, Vec<&Step>)> =
        stages.into_iter().filter_map(|(stage, steps)| Some((stage, in_order(steps)?))).collect();
    images
        .iter()
        .filter_map(|image| {
            let of_platform = |stage: &str| images.len() == 1 || stage.split(' ').next() == Some(&image.platform);
            let candidates: Vec<_> = stages.iter().filter(|(stage, _)| of_platform(stage)).collect();
            // Where there is a choice, the words must have decided it.
            let wanted = usize::from(candidates.len() > 1);
            let mut fitting = candidates
                .iter()
                .filter_map(|(_, steps)| aligned(method, steps, &image.history))
                .filter(|fit| fit.told_alike >= wanted);
            let fit = fitting.next().filter(|_| fitting.next().is_none())?;
            let made = fit.layers.into_iter().filter_map(|(step, layer)| {
                let layer = image.layers.get(usize::try_from(layer).ok()?)?;
                Some(Made { step, layer })
            });
            Some(made.collect::<Vec<_>>())
        })
        .flatten()
        .collect()
}

/// The lifecycle writes into the history which buildpack made a layer: `Layer: 'app', Created by buildpack:
/// demo/hello@0.1.0`. One that made several has no layer of its own.
fn of_buildpacks<'a>(steps: &[Step], images: &'a [ImageFacts]) -> Vec<Made<'a>> {
    let of = |step: &Step, image: &'a ImageFacts| {
        let is_its = |entry: &&HistoryEntry| {
            let told = entry.created_by.as_deref().and_then(|told| told.rsplit_once("Created by buildpack: "));
            told.is_some_and(|(_, name)| name == step.name)
        };
        let mut layers = image.history.iter().filter(is_its).filter_map(|entry| entry.layer);
        let layer = layers.next().filter(|_| layers.next().is_none())?;
        Some(Made { step: step.number, layer: image.layers.get(usize::try_from(layer).ok()?)? })
    };
    images.iter().flat_map(|image| steps.iter().filter_map(move |step| of(step, image))).collect()
}

/// The instructions of a stage after its FROM, as the Dockerfile has them. `None` where one is missing, or has not
/// been done.
fn in_order(mut steps: Vec<&Step>) -> Option<Vec<&Step>> {
    steps.sort_by_key(|step| step.place);
    let follow = steps.windows(2).all(|pair| pair[1].place == pair[0].place + 1);
    steps.retain(|step| step.instruction != Some("FROM"));
    let done = steps.iter().all(|step| step.status == StepStatus::Success);
    (follow && done && !steps.is_empty()).then_some(steps)
}

struct Fit {
    /// Steps, and which of the image's layers each made.
    layers: Vec<(i32, u32)>,
    /// Instructions of which both sides say the same.
    told_alike: usize,
}

fn aligned(method: Method, steps: &[&Step], history: &[HistoryEntry]) -> Option<Fit> {
    let mut fit = Fit { layers: Vec::new(), told_alike: 0 };
    let mut steps = steps.iter().rev().peekable();
    let mut entries = history.iter().rev().peekable();
    while let Some(step) = steps.peek() {
        let entry = entries.peek().map(|entry| (entry, instruction(method, entry.created_by.as_deref().unwrap_or(""))));
        let alike = entry.as_ref().and_then(|(_, told)| alike(method, step, told.as_ref()?));
        match (entry, alike) {
            (Some((entry, _)), Some(told_alike)) => {
                fit.told_alike += usize::from(told_alike);
                fit.layers.extend(entry.layer.map(|layer| (step.number, layer)));
                steps.next();
                entries.next();
            }
            _ if !makes_layers(step.instruction.unwrap_or_default()) => {
                steps.next();
            }
            (Some((_, Some(told))), None) if !makes_layers(told.kind) => {
                entries.next();
            }
            _ => return None,
        }
    }
    fit.layers.reverse();
    Some(fit)
}

/// An entry of the history, taken apart.
struct Told<'a> {
    kind: &'a str,
    text: &'a str,
}

/// `RUN |1 A=b /bin/sh -c make # buildkit`, `/bin/sh -c #(nop) COPY file:… in /b `, `/bin/sh -c make`, `COPY a /b`.
fn instruction(method: Method, created_by: &str) -> Option<Told<'_>> {
    let text = match (method, created_by.split_once("#(nop) ")) {
        (Method::Container, Some((_, text))) => text,
        // Buildah writes only the command.
        (Method::Container, None) => return Some(Told { kind: "RUN", text: created_by }),
        _ => created_by.strip_suffix(" # buildkit").unwrap_or(created_by),
    };
    let (kind, text) = text.split_once(' ')?;
    Some(Told { kind, text: text.trim() })
}

/// Whether an entry can be the step's: `Some(true)` where both say the same, `Some(false)` where their words can't be
/// compared.
fn alike(method: Method, step: &Step, told: &Told<'_>) -> Option<bool> {
    let kind = step.instruction?;
    if !told.kind.eq_ignore_ascii_case(kind) {
        return None;
    }
    let name = step.name.strip_prefix("ONBUILD ").unwrap_or(&step.name);
    let body = name.split_once(' ')?.1.trim();
    if method == Method::Kaniko {
        return (body == told.text).then_some(true);
    }
    if !makes_layers(kind) {
        return Some(false);
    }
    // Variables may be filled in, documents written out, and lists of words joined.
    let changes = ["$", "<<", "["].iter().any(|mark| told.text.contains(mark) || body.contains(mark));
    if changes || told.text.starts_with('|') {
        return Some(false);
    }
    let same = match kind {
        "RUN" => told.text.ends_with(without_flags(body)),
        // Of what it copies buildah tells the hash.
        _ if method == Method::Container => told.text.rsplit(' ').next() == body.rsplit(' ').next(),
        _ => without_flags(told.text) == without_flags(body),
    };
    same.then_some(true)
}

fn without_flags(body: &str) -> &str {
    let mut rest = body;
    while let Some((_, after)) = rest.split_once(' ').filter(|(word, _)| word.starts_with("--")) {
        rest = after.trim_start();
    }
    rest
}

/// These find their entry in the history, whatever the builder.
fn makes_layers(kind: &str) -> bool {
    ["RUN", "COPY", "ADD"].iter().any(|known| known.eq_ignore_ascii_case(kind))
}

#[cfg(test)]
mod tests;
