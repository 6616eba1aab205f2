//! YAML text to nodes that know their line. Scalars stay as they were written.

use std::path::Path;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::layers::{Entry, Node, Value};
use super::problem::{Origin, Problem};

/// Deeper nesting than this is no configuration of ours.
const DEEPEST: usize = 16;

/// Reads a document whose root is a map. An empty one is an empty map.
///
/// # Errors
/// The first place that is no YAML, or that uses more of YAML than a configuration needs.
pub fn read(path: &Path, text: &str) -> Result<Vec<Entry>, Problem> {
    let mut reader = Reader { path, parser: Parser::new_from_str(text) };
    let mut root = None;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => break,
            Event::DocumentStart(_) if root.is_some() => {
                return Err(reader.problem(
                    &span,
                    "a second document begins",
                    "write one document",
                ));
            }
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            event => root = Some(reader.node(event, &span, 0)?),
        }
    }
    match root {
        None => Ok(Vec::new()),
        Some(Node { value: Value::Map(entries), .. }) => Ok(entries),
        Some(Node { value: Value::Unset, .. }) => Ok(Vec::new()),
        Some(node) => Err(Problem::new(
            &node.origin,
            "",
            "the file is not a map of keys",
            "write lines like 'address: :443'",
        )),
    }
}

struct Reader<'a> {
    path: &'a Path,
    parser: Parser<'a, StrInput<'a>>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let line = error.marker().line();
                let origin = Origin::File { path: self.path.to_owned(), line };
                let what = format!("this is no YAML: {}", error.info());
                Err(Problem::new(&origin, "", what, "check indentation, quotes and colons there"))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn origin(&self, span: &Span) -> Origin {
        Origin::File { path: self.path.to_owned(), line: span.start.line() }
    }

    fn problem(&self, span: &Span, what: &str, remedy: &str) -> Problem {
        Problem::new(&self.origin(span), "", what, remedy)
    }

    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Node, Problem> {
        if depth > DEEPEST {
            return Err(self.problem(
                span,
                "this is nested too deep",
                "see the README for the form",
            ));
        }
        let value = match event {
            Event::Scalar(text, style, ..) => match (&*text, style) {
                ("" | "~" | "null", ScalarStyle::Plain) => Value::Unset,
                _ => Value::Scalar(text.into_owned()),
            },
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => items.push(self.node(event, &span, depth + 1)?),
                    }
                }
                Value::List(items)
            }
            Event::MappingStart(..) => Value::Map(self.map(depth)?),
            Event::Alias(_) => {
                let remedy = "write the value out";
                return Err(self.problem(span, "aliases are not understood here", remedy));
            }
            _ => {
                return Err(self.problem(span, "a value is missing", "write one, or drop the key"));
            }
        };
        Ok(Node { origin: self.origin(span), value })
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Entry>, Problem> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(entries),
                Event::Scalar(key, ..) => key.into_owned(),
                _ => return Err(self.problem(&span, "a key must be a word", "write key: value")),
            };
            if entries.iter().any(|entry| entry.key == key) {
                let origin = self.origin(&span);
                return Err(Problem::new(&origin, key, "stands here a second time", "keep one"));
            }
            let (event, value_span) = self.next()?;
            let mut node = self.node(event, &value_span, depth + 1)?;
            // The key's line is where a person looks; an empty value has none of its own.
            node.origin = self.origin(&span);
            entries.push(Entry { key, node });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scalars_stay_as_written_and_lines_are_kept() {
        let text = "a: 1.20\nb: [x, 'y z']\nc:\n- d: yes\n  e:\n- f\n";
        let entries = read(Path::new("f"), text).unwrap();
        let shown: Vec<_> = entries
            .iter()
            .map(|entry| (entry.key.as_str(), entry.node.origin.to_string()))
            .collect();
        assert_eq!(shown, [("a", "f:1".into()), ("b", "f:2".into()), ("c", "f:3".into())]);
        assert_eq!(entries[0].node.value, Value::Scalar("1.20".into()));
        let Value::List(items) = &entries[2].node.value else { panic!() };
        let Value::Map(first) = &items[0].value else { panic!() };
        assert_eq!(first[0].node.value, Value::Scalar("yes".into()));
        assert_eq!(first[1].node.value, Value::Unset);
        assert_eq!(items[1].origin.to_string(), "f:6");
    }

    #[test]
    fn what_is_no_configuration_is_refused_with_its_line() {
        for (text, expected) in [
            ("a: 1\na: 2\n", "f:2 a: stands here a second time; keep one"),
            ("- a\n", "f:1: the file is not a map of keys; write lines like 'address: :443'"),
            ("a: &x 1\nb: *x\n", "f:2: aliases are not understood here; write the value out"),
            ("a: 1\n---\nb: 2\n", "f:2: a second document begins; write one document"),
        ] {
            assert_eq!(read(Path::new("f"), text).unwrap_err().to_string(), expected, "{text}");
        }
        let broken = read(Path::new("f"), "a: [1\nb: 2\n").unwrap_err().to_string();
        assert!(broken.contains("this is no YAML"), "{broken}");
        assert!(read(Path::new("f"), "").unwrap().is_empty());
        assert!(read(Path::new("f"), "# nothing\n").unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-a-z:,\\[\\]{}'\"&*#\n |>%@!~ ]{0,60}") {
            let _ = read(Path::new("f"), &text);
        }
    }
}
