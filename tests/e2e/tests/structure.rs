//! The structure of the sources in numbers, held at what a reader can keep in mind.
//!
//! Shown by `cargo test -p e2e --test structure -- --nocapture`; `STRUCTURE_OF=FOLDER` measures another checkout,
//! without judging it.
#![expect(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use regex::Regex;

/// The programs, each with the folders of the crates that are its own.
const PROGRAMS: [(&str, &[&str]); 4] = [
    ("supervisor", &["supervisor", "shared"]),
    ("validator", &["validator", "shared"]),
    (
        "eval-worker",
        &["validator/engine", "validator/model", "shared"],
    ),
    ("localnet", &["tests/localnet"]),
];
/// At most this share of the type names of a program is declared more than once.
const TYPES_TWICE: f64 = 0.05;
/// At most this share of the comments of items has four words or fewer.
const SHORT_COMMENTS: f64 = 0.10;

type Module = Vec<String>;

/// A file of a crate: which module it is, and what it says.
struct Source {
    path: PathBuf,
    module: Module,
    text: String,
}

/// Returns the checkout to measure, and whether it is judged.
fn checkout() -> (PathBuf, bool) {
    #[expect(
        clippy::disallowed_methods,
        reason = "a measurement of another checkout, asked for by hand"
    )]
    let other = env::var_os("STRUCTURE_OF");
    let judged = other.is_none();
    (other.map_or_else(e2e::workspace, PathBuf::from), judged)
}

/// Returns the `src` folders below a folder, one for each crate.
fn crates(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.file_name().unwrap().to_str().unwrap() {
            "src" => found.push(path),
            // The worker is a program of its own; it lies with the validator, whose versions it shares.
            "engine" if folder.ends_with("validator") => {}
            "target" | "tests" => {}
            _ if path.is_dir() => found.extend(crates(&path)),
            _ => {}
        }
    }
    found.sort();
    found
}

/// Reads the files of a crate, without those that are tests.
fn sources(src: &Path) -> Vec<Source> {
    fn walk(folder: &Path, module: &Module, found: &mut Vec<Source>) {
        let mut entries: Vec<PathBuf> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        entries.sort();
        for path in entries {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let mut module = module.clone();
            if path.is_dir() {
                module.push(name);
                walk(&path, &module, found);
            } else if path.extension().is_some_and(|end| end == "rs") && name != "tests" {
                if !matches!(name.as_str(), "mod" | "lib" | "main") {
                    module.push(name);
                }
                let text = fs::read_to_string(&path).unwrap();
                let text = text
                    .split("\n#[cfg(test)]\nmod ")
                    .next()
                    .unwrap()
                    .to_owned();
                found.push(Source { path, module, text });
            }
        }
    }
    let mut found = Vec::new();
    walk(src, &Vec::new(), &mut found);
    found
}

static TYPE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?m)^(?:pub(?:\([^)]*\))? )?(?:struct|enum|trait|union) ([A-Z]\w*)").unwrap()
});
static ITEM: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?m)^(?:pub(?:\([^)]*\))? )?(?:async |const |unsafe )*(?:struct|enum|trait|union|fn|const|static|type) (?:mut )?(\w+)").unwrap()
});
static USE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?m)^\s*(?:pub(?:\([^)]*\))? )?use ([\w:{}*,\s]+);").unwrap());
static PATH: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\b((?:crate|super|self)(?:::\w+)+)").unwrap());

/// Turns `a::{b, c::{d, e}}` into its paths.
fn paths(tree: &str) -> Vec<Vec<String>> {
    fn expand(prefix: &[String], tree: &str, found: &mut Vec<Vec<String>>) {
        let (mut depth, mut begin) = (0, 0);
        let mut parts = Vec::new();
        for (at, sign) in tree.char_indices() {
            match sign {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    parts.push(&tree[begin..at]);
                    begin = at + 1;
                }
                _ => {}
            }
        }
        parts.push(&tree[begin..]);
        for part in parts
            .iter()
            .map(|part| part.trim())
            .filter(|part| !part.is_empty())
        {
            let (head, group) = part.split_once('{').map_or((part, None), |(head, rest)| {
                (head, Some(rest.trim_end().trim_end_matches('}')))
            });
            let mut path = prefix.to_vec();
            let plain = head.split(" as ").next().unwrap();
            path.extend(
                plain
                    .split("::")
                    .map(str::trim)
                    .filter(|name| !name.is_empty())
                    .map(ToOwned::to_owned),
            );
            match group {
                // Only the outermost closing brace belongs to this group.
                Some(_) => {
                    let open = part.find('{').unwrap();
                    let close = part.rfind('}').unwrap();
                    expand(&path, &part[open + 1..close], found);
                }
                None => found.push(path),
            }
        }
    }
    let mut found = Vec::new();
    expand(&[], tree, &mut found);
    found
}

/// One crate, as far as its own paths can be followed.
struct Krate {
    sources: Vec<Source>,
    files: BTreeMap<Module, usize>,
    items: BTreeMap<(usize, String), usize>,
    exports: BTreeMap<(usize, String), Vec<Vec<String>>>,
}

impl Krate {
    fn read(src: &Path) -> Self {
        let sources = sources(src);
        let mut krate = Self {
            files: BTreeMap::new(),
            items: BTreeMap::new(),
            exports: BTreeMap::new(),
            sources: Vec::new(),
        };
        for (index, source) in sources.iter().enumerate() {
            krate.files.insert(source.module.clone(), index);
            for item in ITEM.captures_iter(&source.text) {
                krate.items.insert((index, item[1].to_owned()), index);
            }
            for import in USE.captures_iter(&source.text) {
                for path in paths(&import[1]) {
                    let name = path.last().unwrap().clone();
                    krate.exports.entry((index, name)).or_default().push(path);
                }
            }
        }
        krate.sources = sources;
        krate
    }

    /// Returns the file in which a path, seen from a file, is declared.
    fn declared(&self, from: usize, path: &[String], depth: u32) -> Option<usize> {
        let mut module = self.sources[from].module.clone();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => {
                module.clear();
                rest = &path[1..];
            }
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|name| name == "super") {
                    module.pop()?;
                    rest = &rest[1..];
                }
            }
            _ => {}
        }
        while let Some(next) = rest.first() {
            module.push(next.clone());
            if !self.files.contains_key(&module) {
                module.pop();
                break;
            }
            rest = &rest[1..];
        }
        let file = *self.files.get(&module)?;
        let Some(name) = rest.first() else {
            return Some(file);
        };
        if let Some(found) = self.items.get(&(file, name.clone())) {
            return Some(*found);
        }
        let exported = self.exports.get(&(file, name.clone()))?;
        (depth > 0)
            .then(|| {
                exported
                    .iter()
                    .filter(|path| path.as_slice() != [name.clone()])
                    .find_map(|path| self.declared(file, path, depth - 1))
            })
            .flatten()
    }

    /// Returns the circles: groups of files each of which needs the others. A folder's own file and
    /// what lies in the folder may name each other.
    fn circles(&self) -> Vec<Vec<String>> {
        let count = self.sources.len();
        let mut reaches = vec![vec![false; count]; count];
        for (from, source) in self.sources.iter().enumerate() {
            // A comment may name what the code does not need.
            let is_code = |line: &&str| !line.trim_start().starts_with("//");
            let code: String = source.text.split_inclusive('\n').filter(is_code).collect();
            let uses = USE
                .captures_iter(&code)
                .flat_map(|import| paths(&import[1]));
            let named = PATH
                .captures_iter(&code)
                .map(|path| path[1].split("::").map(ToOwned::to_owned).collect());
            for path in uses.chain(named) {
                if let Some(to) = self.declared(from, &path, 5) {
                    let (a, b) = (&source.module, &self.sources[to].module);
                    if !a.starts_with(b) && !b.starts_with(a) {
                        reaches[from][to] = true;
                    }
                }
            }
        }
        for middle in 0..count {
            let onward = reaches[middle].clone();
            for row in reaches.iter_mut().filter(|row| row[middle]) {
                row.iter_mut().zip(&onward).for_each(|(to, &on)| *to |= on);
            }
        }
        let group = |from: usize| -> Vec<usize> {
            let there = |&to: &usize| reaches[from][to] && reaches[to][from];
            (0..count).filter(there).collect()
        };
        let found: BTreeSet<Vec<usize>> = (0..count)
            .map(group)
            .filter(|group| !group.is_empty())
            .collect();
        found
            .into_iter()
            .map(|group| {
                group
                    .into_iter()
                    .map(|file| self.sources[file].path.display().to_string())
                    .collect()
            })
            .collect()
    }
}

#[test]
fn no_file_needs_itself_through_others() {
    let (root, judged) = checkout();
    let mut all = Vec::new();
    for (program, folders) in PROGRAMS {
        let krates = folders.iter().flat_map(|folder| crates(&root.join(folder)));
        let circles: Vec<Vec<String>> =
            krates.flat_map(|src| Krate::read(&src).circles()).collect();
        println!("{program}: {} circles", circles.len());
        for circle in &circles {
            println!("  {}", circle.join("\n    "));
        }
        all.extend(circles);
    }
    assert!(
        all.is_empty() || !judged,
        "take these circles of files apart: {all:#?}"
    );
}

#[test]
fn one_name_means_one_thing() {
    let (root, judged) = checkout();
    let mut found = Vec::new();
    for (program, folders) in PROGRAMS {
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for src in folders.iter().flat_map(|folder| crates(&root.join(folder))) {
            for source in sources(&src) {
                for name in TYPE.captures_iter(&source.text) {
                    let at = source.path.strip_prefix(&root).unwrap();
                    names
                        .entry(name[1].to_owned())
                        .or_default()
                        .push(at.display().to_string());
                }
            }
        }
        let declared: usize = names.values().map(Vec::len).sum();
        names.retain(|_, places| places.len() > 1);
        let twice: usize = names.values().map(Vec::len).sum();
        let share = twice as f64 / declared as f64;
        println!(
            "{program}: {twice} of {declared} type names are declared more than once ({:.1} %)",
            share * 100.0
        );
        for (name, places) in &names {
            println!("  {name}: {}", places.join(", "));
        }
        if share > TYPES_TWICE {
            found.push(program);
        }
    }
    assert!(
        found.is_empty() || !judged,
        "too many names are declared twice in {found:?}"
    );
}

#[test]
fn comments_say_more_than_the_name() {
    let (root, judged) = checkout();
    let (mut comments, mut short) = (0_u32, 0_u32);
    let mut lines = 0;
    let all = PROGRAMS
        .iter()
        .flat_map(|(_, folders)| folders.iter())
        .collect::<BTreeSet<_>>();
    for src in all
        .into_iter()
        .flat_map(|folder| crates(&root.join(folder)))
    {
        for source in sources(&src) {
            lines += source.text.lines().count();
            let mut words = 0;
            for line in source.text.lines().chain([""]) {
                if let Some(text) = line.trim_start().strip_prefix("///") {
                    words += text.split_whitespace().count();
                } else if words > 0 {
                    comments += 1;
                    short += u32::from(words <= 4);
                    words = 0;
                }
            }
        }
    }
    let share = f64::from(short) / f64::from(comments);
    println!(
        "{short} of {comments} comments of items have four words or fewer ({:.1} %)",
        share * 100.0
    );
    println!("{lines} lines without tests");
    assert!(
        share <= SHORT_COMMENTS || !judged,
        "comments of four words say what the name says: let them go, with `pub(crate)`"
    );
}
