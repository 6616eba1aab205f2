//! What an order for a name uses of an issuer's limits, told to its ledger, if it has one.

use crate::clock::Moment;
use crate::name::ServerName;

use super::budget::{Counts, Order};
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

    /// It was not placed.
    pub async fn give_back(&self, counts: Counts) {
        if let Some(ledger) = self.ledger(counts) {
            let domain = registered_domain(self.name);
            ledger.give_back(&self.order(&domain, counts), Moment::now()).await;
        }
    }

    /// It was placed, and nobody can go on with it.
    pub async fn lose(&self, counts: Counts) {
        if let Some(ledger) = self.ledger(counts) {
            let domain = registered_domain(self.name);
            ledger.lose(&self.order(&domain, counts), Moment::now()).await;
        }
    }

    /// It did not prove control of the name.
    pub async fn fail(&self, counts: Counts) {
        if let Some(ledger) = self.ledger(counts) {
            let domain = registered_domain(self.name);
            ledger.fail(&self.order(&domain, counts), Moment::now()).await;
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
