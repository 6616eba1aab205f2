//! Makes a story that fails shorter for as long as it still fails, and tells it.

use std::time::Duration;

use ringgate::clock::Moment;
use ringgate::control::autocert::simulated::Mutant;

use crate::checker::Broken;
use crate::weather::{Span, Story};
use crate::world::{self, BEGUN};

/// Runs that are spent on making one story shorter.
const RUNS: usize = 400;

/// The shortest story found, and how it fails.
pub fn shrink(story: &Story, broken: Broken, mutant: Option<Mutant>) -> (Story, Broken) {
    let mut shrinking = Shrinking { story: story.clone(), broken, mutant, runs: 0 };
    // What comes after the end cannot matter.
    shrinking.cut_end();
    while shrinking.runs < RUNS && (shrinking.drop_events() | shrinking.simplify()) {}
    (shrinking.story, shrinking.broken)
}

struct Shrinking {
    story: Story,
    broken: Broken,
    mutant: Option<Mutant>,
    runs: usize,
}

impl Shrinking {
    /// Takes a shorter story if it fails too.
    fn try_it(&mut self, shorter: Story) -> bool {
        if shorter == self.story || self.runs >= RUNS {
            return false;
        }
        self.runs += 1;
        match world::run(&shorter, self.mutant).broken {
            Some(broken) => {
                self.story = shorter;
                self.broken = broken;
                self.cut_end();
                true
            }
            None => false,
        }
    }

    fn cut_end(&mut self) {
        let end = self.broken.at.since(BEGUN) + Duration::from_secs(2 * 24 * 3600);
        self.story.setting.length = self.story.setting.length.min(end);
        self.story.events.retain(|event| event.at < end);
    }

    /// Leaves events out: halves, quarters, then each.
    fn drop_events(&mut self) -> bool {
        let mut has_changed = false;
        let mut chunk = self.story.events.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < self.story.events.len() {
                let mut shorter = self.story.clone();
                let end = (at + chunk).min(shorter.events.len());
                shorter.events.drain(at..end);
                if self.try_it(shorter) {
                    has_changed = true;
                } else {
                    at += chunk;
                }
            }
            if chunk == 1 {
                return has_changed;
            }
            chunk /= 2;
        }
    }

    /// Fewer names and nodes, no Caddy, shorter events.
    fn simplify(&mut self) -> bool {
        let mut has_changed = false;
        let simpler: [fn(&mut Story); 6] = [
            |story| {
                story.setting.cas = 1;
                story.events.retain(|event| event.ca == 0);
            },
            |story| story.setting.names = 1,
            |story| story.setting.nodes = 1,
            |story| story.setting.has_caddy = false,
            |story| story.setting.reuses_validations = false,
            |story| story.setting.responses = None,
        ];
        for simplify in simpler {
            let mut shorter = self.story.clone();
            simplify(&mut shorter);
            has_changed |= self.try_it(shorter);
        }
        for at in 0..self.story.events.len() {
            let mut shorter = self.story.clone();
            let Some(event) = shorter.events.get_mut(at) else { break };
            if event.lasts >= Duration::from_secs(2 * 3600) {
                event.lasts /= 2;
                has_changed |= self.try_it(shorter);
            }
        }
        has_changed
    }
}

/// A story as a time line.
pub fn tell(story: &Story, broken: &Broken) -> String {
    let setting = &story.setting;
    let windows = match setting.renewal_information {
        Some(after) => format!("with renewal information every {}", Span(after)),
        None => "without renewal information".to_owned(),
    };
    let caddy = if setting.has_caddy { " and a Caddy" } else { "" };
    let limits = if setting.limits_known { ", limits known" } else { "" };
    let responses = setting.responses.map(|responses| format!(", {responses}"));
    let mut told = format!(
        "seed {}: {} CA(s), {} name(s), {} node(s){caddy}, certificates of {}{limits}, {windows}{}\n",
        story.seed,
        setting.cas,
        setting.names,
        setting.nodes,
        Span(setting.lifetime),
        responses.unwrap_or_default()
    );
    for event in &story.events {
        let lasts = match event.lasts {
            Duration::ZERO => String::new(),
            lasts => format!(", for {}", Span(lasts)),
        };
        let whose = match setting.cas {
            1 => String::new(),
            _ if event.what.is_of_the_machine() => String::new(),
            _ => format!("CA {}: ", event.ca),
        };
        told.push_str(&line(BEGUN.plus(event.at), &format!("{whose}{}{lasts}", event.what)));
    }
    told.push_str(&line(broken.at, &format!("BROKEN: {}", broken.what)));
    told
}

fn line(at: Moment, what: &str) -> String {
    let day = at.since(BEGUN).as_secs() / 86_400;
    format!("  {at}  day {day:>4}  {what}\n")
}
