//! Which buildpacks are tried, in which order: those a Build brings, before each group of the builder's own.
//!
//! What is brought is meant to be used: it comes first and is required. It stands before every group of the builder,
//! so that the builder's buildpacks still find what they know, and at last alone, for a source that only it knows. Of a
//! buildpack that the builder has too the brought version counts, since the lifecycle takes the first of an id.

use serde::{Deserialize, Serialize};

use super::Refusal;

/// A buildpack by its own word.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Buildpack {
    pub id: String,
    pub version: String,
}

#[derive(Deserialize)]
struct Descriptor {
    buildpack: Named,
    #[serde(default)]
    order: Vec<Group>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
    version: String,
}

#[derive(Deserialize, Serialize, Default)]
struct Order {
    #[serde(default)]
    order: Vec<Group>,
}

#[derive(Clone, Deserialize, Serialize, Default)]
struct Group {
    #[serde(default)]
    group: Vec<Element>,
}

#[derive(Clone, Deserialize, Serialize, Default)]
struct Element {
    id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    version: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    optional: bool,
}

/// What a `buildpack.toml` says: the buildpack, and the ids of those it is composed of.
///
/// # Errors
/// Where it can't be read, or names what can't be the name of a folder.
pub fn descriptor(text: &str) -> Result<(Buildpack, Vec<String>), Refusal> {
    let found: Descriptor = toml::from_str(text)
        .map_err(|error| Refusal(format!("its buildpack.toml can't be read: {}", error.message())))?;
    let Named { id, version } = found.buildpack;
    let is_name = |text: &str, more: &[u8]| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || more.contains(&byte);
        !text.is_empty() && text.len() <= 200 && !text.starts_with('.') && text.bytes().all(plain)
    };
    if !is_name(&id, b"._-/") || !is_name(&version, b"._-+") {
        return Err(Refusal("its buildpack.toml has no id and version that a folder can be named by".to_owned()));
    }
    let parts = found.order.into_iter().flat_map(|group| group.group).map(|element| element.id).collect();
    Ok((Buildpack { id, version }, parts))
}

/// Of the buildpacks of one image the one that the others belong to: an image of a composed buildpack has its parts
/// beside it.
///
/// # Errors
/// Where there is none, or more than one.
pub fn leader(found: &[(Buildpack, Vec<String>)]) -> Result<&Buildpack, Refusal> {
    let is_part = |id: &String| found.iter().any(|(of, parts)| of.id != *id && parts.contains(id));
    let leading: Vec<&Buildpack> =
        found.iter().map(|(buildpack, _)| buildpack).filter(|buildpack| !is_part(&buildpack.id)).collect();
    match leading[..] {
        [one] => Ok(one),
        [] => Err(Refusal("the image has no buildpack in /cnb/buildpacks".to_owned())),
        _ => {
            let names: Vec<String> = leading.iter().map(|each| format!("{}@{}", each.id, each.version)).collect();
            Err(Refusal(format!(
                "the image has several buildpacks of which none is composed of the others: {}",
                names.join(", ")
            )))
        }
    }
}

/// `order.toml` for this build, from the builder's. Image extensions are left out: they need root.
///
/// # Errors
/// Where the builder's can't be read, or there is nothing to try.
pub fn joined(builder: &str, brought: &[Buildpack]) -> Result<String, Refusal> {
    let own: Order = toml::from_str(builder)
        .map_err(|error| Refusal(format!("the builder's order.toml can't be read: {}", error.message())))?;
    let element = |each: &Buildpack| Element { id: each.id.clone(), version: each.version.clone(), optional: false };
    let first: Vec<Element> = brought.iter().map(element).collect();
    let with_first = |group: Group| Group { group: first.iter().cloned().chain(group.group).collect() };
    let mut order: Vec<Group> = own.order.into_iter().map(with_first).collect();
    if !first.is_empty() {
        order.push(Group { group: first.clone() });
    }
    if order.is_empty() {
        return Err(Refusal("the builder has no order of buildpacks, and spec.buildpacks brings none".to_owned()));
    }
    toml::to_string(&Order { order }).map_err(|error| Refusal(format!("order.toml can't be written: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buildpack(id: &str, version: &str) -> Buildpack {
        Buildpack { id: id.to_owned(), version: version.to_owned() }
    }

    /// `a@1 b? | c@2`.
    fn told(order: &str) -> String {
        let order: Order = toml::from_str(order).expect("is TOML");
        let element = |each: &Element| {
            let version = if each.version.is_empty() { String::new() } else { format!("@{}", each.version) };
            format!("{}{version}{}", each.id, if each.optional { "?" } else { "" })
        };
        let group = |group: &Group| group.group.iter().map(element).collect::<Vec<_>>().join(" ");
        order.order.iter().map(group).collect::<Vec<_>>().join(" | ")
    }

    const BUILDER: &str = "[[order]]\n[[order.group]]\nid = \"a/node\"\nversion = \"1.2\"\n[[order.group]]\nid = \"a/proc\"\n\
        optional = true\n[[order]]\ngroup = [{id = \"a/go\"}]\n[[order-extensions]]\ngroup = [{id = \"e\", version = \"1\"}]\n";

    #[test]
    fn what_is_brought_comes_first_in_each_group_and_at_last_alone() {
        let brought = [buildpack("x/one", "1.0.0"), buildpack("x/two", "2")];
        assert_eq!(
            told(&joined(BUILDER, &brought).expect("joins")),
            "x/one@1.0.0 x/two@2 a/node@1.2 a/proc? | x/one@1.0.0 x/two@2 a/go | x/one@1.0.0 x/two@2"
        );
        assert_eq!(told(&joined("", &brought[..1]).expect("joins")), "x/one@1.0.0");
    }

    #[test]
    fn without_anything_brought_the_builders_order_stays_but_for_extensions() {
        let order = joined(BUILDER, &[]).expect("joins");
        assert_eq!(told(&order), "a/node@1.2 a/proc? | a/go");
        assert!(!order.contains("extension"));
        assert!(joined("", &[]).expect_err("is refused").0.contains("no order"));
        assert!(joined("order = 1", &[]).is_err());
    }

    #[test]
    fn the_leader_of_an_image_is_no_part_of_another() {
        let lone = [(buildpack("x", "1"), vec![])];
        assert_eq!(leader(&lone).map(|each| each.id.as_str()), Ok("x"));
        let composed = [
            (buildpack("part/a", "1"), vec![]),
            (buildpack("whole", "3"), vec!["part/a".to_owned(), "middle".to_owned()]),
            (buildpack("middle", "1"), vec!["part/a".to_owned()]),
        ];
        assert_eq!(leader(&composed).map(|each| each.id.as_str()), Ok("whole"));
        let loose = [(buildpack("x", "1"), vec![]), (buildpack("y", "2"), vec![])];
        assert!(leader(&loose).expect_err("is refused").0.contains("x@1, y@2"));
        assert!(leader(&[]).expect_err("is refused").0.contains("no buildpack"));
    }

    #[test]
    fn a_descriptor_is_named_by_what_a_folder_can_be_named_by() {
        let text =
            |id: &str, version: &str| format!("api = \"0.10\"\n[buildpack]\nid = \"{id}\"\nversion = \"{version}\"");
        assert_eq!(descriptor(&text("a.b/c-d", "1.0+x")), Ok((buildpack("a.b/c-d", "1.0+x"), vec![])));
        for (id, version) in [("", "1"), ("a", ""), ("../a", "1"), ("a", "1/2"), ("a b", "1"), ("a", "..")] {
            assert!(descriptor(&text(id, version)).is_err(), "{id} {version}");
        }
        let composed = text("a", "1") + "\n[[order]]\n[[order.group]]\nid = \"b\"\nversion = \"2\"";
        assert_eq!(descriptor(&composed).map(|(_, parts)| parts), Ok(vec!["b".to_owned()]));
    }
}
