use std::{fmt::Write, fs, path::Path};

use serde_json::Value;

use super::*;
use crate::{
    loglevel::level_of,
    steps::{End, Line, Steps},
};

fn fixture(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)).unwrap()
}

/// The steps of a recorded build.
fn steps(method: Method, name: &str) -> Vec<Step> {
    let mut steps = Steps::new(method);
    for line in fixture(&format!("steps/{method}/{name}.log")).trim_end().split('\n') {
        let (at, text) = line.split_once(' ').unwrap_or((line, ""));
        steps.read(Line { at: at.parse().unwrap(), level: level_of(text), text });
    }
    steps.end(End::Success);
    steps.all().to_vec()
}

/// The image that it pushed.
fn image(method: Method, name: &str) -> ImageFacts {
    let recorded: Value = serde_json::from_str(&fixture(&format!("images/{method}-{name}.json"))).unwrap();
    let layers = recorded["layers"].as_array().unwrap().iter().map(|layer| LayerFacts {
        digest: layer["digest"].as_str().unwrap().to_owned(),
        size_bytes: layer["size"].as_u64().unwrap(),
        ..LayerFacts::default()
    });
    let mut next = 0..;
    let history = recorded["history"].as_array().unwrap().iter().map(|entry| HistoryEntry {
        created_by: entry["created_by"].as_str().map(str::to_owned),
        layer: (entry["empty_layer"] == false).then(|| next.next().unwrap()),
    });
    ImageFacts { layers: layers.collect(), history: history.collect(), ..ImageFacts::default() }
}

#[test]
fn each_step_of_the_final_stage_of_a_recorded_build_has_the_layer_it_made() {
    for (method, names) in [
        (
            Method::Buildx,
            &["stages", "stages-cached", "arg-before-from", "kinds", "same", "onbuild", "heredoc", "scratch"][..],
        ),
        (Method::Container, &["stages", "stages-cached", "arg-before-from", "kinds", "same", "scratch"]),
        (
            Method::Kaniko,
            &["stages", "stages-cached", "arg-before-from", "kinds", "same", "onbuild", "heredoc", "scratch"],
        ),
    ] {
        for name in names {
            let (steps, images) = (steps(method, name), [image(method, name)]);
            let made = of_steps(method, &steps, &images);
            let mut text = String::new();
            for step in &steps {
                let layer = made.iter().find(|made| made.step == step.number).map(|made| made.layer);
                let index =
                    layer.and_then(|layer| images[0].layers.iter().position(|other| std::ptr::eq(other, layer)));
                let index = index.map_or_else(|| "-".to_owned(), |index| index.to_string());
                writeln!(text, "{index} {}", step.name).unwrap();
            }
            insta::assert_snapshot!(format!("{method} {name}"), text);
        }
    }
}

#[test]
fn each_platform_has_the_layers_of_its_own_steps() {
    let steps = steps(Method::Buildx, "platforms");
    let images = ["amd64", "arm64"].map(|architecture| ImageFacts {
        platform: format!("linux/{architecture}"),
        ..image(Method::Buildx, &format!("platforms-{architecture}"))
    });
    let made = of_steps(Method::Buildx, &steps, &images);
    let table = steps.iter().map(|step| {
        let layer = made.iter().find(|made| made.step == step.number).map(|made| made.layer);
        let is =
            |image: &ImageFacts| image.layers.iter().position(|other| layer.is_some_and(|it| std::ptr::eq(it, other)));
        format!("{:?} {} | {}", images.iter().map(is).collect::<Vec<_>>(), step.stage, step.name)
    });
    insta::assert_snapshot!("buildx platforms", table.collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_history_that_does_not_fit_gives_no_layer_to_any_step() {
    for method in [Method::Buildx, Method::Container, Method::Kaniko] {
        let steps = steps(method, "stages");
        let whole = image(method, "stages");
        assert!(!of_steps(method, &steps, std::slice::from_ref(&whole)).is_empty());
        let of = |history: Vec<HistoryEntry>| {
            let image = ImageFacts { history, ..whole.clone() };
            of_steps(method, &steps, &[image]).len()
        };
        assert_eq!(of(Vec::new()), 0);
        let mut other = whole.history.clone();
        let run = other
            .iter_mut()
            .rev()
            .filter_map(|entry| entry.created_by.as_mut())
            .find(|text| text.contains("cat /cellar"));
        *run.unwrap() = "RUN /bin/sh -c something else".to_owned();
        assert_eq!(of(other), 0, "{method}: another command");
        let mut short = whole.history.clone();
        short.retain(|entry| !entry.created_by.as_deref().unwrap_or_default().contains("COPY"));
        assert_eq!(of(short), 0, "{method}: a COPY is missing");
    }
}

#[test]
fn two_stages_that_fit_alike_leave_their_steps_without_layers() {
    let mut parser = Steps::new(Method::Buildx);
    for text in ["#1 [a 2/2] RUN make", "#1 DONE 0.1s", "#2 [b 2/2] RUN make", "#2 DONE 0.1s"] {
        parser.read(Line { at: jiff::Timestamp::UNIX_EPOCH, level: level_of(text), text });
    }
    let entry = HistoryEntry { created_by: Some("RUN /bin/sh -c make # buildkit".to_owned()), layer: Some(0) };
    let images = [ImageFacts { layers: vec![LayerFacts::default()], history: vec![entry], ..ImageFacts::default() }];
    assert_eq!(of_steps(Method::Buildx, parser.all(), &images), []);
    assert_eq!(of_steps(Method::Buildx, &parser.all()[..1], &images).len(), 1);
}

/// The history is the lifecycle's, as it pushed the recorded build.
#[test]
fn a_buildpack_has_the_layer_that_the_history_says_it_made_where_it_made_one() {
    let steps = steps(Method::Paketo, "two-buildpacks");
    let layer = |digest: &str| LayerFacts { digest: digest.to_owned(), ..LayerFacts::default() };
    let entry = |layer, text: &str| HistoryEntry { created_by: Some(text.to_owned()), layer: Some(layer) };
    let image = |history: Vec<HistoryEntry>| {
        let layers = ["run", "glass", "juice", "more"].map(layer).to_vec();
        [ImageFacts { layers, history, ..ImageFacts::default() }]
    };
    let history = vec![
        entry(0, "COPY run /"),
        entry(1, "Layer: 'glass', Created by buildpack: orchard/bottle@2.1.0"),
        entry(2, "Layer: 'juice', Created by buildpack: orchard/press@1.0.0"),
        entry(3, "Application Layer"),
    ];
    let told = |images: &[ImageFacts]| -> Vec<String> {
        let name = |number: i32| steps.iter().find(|step| step.number == number).unwrap().name.clone();
        of_steps(Method::Paketo, &steps, images)
            .iter()
            .map(|made| format!("{} {}", name(made.step), made.layer.digest))
            .collect()
    };
    assert_eq!(told(&image(history.clone())), ["orchard/bottle@2.1.0 glass", "orchard/press@1.0.0 juice"]);
    let mut several = history;
    several[3] = entry(3, "Layer: 'more', Created by buildpack: orchard/press@1.0.0");
    assert_eq!(told(&image(several)), ["orchard/bottle@2.1.0 glass"]);
}
