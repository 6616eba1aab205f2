//! The commands a person types; their flags come from the table of options.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::StringValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches};

use crate::config::docs;
use crate::config::layers::Written;
use crate::config::options::{Kind, OPTIONS, Opt, not_built_above};

/// sysexits(3): what was typed is configuration too.
const EX_CONFIG: u8 = 78;

/// What the process is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Run,
    Check,
    Trust { install: bool },
    Certs { json: bool, asked: Certs },
}

/// What is asked about certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certs {
    List,
    Renew { name: String, force: bool },
    Revoke { name: String, reason: String },
}

/// A command with the flags that configure it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    pub command: Command,
    pub written: Written,
}

/// What a command line comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Invocation(Invocation),
    /// Only a text: help, the version, or what is wrong with the command line.
    Print {
        text: String,
        status: u8,
        to_stderr: bool,
    },
}

/// Reads a command line, the program's name first.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Outcome {
    let matches = match grammar().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            // A part of what is not built, like --autocert-on-demand.ask, has no flag of its own.
            if let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg)
                && error.kind() == ErrorKind::UnknownArgument
                && not_built_above(&flag.trim_start_matches('-').replace('-', "_")).is_some()
            {
                return not_built(flag);
            }
            let shown = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return Outcome::Print {
                text: error.render().to_string(),
                status: if shown { 0 } else { EX_CONFIG },
                to_stderr: !shown,
            };
        }
    };
    let Some((name, flags)) = matches.subcommand() else {
        return Outcome::Print {
            text: grammar().render_help().to_string(),
            status: EX_CONFIG,
            to_stderr: true,
        };
    };
    let command = match name {
        "run" => Command::Run,
        "check" if flags.get_flag("preflight") => return not_built("ringgate check --preflight"),
        "check" => Command::Check,
        "docs" => return documentation(flags.get_flag("schema")),
        "trust" => Command::Trust { install: flags.get_flag("install") },
        "certs" => certs(flags),
        other => return not_built(&format!("ringgate {other}")),
    };
    // Options may stand behind either word of 'certs renew'.
    let mut written = written(flags);
    if let Some((_, more)) = flags.subcommand() {
        written.flags.extend(self::written(more).flags);
    }
    Outcome::Invocation(Invocation { command, written })
}

fn documentation(schema: bool) -> Outcome {
    let text = if schema { docs::schema() } else { docs::reference() };
    Outcome::Print { text, status: 0, to_stderr: false }
}

fn not_built(what: &str) -> Outcome {
    Outcome::Print {
        text: format!("{what}: is not built yet; leave it out\n"),
        status: EX_CONFIG,
        to_stderr: true,
    }
}

fn grammar() -> clap::Command {
    clap::Command::new("ringgate")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A TLS front end that looks after its own certificates.")
        .arg(
            Arg::new("config")
                .short('c')
                .long("config")
                .global(true)
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("The configuration file")
                .long_help("The configuration file\n[environment: RINGGATE_CONFIG]\n[default: /etc/ringgate/ringgate.yaml if it is there]"),
        )
        .after_help("'ringgate run' with no configuration serves a page on https://localhost:8443.\n'ringgate run --help' lists every option.")
        .subcommand(
            command("run", "Serve until SIGTERM; SIGHUP reloads").after_help(
                "Flags beat environment beats the file. Every option is a key of the YAML file (idle_timeout), \
                 a flag and an environment variable.\n\
                 Exit status: 0; 78 configuration; 69 a port is taken or io_uring is not to be had; 1 the rest.",
            ),
        )
        .subcommand(
            command("check", "Check the configuration and its certificates; change nothing")
                .arg(Arg::new("preflight").long("preflight").action(ArgAction::SetTrue).hide(true)),
        )
        .subcommand(
            command("trust", "Print the local CA's root certificate").arg(
                Arg::new("install")
                    .long("install")
                    .action(ArgAction::SetTrue)
                    .help("Install it into this machine's trust store instead"),
            ),
        )
        .subcommand(
            clap::Command::new("docs").about("Print the reference of all options").arg(
                Arg::new("schema")
                    .long("schema")
                    .action(ArgAction::SetTrue)
                    .help("Print the JSON Schema of the configuration file instead, for editors"),
            ),
        )
        .subcommand(
            command("certs", "List certificates, renew or revoke one")
                .arg(
                    Arg::new("json")
                        .long("json")
                        .action(ArgAction::SetTrue)
                        .help("Print them as JSON"),
                )
                .subcommand(
                    command("renew", "Renew a certificate that autocert obtained, or try again now")
                        .arg(name_argument())
                        .arg(
                            Arg::new("force")
                                .long("force")
                                .action(ArgAction::SetTrue)
                                .help("Also if it is not due; the CA counts it"),
                        ),
                )
                .subcommand(
                    command("revoke", "Revoke a certificate that autocert obtained; it is replaced at once")
                        .arg(name_argument())
                        .arg(
                            Arg::new("reason")
                                .long("reason")
                                .required(true)
                                .value_name("REASON")
                                .value_parser(StringValueParser::new())
                                .help("key-compromise, superseded, cessation-of-operation, affiliation-changed or unspecified"),
                        ),
                ),
        )
        .subcommand(later("store"))
}

fn name_argument() -> Arg {
    Arg::new("name").required(true).value_name("NAME").value_parser(StringValueParser::new())
}

fn certs(flags: &ArgMatches) -> Command {
    let text =
        |flags: &ArgMatches, id: &str| flags.get_one::<String>(id).cloned().unwrap_or_default();
    let asked = match flags.subcommand() {
        Some(("renew", more)) => {
            Certs::Renew { name: text(more, "name"), force: more.get_flag("force") }
        }
        Some((_, more)) => Certs::Revoke { name: text(more, "name"), reason: text(more, "reason") },
        None => Certs::List,
    };
    Command::Certs { json: flags.get_flag("json"), asked }
}

/// A command that is promised and refused.
fn later(name: &'static str) -> clap::Command {
    clap::Command::new(name)
        .hide(true)
        .disable_help_flag(true)
        .arg(Arg::new("anything").num_args(0..).allow_hyphen_values(true).trailing_var_arg(true))
}

fn command(name: &'static str, about: &'static str) -> clap::Command {
    clap::Command::new(name).about(about).args(OPTIONS.iter().map(argument))
}

fn argument(option: &'static Opt) -> Arg {
    let long = option.flag().trim_start_matches('-').to_owned();
    let mut argument = Arg::new(option.key)
        .alias(option.key)
        .alias(option.key.replace('_', "-"))
        .long(long)
        .action(ArgAction::Append)
        .value_parser(StringValueParser::new())
        .hide(!option.built)
        .help_heading(option.heading())
        .help(format!("{} [default: {}]", option.help, option.default))
        .long_help(long_help(option));
    argument = match option.kind {
        Kind::Bool => argument.num_args(0..=1).default_missing_value("true").value_name("BOOL"),
        Kind::Duration => argument.value_name("DURATION"),
        Kind::Path => argument.value_name("PATH"),
        Kind::List => argument.value_name("LIST"),
        Kind::Routes => argument.value_name("FROM=TO"),
        Kind::Certificates => argument.value_name("DIR|CERT:KEY"),
        Kind::Issuers => argument.value_name("URL"),
        // Not clap's own choice: a wrong word is one problem among all the others.
        Kind::Choice(words) => argument.value_name(words.join("|")),
        Kind::Text => argument.value_name("TEXT"),
    };
    if !option.built {
        // Refused by its name, whatever follows.
        argument = argument.num_args(0..=1).default_missing_value("");
    }
    argument
}

fn long_help(option: &Opt) -> String {
    let mut names = option.environment();
    if let Some(bare) = option.bare_environment() {
        names.push_str(" or ");
        names.push_str(&bare);
    }
    format!("{}\n[environment: {names}]\n[default: {}]", option.help, option.default)
}

fn written(flags: &ArgMatches) -> Written {
    let given = OPTIONS.iter().filter_map(|option| {
        let texts = flags.get_many::<String>(option.key)?;
        Some((option.key, texts.cloned().collect()))
    });
    Written {
        config_file: flags.get_one::<PathBuf>("config").cloned(),
        flags: given.collect(),
        read_before: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(line: &str) -> Outcome {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_grammar_is_sound() {
        grammar().debug_assert();
    }

    #[test]
    fn flags_become_values_by_key_in_either_spelling() {
        let line = "ringgate run -c f.yaml --idle-timeout 5s --route a=b --route c=d --log_level debug --autocert";
        let Outcome::Invocation(invocation) = parse_text(line) else { panic!() };
        assert_eq!(invocation.command, Command::Run);
        assert_eq!(invocation.written.config_file, Some("f.yaml".into()));
        let text = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            invocation.written.flags,
            [
                ("routes", text(&["a=b", "c=d"])),
                ("idle_timeout", text(&["5s"])),
                ("log_level", text(&["debug"])),
                ("autocert", text(&["true"])),
            ]
        );
    }

    #[test]
    fn the_file_may_be_named_before_the_command_too_and_wrong_choices_are_left_to_the_check() {
        let Outcome::Invocation(invocation) =
            parse_text("ringgate -c f.yaml trust --install --log-level x")
        else {
            panic!()
        };
        assert_eq!(invocation.command, Command::Trust { install: true });
        assert_eq!(invocation.written.config_file, Some("f.yaml".into()));
        assert_eq!(invocation.written.flags, [("log_level", vec!["x".to_owned()])]);
    }

    #[test]
    fn every_built_option_is_in_the_help_and_no_other() {
        let Outcome::Print { text, .. } = parse_text("ringgate run --help") else { panic!() };
        for option in OPTIONS {
            let shown = text.contains(&format!("{} ", option.flag()));
            assert_eq!(shown, option.built, "{}", option.key);
            assert_eq!(text.contains(&option.environment()), option.built, "{}", option.key);
        }
    }

    #[test]
    fn what_is_wrong_or_not_built_is_said_with_status_78_and_help_with_0() {
        for (line, expected, expected_status) in [
            ("ringgate run --idle-timout 5s", "idle-timeout", 78),
            ("ringgate runn", "run", 78),
            ("ringgate", "Usage", 78),
            ("ringgate certs renew", "NAME", 78),
            ("ringgate certs revoke x", "reason", 78),
            ("ringgate store check", "not built yet", 78),
            ("ringgate check --preflight", "not built yet", 78),
            ("ringgate run --autocert-on-demand.ask x", "not built yet", 78),
            ("ringgate run --autocert_on_demand.ask=x", "not built yet", 78),
            ("ringgate --version", env!("CARGO_PKG_VERSION"), 0),
            ("ringgate run --help", "RINGGATE_IDLE_TIMEOUT", 0),
        ] {
            let Outcome::Print { text, status, to_stderr } = parse_text(line) else {
                panic!("{line}")
            };
            assert!(text.contains(expected), "{line}: {text}");
            assert_eq!((status, to_stderr), (expected_status, expected_status != 0), "{line}");
        }
    }
}
