//! Architecture checks, read from the sources: layers, import cycles between files, and
//! the only places where some third-party crates may be used.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemUse, UseTree, Visibility};

/// Folders or files that alone may name a third-party crate.
const CRATE_HOMES: [(&str, &[&str]); 3] =
    [("mpi", &["src/comm/mpi.rs"]), ("hdf5", &["src/data/"]), ("cubecl", &["gpu/"])];

/// A path in a source, split at `::`.
type Names = Vec<String>;

/// One source file without its tests.
#[derive(Default)]
struct Source {
    /// Relative to the root of the repository.
    path: String,
    /// Module path inside its crate: `["data", "table"]` for `src/data/table/mod.rs`.
    module: Names,
    /// Every path that the code names, made absolute within the crate where it starts with
    /// `crate`, `self`, `super` or a child module. `taiga_flow::` counts as `crate::`.
    local: BTreeSet<Names>,
    /// First segments of all other paths.
    external: BTreeSet<String>,
    /// Names that the file hands on by `pub use`, with their absolute paths.
    reexports: BTreeMap<String, Names>,
    children: BTreeSet<String>,
}

impl Source {
    /// Parses one file. `path` is relative to the root of the repository.
    fn parse(path: &str, text: &str) -> Self {
        let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut source =
            Self { path: path.to_string(), module: module_of(path), ..Self::default() };
        source.children = file
            .items
            .iter()
            .filter_map(|item| match item {
                Item::Mod(item) => Some(item.ident.to_string()),
                _ => None,
            })
            .collect();
        source.visit_file(&file);
        source
    }

    /// Records a path as local or external.
    fn record(&mut self, names: &[String]) {
        match self.absolute(names) {
            Some(path) => drop(self.local.insert(path)),
            None => drop(self.external.insert(names[0].clone())),
        }
    }

    /// Returns the path from the root of the crate, or `None` for a path outside it.
    fn absolute(&self, names: &[String]) -> Option<Names> {
        let (first, mut rest) = names.split_first()?;
        let mut base = match first.as_str() {
            "crate" | "taiga_flow" => Names::new(),
            "self" => self.module.clone(),
            "super" => self.parent(&self.module),
            child if self.children.contains(child) => {
                rest = names;
                self.module.clone()
            }
            _ => return None,
        };
        while let Some(("super", next)) = rest.split_first().map(|(a, b)| (a.as_str(), b)) {
            base = self.parent(&base);
            rest = next;
        }
        Some(base.into_iter().chain(rest.iter().cloned()).collect())
    }

    fn parent(&self, module: &[String]) -> Names {
        let (_, parent) = module.split_last().unwrap_or_else(|| panic!("{}: super", self.path));
        parent.to_vec()
    }

    fn use_tree(&mut self, prefix: &mut Names, tree: &UseTree, reexport: bool) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.use_tree(prefix, &path.tree, reexport);
                prefix.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.use_tree(prefix, tree, reexport);
                }
            }
            UseTree::Name(name) => self.use_name(prefix, &name.ident, &name.ident, reexport),
            UseTree::Rename(name) => self.use_name(prefix, &name.ident, &name.rename, reexport),
            UseTree::Glob(_) => self.record(prefix),
        }
    }

    fn use_name(&mut self, prefix: &[String], name: &syn::Ident, as_: &syn::Ident, reexport: bool) {
        let mut names = prefix.to_vec();
        if name != "self" {
            names.push(name.to_string());
        }
        self.record(&names);
        if let (true, Some(path)) = (reexport, self.absolute(&names)) {
            self.reexports.insert(as_.to_string(), path);
        }
    }
}

impl<'ast> Visit<'ast> for Source {
    fn visit_item(&mut self, item: &'ast Item) {
        if !attributes(item).iter().any(is_cfg_test) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let reexport = !matches!(item.vis, Visibility::Inherited);
        self.use_tree(&mut Names::new(), &item.tree, reexport);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Names = path.segments.iter().map(|part| part.ident.to_string()).collect();
        if names.len() > 1 {
            self.record(&names);
        }
        visit::visit_path(self, path);
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Mod(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Const(item) => &item.attrs,
        _ => &[],
    }
}

fn is_cfg_test(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
}

/// Returns the module path of a source file: `src/a/mod.rs` and `src/a.rs` are both `a`.
fn module_of(path: &str) -> Names {
    let inner = path.split_once("src/").map_or(path, |(_, inner)| inner);
    let mut names: Names = inner.trim_end_matches(".rs").split('/').map(str::to_string).collect();
    if names.last().is_some_and(|last| last == "mod" || last == "lib") {
        names.pop();
    }
    names
}

/// All sources of one crate.
struct Crate {
    sources: BTreeMap<Names, Source>,
}

impl Crate {
    fn new(sources: impl IntoIterator<Item = Source>) -> Self {
        Self { sources: sources.into_iter().map(|s| (s.module.clone(), s)).collect() }
    }

    /// Reads every file below `folder`, except tests.
    fn read(root: &Path, folder: &str) -> Self {
        let mut folders = vec![root.join(folder)];
        let mut sources = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
                let path = entry.path();
                let name = path.strip_prefix(root).expect("below the root").display().to_string();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "rs") && !name.contains("tests") {
                    let text = std::fs::read_to_string(&path).expect("a source");
                    sources.push(Source::parse(&name, &text));
                }
            }
        }
        Self::new(sources)
    }

    /// Returns the module that defines the last name of a path, following `pub use`.
    fn defining_module(&self, path: &[String]) -> Option<&Names> {
        let mut path = path.to_vec();
        // Each step follows one `pub use`; a bound in case two of them form a circle.
        for _ in 0..10 {
            let length = (0..=path.len()).rev().find(|n| self.sources.contains_key(&path[..*n]))?;
            let source = &self.sources[&path[..length]];
            match path.get(length).and_then(|name| source.reexports.get(name)) {
                Some(target) if *target != path[..=length] => {
                    path = target.iter().chain(&path[length + 1..]).cloned().collect();
                }
                _ => return Some(&source.module),
            }
        }
        None
    }

    /// Returns the imports of every file. The file of a folder (`mod.rs`) is the interface of
    /// the files in it: imports between the two are left out.
    fn imports(&self) -> BTreeMap<&Names, BTreeSet<&Names>> {
        self.sources
            .values()
            .map(|source| {
                let own = &source.module;
                let imported = source.local.iter().filter_map(|path| self.defining_module(path));
                let others =
                    imported.filter(|other| !other.starts_with(own) && !own.starts_with(other));
                (own, others.collect())
            })
            .collect()
    }

    /// Returns the cycles of the import graph: groups of files that reach each other.
    fn cycles(&self) -> Vec<String> {
        let imports = self.imports();
        let reached: BTreeMap<&Names, BTreeSet<&Names>> =
            imports.keys().map(|start| (*start, reachable(&imports, start))).collect();
        let mut groups = BTreeSet::new();
        for (file, others) in &reached {
            if others.contains(file) {
                let group: Vec<String> = others
                    .iter()
                    .filter(|other| reached[*other].contains(file))
                    .map(|module| module.join("::"))
                    .collect();
                groups.insert(format!("import cycle: {}", group.join(", ")));
            }
        }
        groups.into_iter().collect()
    }

    /// Returns imports that do not go to a lower layer, and modules without a layer.
    fn layer_breaches(&self, layers: &BTreeMap<String, usize>) -> Vec<String> {
        let mut breaches = BTreeSet::new();
        for source in self.sources.values() {
            let Some(own) = source.module.first() else { continue };
            let Some(own_layer) = layers.get(own) else {
                breaches.insert(format!("{}: '{own}' is in no layer", source.path));
                continue;
            };
            for imported in source.local.iter().filter_map(|path| path.first()) {
                let is_lower = layers.get(imported).is_some_and(|layer| layer < own_layer);
                let is_module = self.sources.contains_key(std::slice::from_ref(imported));
                if imported != own && is_module && !is_lower {
                    breaches.insert(format!("{}: '{own}' imports '{imported}'", source.path));
                }
            }
        }
        breaches.into_iter().collect()
    }

    /// Returns uses of third-party crates outside their homes.
    fn crate_breaches(&self) -> Vec<String> {
        let is_away = |source: &&Source, (name, homes): (&str, &[&str])| {
            source.external.contains(name)
                && !homes.iter().any(|home| source.path.starts_with(home))
        };
        CRATE_HOMES
            .iter()
            .flat_map(|home| {
                self.sources.values().filter(|source| is_away(source, *home)).map(|source| {
                    format!("{}: '{}' is used outside {:?}", source.path, home.0, home.1)
                })
            })
            .collect()
    }
}

fn reachable<'a>(
    imports: &BTreeMap<&'a Names, BTreeSet<&'a Names>>,
    start: &'a Names,
) -> BTreeSet<&'a Names> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&Names> = imports[start].iter().copied().collect();
    while let Some(next) = open.pop() {
        if reached.insert(next) {
            open.extend(imports[next].iter().copied());
        }
    }
    reached
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Reads the table of layers in `ARCHITECTURE.md`: module name to layer number.
fn layers(text: &str) -> BTreeMap<String, usize> {
    let mut layers = BTreeMap::new();
    for line in text.lines() {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let (Some(number), Some(modules)) = (cells.next(), cells.next()) else { continue };
        let Ok(number) = number.parse() else { continue };
        layers.extend(modules.split(", ").map(|name| (name.trim_matches('`').to_string(), number)));
    }
    layers
}

fn documented_layers() -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    layers(&text)
}

#[test]
fn sources_import_from_lower_layers_only() {
    let layers = documented_layers();
    let sources = Crate::read(root(), "src");
    for module in ["error", "comm", "data", "train", "score", "cli", "main"] {
        assert!(layers.contains_key(module), "ARCHITECTURE.md has no layer of '{module}'");
        assert!(sources.sources.contains_key(&vec![module.to_string()]), "no file of '{module}'");
    }
    let breaches = sources.layer_breaches(&layers);
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn sources_have_no_import_cycles() {
    for folder in ["src", "gpu/src"] {
        let cycles = Crate::read(root(), folder).cycles();
        assert!(cycles.is_empty(), "{folder}: {}", cycles.join("\n"));
    }
}

#[test]
fn third_party_crates_stay_in_their_homes() {
    for folder in ["src", "gpu/src"] {
        let breaches = Crate::read(root(), folder).crate_breaches();
        assert!(breaches.is_empty(), "{}", breaches.join("\n"));
    }
}

#[test]
fn gpu_crate_depends_on_no_ranks_or_files() {
    let manifest = std::fs::read_to_string(root().join("gpu/Cargo.toml")).expect("the manifest");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let dependencies = manifest["dependencies"].as_table().expect("dependencies");
    for name in ["mpi", "hdf5", "hdf5-metno", "clap", "taiga-flow"] {
        assert!(!dependencies.contains_key(name), "gpu depends on {name}");
    }
}

/// Builds a crate from pairs of path and text.
fn made_up(files: &[(&str, &str)]) -> Crate {
    Crate::new(files.iter().map(|(path, text)| Source::parse(path, text)))
}

#[test]
fn layer_check_finds_imports_that_go_up() {
    let layers = layers("| layer | modules |\n|---|---|\n| 1 | `low` |\n| 2 | `a`, `b` |");
    let others =
        [("src/low.rs", ""), ("src/b/mod.rs", "pub struct B;"), ("src/b/in.rs", "struct In;")];
    let breach = |path: &str, text: &str| {
        let mut files = others.to_vec();
        files.push((path, text));
        made_up(&files).layer_breaches(&layers).len()
    };
    for (expected, path, text) in [
        (0, "src/a.rs", "use crate::low::X;"),
        (0, "src/a/mod.rs", "// use crate::b::B;\nconst TEXT: &str = \"crate::b::B\";"),
        (0, "src/a/mod.rs", "#[cfg(test)]\nmod tests { use crate::b::B; }"),
        (1, "src/a.rs", "use crate::b::B;"),
        (1, "src/a.rs", "use crate::{low, b::B};"),
        (1, "src/a/deep.rs", "pub use super::super::b::B;"),
        (1, "src/a.rs", "fn f() -> crate::b::B { g() }"),
        (1, "src/low.rs", "use crate::b;"),
        (1, "src/novel.rs", "fn f() {}"),
    ] {
        assert_eq!(breach(path, text), expected, "{path}: {text}");
    }
}

#[test]
fn cycle_check_follows_reexports() {
    let direct = made_up(&[
        ("src/a/mod.rs", "mod x; mod y;"),
        ("src/a/x.rs", "use super::y::Y;"),
        ("src/a/y.rs", "fn f(x: super::x::X) {}"),
    ]);
    assert_eq!(direct.cycles(), ["import cycle: a::x, a::y"]);
    let reexported = made_up(&[
        ("src/a/mod.rs", "mod x; mod y; pub(crate) use y::Y;"),
        ("src/a/x.rs", "use crate::a::Y;"),
        ("src/a/y.rs", "use crate::a::x::X;"),
    ]);
    assert_eq!(reexported.cycles(), ["import cycle: a::x, a::y"]);
    let none = made_up(&[
        ("src/a/mod.rs", "mod x; mod y; pub use y::Y; fn f() { x::g() }"),
        ("src/a/x.rs", "use super::Y;"),
        ("src/a/y.rs", "#[cfg(test)]\nmod tests { use crate::a::x::X; }"),
    ]);
    assert_eq!(none.cycles(), [""; 0]);
}

#[test]
fn crate_check_finds_uses_outside_homes() {
    for (path, text, expected) in [
        ("src/comm/threads.rs", "use mpi::traits::Communicator;", 1),
        ("src/score/output.rs", "fn f() { let file = hdf5::File::open(path); }", 1),
        ("src/score/output.rs", "use hdf5 as h;", 1),
        ("src/engine/cube.rs", "use cubecl::prelude::*;", 1),
        ("gpu/src/layout.rs", "use hdf5::File;", 1),
        ("src/comm/mpi.rs", "use mpi::traits::Communicator;", 0),
        ("src/comm/environment.rs", "use super::mpi::Mpi;", 0),
        ("src/data/hdf5/mod.rs", "use hdf5::File;", 0),
        ("src/data/mod.rs", "mod hdf5; use hdf5::Reader;", 0),
    ] {
        assert_eq!(made_up(&[(path, text)]).crate_breaches().len(), expected, "{path}: {text}");
    }
}
