//! Reads what was written where: default < file < environment < flags, each value with its origin.
//!
//! The one file of this room that reads the disk and the environment.
#![expect(
    clippy::disallowed_methods,
    reason = "the one file of this room that reads disk and environment"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::options::{self, Kind, OPTIONS, Opt, nearest};
use super::problem::{Origin, Problem};
use super::yaml;

/// Read when no other file is named, if it is there.
const USUAL_FILE: &str = "/etc/ringgate/ringgate.yaml";
/// Names the file, like `--config`.
const FILE_VARIABLE: &str = "RINGGATE_CONFIG";
const PREFIX: &str = "RINGGATE_";

/// What stood on the command line. Kept, so that a reload reads the other layers again under it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub config_file: Option<PathBuf>,
    /// Key and values, in the order of the flags.
    pub flags: Vec<(&'static str, Vec<String>)>,
    /// The file that said something when it was read before: from then on it must be there and say something,
    /// lest a reload in the moment in which it is replaced drops all routes.
    pub read_before: Option<PathBuf>,
}

/// A value with its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub origin: Origin,
    pub value: Value,
}

/// What a value is made of; scalars are as they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Unset,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub node: Node,
}

/// The layers, laid over one another.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// By option key; what stands in a higher layer hides the whole value below.
    pub values: BTreeMap<&'static str, Node>,
    /// What could not be read at all.
    pub problems: Vec<Problem>,
    /// No file, no variable and no flag set anything.
    pub nothing_configured: bool,
    /// The file, if it says anything.
    pub file: Option<PathBuf>,
    /// Where data lives when nobody says.
    pub usual_data_dir: PathBuf,
    pub surroundings: Surroundings,
}

/// What the environment says that is no setting of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// HTTP_PROXY: the proxy for outgoing plain http.
    pub http_proxy: Option<String>,
    /// HTTPS_PROXY: the proxy for outgoing https.
    pub https_proxy: Option<String>,
    /// NO_PROXY: what is reached without it.
    pub no_proxy: Option<String>,
    /// Kubernetes runs us.
    pub kubernetes: bool,
}

const ROOTS: &str = "autocert_trusted_ca_file";

impl Layers {
    /// Where the value in force was written.
    pub fn origin(&self, key: &str) -> Origin {
        self.values.get(key).map_or(Origin::Default, |node| node.origin.clone())
    }

    /// Names the place of values that only turned out to be wrong when they were used.
    pub fn placed(&self, mut problems: Vec<Problem>) -> Vec<Problem> {
        for problem in problems.iter_mut().filter(|problem| problem.origin == Origin::Default) {
            // A file of roots may be named by an entry of the list instead.
            if problem.key == ROOTS && !self.values.contains_key(ROOTS) {
                "autocert_ca.trusted_ca_file".clone_into(&mut problem.key);
            }
            problem.origin = self.origin(problem.option());
        }
        problems
    }

    fn set(&mut self, option: &'static Opt, node: Node) {
        if !option.built {
            self.problems.push(not_built(&node.origin, option.key));
        } else if node.value != Value::Unset {
            self.values.insert(option.key, node);
        }
    }
}

/// The words for a key that INTERFACE promises and nobody has built.
pub fn not_built(origin: &Origin, key: &str) -> Problem {
    Problem::new(origin, key, "is not built yet", "leave it out")
}

/// The words for a key that nobody knows.
pub fn unknown<'a>(
    origin: &Origin,
    key: &str,
    valid: impl IntoIterator<Item = &'a str>,
) -> Problem {
    let remedy = match nearest(key, valid) {
        Some(meant) => format!("did you mean {meant}?"),
        None => "'ringgate run --help' lists the keys".to_owned(),
    };
    Problem::new(origin, key, "is no key", remedy)
}

/// Reads the file, the environment and the flags.
pub fn read(written: &Written) -> Layers {
    let mut environment = BTreeMap::new();
    let mut unreadable = Vec::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => {
                environment.insert(name, value);
            }
            (Ok(name), Err(_)) if is_ours(&name) => unreadable.push(name),
            // Nobody's name, or none that we could compare with ours.
            _ => {}
        }
    }
    let mut layers = lay(written, &environment, |path| {
        std::fs::read_to_string(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => None,
            _ => Some(error.to_string()),
        })
    });
    layers.problems.extend(unreadable.into_iter().map(|name| {
        let origin = Origin::Environment(name);
        Problem::new(&origin, "", "is not UTF-8", "write it in UTF-8, or unset it")
    }));
    layers
}

/// Whether an environment variable is one that configures something.
fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX)
        || OPTIONS.iter().any(|option| option.bare_environment().is_some_and(|bare| bare == name))
}

/// `read_file` says `Err(None)` for a file that is not there.
fn lay(
    written: &Written,
    environment: &BTreeMap<String, String>,
    read_file: impl Fn(&Path) -> Result<String, Option<String>>,
) -> Layers {
    let mut layers = Layers {
        usual_data_dir: usual_data_dir(environment),
        surroundings: surroundings(environment),
        ..Layers::default()
    };
    let named = written.config_file.clone().or_else(|| {
        environment.get(FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
    });
    let path = named.clone().unwrap_or_else(|| USUAL_FILE.into());
    let was_read = written.read_before.as_ref() == Some(&path);
    let has_file = match read_file(&path) {
        Ok(text) => {
            let says_something = read_yaml(&mut layers, &path, &text);
            layers.file = says_something.then(|| path.clone());
            if was_read && !says_something {
                let origin = Origin::File { path, line: 0 };
                let remedy = "restore it, or restart ringgate if that is what you want";
                layers.problems.push(Problem::new(&origin, "", "says nothing any more", remedy));
            }
            true
        }
        Err(None) if named.is_none() && !was_read => false,
        Err(why) => {
            let what = match why {
                None => "there is no such file".to_owned(),
                Some(why) => format!("cannot be read: {why}"),
            };
            let origin = Origin::File { path, line: 0 };
            let remedy = if was_read { "restore it" } else { "name another with --config" };
            layers.problems.push(Problem::new(&origin, "", what, remedy));
            true
        }
    };
    let before = layers.values.len() + layers.problems.len();
    read_environment(&mut layers, environment);
    read_flags(&mut layers, &written.flags);
    let more = layers.values.len() + layers.problems.len() > before;
    layers.nothing_configured = !has_file && !more && written.flags.is_empty();
    layers
}

/// Returns whether the file says anything, be it right or wrong.
fn read_yaml(layers: &mut Layers, path: &Path, text: &str) -> bool {
    let entries = match yaml::read(path, text) {
        Ok(entries) => entries,
        Err(problem) => {
            layers.problems.push(problem);
            return true;
        }
    };
    let says_something = !entries.is_empty();
    for Entry { key, node } in entries {
        match options::find(&key) {
            Some(option) => layers.set(option, node),
            None => {
                let keys = OPTIONS.iter().filter(|option| option.built).map(|option| option.key);
                layers.problems.push(unknown(&node.origin, &key, keys));
            }
        }
    }
    says_something
}

fn read_environment(layers: &mut Layers, environment: &BTreeMap<String, String>) {
    for option in OPTIONS {
        // RINGGATE_X beats bare X.
        let names = [Some(option.environment()), option.bare_environment()];
        let found = names.into_iter().flatten().find_map(|name| {
            // An empty one of these says nothing, as for Pomerium: `AUTOCERT=` does not turn it on, and `ROUTES=`
            // does not hide those of the file.
            let must_say = !matches!(option.kind, Kind::Text | Kind::Path);
            let text =
                environment.get(&name).filter(|text| !must_say || !text.trim().is_empty())?;
            Some((name, text))
        });
        if let Some((name, text)) = found {
            let origin = Origin::Environment(name);
            layers.set(option, written_node(option.kind, &origin, std::slice::from_ref(text)));
        }
    }
    for name in environment.keys() {
        let Some(key) =
            name.strip_prefix(PREFIX).filter(|_| !is_told(name, layers.surroundings.kubernetes))
        else {
            continue;
        };
        let key = key.to_lowercase();
        if name != FILE_VARIABLE && options::find(&key).is_none() {
            let origin = Origin::Environment(name.clone());
            if options::not_built_above(&key).is_some() {
                layers.problems.push(not_built(&origin, &key));
                continue;
            }
            let keys = OPTIONS.iter().filter(|option| option.built).map(|option| option.key);
            let remedy = match nearest(&key, keys).and_then(options::find) {
                Some(meant) => format!("did you mean {}?", meant.environment()),
                None => "'ringgate run --help' lists the names; unset it".to_owned(),
            };
            layers.problems.push(Problem::new(&origin, "", "sets nothing", remedy));
        }
    }
}

/// Whether it tells us something instead of asking for something: what a hook is told, which may call us, and
/// what Kubernetes tells every container of services whose names begin like ours.
fn is_told(name: &str, by_kubernetes: bool) -> bool {
    let is_of_service = || {
        name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") || {
            let (_, port) = name.split_once("_PORT").unwrap_or(("", "?"));
            port.is_empty() || port.starts_with('_')
        }
    };
    name == "RINGGATE_EVENT"
        || name.starts_with("RINGGATE_EVENT_")
        || (by_kubernetes && is_of_service())
}

fn read_flags(layers: &mut Layers, flags: &[(&'static str, Vec<String>)]) {
    for (key, texts) in flags {
        if let Some(option) = options::find(key) {
            let origin = Origin::Flag(option.flag());
            layers.set(option, written_node(option.kind, &origin, texts));
        }
    }
}

/// A value from flags or the environment: lists are comma-separated, or the flag is repeated.
fn written_node(kind: Kind, origin: &Origin, texts: &[String]) -> Node {
    let scalar =
        |text: &str| Node { origin: origin.clone(), value: Value::Scalar(text.trim().to_owned()) };
    let value = match kind {
        Kind::List | Kind::Certificates | Kind::Routes | Kind::Issuers => Value::List(
            texts
                .iter()
                .flat_map(|text| text.split(','))
                .filter(|text| !text.trim().is_empty())
                .map(scalar)
                .collect(),
        ),
        Kind::Text | Kind::Path | Kind::Bool | Kind::Duration | Kind::Choice(_) => {
            match texts.last() {
                Some(text) => Value::Scalar(text.trim().to_owned()),
                None => Value::Unset,
            }
        }
    };
    Node { origin: origin.clone(), value }
}

/// The small names are older than the capital ones, and curl reads both.
fn surroundings(environment: &BTreeMap<String, String>) -> Surroundings {
    let set = |names: [&str; 2]| {
        let mut found = names.iter().filter_map(|name| environment.get(*name));
        found.find(|text| !text.is_empty()).cloned()
    };
    Surroundings {
        http_proxy: set(["HTTP_PROXY", "http_proxy"]),
        https_proxy: set(["HTTPS_PROXY", "https_proxy"]),
        no_proxy: set(["NO_PROXY", "no_proxy"]),
        kubernetes: environment.contains_key("KUBERNETES_SERVICE_HOST"),
    }
}

fn usual_data_dir(environment: &BTreeMap<String, String>) -> PathBuf {
    let set = |name: &str| environment.get(name).filter(|text| !text.is_empty());
    if let Some(list) = set("STATE_DIRECTORY")
        && let Some(first) = list.split(':').find(|path| !path.is_empty())
    {
        return first.into();
    }
    if let Some(data) = set("XDG_DATA_HOME") {
        return Path::new(data).join("ringgate");
    }
    match set("HOME") {
        Some(home) => Path::new(home).join(".local/share/ringgate"),
        None => "/var/lib/ringgate".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lay_out(
        file: Option<&str>,
        environment: &[(&str, &str)],
        flags: &[(&'static str, &str)],
    ) -> Layers {
        let environment =
            environment.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        let written = Written {
            config_file: None,
            flags: flags.iter().map(|(key, text)| (*key, vec![text.to_string()])).collect(),
            read_before: None,
        };
        lay(&written, &environment, |_| file.map(str::to_owned).ok_or(None))
    }

    fn text(layers: &Layers, key: &str) -> (String, String) {
        let node = &layers.values[key];
        let Value::Scalar(text) = &node.value else { panic!("{node:?}") };
        (text.clone(), node.origin.to_string())
    }

    #[test]
    fn flags_beat_environment_beats_file() {
        let file = Some("log_level: debug\nidle_timeout: 1m\nconnect_timeout: 1s\n");
        let environment = [
            ("RINGGATE_IDLE_TIMEOUT", "2m"),
            ("LOG_LEVEL", "warn"),
            ("RINGGATE_LOG_LEVEL", "error"),
        ];
        let layers = lay_out(file, &environment, &[("idle_timeout", "3m")]);
        assert_eq!(layers.problems, []);
        assert_eq!(text(&layers, "idle_timeout"), ("3m".into(), "--idle-timeout".into()));
        assert_eq!(text(&layers, "log_level"), ("error".into(), "RINGGATE_LOG_LEVEL".into()));
        assert_eq!(
            text(&layers, "connect_timeout"),
            ("1s".into(), "/etc/ringgate/ringgate.yaml:3".into())
        );
        assert!(!layers.nothing_configured);
        assert!(lay_out(None, &[("HOME", "/root")], &[]).nothing_configured);
    }

    #[test]
    fn what_turns_out_to_be_wrong_later_is_told_with_its_place() {
        let file = "data_dir: /x\nautocert_ca: [{url: 'https://a/', trusted_ca_file: /y}]\n";
        let layers = lay_out(Some(file), &[], &[]);
        let problem = |origin: &Origin, key: &str| Problem::new(origin, key, "is bad", "mend it");
        let flag = Origin::Flag("--data-dir".into());
        let told = |origin, key| layers.placed(vec![problem(origin, key)])[0].to_string();
        assert_eq!(
            told(&Origin::Default, "data_dir"),
            "/etc/ringgate/ringgate.yaml:1 data_dir: is bad; mend it"
        );
        assert_eq!(
            told(&Origin::Default, ROOTS),
            "/etc/ringgate/ringgate.yaml:2 autocert_ca.trusted_ca_file: is bad; mend it"
        );
        assert_eq!(told(&flag, "data_dir"), "--data-dir data_dir: is bad; mend it");
        assert_eq!(told(&Origin::Default, "autocert"), "default autocert: is bad; mend it");
    }

    #[test]
    fn an_empty_variable_turns_nothing_on_and_leaves_what_the_file_says() {
        let environment = [("AUTOCERT", ""), ("IDLE_TIMEOUT", " "), ("RINGGATE_OCSP_STAPLING", "")];
        let layers = lay_out(Some("idle_timeout: 1m\n"), &environment, &[]);
        assert_eq!(layers.problems, []);
        assert!(!layers.values.contains_key("autocert"));
        assert!(!layers.values.contains_key("ocsp_stapling"));
        assert_eq!(text(&layers, "idle_timeout").0, "1m");
        let lists = [("ROUTES", ""), ("RINGGATE_CERTIFICATES", " "), ("AUTOCERT_CA", "")];
        assert!(lay_out(None, &lists, &[]).values.is_empty());
        let bare = lay_out(None, &[("RINGGATE_AUTOCERT", ""), ("AUTOCERT", "true")], &[]);
        assert_eq!(text(&bare, "autocert"), ("true".into(), "AUTOCERT".into()));
    }

    #[test]
    fn a_list_in_the_environment_replaces_the_whole_list_of_the_file() {
        let layers = lay_out(Some("address: [':1', ':2']\n"), &[("ADDRESS", ":3, :4")], &[]);
        let Value::List(items) = &layers.values["address"].value else { panic!() };
        let items: Vec<_> =
            items.iter().map(|item| (&item.value, item.origin.to_string())).collect();
        let expected = [Value::Scalar(":3".into()), Value::Scalar(":4".into())];
        assert_eq!(items, [(&expected[0], "ADDRESS".into()), (&expected[1], "ADDRESS".into())]);
    }

    #[test]
    fn keys_that_are_unknown_or_not_built_are_problems() {
        let layers = lay_out(
            Some("idle_timout: 1m\nsystem_certificates: /x\n"),
            &[
                ("RINGGATE_ADRESS", ":1"),
                ("ADRESS", ":1"),
                ("RINGGATE_AUTOCERT_ON_DEMAND_ASK", "x"),
                ("RINGGATE_X", "1"),
            ],
            &[("autocert_resolvers", "no")],
        );
        let problems: Vec<_> = layers.problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            problems,
            [
                "/etc/ringgate/ringgate.yaml:1 idle_timout: is no key; did you mean idle_timeout?",
                "/etc/ringgate/ringgate.yaml:2 system_certificates: is not built yet; leave it out",
                "RINGGATE_ADRESS: sets nothing; did you mean RINGGATE_ADDRESS?",
                "RINGGATE_AUTOCERT_ON_DEMAND_ASK autocert_on_demand_ask: is not built yet; leave it out",
                "RINGGATE_X: sets nothing; 'ringgate run --help' lists the names; unset it",
                "--autocert-resolvers autocert_resolvers: is not built yet; leave it out",
            ]
        );
    }

    #[test]
    fn a_file_that_was_named_must_be_there_and_the_usual_one_need_not() {
        let config_file = Some("/nowhere.yaml".into());
        let written = Written { config_file, ..Written::default() };
        let layers = lay(&written, &BTreeMap::new(), |_| Err(None));
        assert_eq!(
            layers.problems[0].to_string(),
            "/nowhere.yaml: there is no such file; name another with --config"
        );
        assert_eq!(lay(&Written::default(), &BTreeMap::new(), |_| Err(None)).problems, []);
        assert_eq!(lay_out(None, &[("RINGGATE_CONFIG", "")], &[]).problems, []);
    }

    #[test]
    fn a_file_that_was_read_before_must_go_on_saying_something() {
        let none = BTreeMap::new();
        let first = lay(&Written::default(), &none, |_| Ok("log_level: info\n".into()));
        assert_eq!(first.file.as_deref(), Some(Path::new(USUAL_FILE)));
        let written = Written { read_before: first.file, ..Written::default() };
        for (file, expected) in [
            (Ok("# nothing\n".into()), "says nothing any more; restore it, or restart ringgate"),
            (Ok(String::new()), "says nothing any more"),
            (Err(None), "there is no such file; restore it"),
            (Ok("log_level: warn\n".into()), ""),
        ] {
            let problems = lay(&written, &none, |_| file.clone()).problems;
            let said = problems.first().map(ToString::to_string).unwrap_or_default();
            assert_eq!(said.is_empty(), expected.is_empty(), "{said}");
            assert!(said.contains(expected), "{said}");
        }
        assert_eq!(lay(&Written::default(), &none, |_| Ok(String::new())).file, None);
    }

    #[test]
    fn what_hooks_and_kubernetes_are_told_is_no_configuration() {
        let hook = [("RINGGATE_EVENT", "cert_obtained"), ("RINGGATE_EVENT_NAME", "a.example")];
        assert_eq!(lay_out(None, &hook, &[]).problems, []);
        let mut services = vec![
            ("RINGGATE_PORT", "tcp://10.0.0.1:443"),
            ("RINGGATE_PORT_443_TCP_ADDR", "10.0.0.1"),
            ("RINGGATE_SERVICE_HOST", "10.0.0.1"),
            ("RINGGATE_ADMIN_SERVICE_PORT_HTTPS", "443"),
        ];
        assert_eq!(lay_out(None, &services, &[]).problems.len(), services.len());
        services.push(("KUBERNETES_SERVICE_HOST", "10.0.0.1"));
        assert_eq!(lay_out(None, &services, &[]).problems, []);
        services.push(("RINGGATE_PORTS", ":443"));
        assert_eq!(lay_out(None, &services, &[]).problems.len(), 1);
    }

    #[test]
    fn data_lives_where_the_environment_says() {
        let dir = |environment: &[(&str, &str)]| lay_out(None, environment, &[]).usual_data_dir;
        assert_eq!(dir(&[("STATE_DIRECTORY", "/a:/b"), ("HOME", "/h")]), Path::new("/a"));
        assert_eq!(dir(&[("STATE_DIRECTORY", ":/b")]), Path::new("/b"));
        assert_eq!(dir(&[("XDG_DATA_HOME", "/x"), ("HOME", "/h")]), Path::new("/x/ringgate"));
        assert_eq!(dir(&[("HOME", "/h")]), Path::new("/h/.local/share/ringgate"));
        assert_eq!(dir(&[]), Path::new("/var/lib/ringgate"));
    }
}
