//! Text as Postgres can hold it. JSON knows the NUL character, and what strangers write may have it; a `text` or
//! `jsonb` takes any character but this one, and holds U+FFFD in its place.

use serde_json::{Map, Value};

/// The one character.
pub const NUL: char = '\0';

/// The text with U+FFFD for every NUL.
pub fn text(text: &str) -> String {
    text.replace(NUL, "\u{fffd}")
}

/// The same for every text of a JSON value, the names of its members too.
pub fn json(value: Value) -> Value {
    match value {
        Value::String(string) => Value::String(text(&string)),
        Value::Array(items) => Value::Array(items.into_iter().map(json).collect()),
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, member)| (text(&name), json(member)));
            Value::Object(members.collect::<Map<_, _>>())
        }
        other => other,
    }
}
