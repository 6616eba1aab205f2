//! What autocert has obtained, and the keeper's leash: which names it keeps certificates for now.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::clock::Moment;
use crate::config::Config;
use crate::name::ServerName;

use super::autocert::issuers::Issuers;
use super::autocert::keeper::{self, Command, News};
use super::autocert::names::managed;
use super::autocert::prepared::PreparedAutocert;
use super::certified::Certified;
use super::publisher::Publisher;
use super::staples::response::Revoked;

/// How the names that autocert keeps are to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamesChange {
    /// Certificates by hand end soon.
    TakeOver,
    /// Certificates by hand cover names of its again.
    LetGo,
}

/// The control plane's side of autocert.
pub struct Issuing {
    issued: HashMap<ServerName, Arc<Certified>>,
    names: Vec<ServerName>,
    keeper: Option<Keeper>,
    issuers: Option<Arc<Issuers>>,
    /// What was obtained, with what it takes the place of.
    obtained: Option<(Option<Arc<Certified>>, Arc<Certified>)>,
}

struct Keeper {
    commands: mpsc::UnboundedSender<Command>,
    news: mpsc::UnboundedReceiver<News>,
}

impl Issuing {
    /// Begins with what is stored.
    pub fn new(prepared: Option<&PreparedAutocert>) -> Self {
        let mut issuing = Self {
            issued: HashMap::new(),
            names: Vec::new(),
            keeper: None,
            issuers: None,
            obtained: None,
        };
        issuing.adopt(prepared);
        issuing
    }

    /// The certificates by name.
    pub fn issued(&self) -> &HashMap<ServerName, Arc<Certified>> {
        &self.issued
    }

    pub fn commands(&self) -> Option<&mpsc::UnboundedSender<Command>> {
        self.keeper.as_ref().map(|keeper| &keeper.commands)
    }

    /// Keeps what is in memory for names that stay and takes what is stored for the others.
    pub fn adopt(&mut self, prepared: Option<&PreparedAutocert>) {
        let mut before = std::mem::take(&mut self.issued);
        let same =
            self.issuers.as_ref().zip(prepared).is_some_and(|(issuers, prepared)| {
                issuers.directories().eq(prepared.directories())
            });
        let names = prepared.map(|prepared| prepared.names.as_slice()).unwrap_or_default();
        self.names = names.iter().map(|(name, _)| name.clone()).collect();
        for (name, dossier) in names {
            let stored = dossier.certified();
            // Another issuer's certificate is served until there is one of the new issuer.
            let kept = before.remove(name).filter(|_| same || stored.is_none());
            if let Some(certified) = kept.or_else(|| stored.cloned()) {
                self.issued.insert(name.clone(), certified);
            }
        }
    }

    /// Tells the keeper what to keep; starts it if there is none. Within the runtime.
    pub fn assign(
        &mut self,
        prepared: Option<&PreparedAutocert>,
        publisher: &Publisher,
        has_plain_listener: bool,
    ) {
        let Some(prepared) = prepared else {
            self.keeper = None;
            self.issuers = None;
            return;
        };
        // With the same settings the accounts and what is known of the CAs stay.
        let former = self.issuers.take();
        let same = former.clone().filter(|issuers| issuers.are_from(prepared));
        let issuers = same.unwrap_or_else(|| {
            let former = former.as_deref();
            Arc::new(Issuers::new(prepared, publisher, has_plain_listener, former))
        });
        self.issuers = Some(issuers.clone());
        let keeper = self.keeper.get_or_insert_with(|| {
            let (commands, news) = keeper::start();
            Keeper { commands, news }
        });
        // The keeper ends only when we let go of this end.
        let _ = keeper.commands.send(Command::Assign { issuers, names: prepared.names.clone() });
    }

    /// Whether another set of names is to be kept by now, for what certificates by hand cover and how long.
    pub fn change_due(
        &self,
        config: &Config,
        by_hand: &[Arc<Certified>],
        now: Moment,
    ) -> Option<NamesChange> {
        let wanted = managed(config, config.autocert.as_ref()?, by_hand, now).names;
        let is_kept = |name: &ServerName| self.names.binary_search(name).is_ok();
        match () {
            () if wanted == self.names => None,
            () if wanted.iter().all(is_kept) => Some(NamesChange::LetGo),
            () => Some(NamesChange::TakeOver),
        }
    }

    /// The certificate that was obtained, with the one whose place it takes.
    pub fn take(&mut self) -> Option<(Option<Arc<Certified>>, Arc<Certified>)> {
        self.obtained.take()
    }

    /// Has certificates replaced that their issuers have revoked: one pass over all names, for however many.
    pub fn are_revoked(&self, revoked: &[(Arc<Certified>, Revoked)]) {
        let Some(keeper) = self.keeper.as_ref().filter(|_| !revoked.is_empty()) else { return };
        for told in told(&self.issued, revoked) {
            let _ = keeper.commands.send(told);
        }
    }

    /// Waits until a certificate is obtained, and takes it. May be dropped and called again.
    pub async fn changed(&mut self) {
        match &mut self.keeper {
            Some(keeper) => match keeper.news.recv().await {
                Some(News { name, certified }) => {
                    if self.names.binary_search(&name).is_ok() {
                        let before = self.issued.insert(name, certified.clone());
                        self.obtained = Some((before, certified));
                    }
                }
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }
}

/// What the keeper is told: of each name whose certificate is among these.
fn told<'a>(
    issued: &'a HashMap<ServerName, Arc<Certified>>,
    revoked: &'a [(Arc<Certified>, Revoked)],
) -> impl Iterator<Item = Command> + 'a {
    let leaf_of = |certified: &'a Certified| certified.key.cert.first();
    let leaves: HashMap<_, bool> = revoked
        .iter()
        .filter_map(|(certified, revoked)| Some((leaf_of(certified)?, revoked.key_compromise)))
        .collect();
    issued.iter().filter_map(move |(name, certified)| {
        let leaf = leaf_of(certified)?;
        let key_compromise = *leaves.get(leaf)?;
        let (name, leaf) = (name.clone(), leaf.clone().into_owned());
        Some(Command::Revoked { name, leaf, key_compromise })
    })
}

#[cfg(test)]
mod tests {
    use super::super::certified::samples::{DAY, Issuer, NOW};
    use super::*;

    #[test]
    fn of_many_that_are_revoked_each_name_hears_that_has_one() {
        let issuer = Issuer::new("revoked");
        let make = |name: &str| {
            (ServerName::parse(name).unwrap(), Arc::new(issuer.certified(&[name], NOW.plus(DAY))))
        };
        let issued: HashMap<_, _> = ["a.example", "b.example", "c.example"].map(make).into();
        let at = |key_compromise| Revoked { at: NOW, as_of: NOW, key_compromise };
        let of = |name: &str| issued[&ServerName::parse(name).unwrap()].clone();
        let revoked =
            [(of("a.example"), at(true)), (of("c.example"), at(false)), (make("d").1, at(true))];
        let mut heard: Vec<_> = told(&issued, &revoked)
            .map(|command| match command {
                Command::Revoked { name, leaf, key_compromise } => {
                    assert_eq!(issued[&name].key.cert.first(), Some(&leaf));
                    (name.to_string(), key_compromise)
                }
                _ => unreachable!("nothing else is said"),
            })
            .collect();
        heard.sort_unstable();
        assert_eq!(heard, [("a.example".to_owned(), true), ("c.example".to_owned(), false)]);
    }
}
