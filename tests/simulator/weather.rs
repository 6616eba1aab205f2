//! The story of one seed: how the world is set up, and what goes wrong in it when.
//!
//! A story is all that a run depends on besides its seed's dice; it can be printed and made shorter.

use std::fmt;
use std::time::Duration;

use crate::dice::Dice;
use crate::life::{Death, Deed};
use crate::responses::{self, Fault, Responses};

const fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}
const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}
const DAY: Duration = hours(24);

/// How the world is set up.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    pub length: Duration,
    /// Issuers, in the order to ask them.
    pub cas: usize,
    pub names: usize,
    pub nodes: usize,
    /// Caddy works on the same directory.
    pub has_caddy: bool,
    /// How long certificates live at first.
    pub lifetime: Duration,
    /// When clients are to ask for renewal information again; `None`: the CA has none.
    pub renewal_information: Option<Duration>,
    /// For how long the CA believes a validation.
    pub reuses_validations: bool,
    /// The first CA is one whose limits ringgate knows, and keeps to before it is refused.
    pub limits_known: bool,
    /// `None`: certificates name no responder.
    pub responses: Option<Responses>,
}

/// One thing that goes wrong, or one that changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    pub at: Duration,
    pub lasts: Duration,
    /// Whose it is, if it is a CA's.
    pub ca: usize,
    pub what: What,
}

/// How a CA is out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    Refused,
    Silent,
    Broken,
    Page,
    Maintenance { retry_after: Duration },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    // Of the CA.
    Outage(Outage),
    /// It has had enough of us.
    Limited {
        retry_after: Option<Duration>,
    },
    ValidationsFail,
    /// What only a person can mend, and mends.
    Caa,
    NoncesRefused,
    /// It acts, and the answer is lost, one time in five.
    AnswersLost,
    /// It takes minutes to sign.
    Slow,
    NoRenewalInformation,
    /// It suggests windows beyond the end.
    LateWindows,
    /// It must revoke, and suggests windows in the past.
    Incident,
    Lifetime(Duration),
    AccountsForgotten,
    /// It revokes what it has issued, and says so by its responder alone.
    Revocation,
    // Of its responder.
    Responder(Fault),
    /// What it says lives for hours.
    BriefResponses,
    // Of the machine.
    Restart,
    /// The process dies again and again, so long after each start.
    CrashLoop {
        each: Duration,
    },
    Killed(Death),
    ClockAhead {
        seconds: i64,
    },
    // Of the directory.
    DiskFull,
    DiskGone,
    DiskSlow {
        pause: Duration,
    },
    /// A record is cut short.
    RecordCut,
}

impl What {
    /// Whether the CA issues nothing meanwhile, whatever we do.
    pub fn hinders_ca(&self) -> bool {
        matches!(self, Self::Outage(_) | Self::Limited { .. } | Self::ValidationsFail | Self::Caa)
    }

    /// Whether nobody is there to ask meanwhile.
    pub fn hinders_us(&self) -> bool {
        match self {
            Self::Restart => true,
            // Who lives longer has time enough.
            Self::CrashLoop { each } => *each < LONG_ENOUGH,
            _ => false,
        }
    }

    pub fn is_of_the_machine(&self) -> bool {
        matches!(
            self,
            Self::Restart
                | Self::CrashLoop { .. }
                | Self::Killed(_)
                | Self::ClockAhead { .. }
                | Self::DiskFull
                | Self::DiskGone
                | Self::DiskSlow { .. }
                | Self::RecordCut
                | Self::Lifetime(_)
        )
    }

    /// Whether what was stored may be lost, so that work must be done again.
    pub fn forgets(&self) -> bool {
        matches!(self, Self::DiskFull | Self::DiskGone | Self::RecordCut | Self::AccountsForgotten)
    }
}

/// All of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Story {
    pub seed: u64,
    pub setting: Setting,
    pub events: Vec<Event>,
}

/// Lifetimes of today, of the rules to come, and of Let's Encrypt's short-lived profile.
const LIFETIMES: [Duration; 5] = [
    DAY.saturating_mul(90),
    DAY.saturating_mul(90),
    DAY.saturating_mul(47),
    hours(160),
    DAY.saturating_mul(6),
];

/// More names than Let's Encrypt gives certificates below one domain at once, until the first of them are renewed.
pub const CROWD: usize = 58;
const CROWD_LENGTH: Duration = DAY.saturating_mul(100);
/// A process that lives for so long gets a certificate from a CA that issues.
const LONG_ENOUGH: Duration = minutes(15);

/// How many events a year has, about.
const EVENTS_A_YEAR: f64 = 18.0;

impl Story {
    /// The story of a seed.
    pub fn of(seed: u64, length: Duration) -> Self {
        let mut dice = Dice::new(seed, 1);
        let mut setting = Setting {
            length,
            cas: dice.pick(&[1, 1, 2]),
            names: dice.pick(&[1, 1, 1, 1, 1, 2, 2, 2, 4]),
            nodes: dice.pick(&[1, 1, 1, 2]),
            has_caddy: dice.chance(0.2),
            lifetime: dice.pick(&LIFETIMES),
            renewal_information: dice
                .chance(0.6)
                .then(|| dice.pick(&[hours(6), DAY, DAY, DAY.saturating_mul(2)])),
            reuses_validations: dice.chance(0.5),
            limits_known: false,
            responses: None,
        };
        let years = length.as_secs_f64() / (365.0 * DAY.as_secs_f64());
        // Some worlds are calm, some are not.
        let count = EVENTS_A_YEAR
            * years
            * dice.between(Duration::ZERO, Duration::from_secs(2)).as_secs_f64();
        let mut events: Vec<_> =
            (0..count.ceil() as usize).map(|_| event(&mut dice, &setting)).collect();
        for at in 0..events.len() {
            let wrong = events[at];
            if matches!(wrong.what, What::ClockAhead { .. }) && dice.chance(0.4) {
                events.push(outage_of_wrong_clock(&mut dice, &wrong));
            }
        }
        if dice.chance(0.3) {
            events.extend(shrinking(&mut dice, length));
        }
        if dice.chance(0.2) {
            events.extend(weekly_outage(&mut dice, &setting));
        }
        let mut dice = Dice::new(seed, 5);
        setting.limits_known = dice.chance(0.4);
        if setting.limits_known && dice.chance(0.06) {
            setting.names = CROWD;
            setting.has_caddy = false;
            setting.length = length.min(CROWD_LENGTH);
            setting.lifetime = DAY * 90;
        } else if let Some((responses, more)) = responses::of(seed, &setting) {
            setting.responses = Some(responses);
            events.extend(more);
        }
        events.sort_by_key(|event| event.at);
        Self { seed, setting, events }
    }
}

/// 90 days, then 47, then 6.
fn shrinking(dice: &mut Dice, length: Duration) -> Vec<Event> {
    let first = length.mul_f64(0.1 + 0.4 * dice.fraction());
    let second = first + (length - first).mul_f64(0.2 + 0.6 * dice.fraction());
    let change = |at, days: u32| {
        let what = What::Lifetime(DAY * days);
        Event { at, lasts: Duration::ZERO, ca: 0, what }
    };
    vec![change(first, 47), change(second, 6)]
}

/// An outage of the same length each week, for some months.
fn weekly_outage(dice: &mut Dice, setting: &Setting) -> Vec<Event> {
    let lasts = dice.between(hours(8), hours(64));
    let begun = dice.between(Duration::ZERO, setting.length);
    let weeks = 4 + dice.below(12) as u32;
    let outage = outage(dice, lasts);
    let ca = dice.below(setting.cas as u64) as usize;
    let what = What::Outage(outage);
    (0..weeks).map(|week| Event { at: begun + DAY * 7 * week, lasts, ca, what }).collect()
}

/// A machine whose clock is wrong often reaches nobody either: failures are noted by that clock.
fn outage_of_wrong_clock(dice: &mut Dice, wrong: &Event) -> Event {
    let lasts = dice.spread(hours(1), DAY * 3);
    Event { what: What::Outage(outage(dice, lasts)), lasts, ..*wrong }
}

fn outage(dice: &mut Dice, lasts: Duration) -> Outage {
    match dice.below(6) {
        0 => Outage::Silent,
        1 => Outage::Broken,
        2 => Outage::Page,
        3 => Outage::Maintenance {
            retry_after: dice.spread(minutes(1), lasts.min(hours(6)).max(minutes(2))),
        },
        _ => Outage::Refused,
    }
}

fn event(dice: &mut Dice, setting: &Setting) -> Event {
    let at = dice.between(Duration::ZERO, setting.length);
    let for_long = |dice: &mut Dice| dice.spread(hours(1), DAY * 21);
    let (lasts, what) = match dice.below(100) {
        0..18 => {
            let lasts = for_long(dice);
            (lasts, What::Outage(outage(dice, lasts)))
        }
        18..28 => {
            let lasts = dice.spread(hours(1), DAY * 7);
            let retry_after = dice.chance(0.6).then(|| dice.spread(minutes(1), DAY * 2));
            (lasts, What::Limited { retry_after })
        }
        28..36 => (for_long(dice), What::ValidationsFail),
        36..39 => (for_long(dice), What::Caa),
        39..42 => (for_long(dice), What::NoncesRefused),
        42..46 => (for_long(dice), What::AnswersLost),
        46..49 => (for_long(dice), What::Slow),
        49..52 => (for_long(dice), What::NoRenewalInformation),
        52..54 => (dice.spread(DAY, DAY * 40), What::LateWindows),
        54..57 => (Duration::ZERO, What::Incident),
        57..59 => (Duration::ZERO, What::Lifetime(dice.pick(&LIFETIMES))),
        59..61 => (Duration::ZERO, What::AccountsForgotten),
        61..71 => (dice.spread(Duration::from_secs(1), hours(12)), What::Restart),
        71..75 => {
            let each = dice.spread(Duration::from_secs(2), hours(2));
            (dice.spread(minutes(5), DAY * 3), What::CrashLoop { each })
        }
        75..85 => {
            let deed = dice.pick(&[Deed::Exchange, Deed::Write]);
            let (after, has_effect) = (dice.below(24) as u32, dice.chance(0.5));
            (Duration::ZERO, What::Killed(Death { deed, after, has_effect }))
        }
        85..90 => {
            let most = dice.pick(&[hours(1), DAY, DAY * 30, DAY * 400]);
            let seconds = dice.spread(minutes(1), most).as_secs() as i64;
            let seconds = if dice.chance(0.5) { seconds } else { -seconds };
            (dice.spread(minutes(10), DAY * 20), What::ClockAhead { seconds })
        }
        90..93 => (dice.spread(hours(1), DAY * 4), What::DiskFull),
        93..95 => (dice.spread(hours(1), DAY * 4), What::DiskGone),
        95..97 => {
            let pause = dice.spread(Duration::from_secs(1), Duration::from_secs(20));
            (for_long(dice), What::DiskSlow { pause })
        }
        _ => (Duration::ZERO, What::RecordCut),
    };
    let ca = dice.below(setting.cas as u64) as usize;
    Event { at, lasts, ca, what }
}

/// A span as people say it.
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0..120 => write!(f, "{seconds} s"),
            120..7200 => write!(f, "{} min", seconds / 60),
            7200..172_800 => write!(f, "{:.1} h", seconds as f64 / 3600.0),
            _ => write!(f, "{:.1} d", seconds as f64 / 86400.0),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outage(Outage::Refused) => write!(f, "the CA refuses connections"),
            Self::Outage(Outage::Silent) => write!(f, "the CA does not answer"),
            Self::Outage(Outage::Broken) => write!(f, "the CA answers 500"),
            Self::Outage(Outage::Page) => write!(f, "a page of HTML answers for the CA"),
            Self::Outage(Outage::Maintenance { retry_after }) => {
                write!(f, "the CA answers 503, Retry-After {}", Span(*retry_after))
            }
            Self::Limited { retry_after: None } => write!(f, "the CA answers 429"),
            Self::Limited { retry_after: Some(after) } => {
                write!(f, "the CA answers 429, Retry-After {}", Span(*after))
            }
            Self::ValidationsFail => write!(f, "validations fail"),
            Self::Caa => write!(f, "a CAA record forbids the CA"),
            Self::NoncesRefused => write!(f, "the CA refuses every second nonce"),
            Self::AnswersLost => write!(f, "one answer in five is lost"),
            Self::Slow => write!(f, "the CA takes minutes to sign"),
            Self::NoRenewalInformation => write!(f, "no renewal information is to be had"),
            Self::LateWindows => write!(f, "the CA suggests windows beyond the end"),
            Self::Incident => write!(f, "the CA must revoke all that it has issued"),
            Self::Lifetime(life) => write!(f, "certificates live {} from here on", Span(*life)),
            Self::AccountsForgotten => write!(f, "the CA forgets all accounts"),
            Self::Revocation => write!(f, "the CA revokes all that it has issued"),
            Self::Responder(fault) => write!(f, "the responder {fault}"),
            Self::BriefResponses => write!(f, "what the responder says lives for hours"),
            Self::Restart => write!(f, "the process is down"),
            Self::CrashLoop { each } => {
                write!(f, "the process dies {} after each start", Span(*each))
            }
            Self::Killed(Death { deed, after, has_effect }) => {
                let effect = if *has_effect { "after" } else { "before" };
                write!(f, "the process is killed {effect} its {}. {deed:?} from here on", after + 1)
            }
            Self::ClockAhead { seconds } => {
                let span = Span(Duration::from_secs(seconds.unsigned_abs()));
                let way = if *seconds > 0 { "ahead" } else { "behind" };
                write!(f, "the machine's clock is {span} {way}")
            }
            Self::DiskFull => write!(f, "the disk is full"),
            Self::DiskGone => write!(f, "the disk cannot be read"),
            Self::DiskSlow { pause } => write!(f, "the disk takes {} for everything", Span(*pause)),
            Self::RecordCut => write!(f, "a record in the store is cut short"),
        }
    }
}
