//! Platforms, as a Build asks for them and as images name their own: `os/architecture[/variant]`.
//!
//! What is spelt differently and means the same is written in one way, as containerd has it:
//! <https://github.com/containerd/platforms/blob/v1.0.0-rc.1/database.go>.

use std::collections::BTreeSet;

/// The one way to write it: `linux/arm64/v8` → `linux/arm64`, `linux/arm` → `linux/arm/v7`.
pub fn normalized(platform: &str) -> String {
    let mut parts = platform.split('/');
    let (os, architecture, variant) =
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64", variant) => ("amd64", variant),
        ("i386", _) => ("386", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        other => other,
    };
    let variant = match (architecture, variant) {
        ("amd64", "v1") | ("arm64", "8" | "v8") => String::new(),
        ("arm", "") => "v7".to_owned(),
        ("arm", digits) if !digits.starts_with('v') => format!("v{digits}"),
        (_, variant) => variant.to_owned(),
    };
    let parts = [os, architecture, &variant].into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("/")
}

/// Of those asked for, the ones that were not pushed, as they were asked for.
pub fn missing<'a>(asked: &'a [String], pushed: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let pushed: BTreeSet<String> = pushed.into_iter().map(normalized).collect();
    asked.iter().map(String::as_str).filter(|platform| !pushed.contains(&normalized(platform))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_the_same_is_written_alike() {
        for (platform, written) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v9", "linux/arm64/v9"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/i386", "linux/386"),
            ("windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(normalized(platform), written, "{platform}");
            assert_eq!(normalized(written), written, "{platform}");
        }
    }

    #[test]
    fn what_was_not_pushed_is_named_as_it_was_asked_for() {
        let asked = ["linux/arm64/v8", "linux/arm", "linux/riscv64"].map(str::to_owned);
        assert_eq!(missing(&asked, ["linux/arm64", "linux/amd64", "linux/arm/v7"]), ["linux/riscv64"]);
        assert!(missing(&[], []).is_empty());
    }
}
