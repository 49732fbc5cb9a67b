//! Which names of a stranger become files of ours.

const MAX_DEPTH: usize = 255;
const MAX_NAME_BYTES: usize = 255;

/// Returns whether a path can become a file inside a folder of ours: relative, no `..`, no control
/// characters, names and nesting of a reasonable size.
pub fn is_safe_path(path: &str) -> bool {
    let safe_name = |name: &str| {
        !matches!(name, "" | "." | "..")
            && name.len() <= MAX_NAME_BYTES
            && !name.contains(char::is_control)
    };
    path.split('/').count() <= MAX_DEPTH && path.split('/').all(safe_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_inside() {
        for good in [
            "config.json",
            "shards/a/b.safetensors",
            "\u{e9}.json",
            "..a",
            "a b",
            "a\\b",
            &("d/".repeat(17) + "f"),
        ] {
            assert!(is_safe_path(good), "{good:?}");
        }
        let deep = "d/".repeat(300) + "f";
        let long = "x".repeat(256);
        for bad in [
            "",
            "/etc/passwd",
            "a/../b",
            "..",
            "a//b",
            "a/",
            "./a",
            "a\0b",
            "a\nb",
            &deep,
            &long,
        ] {
            assert!(!is_safe_path(bad), "{bad:?}");
        }
    }
}
