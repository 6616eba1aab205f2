//! How many lines of one kind are told apart before there are only more of them. Pure.

use std::time::Duration;

use crate::clock::Moment;

/// Ten show what is wrong; 'ringgate certs' lists all.
const AT_MOST: usize = 10;
/// After this long without one, they are told again.
const QUIET: Duration = Duration::from_secs(3600);

/// Whether and how a line is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    Tell,
    /// The last one before silence.
    TellThereAreMore,
    Silent,
}

/// How many have been told.
#[derive(Debug, Default)]
pub struct Told {
    lines: usize,
    last: Option<Moment>,
}

impl Told {
    pub fn one_more(&mut self) -> Telling {
        self.lines += 1;
        match self.lines {
            lines if lines < AT_MOST => Telling::Tell,
            AT_MOST => Telling::TellThereAreMore,
            _ => Telling::Silent,
        }
    }

    /// The same for lines that come in floods of their own: each flood begins anew.
    pub fn one_more_at(&mut self, now: Moment) -> Telling {
        let last = self.last.replace(now);
        if last.is_none_or(|last| last.plus(QUIET) < now || now < last) {
            self.lines = 0;
        }
        self.one_more()
    }
}

/// What follows a line that is the last one before silence.
pub fn and_more(telling: Telling) -> &'static str {
    match telling {
        Telling::TellThereAreMore => "; there are more of these: 'ringgate certs' shows them all",
        Telling::Tell | Telling::Silent => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_flood_the_first_are_told_and_of_the_next_one_again() {
        let mut told = Told::default();
        let mut now = Moment::from_unix_seconds(1_800_000_000);
        for _ in 0..2 {
            let flood: Vec<_> = (0..10_000).map(|_| told.one_more_at(now)).collect();
            assert!(flood[..AT_MOST - 1].iter().all(|one| *one == Telling::Tell));
            assert_eq!(flood[AT_MOST - 1], Telling::TellThereAreMore);
            assert!(flood[AT_MOST..].iter().all(|one| *one == Telling::Silent));
            now = now.plus(QUIET + Duration::from_secs(1));
        }
    }
}
