//! What renewals looked like, over all seeds.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::weather::Span;

/// Lifetimes are told apart by days: up to 10, up to 60, more.
const CLASSES: [(u64, &str); 3] = [(10, "6 days"), (60, "47 days"), (u64::MAX, "90 days")];
/// Remaining lifetime is counted in steps of so many hundredths.
const STEP: u64 = 5;

#[derive(Clone, Debug, Default)]
struct Class {
    renewals: u64,
    /// By hundredths of the lifetime that were left.
    left: BTreeMap<u64, u64>,
    after_the_end: u64,
    orders: BTreeMap<u32, u64>,
    longest_bridged: Duration,
}

/// Renewals by lifetime, and staples.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    classes: BTreeMap<usize, Class>,
    staples: u64,
    most_asked: usize,
}

impl Histogram {
    pub fn renewal(
        &mut self,
        life: Duration,
        left: Duration,
        orders: u32,
        bridged: Option<Duration>,
    ) {
        let days = life.as_secs() / 86_400;
        let at = CLASSES.iter().position(|(most, _)| days <= *most).unwrap_or_default();
        let class = self.classes.entry(at).or_default();
        class.renewals += 1;
        *class.orders.entry(orders).or_default() += 1;
        if left.is_zero() {
            class.after_the_end += 1;
            return;
        }
        let hundredths = (left.as_secs_f64() / life.as_secs_f64() * 100.0) as u64;
        *class.left.entry(hundredths / STEP * STEP).or_default() += 1;
        class.longest_bridged = class.longest_bridged.max(bridged.unwrap_or_default());
    }

    /// So many staples have begun to be served, and a process asked so often in a day about one certificate.
    pub fn staples(&mut self, count: u64, most_asked: usize) {
        self.staples += count;
        self.most_asked = self.most_asked.max(most_asked);
    }

    pub fn add(&mut self, other: Histogram) {
        self.staples(other.staples, other.most_asked);
        for (at, theirs) in other.classes {
            let class = self.classes.entry(at).or_default();
            class.renewals += theirs.renewals;
            class.after_the_end += theirs.after_the_end;
            class.longest_bridged = class.longest_bridged.max(theirs.longest_bridged);
            for (left, count) in theirs.left {
                *class.left.entry(left).or_default() += count;
            }
            for (orders, count) in theirs.orders {
                *class.orders.entry(orders).or_default() += count;
            }
        }
    }

    pub fn renewals(&self) -> u64 {
        self.classes.values().map(|class| class.renewals).sum()
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, class) in &self.classes {
            let name = CLASSES.get(*at).map_or("", |(_, name)| *name);
            writeln!(f, "certificates of {name}: {} renewals", class.renewals)?;
            let most = class.left.values().copied().max().unwrap_or(1).max(1);
            for (left, count) in class.left.iter().rev() {
                let bar = "#".repeat((count * 50).div_ceil(most) as usize);
                writeln!(f, "  {left:>3}-{:<3}% of life left {count:>8} {bar}", left + STEP)?;
            }
            if class.after_the_end > 0 {
                writeln!(f, "  after its end        {:>8}", class.after_the_end)?;
            }
            let renewals = |orders: u32| class.orders.get(&orders).copied().unwrap_or_default();
            let (one, two, most) = (renewals(1), renewals(2), class.orders.keys().next_back());
            writeln!(
                f,
                "  orders per renewal   1: {one}, 2: {two}, more: {} (at most {})",
                class.renewals.saturating_sub(one + two),
                most.copied().unwrap_or_default()
            )?;
            writeln!(f, "  longest outage bridged {}", Span(class.longest_bridged))?;
        }
        writeln!(
            f,
            "staples: {} served; asked for at most {} times in a day, each time by GET or POST",
            self.staples, self.most_asked
        )
    }
}
