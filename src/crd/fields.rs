//! Which methods take which field, as the rules of Build say it; the tables of the documentation must say the same.

use std::{collections::BTreeMap, fmt::Write, fs};

use image_factory_core::method::Method;

use super::{build::Build, root_schema};
use kube::CustomResourceExt;

/// Each field that not every method takes, with those that do.
fn taken() -> BTreeMap<String, Vec<String>> {
    let mut definition = Build::crd();
    let root = definition.spec.versions.first_mut().and_then(root_schema).expect("Build has a schema");
    let spec = root.properties.as_ref().and_then(|fields| fields.get("spec")).expect("Build has a spec");
    let rules = spec.x_kubernetes_validations.iter().flatten().filter_map(|rule| rule.message.as_deref());
    let fields = rules.filter_map(|sentence| {
        let (field, rest) = sentence.strip_prefix("spec.")?.split_once(" works only with ")?;
        let (methods, _) = rest.trim_start_matches("the methods ").trim_start_matches("method ").split_once(';')?;
        Some((field.to_owned(), methods.split(", ").map(str::to_owned).collect()))
    });
    fields.collect()
}

fn table(taken: &BTreeMap<String, Vec<String>>) -> String {
    let names = Method::ALL.map(Method::as_str);
    let mut table =
        format!("| field | {} |\n|---|{}\n", names.map(|name| format!("`{name}`")).join(" | "), "---|".repeat(5));
    for (field, methods) in taken {
        let cells = names.map(|name| if methods.iter().any(|method| method == name) { "yes" } else { "" });
        writeln!(table, "| `{field}` | {} |", cells.join(" | ")).expect("a text takes it");
    }
    table
}

fn documentation(page: &str) -> String {
    fs::read_to_string(format!("{}/docs/{page}", env!("CARGO_MANIFEST_DIR"))).expect("the page can be read")
}

#[test]
fn the_table_of_fields_by_method_is_what_the_rules_say() {
    let taken = taken();
    assert!(taken.len() > 20, "{taken:?}");
    for (field, methods) in &taken {
        assert!(methods.iter().all(|method| method.parse::<Method>().is_ok()), "{field}: {methods:?}");
    }
    let expected = table(&taken);
    assert!(documentation("methods.md").contains(&expected), "docs/methods.md must have this table:\n{expected}");
}

/// A row of the page's table may be of several fields, `a`, `b`, or of one with all below it.
#[test]
fn the_page_of_builds_names_the_same_methods() {
    let page = documentation("builds.md");
    let (_, fields) =
        page.split_once("\n| field | meaning | default | input | methods | now |\n").expect("the table is there");
    let mut rows = BTreeMap::new();
    for line in fields.lines().skip(1).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        for field in cells[0].split(", ") {
            rows.insert(field.trim_matches('`').to_owned(), cells[cells.len() - 2].to_owned());
        }
    }
    let taken = taken();
    for (field, told) in &rows {
        let expected = taken.get(field).map_or("all".to_owned(), |methods| methods.join(", "));
        if field != "options" {
            assert_eq!(told, &expected, "docs/builds.md: {field}");
        }
    }
    let missing: Vec<_> =
        taken.keys().filter(|field| !field.starts_with("options.") && !rows.contains_key(*field)).collect();
    assert!(missing.is_empty(), "docs/builds.md has no row of {missing:?}");
}
