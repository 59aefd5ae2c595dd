//! Which byte strings of a secret must not be seen in a log: its lines, and each of them in the forms that programs
//! print it in by accident (base64 at any offset, percent-encoded, quoted). Of a registry's `config.json` the passwords
//! and tokens are secret, and nothing else. What is shorter than four bytes is not looked for.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::Value;

use crate::mask::MIN_BYTES;

/// A part of a line (the value in `name=value`) is only looked for from this length on: words like `true` stay.
const MIN_PART_BYTES: usize = 8;
/// The part of an encoded value that any surroundings leave alone; below this it could be any word.
const MIN_ENCODED_BYTES: usize = 6;
/// Where `base64` and PEM break their lines.
const ENCODED_LINES: [usize; 2] = [76, 64];
/// What is left of an encoded value before or behind such a break is looked for from this length on.
const MIN_REST_BYTES: usize = 8;
/// Of a longer value the breaks are known only where nothing stands before it: the pieces would be too many.
const MAX_WRAPPED_BYTES: usize = 16 * 1024;

/// Of a file that is one secret.
pub fn of_file(content: &[u8]) -> BTreeSet<Vec<u8>> {
    let mut values = BTreeSet::new();
    let whole = content.trim_ascii();
    for value in [whole, content] {
        let encoded = STANDARD.encode(value).into_bytes();
        for length in ENCODED_LINES.into_iter().filter(|length| encoded.len() > *length) {
            values.extend(encoded.chunks(length).map(<[u8]>::to_vec));
        }
    }
    add_forms(whole, &mut values);
    for line in whole.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
        add_forms(line, &mut values);
        for part in parts(line) {
            add_forms(part, &mut values);
        }
    }
    // A form of several lines never stands in one.
    values.retain(|value| value.len() >= MIN_BYTES && !value.contains(&b'\n'));
    values
}

/// Of a `config.json` of registries.
pub fn of_docker_config(content: &[u8]) -> BTreeSet<Vec<u8>> {
    let Ok(config) = serde_json::from_slice::<Value>(content) else {
        // The builder will say that it can't read it, perhaps with a part of it.
        return of_file(content);
    };
    let mut values = BTreeSet::new();
    for entry in config.get("auths").and_then(Value::as_object).into_iter().flat_map(serde_json::Map::values) {
        for field in ["password", "identitytoken", "registrytoken"] {
            if let Some(value) = entry.get(field).and_then(Value::as_str) {
                values.append(&mut of_file(value.as_bytes()));
            }
        }
        let Some(auth) = entry.get("auth").and_then(Value::as_str) else { continue };
        values.append(&mut of_file(auth.as_bytes()));
        if let Ok(pair) = STANDARD.decode(auth.trim())
            && let Some(colon) = pair.iter().position(|byte| *byte == b':')
        {
            values.append(&mut of_file(&pair[colon + 1..]));
        }
    }
    values
}

/// What files of settings hold beside names: `token=value`, `"token": "value"`, `password value`.
fn parts(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let after = |mark: &[u8]| {
        let at = line.windows(mark.len()).position(|window| window == mark)?;
        let part = line[at + mark.len()..].trim_ascii();
        let part = part.strip_suffix(b",").unwrap_or(part);
        let quoted = [b'"', b'\''].into_iter().find_map(|quote| part.strip_prefix(&[quote])?.strip_suffix(&[quote]));
        Some(quoted.unwrap_or(part)).filter(|part| part.len() >= MIN_PART_BYTES)
    };
    [after(b"="), after(b": "), after(b"password ")].into_iter().flatten()
}

fn add_forms(value: &[u8], forms: &mut BTreeSet<Vec<u8>>) {
    if value.len() < MIN_BYTES {
        return;
    }
    forms.insert(value.to_vec());
    for engine in [STANDARD, URL_SAFE] {
        forms.insert(engine.encode(value).into_bytes());
        forms.insert(engine.encode([value, b"\n"].concat()).into_bytes());
        for before in 0..3 {
            let encoded = engine.encode([&[0; 2][..before], value].concat()).into_bytes();
            // Characters that hold bits of this value alone.
            let inner = &encoded[(before * 8).div_ceil(6)..(before + value.len()) * 8 / 6];
            if inner.len() >= MIN_ENCODED_BYTES {
                forms.insert(inner.to_vec());
            }
            if value.len() <= MAX_WRAPPED_BYTES {
                add_rests(inner, forms);
            }
        }
    }
    for kept in ["-._~", "-._~/", "-._~!'()*"] {
        let upper = percent_encoded(value, kept);
        forms.insert(upper.replace("%20", "+").into_bytes());
        forms.insert(lower_escapes(&upper).into_bytes());
        forms.insert(upper.into_bytes());
    }
    if let Ok(text) = std::str::from_utf8(value) {
        // As JSON and Go quote, and as a shell that is told to print its commands does.
        let quoted = Value::from(text).to_string();
        forms.insert(quoted.as_bytes()[1..quoted.len() - 1].to_vec());
        forms.insert(text.replace('\'', r"'\''").into_bytes());
        forms.insert(text.replace('\'', r#"'"'"'"#).into_bytes());
    }
}

/// What may stand in one line of an encoded value when something before it shifts the breaks: a whole line of it from
/// any place on, its beginning, or its end.
fn add_rests(encoded: &[u8], forms: &mut BTreeSet<Vec<u8>>) {
    for line in ENCODED_LINES {
        forms.extend(encoded.windows(line).map(<[u8]>::to_vec));
    }
    for length in MIN_REST_BYTES..encoded.len().min(ENCODED_LINES[0]) {
        forms.insert(encoded[..length].to_vec());
        forms.insert(encoded[encoded.len() - length..].to_vec());
    }
}

fn percent_encoded(value: &[u8], kept: &str) -> String {
    value.iter().fold(String::new(), |text, byte| {
        if byte.is_ascii_alphanumeric() || kept.as_bytes().contains(byte) {
            text + char::from(*byte).encode_utf8(&mut [0; 4])
        } else {
            text + &format!("%{byte:02X}")
        }
    })
}

fn lower_escapes(encoded: &str) -> String {
    let mut parts = encoded.split('%');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let (escape, rest) = part.split_at(2.min(part.len()));
        text + "%" + &escape.to_lowercase() + rest
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::{Mask, Masked};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn seen(values: BTreeSet<Vec<u8>>, output: &str) -> String {
        let mut stream = Masked::new(Arc::new(Mask::new(values)));
        let mut out = Vec::new();
        stream.push(output.as_bytes(), &mut out);
        stream.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn each_line_and_each_form_is_found() {
        let secret = "first line\np@ss wörd/'\"x\n";
        for (output, expected) in [
            ("first line|p@ss wörd/'\"x", "***|***"),
            ("p%40ss%20w%C3%B6rd%2F%27%22x", "***"),
            ("p%40ss%20w%c3%b6rd%2f%27%22x", "***"),
            ("p%40ss+w%C3%B6rd%2F%27%22x", "***"),
            ("p%40ss%20w%C3%B6rd/%27%22x", "***"),
            ("msg=\"p@ss wörd/'\\\"x\"", "msg=\"***\""),
            (r#"+ echo 'p@ss wörd/'\''"x'"#, "+ echo '***'"),
            ("first lin", "first lin"),
        ] {
            assert_eq!(seen(of_file(secret.as_bytes()), output), expected, "{output}");
        }
    }

    #[test]
    fn base64_is_found_at_every_offset_and_over_lines() {
        for before in ["", "u", "us", "user:"] {
            let encoded = STANDARD.encode(format!("{before}correct-horse\n"));
            let left = seen(of_file(b"correct-horse\n"), &encoded);
            assert!(left.contains("***") && left.len() <= before.len().div_ceil(3) * 4 + 3 + 4, "{encoded}: {left}");
        }
        let long: String = (0..400).map(|n| char::from(b' ' + u8::try_from(n * 7 % 90).unwrap())).collect();
        for length in ENCODED_LINES {
            let encoded = STANDARD.encode(&long).into_bytes();
            let lines: Vec<_> = encoded.chunks(length).map(String::from_utf8_lossy).collect();
            let left = seen(of_file(long.as_bytes()), &lines.join("\n"));
            assert!(left.lines().all(|line| line == "***"), "{left}");
        }
    }

    #[test]
    fn the_value_of_a_setting_is_secret_by_itself() {
        for (file, output, expected) in [
            ("//npm.test/:_authToken=npm_0123456789", "token npm_0123456789", "token ***"),
            ("{\n  \"token\": \"abcdefgh12\",\n}", "abcdefgh12", "***"),
            ("machine a login b password hunter22x", "hunter22x", "***"),
            ("strict-ssl=true\ntoken=0123456789", "true", "true"),
        ] {
            assert_eq!(seen(of_file(file.as_bytes()), output), expected, "{file}");
        }
    }

    #[test]
    fn of_a_registrys_configuration_only_passwords_are_secret() {
        let config = serde_json::json!({"auths": {
            "registry.test:5000": {"auth": STANDARD.encode("robot:hunter2hunter2"), "username": "robot"},
            "other.test": {"username": "someone", "password": "swordfish", "identitytoken": "token-token"},
        }})
        .to_string();
        let values = of_docker_config(config.as_bytes());
        let output = format!(
            "registry.test:5000 robot someone hunter2hunter2 swordfish token-token {}",
            STANDARD.encode("robot:hunter2hunter2")
        );
        assert_eq!(seen(values, &output), "registry.test:5000 robot someone *** *** *** ***");
        assert_eq!(seen(of_docker_config(b"no json: sesame-open"), "sesame-open"), "***");
    }

    #[test]
    fn what_is_too_short_is_left_alone() {
        assert!(of_file(b"").is_empty() && of_file(b"abc\n").is_empty());
        assert_eq!(seen(of_file(b"abc\nlonger"), "abc longer"), "abc ***");
    }

    proptest! {
        #[test]
        fn base64_is_found_across_line_and_chunk_borders_whatever_stands_around(
            secret in proptest::collection::vec(128..255_u8, 8..400),
            before in proptest::collection::vec(b'a'..=b'z', 0..100),
            after in proptest::collection::vec(b'a'..=b'z', 0..100),
            line in proptest::sample::select(ENCODED_LINES.to_vec()),
            chunk in 1..100_usize,
        ) {
            let encoded = STANDARD.encode([&before[..], &secret, &after].concat());
            let lines: Vec<_> = encoded.as_bytes().chunks(line).collect();
            let mut stream = Masked::new(Arc::new(Mask::new(of_file(&secret))));
            let mut out = Vec::new();
            for piece in lines.join(&b'\n').chunks(chunk) {
                stream.push(piece, &mut out);
            }
            stream.finish(&mut out);
            // The characters that hold bits of the secret alone.
            let inner = &encoded.as_bytes()[(before.len() * 8).div_ceil(6)..(before.len() + secret.len()) * 8 / 6];
            for rest in inner.windows(MIN_REST_BYTES) {
                prop_assert!(!out.windows(rest.len()).any(|seen| seen == rest), "{}", String::from_utf8_lossy(&out));
            }
        }

        #[test]
        fn percent_encoding_is_found_in_both_cases_and_each_line_of_a_secret_by_itself(
            first in "[ -~]{8,40}",
            second in proptest::collection::vec(128..255_u8, 8..40),
            chunk in 1..20_usize,
        ) {
            prop_assume!(first.trim().len() >= 8);
            let secret = [first.as_bytes(), b"\r\n", &second].concat();
            let mask = Arc::new(Mask::new(of_file(&secret)));
            for line in [first.trim().as_bytes(), &second] {
                let upper = percent_encoded(line, "-._~");
                for form in [upper.clone().into_bytes(), lower_escapes(&upper).into_bytes(), line.to_vec()] {
                    let mut stream = Masked::new(mask.clone());
                    let mut out = Vec::new();
                    for piece in form.chunks(chunk) {
                        stream.push(piece, &mut out);
                    }
                    stream.finish(&mut out);
                    prop_assert_eq!(&*String::from_utf8_lossy(&out), "***");
                }
            }
        }

        #[test]
        fn no_line_of_a_secret_and_no_encoding_of_it_stays(
            secret in proptest::collection::vec(any::<u8>(), 8..80),
            before in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            let values = of_file(&secret);
            let mask = Arc::new(Mask::new(values));
            let line = secret.trim_ascii().split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).max_by_key(|line| line.len()).unwrap_or_default();
            prop_assume!(line.len() >= 8);
            for output in [line.to_vec(), STANDARD.encode([&before, secret.trim_ascii()].concat()).into_bytes(), percent_encoded(line, "-._~").into_bytes()] {
                let mut stream = Masked::new(mask.clone());
                let mut out = Vec::new();
                stream.push(&output, &mut out);
                stream.finish(&mut out);
                prop_assert!(out.windows(3).any(|window| window == b"***"));
                prop_assert!(!out.windows(line.len()).any(|window| window == line));
            }
        }
    }
}
