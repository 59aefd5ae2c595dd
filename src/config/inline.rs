//! The inline source of a build's Pod, which travels in numbered variables: more than a flag can say.

use image_factory_core::pod::{INLINE_CHUNK_PREFIX, INLINE_COUNT_VARIABLE};

/// 256 KiB in pieces under 96 KiB are a few; a number far beyond is a mistake.
const MAX_CHUNKS: usize = 64;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InlineError {
    #[error("failed to read {name}: {problem}")]
    Variable { name: String, problem: String },
}

/// The pieces of an inline source, in order; none where the Pod was given no inline source.
pub fn chunks() -> Result<Option<Vec<String>>, InlineError> {
    chunks_from(variable)
}

#[expect(clippy::disallowed_methods, reason = "this is crate::config")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn chunks_from(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Vec<String>>, InlineError> {
    let wrong = |name: &str, problem: String| InlineError::Variable { name: name.to_owned(), problem };
    let Some(count) = variable(INLINE_COUNT_VARIABLE) else {
        return Ok(None);
    };
    let count = count
        .parse::<usize>()
        .ok()
        .filter(|count| *count <= MAX_CHUNKS)
        .ok_or_else(|| wrong(INLINE_COUNT_VARIABLE, format!("{count:?} is not a number up to {MAX_CHUNKS}")))?;
    let chunk = |n| {
        let name = format!("{INLINE_CHUNK_PREFIX}{n}");
        variable(&name).ok_or_else(|| wrong(&name, "it is not set".into()))
    };
    (0..count).map(chunk).collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<Vec<String>>, String> {
        let variable = |name: &str| {
            let pair = pairs.iter().find(|(key, _)| *key == name);
            pair.map(|(_, value)| (*value).to_owned())
        };
        chunks_from(variable).map_err(|error| error.to_string())
    }

    #[test]
    fn chunks_are_read_in_order_of_their_numbers() {
        let pairs =
            [("IMAGE_FACTORY_INLINE_1", "b"), ("IMAGE_FACTORY_INLINE_0", "a"), ("IMAGE_FACTORY_INLINE_COUNT", "2")];
        assert_eq!(read(&pairs), Ok(Some(vec!["a".into(), "b".into()])));
        assert_eq!(read(&[]), Ok(None));
    }

    #[test]
    fn a_missing_chunk_is_named() {
        let pairs = [("IMAGE_FACTORY_INLINE_0", "a"), ("IMAGE_FACTORY_INLINE_COUNT", "2")];
        assert_eq!(read(&pairs), Err("failed to read IMAGE_FACTORY_INLINE_1: it is not set".into()));
        for count in ["many", "-1", "65"] {
            assert!(read(&[("IMAGE_FACTORY_INLINE_COUNT", count)]).is_err(), "{count}");
        }
    }
}
