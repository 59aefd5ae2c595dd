//! Names with wildcards, for branches and paths: `*` stands for any characters but `/`, `**` for any at all, `**/` also
//! for no folder, `?` for one that is no `/`. A pattern fits a name as a whole.

/// Whether the name fits. The time it takes grows with the product of the lengths, whatever the pattern.
pub fn fits(pattern: &str, name: &str) -> bool {
    let parts = parts(pattern);
    // Which parts may come next, after what has been read of the name.
    let mut open = vec![false; parts.len() + 1];
    open[0] = true;
    skip(&parts, &mut open);
    for letter in name.chars() {
        let mut next = vec![false; parts.len() + 1];
        for (index, part) in parts.iter().enumerate().filter(|(index, _)| open[*index]) {
            match part {
                Part::Letter(wanted) => next[index + 1] |= *wanted == letter,
                Part::One => next[index + 1] |= letter != '/',
                Part::Name => next[index] |= letter != '/',
                Part::Anything => next[index] = true,
                Part::Optional => {}
            }
        }
        open = next;
        skip(&parts, &mut open);
    }
    open[parts.len()]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Letter(char),
    One,
    Name,
    Anything,
    /// The next two parts, [`Part::Anything`] and a `/`, or neither.
    Optional,
}

fn parts(pattern: &str) -> Vec<Part> {
    let mut parts = Vec::with_capacity(pattern.len());
    let mut letters = pattern.chars().peekable();
    let mut begins_folder = true;
    while let Some(letter) = letters.next() {
        let mut stars = usize::from(letter == '*');
        while stars > 0 && letters.next_if_eq(&'*').is_some() {
            stars += 1;
        }
        match letter {
            '*' if stars > 1 => {
                if begins_folder && letters.peek() == Some(&'/') {
                    parts.push(Part::Optional);
                }
                parts.push(Part::Anything);
            }
            '*' => parts.push(Part::Name),
            '?' => parts.push(Part::One),
            letter => parts.push(Part::Letter(letter)),
        }
        begins_folder = letter == '/';
    }
    parts
}

/// Wildcards may stand for nothing.
fn skip(parts: &[Part], open: &mut [bool]) {
    for (index, part) in parts.iter().enumerate().filter(|(_, part)| !matches!(part, Part::Letter(_) | Part::One)) {
        if open[index] {
            open[index + 1] = true;
            if *part == Part::Optional {
                open[index + 3] = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::fits;

    #[test]
    fn a_pattern_fits_as_a_whole() {
        for (pattern, name, expected) in [
            ("main", "main", true),
            ("main", "maintenance", false),
            ("main", "not-main", false),
            ("release/*", "release/1.2", true),
            ("release/*", "release/1/2", false),
            ("release/*", "release/", true),
            ("release/**", "release/1/2", true),
            ("*", "main", true),
            ("*", "feature/x", false),
            ("**", "feature/x", true),
            ("v?.?", "v1.2", true),
            ("v?.?", "v1.20", false),
            ("?", "ü", true),
            ("?", "/", false),
            ("*.rs", "lib.rs", true),
            ("*.rs", "src/lib.rs", false),
            ("**/*.rs", "src/db/lib.rs", true),
            ("**/*.rs", "lib.rs", true),
            ("src/**/lib.rs", "src/lib.rs", true),
            ("src/**/lib.rs", "src/a/b/lib.rs", true),
            ("src/**/lib.rs", "src/a/mylib.rs", false),
            ("src**/lib.rs", "src/lib.rs", true),
            ("src**/lib.rs", "srclib.rs", false),
            ("a***b", "a/b", true),
            ("[ab]", "a", false),
            ("[ab]", "[ab]", true),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_without_wildcards_fits_only_itself(one in "[a-z/.]{0,12}", other in "[a-z/.]{0,12}") {
            prop_assert_eq!(fits(&one, &other), one == other);
        }

        #[test]
        fn wildcards_stand_for_what_they_have_replaced(start in "[a-z/]{0,6}", middle in "[a-z/]{0,6}", end in "[a-z/]{0,6}") {
            let name = format!("{start}{middle}{end}");
            let pattern = format!("{start}**{end}");
            prop_assert!(fits(&pattern, &name));
            let pattern = format!("{start}*{end}");
            prop_assert!(middle.contains('/') || fits(&pattern, &name));
        }
    }
}
