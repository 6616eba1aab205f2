//! A system under test, as its file in `perf/peers/` describes it.
//!
//! The file has a line `key = value` per key; `#` begins a comment line. `start` and `port` are enough. In
//! `start` and in the file that `config` names, `{host}`, `{port}`, `{upstream}` (also as `{upstream_host}`
//! and `{upstream_port}`), `{cert}`, `{key}`, `{combined}` (chain and private key in one file), `{dir}` (for
//! its own files), `{bin}` (where this program and ringgate are), `{here}` (where the description is) and
//! `{config}` stand for what differs from run to run.

use std::fs;
use std::path::{Path, PathBuf};

use crate::plan::Group;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    pub name: String,
    /// Where its file is.
    pub here: PathBuf,
    /// The command that runs it in the foreground.
    pub start: String,
    /// Where it listens.
    pub port: u16,
    /// A template that `{config}` in `start` is made of.
    pub config: Option<PathBuf>,
    /// Files that must be there, and the Debian packages that bring them.
    pub needs: Vec<PathBuf>,
    pub packages: Vec<String>,
    /// A command that prints its version.
    pub version: Option<String>,
    /// Key exchange groups that it has.
    pub groups: Vec<String>,
}

impl System {
    /// Reads a description: a path, or the name of one in `peers`.
    pub fn load(named: &str, peers: &Path) -> Result<Self, String> {
        let path = match named.contains('/') {
            true => PathBuf::from(named),
            false => peers.join(format!("{named}.system")),
        };
        let text = fs::read_to_string(&path).map_err(|error| {
            format!("--systems {named}: cannot read {}: {error}", path.display())
        })?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let here = path.parent().unwrap_or(Path::new(".")).to_owned();
        Self::parse(name, here, &text).map_err(|problem| format!("{}: {problem}", path.display()))
    }

    fn parse(name: String, here: PathBuf, text: &str) -> Result<Self, String> {
        let (mut start, mut port) = (None, None);
        let mut system = Self {
            name,
            start: String::new(),
            port: 0,
            config: None,
            needs: Vec::new(),
            packages: Vec::new(),
            version: None,
            groups: vec![Group::X25519.name().to_owned()],
            here,
        };
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) =
                line.split_once('=').ok_or_else(|| format!("{line:?} is not KEY = VALUE"))?;
            let value = value.trim().to_owned();
            let words = || value.split_whitespace().map(str::to_owned).collect();
            match key.trim() {
                "start" => start = Some(value),
                "port" => port = Some(value.parse().map_err(|_| format!("port: {value:?}"))?),
                "config" => system.config = Some(system.here.join(value)),
                "needs" => system.needs = value.split_whitespace().map(PathBuf::from).collect(),
                "packages" => system.packages = words(),
                "version" => system.version = Some(value),
                "groups" => system.groups = words(),
                other => return Err(format!("there is no key {other:?}")),
            }
        }
        system.start = start.ok_or("start: the command is missing")?;
        system.port = port.ok_or("port: it is missing")?;
        Ok(system)
    }

    pub fn has(&self, group: Group) -> bool {
        self.groups.iter().any(|name| name == group.name())
    }
}

/// Puts values where `{names}` stand. Braces around anything else than a lower-case word are the template's
/// own.
pub fn fill(template: &str, values: &[(&str, String)]) -> Result<String, String> {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        rest = after;
        let is_word = |word: &str| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        match after.split_once('}').filter(|(word, _)| is_word(word)) {
            Some((word, after)) => {
                let (_, value) = values
                    .iter()
                    .find(|(name, _)| *name == word)
                    .ok_or_else(|| format!("{{{word}}} stands for nothing"))?;
                filled.push_str(value);
                rest = after;
            }
            None => filled.push('{'),
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<System, String> {
        System::parse("name".into(), "/peers".into(), text)
    }

    #[test]
    fn a_start_command_and_a_port_are_enough() {
        let system = parse("# one\nstart = serve --on {host}:{port} --x=y\nport = 9443\n").unwrap();
        assert_eq!(system.start, "serve --on {host}:{port} --x=y");
        assert_eq!(system.port, 9443);
        assert!(system.has(Group::X25519) && !system.has(Group::X25519Mlkem768));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, says) in [
            ("port = 1", "start"),
            ("start = a", "port"),
            ("start = a\nport = many", "many"),
            ("start = a\nport = 1\ncolour = red", "colour"),
            ("start", "KEY = VALUE"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(says), "{text}: {problem}");
        }
    }

    #[test]
    fn only_words_in_braces_are_filled_in() {
        let values = [("port", "9443".to_owned())];
        let nginx = "http { listen {port}; map { $a } {} }";
        assert_eq!(fill(nginx, &values).unwrap(), "http { listen 9443; map { $a } {} }");
        assert!(fill("{prot}", &values).unwrap_err().contains("prot"));
    }
}
