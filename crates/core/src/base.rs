//! What a Dockerfile's image is built on: the reference behind the `FROM` of the stage that is built, through the stages
//! it is built on in turn, with the build's arguments in place. Only what surely is so is told: a `FROM` with a variable
//! that this file can't replace has an unknown base. An image that buildpacks made tells it of itself.
//!
//! Words and variables: <https://docs.docker.com/reference/dockerfile/#environment-replacement>,
//! <https://docs.docker.com/reference/dockerfile/#understand-how-arg-and-from-interact>.

use std::collections::BTreeMap;

use parse_dockerfile::Stage;
use serde::Deserialize;

/// No reference is longer, and no variable in one; two that double each other would fill any memory.
const MAX_VALUE_BYTES: usize = 4096;
/// Of one `${NAME:-…}` in another.
const MAX_NESTING: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// `FROM scratch`.
    Scratch,
    /// A reference as it was written, variables replaced.
    Image(String),
}

/// The base of the stage `target` (the last one without it), for `platform` (`os/architecture[/variant]`). None where
/// the text is no Dockerfile, has no such stage, or leaves the base open.
pub fn of(
    dockerfile: &str,
    target: Option<&str>,
    build_args: &BTreeMap<String, String>,
    platform: &str,
) -> Option<Base> {
    let dockerfile = parse_dockerfile::parse(dockerfile).ok()?;
    let escape = dockerfile.parser_directives.escape.as_ref().map_or('\\', |directive| directive.value.value);
    let mut arguments = Arguments { escape, values: of_platform(platform) };
    for instruction in dockerfile.global_args() {
        for word in arguments.words(&instruction.arguments.value) {
            let (name, default) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            let value = match (build_args.get(name), default) {
                (Some(value), _) => value.clone(),
                (None, Some(default)) => arguments.expand(default, MAX_NESTING)?,
                // Declared without a value: it is that of the platform, or none.
                (None, None) => continue,
            };
            arguments.values.insert(name.to_owned(), value);
        }
    }
    let stages: Vec<Stage<'_, '_>> = dockerfile.stages().collect();
    let mut stage = match target {
        Some(target) => stage_named(&stages, target).or_else(|| target.parse().ok())?,
        None => stages.len().checked_sub(1)?,
    };
    loop {
        let image = arguments.expand(&stages.get(stage)?.from.image.value, MAX_NESTING)?;
        match stage_named(&stages[..stage], &image) {
            Some(earlier) => stage = earlier,
            None if image.is_empty() => return None,
            None if image == "scratch" => return Some(Base::Scratch),
            None => return Some(Base::Image(image)),
        }
    }
}

/// The last stage of this name, whatever its case.
fn stage_named(stages: &[Stage<'_, '_>], name: &str) -> Option<usize> {
    stages.iter().rposition(|stage| {
        stage.from.as_.as_ref().is_some_and(|(_, stage_name)| stage_name.value.eq_ignore_ascii_case(name))
    })
}

/// What each builder knows without a declaration.
fn of_platform(platform: &str) -> BTreeMap<String, String> {
    let mut parts = platform.split('/');
    let names = ["TARGETOS", "TARGETARCH", "TARGETVARIANT"];
    let mut values: BTreeMap<String, String> =
        names.into_iter().map(|name| (name.to_owned(), parts.next().unwrap_or_default().to_owned())).collect();
    values.insert("TARGETPLATFORM".to_owned(), platform.to_owned());
    values
}

struct Arguments {
    /// `\`, or what the directive `escape` says.
    escape: char,
    values: BTreeMap<String, String>,
}

impl Arguments {
    /// Words as they are written: quotes and escapes hold them together and are still in them.
    fn words<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let mut quote = None;
        let mut escaped = false;
        text.split(|character: char| {
            if escaped {
                escaped = false;
                return false;
            }
            match (character, quote) {
                (character, Some('"') | None) if character == self.escape => escaped = true,
                ('\'' | '"', None) => quote = Some(character),
                (character, Some(open)) if character == open => quote = None,
                _ => {}
            }
            quote.is_none() && character.is_whitespace()
        })
        .filter(|word| !word.is_empty())
        .collect()
    }

    /// Quotes and escapes taken away, variables replaced; None where it holds a form that is not known here, or grows
    /// beyond what a reference can be.
    fn expand(&self, word: &str, nesting: usize) -> Option<String> {
        let mut expanded = String::new();
        let mut quote = None;
        let mut rest = word;
        while let Some(character) = rest.chars().next() {
            rest = &rest[character.len_utf8()..];
            match (character, quote) {
                (character, Some('"') | None) if character == self.escape => {
                    let next = rest.chars().next()?;
                    // Between quotes it stands for itself, but before what means something there.
                    if quote.is_some() && !['"', '$', self.escape].contains(&next) {
                        expanded.push(character);
                    }
                    expanded.push(next);
                    rest = &rest[next.len_utf8()..];
                }
                ('\'' | '"', None) => quote = Some(character),
                (character, Some(open)) if character == open => quote = None,
                ('$', Some('"') | None) => {
                    let (value, after) = self.variable(rest, nesting.checked_sub(1)?)?;
                    expanded.push_str(&value);
                    rest = after;
                }
                (character, _) => expanded.push(character),
            }
            if expanded.len() > MAX_VALUE_BYTES {
                return None;
            }
        }
        quote.is_none().then_some(expanded)
    }

    /// What stands for the variable that `text`, behind a `$`, begins with, and the text after it.
    fn variable<'a>(&self, text: &'a str, nesting: usize) -> Option<(String, &'a str)> {
        let Some(inside) = text.strip_prefix('{') else {
            let (name, after) = name(text)?;
            return Some((self.values.get(name).cloned().unwrap_or_default(), after));
        };
        let (name, rest) = name(inside)?;
        let value = self.values.get(name);
        let (modifier, after) = rest.split_at(closing(rest)?);
        let set = value.filter(|value| !value.is_empty());
        let value = match (modifier, modifier.get(..2)) {
            ("", _) => value.cloned().unwrap_or_default(),
            (_, Some(":-")) => set.map_or_else(|| self.expand(&modifier[2..], nesting), |value| Some(value.clone()))?,
            (_, Some(":+")) => set.map_or_else(|| Some(String::new()), |_| self.expand(&modifier[2..], nesting))?,
            _ if modifier.starts_with('-') => {
                value.map_or_else(|| self.expand(&modifier[1..], nesting), |value| Some(value.clone()))?
            }
            _ if modifier.starts_with('+') => {
                value.map_or_else(|| Some(String::new()), |_| self.expand(&modifier[1..], nesting))?
            }
            _ => return None,
        };
        Some((value, &after[1..]))
    }
}

/// The name that `text` begins with, and what follows it.
fn name(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|character: char| !character.is_ascii_alphanumeric() && character != '_').unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    let begins_well = name.starts_with(|character: char| !character.is_ascii_digit());
    (!name.is_empty() && begins_well).then_some((name, after))
}

/// Where the brace that was opened before `text` closes.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.char_indices().find_map(|(at, character)| {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
        None
    })
}

/// What the lifecycle of buildpacks says of the image it made.
pub const LIFECYCLE_LABEL: &str = "io.buildpacks.lifecycle.metadata";
const RUN_IMAGE: &str = "\"runImage\":";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RunImage {
    #[serde(default)]
    top_layer: String,
    #[serde(default)]
    image: String,
}

/// The run image as it is named in that label, and how many of the image's layers (`diff_ids`, the lowest first) are its.
/// None where it does not say, or names a layer that is not there.
pub fn of_lifecycle(label: &str, diff_ids: &[&str]) -> Option<(String, u64)> {
    // Only these parts are read: what looks like a secret elsewhere in it (`"key": "demo/hello"`) was hidden, and the
    // whole is no JSON any more. Before Platform API 0.12 the name stands in a second one, below `stack`.
    let found: Vec<RunImage> = label
        .match_indices(RUN_IMAGE)
        .filter_map(|(at, _)| {
            serde_json::Deserializer::from_str(&label[at + RUN_IMAGE.len()..]).into_iter().next()?.ok()
        })
        .collect();
    let top = found.iter().find_map(|found| diff_ids.iter().position(|layer| *layer == found.top_layer))?;
    let image = found.into_iter().map(|found| found.image).find(|image| !image.is_empty())?;
    Some((image, u64::try_from(top + 1).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn base(dockerfile: &str, target: Option<&str>, build_args: &[(&str, &str)]) -> Option<String> {
        let build_args = build_args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        of(dockerfile, target, &build_args, "linux/arm64/v8").map(|base| match base {
            Base::Scratch => "nothing".to_owned(),
            Base::Image(image) => image,
        })
    }

    #[test]
    fn the_base_is_what_the_stage_is_built_on_in_the_end() {
        let stages = "FROM reg.test/oven:1 AS oven\nRUN bake\nFROM reg.test/plate AS plate\n\
            COPY --from=oven /pie /pie\nFROM plate AS Table\nRUN lay\nFROM scratch AS bare\nCOPY --from=oven /pie /\n";
        for (target, expected) in [
            (None, Some("nothing")),
            (Some("table"), Some("reg.test/plate")),
            (Some("TABLE"), Some("reg.test/plate")),
            (Some("plate"), Some("reg.test/plate")),
            (Some("oven"), Some("reg.test/oven:1")),
            (Some("0"), Some("reg.test/oven:1")),
            (Some("2"), Some("reg.test/plate")),
            (Some("bare"), Some("nothing")),
            (Some("cellar"), None),
            (Some("9"), None),
        ] {
            assert_eq!(base(stages, target, &[]).as_deref(), expected, "{target:?}");
        }
    }

    #[test]
    fn a_stage_stands_for_itself_only_after_it_was_made() {
        assert_eq!(base("FROM plate AS plate\nRUN a\n", None, &[]).as_deref(), Some("plate"));
        assert_eq!(base("FROM a AS b\nFROM b AS a\nFROM a\n", None, &[]).as_deref(), Some("a"));
    }

    #[test]
    fn what_only_looks_like_a_from_is_none() {
        let dockerfile = "# FROM wrong:1\nFROM right:1\nRUN <<END\nFROM wrong:2\nEND\nRUN echo \\\n  FROM wrong:3\n\
            ONBUILD RUN FROM wrong:4\n";
        assert_eq!(base(dockerfile, None, &[]).as_deref(), Some("right:1"));
        let windows = "# escape=`\nFROM right:1\nRUN echo `\nFROM wrong:1\n";
        assert_eq!(base(windows, None, &[]).as_deref(), Some("right:1"));
    }

    #[test]
    fn arguments_before_the_first_from_are_put_in_place() {
        let arguments = [("VERSION", "2.0"), ("UNDECLARED", "x")];
        for (before, from, expected) in [
            ("ARG VERSION=1", "base:$VERSION", Some("base:2.0")),
            ("ARG VERSION", "base:${VERSION}", Some("base:2.0")),
            ("", "base:$VERSION", Some("base:")),
            ("ARG OTHER=1", "base:$OTHER", Some("base:1")),
            ("ARG OTHER='a b'", "\"base:$OTHER\"", Some("base:a b")),
            ("ARG A=1 B=\"2\"", "base:$A.${B}", Some("base:1.2")),
            ("ARG VERSION=1\nARG TAG=${VERSION}-slim", "base:$TAG", Some("base:2.0-slim")),
            ("ARG EMPTY=", "base${EMPTY:-:1}${EMPTY-:2}", Some("base:1")),
            ("ARG SET=x", "base:${SET:+yes}${NONE:+no}${SET+!}", Some("base:yes!")),
            ("", "${IMAGE:-${NAME:-base}:1}", Some("base:1")),
            ("", "$IMAGE", None),
            ("", "base@sha256:00", Some("base@sha256:00")),
            ("", "--platform=$BUILDPLATFORM base:1", Some("base:1")),
            ("", "base:$TARGETARCH$TARGETVARIANT", Some("base:arm64v8")),
            ("ARG TARGETARCH", "base:$TARGETARCH", Some("base:arm64")),
            ("", "base:\\$VERSION", Some("base:$VERSION")),
            ("", "base:${VERSION%.*}", None),
            ("ARG X=${VERSION/a/b}", "base:1", None),
            ("", "base:${VERSION", None),
            ("", "base:$", None),
        ] {
            let dockerfile = format!("{before}\nFROM {from}\n");
            assert_eq!(base(&dockerfile, None, &arguments).as_deref(), expected, "{dockerfile}");
        }
    }

    #[test]
    fn what_is_no_dockerfile_has_no_base() {
        for text in ["", "RUN make", "FROM", "{\"auths\": {}}", "\0"] {
            assert_eq!(base(text, None, &[]), None, "{text:?}");
        }
    }

    #[test]
    fn variables_that_grow_without_end_leave_the_base_open() {
        let doubling = "ARG A=aa\n".to_owned() + &"ARG A=$A$A\n".repeat(60) + "FROM $A\n";
        assert_eq!(base(&doubling, None, &[]), None);
        let deep = format!("FROM {}a{}\n", "${A:-".repeat(100_000), "}".repeat(100_000));
        assert_eq!(base(&deep, None, &[]), None);
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd_to_be_read(text in any::<String>(), word in "[$:{}a-z\"'\\\\+-]{0,20}") {
            let _ = base(&text, None, &[]);
            let _ = base(&format!("ARG A={word}\nFROM {word}\nFROM {word} AS a\n"), Some("a"), &[("A", &word)]);
        }

        #[test]
        fn a_plain_reference_stays_as_it_is(reference in "[a-z][a-z0-9./:@-]{0,40}") {
            prop_assume!(reference != "scratch");
            let found = base(&format!("FROM {reference}\n"), None, &[]);
            prop_assert_eq!(found, Some(reference));
        }
    }

    #[test]
    fn the_lifecycle_names_its_run_image_and_the_highest_of_its_layers() {
        let layers = ["sha256:a", "sha256:b", "sha256:c"];
        for (label, expected) in [
            (
                r#"{"runImage": {"topLayer": "sha256:b", "reference": "r@x", "image": "r.test/run:1"}}"#,
                Some(("r.test/run:1", 2)),
            ),
            (
                r#"{"runImage": {"topLayer": "sha256:a"}, "stack": {"runImage": {"image": "r.test/old:2"}}}"#,
                Some(("r.test/old:2", 1)),
            ),
            (
                r#"{"buildpacks":[{"key":***,"version":"1"}],"runImage":{"topLayer":"sha256:b","image":"r.test/run:1"}}"#,
                Some(("r.test/run:1", 2)),
            ),
            (r#"{"runImage": {"topLayer": "sha256:d", "image": "r.test/run:1"}}"#, None),
            (r#"{"runImage": {"topLayer": "sha256:a"}}"#, None),
            ("{}", None),
            ("***", None),
        ] {
            let expected = expected.map(|(image, layers)| (image.to_owned(), layers));
            assert_eq!(of_lifecycle(label, &layers), expected, "{label}");
        }
    }
}
