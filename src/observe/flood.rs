//! A flood of lines to its first ones and a count, so that the rest of the log is still seen. Pure.

use std::collections::HashMap;
use std::fmt::Display;

/// Ten show what is wrong and leave a page for the rest.
const FIRST: usize = 10;

/// The first lines of each group in their order, each group that has more followed by how many.
pub fn shortened<T: Display>(lines: &[T], group_of: impl Fn(&T) -> &str) -> Vec<String> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for line in lines {
        *counts.entry(group_of(line)).or_default() += 1;
    }
    let mut shown: HashMap<&str, usize> = HashMap::new();
    let mut short = Vec::new();
    for line in lines {
        let group = group_of(line);
        let shown = shown.entry(group).or_default();
        *shown += 1;
        // Of eleven, the last one says as much as a line that there is one more.
        match counts.get(group).map_or(0, |count| count.saturating_sub(FIRST)) {
            more if more > 1 && *shown > FIRST => {
                if *shown == FIRST + 1 {
                    short.push(format!("and {more} more of {group}"));
                }
            }
            _ => short.push(line.to_string()),
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_group_has_its_first_ten_and_a_count() {
        let lines: Vec<String> = (0..100).map(|n| format!("a {n}")).collect();
        let short = shortened(&lines, |_| "these");
        assert_eq!(short.len(), 11);
        assert_eq!((short[9].as_str(), short[10].as_str()), ("a 9", "and 90 more of these"));
        assert_eq!(shortened(&lines[..10], |_| "these"), lines[..10]);
        assert_eq!(shortened(&lines[..11], |_| "these"), lines[..11]);

        let mut two = lines[..20].to_vec();
        two.insert(15, "b".into());
        let short = shortened(&two, |line| line.split(' ').next().unwrap());
        assert_eq!(short[10..], ["and 10 more of a".to_owned(), "b".into()]);
    }
}
