//! What is wrong with a CA at this moment.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::responses::Fault;
use crate::weather::{Outage, What};

/// The events that are under way.
#[derive(Debug, Default)]
pub struct Sky(Mutex<Vec<What>>);

impl Sky {
    fn events(&self) -> MutexGuard<'_, Vec<What>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, events: Vec<What>) {
        *self.events() = events;
    }

    fn find<T>(&self, found: impl Fn(&What) -> Option<T>) -> Option<T> {
        self.events().iter().find_map(found)
    }

    pub fn outage(&self) -> Option<Outage> {
        self.find(|what| match what {
            What::Outage(outage) => Some(*outage),
            _ => None,
        })
    }

    /// Whether orders are refused, and the `Retry-After` that comes with it.
    pub fn limited(&self) -> Option<Option<Duration>> {
        self.find(|what| match what {
            What::Limited { retry_after } => Some(*retry_after),
            _ => None,
        })
    }

    pub fn is_limited(&self) -> bool {
        self.limited().is_some()
    }

    /// What is wrong with its responder.
    pub fn responder(&self) -> Option<Fault> {
        self.find(|what| match what {
            What::Responder(fault) => Some(*fault),
            _ => None,
        })
    }

    pub fn has_brief_responses(&self) -> bool {
        self.is(What::BriefResponses)
    }

    fn is(&self, event: What) -> bool {
        self.events().contains(&event)
    }

    pub fn validations_fail(&self) -> bool {
        self.is(What::ValidationsFail)
    }

    pub fn is_forbidden_by_caa(&self) -> bool {
        self.is(What::Caa)
    }

    pub fn refuses_nonces(&self) -> bool {
        self.is(What::NoncesRefused)
    }

    pub fn answers_are_lost(&self) -> bool {
        self.is(What::AnswersLost)
    }

    pub fn is_slow(&self) -> bool {
        self.is(What::Slow)
    }

    pub fn has_no_renewal_information(&self) -> bool {
        self.is(What::NoRenewalInformation)
    }

    pub fn windows_are_late(&self) -> bool {
        self.is(What::LateWindows)
    }
}
