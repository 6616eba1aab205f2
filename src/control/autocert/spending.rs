//! What an order for a name uses of an issuer's limits, told to its ledger, if it has one.

use crate::clock::Moment;
use crate::name::ServerName;

use super::budget::{Counts, Order, Vain};
use super::ca::Ca;
use super::domain::registered_domain;
use super::ledger::Ledger;
use super::verdict::Failed;

pub struct Spending<'a> {
    pub ca: &'a Ca,
    pub name: &'a ServerName,
}

impl Spending<'_> {
    /// Before an order is placed.
    ///
    /// # Errors
    /// If there is no room for it.
    pub async fn take(&self, counts: Counts) -> Result<(), Failed> {
        let Some(ledger) = self.ledger(counts) else { return Ok(()) };
        let domain = registered_domain(self.name);
        let taken = ledger.take(&self.order(&domain, counts), Moment::now()).await;
        taken.map_err(|free| Failed::budget(&self.ca.issuer.directory, &domain, free))
    }

    /// When it is certain that no certificate comes of it.
    pub async fn in_vain(&self, counts: Counts, vain: Vain) {
        if let Some(ledger) = self.ledger(counts) {
            let domain = registered_domain(self.name);
            ledger.in_vain(&self.order(&domain, counts), vain, Moment::now()).await;
        }
    }

    /// Nobody counts what is exempt.
    fn ledger(&self, counts: Counts) -> Option<&Ledger> {
        self.ca.ledger.as_ref().filter(|_| counts != Counts::Exempt)
    }

    fn order<'a>(&'a self, domain: &'a str, counts: Counts) -> Order<'a> {
        self.ca.order(self.name.as_str(), domain, counts)
    }
}
