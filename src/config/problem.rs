//! What is wrong with a configuration: where it was written, which key, what, and what to do.

use std::fmt;
use std::path::PathBuf;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    Default,
    /// A line of the configuration file, counted from 1; 0 if the file as a whole is meant.
    File {
        path: PathBuf,
        line: usize,
    },
    /// An environment variable, by name.
    Environment(String),
    /// A flag, with its dashes.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One thing that is wrong, as one line for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub origin: Origin,
    pub key: String,
    pub what: String,
    pub remedy: String,
}

impl Problem {
    pub fn new(
        origin: &Origin,
        key: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { origin: origin.clone(), key: key.into(), what: what.into(), remedy: remedy.into() }
    }
}

impl Problem {
    /// The option whose value it is about: of `certificates[2].key` the first word.
    pub fn option(&self) -> &str {
        let end = self.key.find(['[', '.']).unwrap_or(self.key.len());
        self.key.get(..end).filter(|option| !option.is_empty()).unwrap_or("the file")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, key, what, remedy } = self;
        if key.is_empty() {
            write!(f, "{origin}: {what}; {remedy}")
        } else {
            write!(f, "{origin} {key}: {what}; {remedy}")
        }
    }
}
