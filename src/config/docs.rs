//! The table of options to the reference page and to a JSON Schema. Pure.

use std::fmt::Write;

use super::options::{Kind, OPTIONS, Opt};

/// The reference of all options, as Markdown.
pub fn reference() -> String {
    let mut page = String::from(
        "# Options\n\n\
         Made by `ringgate docs` from the table in `src/config/options.rs`; change that, and write this page again.\n\n\
         Flags beat environment beats the file, which `-c FILE`, `--config FILE` or `RINGGATE_CONFIG` names\n\
         (without: `/etc/ringgate/ringgate.yaml` if it is there). Every option is a key of that YAML file. Keys that\n\
         are none are refused, and so is everything that is wrong, all at once. Lists are separated by commas in\n\
         flags and environment. For editors, `ringgate docs --schema` prints the [JSON Schema](schema.json).\n",
    );
    let built = || OPTIONS.iter().filter(|option| option.built);
    let mut headings: Vec<_> = built().map(Opt::heading).collect();
    headings.sort_by_key(|heading| built().position(|option| option.heading() == *heading));
    headings.dedup();
    for heading in headings {
        // Writing to a text cannot fail.
        let _ = write!(page, "\n## {heading}\n");
        for option in built().filter(|option| option.heading() == heading) {
            section(&mut page, option);
        }
    }
    page
}

fn section(page: &mut String, option: &Opt) {
    let Opt { key, help, default, why, .. } = option;
    let bare = option.bare_environment().map_or(String::new(), |bare| format!(" or `{bare}`"));
    let (flag, environment) = (option.flag(), option.environment());
    let _ = write!(
        page,
        "\n### `{key}`\n\n{help}\n\n\
         - Value: {}\n\
         - Default: {default} ({why})\n\
         - Flag `{flag}`, environment `{environment}`{bare}\n",
        in_words(option.kind),
    );
    let mut parts = option.parts().peekable();
    if parts.peek().is_some() {
        let _ = write!(page, "\n| key | value | meaning |\n|---|---|---|\n");
    }
    for part in parts {
        let needed = if part.needed { " Needed." } else { "" };
        let value = in_words(part.kind);
        let _ = writeln!(page, "| `{}` | {value} | {}{needed} |", part.key, part.help);
    }
}

fn in_words(kind: Kind) -> String {
    match kind {
        Kind::Text => "a text".into(),
        Kind::Path => "a path".into(),
        Kind::Bool => "`true` or `false`".into(),
        Kind::Duration => "a duration: `500ms`, `10s`, `5m`, `36h`, `7d`".into(),
        Kind::List => "a list of texts, or one".into(),
        Kind::Choice(words) => {
            let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
            words.join(" or ")
        }
        Kind::Certificates => "a list of paths, of `CERT:KEY`, or of maps".into(),
        Kind::Routes => "a list of maps, or of `FROM=TO`".into(),
        Kind::Issuers => "a URL, or a list of URLs or of maps".into(),
    }
}

/// A JSON Schema (draft 2020-12) of the configuration file.
pub fn schema() -> String {
    let properties: Vec<_> = OPTIONS
        .iter()
        .filter(|option| option.built)
        .map(|option| {
            let description = format!("{} Default: {}.", option.help, option.default);
            let shape = match option.kind {
                Kind::Certificates | Kind::Routes | Kind::Issuers => entries(option),
                kind => shape(kind),
            };
            property(4, option.key, &description, &shape)
        })
        .collect();
    format!(
        "{{\n  \"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n  \
         \"title\": \"Ringgate's configuration\",\n  \"type\": \"object\",\n  \
         \"additionalProperties\": false,\n  \"properties\": {{\n{}\n  }}\n}}\n",
        properties.join(",\n")
    )
}

/// What a value of this kind may be in YAML, where a port or a version is a number.
fn shape(kind: Kind) -> String {
    match kind {
        Kind::Text | Kind::Path => r#""type": "string""#.into(),
        Kind::Bool => r#""enum": [true, false, "yes", "no", 1, 0]"#.into(),
        Kind::Duration => r#""type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$""#.into(),
        Kind::List => {
            r#""type": ["string", "integer", "array"], "items": { "type": ["string", "integer"] }"#
                .into()
        }
        Kind::Choice(words) => {
            let texts = words.iter().map(|word| quoted(word));
            let numbers = words.iter().filter(|word| word.parse::<f64>().is_ok());
            let all: Vec<_> = texts.chain(numbers.map(ToString::to_string)).collect();
            format!("\"enum\": [{}]", all.join(", "))
        }
        Kind::Certificates | Kind::Routes | Kind::Issuers => r#""type": "array""#.into(),
    }
}

/// A list whose entries are a text, as in flags, or a map.
fn entries(option: &Opt) -> String {
    let parts: Vec<_> =
        option.parts().map(|part| property(10, part.key, part.help, &shape(part.kind))).collect();
    let needed: Vec<_> =
        option.parts().filter(|part| part.needed).map(|part| quoted(part.key)).collect();
    // One that stands alone may be a map too.
    let alone = if option.kind == Kind::Issuers { "\"string\", \"object\"" } else { "\"string\"" };
    format!(
        "\"type\": [{alone}, \"array\"],\n      \"items\": {{\n        \"type\": [\"string\", \"object\"],\n        \
         \"additionalProperties\": false,\n        \"required\": [{}],\n        \"properties\": {{\n{}\n        }}\n      }}",
        needed.join(", "),
        parts.join(",\n"),
    )
}

fn property(indent: usize, key: &str, description: &str, shape: &str) -> String {
    let (outer, inner) = (" ".repeat(indent), " ".repeat(indent + 2));
    format!(
        "{outer}{}: {{\n{inner}\"description\": {},\n{inner}{shape}\n{outer}}}",
        quoted(key),
        quoted(description)
    )
}

/// A JSON string (RFC 8259 §7).
fn quoted(text: &str) -> String {
    let mut json = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            c => json.push(c),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_pages_are_what_the_table_gives() {
        for (page, committed, command) in [
            (reference(), include_str!("reference.md"), "ringgate docs > src/config/reference.md"),
            (
                schema(),
                include_str!("schema.json"),
                "ringgate docs --schema > src/config/schema.json",
            ),
        ] {
            assert!(page == committed, "the table has changed: cargo run -- {}", &command[9..]);
        }
    }

    #[test]
    fn both_name_every_key_that_is_built_and_no_other() {
        let (reference, schema) = (reference(), schema());
        for option in OPTIONS {
            let section = reference.contains(&format!("\n### `{}`\n", option.key));
            let property = schema.contains(&format!("\n    \"{}\": {{\n", option.key));
            assert_eq!((section, property), (option.built, option.built), "{}", option.key);
            for part in option.parts() {
                assert!(reference.contains(&format!("| `{}` |", part.key)), "{}", part.key);
                assert!(schema.contains(&format!("\n          \"{}\": {{\n", part.key)));
            }
        }
    }

    #[test]
    fn texts_are_quoted() {
        assert_eq!(quoted("a\"b\\c\n"), r#""a\"b\\c\u000a""#);
    }
}
