//! The part of a story that is about OCSP: whether certificates name responders, and what goes wrong with those.
//!
//! It has dice of its own: a story without responders is the one that it would be if there were none at all.

use std::fmt;
use std::time::Duration;

use crate::dice::Dice;
use crate::weather::{Event, Setting, Span, What};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The part of stories whose certificates name responders.
const PART: f64 = 0.25;
/// Responses of the public CAs live 4 to 10 days.
const LIVES: [Duration; 5] = [
    DAY.saturating_mul(7),
    DAY.saturating_mul(7),
    DAY.saturating_mul(4),
    DAY.saturating_mul(4),
    DAY.saturating_mul(2),
];
/// What responses live while a CA has them live briefly.
pub const BRIEF: Duration = Duration::from_secs(8 * 3600);
/// How many events of this kind a year has at most, and half of that on average.
const EVENTS_A_YEAR: Duration = Duration::from_secs(24);

/// What responders say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Responses {
    /// How long it is good for.
    pub life: Duration,
    /// It is signed at each half of that, whoever asks; else for each question.
    pub are_prepared: bool,
    /// Certificates must be stapled.
    pub must_staple: bool,
}

/// How a responder is of no use, or of less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Refused,
    Silent,
    Broken,
    Maintenance {
        retry_after: Duration,
    },
    TryLater,
    Unauthorized,
    Garbage,
    /// What it says is so old.
    Stale {
        by: Duration,
    },
    /// It answers POST.
    NoGet,
}

impl Fault {
    /// Whether nobody gets a good response meanwhile.
    pub fn hinders(self) -> bool {
        self != Self::NoGet
    }
}

/// The responses of this story's CAs, if there are any, and what happens to them.
pub fn of(seed: u64, setting: &Setting) -> Option<(Responses, Vec<Event>)> {
    let mut dice = Dice::new(seed, 6);
    if !dice.chance(PART) {
        return None;
    }
    let responses = Responses {
        life: dice.pick(&LIVES),
        are_prepared: dice.chance(0.5),
        must_staple: dice.chance(0.3),
    };
    let years = setting.length.as_secs_f64() / (365.0 * DAY.as_secs_f64());
    let count = dice.between(Duration::ZERO, EVENTS_A_YEAR).as_secs_f64() * years;
    let events =
        (0..count.ceil() as usize).map(|_| event(&mut dice, setting, &responses)).collect();
    Some((responses, events))
}

fn event(dice: &mut Dice, setting: &Setting, responses: &Responses) -> Event {
    let at = dice.between(Duration::ZERO, setting.length);
    let lasts = dice.spread(HOUR, DAY * 21);
    let (lasts, what) = match dice.below(100) {
        0..85 => (lasts, What::Responder(fault(dice, lasts, responses))),
        85..93 => (dice.spread(DAY, DAY * 14), What::BriefResponses),
        _ => (Duration::ZERO, What::Revocation),
    };
    Event { at, lasts, ca: dice.below(setting.cas as u64) as usize, what }
}

fn fault(dice: &mut Dice, lasts: Duration, responses: &Responses) -> Fault {
    match dice.below(10) {
        0 => Fault::Silent,
        1 => Fault::Broken,
        2 => {
            let most = lasts.min(DAY * 2).max(HOUR);
            Fault::Maintenance { retry_after: dice.spread(Duration::from_secs(60), most) }
        }
        3 => Fault::TryLater,
        4 => Fault::Unauthorized,
        5 => Fault::Garbage,
        6 | 7 => Fault::Stale { by: responses.life.mul_f64(0.4 + dice.fraction()) },
        8 => Fault::NoGet,
        _ => Fault::Refused,
    }
}

impl fmt::Display for Responses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.are_prepared { "prepared" } else { "signed when asked for" };
        let must = if self.must_staple { ", which must be stapled" } else { "" };
        write!(f, "OCSP responses of {} {how}{must}", Span(self.life))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => write!(f, "refuses connections"),
            Self::Silent => write!(f, "does not answer"),
            Self::Broken => write!(f, "answers 500"),
            Self::Maintenance { retry_after } => {
                write!(f, "answers 503, Retry-After {}", Span(*retry_after))
            }
            Self::TryLater => write!(f, "says tryLater"),
            Self::Unauthorized => write!(f, "says unauthorized"),
            Self::Garbage => write!(f, "answers with garbage"),
            Self::Stale { by } => write!(f, "says what it said {} ago", Span(*by)),
            Self::NoGet => write!(f, "answers no GET"),
        }
    }
}
