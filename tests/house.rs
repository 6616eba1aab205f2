//! The house keeps its own rules: who imports whom, and what stands where.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The may-import table of ARCHITECTURE.md: room to the rooms it may use.
fn may_import() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(repository().join("ARCHITECTURE.md")).unwrap();
    let (_, section) = text.split_once("## Who may import whom").expect("the section");
    let words = |cell: &str| -> BTreeSet<String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let mut table = BTreeMap::new();
    for line in section.lines().take_while(|line| !line.starts_with("## ")) {
        let cells: Vec<_> = line.split('|').collect();
        if let [_, rooms, uses, ..] = cells.as_slice() {
            for room in words(rooms) {
                table.insert(room, words(uses));
            }
        }
    }
    assert!(table.len() >= 8, "{table:?}");
    table
}

#[test]
fn every_room_imports_only_what_the_table_allows() {
    let table = may_import();
    let source = repository().join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    for file in files {
        let inside = file.strip_prefix(&source).unwrap();
        let room = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if room == "lib" || room == "main" {
            continue;
        }
        let allowed = table.get(room).unwrap_or_else(|| panic!("{room} is not in the table"));
        let text = std::fs::read_to_string(&file).unwrap();
        let code: String = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect::<Vec<_>>()
            .join("\n");
        for (at, _) in code.match_indices("crate::") {
            let used: String =
                code[at + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let everyones = used == "name" || used == "clock" || used == room;
            assert!(
                everyones || allowed.contains(&used),
                "{} uses {used}, which ARCHITECTURE.md does not allow",
                inside.display()
            );
        }
    }
}

#[test]
fn every_file_opens_with_its_sentence() {
    let mut files = Vec::new();
    for dir in ["src", "tests", "benches", "perf/load"] {
        rust_files(&repository().join(dir), &mut files);
    }
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! "), "{} opens with {first:?}", file.display());
    }
}

#[test]
fn unsafe_code_lives_in_two_rooms() {
    let mut files = Vec::new();
    rust_files(&repository().join("src"), &mut files);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let lifts = text.contains("unsafe_code");
        let may = file.ends_with("ring/mod.rs") || file.ends_with("crypto/mod.rs");
        assert_eq!(lifts, may, "{}", file.display());
    }
}

#[test]
fn the_readme_gives_the_commands_that_ci_runs() {
    let read = |name: &str| std::fs::read_to_string(repository().join(name)).unwrap();
    assert!(read("README.md").contains("cargo run --release -- run"));
    assert!(read("README.md").contains("scripts/test"));
    assert!(read(".ci/run").lines().any(|line| line.trim() == "exec scripts/test"));
}
