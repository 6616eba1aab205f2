//! The control plane's side of staples: which certificate is served with which, and which waits for one.
//!
//! A certified key is read and issued without a staple; it is dressed with one when it is published. So
//! whatever replaces it is judged by what it is, and a staple goes with the certificate that it is for.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::clock::Moment;
use crate::config;
use crate::name::Pattern;
use crate::observe::flood::shortened;
use crate::store::directory::Directory;

use super::autocert::transport::Transport;
use super::certified::{Certified, Identity};
use super::outgoing::Outgoing;
use super::parallel::in_parallel;
use super::staple::attach;
use super::staples::asking::{Means, Staple, at_hand};
use super::staples::issuer::TrustStore;
use super::staples::keeper::{self, News, Watch, Watched};
use super::staples::response::{Bad, Revoked};
use super::staples::state::State;

/// Which staples there are, and the keeper's leash.
#[derive(Default)]
pub struct Stapling {
    is_on: bool,
    /// `None`: off, or no certificate names anybody.
    means: Option<Means>,
    /// What the means were made of.
    settings: Option<(config::stapling::Stapling, Vec<u8>)>,
    shown: HashMap<Identity, Shown>,
    /// Changes whenever all certificates are taken: tells those that are there from those that were.
    turn: bool,
    outgoing: Outgoing,
    /// Names of what is outgoing no more, until somebody chooses anew what serves them.
    freed: HashSet<Pattern>,
    keeper: Option<Keeper>,
    said: Vec<News>,
    /// For a keeper that has not started yet.
    unsent: Vec<Watch>,
    /// What there is to ask with in a simulation.
    #[cfg(feature = "simulation")]
    simulated: Option<Means>,
}

struct Keeper {
    watches: mpsc::UnboundedSender<Watch>,
    news: mpsc::UnboundedReceiver<News>,
}

/// One certificate that something is known of.
struct Shown {
    plain: Arc<Certified>,
    dressed: Arc<Certified>,
    state: State,
    /// When it was last there.
    turn: bool,
}

/// What the keeper's news change in what is served.
#[derive(Default)]
pub struct Changes {
    /// The same certificates, each with another staple or none.
    pub restapled: Vec<(Arc<Certified>, Arc<Certified>)>,
    /// Names that another certificate may be the one to serve of.
    pub patterns: HashSet<Pattern>,
    pub revoked: Vec<(Arc<Certified>, Revoked)>,
}

/// News that are taken at once. When an issuer takes many certificates back, what follows from it is done
/// once for all of them.
const NEWS_AT_ONCE: usize = 65_536;

/// What to do about certificates that are new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// A start or a reload: what is stored is judged before anything is served by it, and what failed is tried
    /// again.
    Beginning { threads: usize },
    /// Some certificates have changed.
    Change,
}

impl Stapling {
    /// Asks by these means, whatever is configured.
    #[cfg(feature = "simulation")]
    pub fn simulated(means: Means) -> Self {
        Self { simulated: Some(means), ..Self::default() }
    }

    /// Takes these settings, and every certificate that there is but for those of the local CA. `roots` is PEM:
    /// what is trusted besides the system's roots. Reads files where some certificate names somebody.
    pub fn adopt(
        &mut self,
        settings: Option<&config::stapling::Stapling>,
        roots: &[u8],
        all: &[Arc<Certified>],
        occasion: Occasion,
        now: Moment,
    ) {
        self.outgoing.adopt(all);
        self.is_on = settings.is_some();
        let any = self.outgoing.kept().iter().chain(all).any(|one| is_watched(one));
        self.configure(settings.filter(|_| any), roots);
        let (new, gone) = self.compare(all);
        let new = self.look_at(new, occasion, now);
        let again = matches!(occasion, Occasion::Beginning { .. });
        if self.means.is_some() && (again || !gone.is_empty() || !new.is_empty()) {
            self.send(Watch { gone, new, again });
        }
        self.prune(now);
    }

    /// Takes what is to be watched now. Returns those that are new and those that are gone; costs a look at each
    /// and nothing else for those that are neither.
    fn compare(&mut self, all: &[Arc<Certified>]) -> (Vec<Arc<Certified>>, Vec<Identity>) {
        self.turn = !self.turn;
        let (mut new, mut there) = (Vec::new(), 0);
        for plain in self.outgoing.kept().iter().chain(all).filter(|one| is_watched(one)) {
            let turn = self.turn;
            match self.shown.entry(plain.identity()) {
                // The same bytes twice are one.
                Entry::Occupied(shown) if shown.get().turn == turn => continue,
                Entry::Occupied(mut shown) => {
                    shown.get_mut().turn = turn;
                    if shown.get().plain.key.ocsp != plain.key.ocsp {
                        new.push(plain.clone());
                    }
                }
                Entry::Vacant(place) => {
                    let (plain, dressed) = (plain.clone(), plain.clone());
                    new.push(plain.clone());
                    place.insert(Shown { plain, dressed, state: State::None, turn });
                }
            }
            there += 1;
        }
        let mut gone = Vec::new();
        if there < self.shown.len() {
            let turn = self.turn;
            gone.extend(self.shown.extract_if(|_, shown| shown.turn != turn).map(|(who, _)| who));
        }
        (new, gone)
    }

    fn configure(&mut self, settings: Option<&config::stapling::Stapling>, roots: &[u8]) {
        let settings = settings.map(|settings| (settings.clone(), roots.to_vec()));
        if self.settings != settings {
            self.means =
                settings.as_ref().and_then(|(settings, roots)| self.means(settings, roots));
            self.settings = settings;
            self.keeper = None;
            self.unsent.clear();
            self.said.clear();
            self.shown.clear();
        }
    }

    fn means(&self, settings: &config::stapling::Stapling, roots: &[u8]) -> Option<Means> {
        #[cfg(feature = "simulation")]
        if let Some(means) = &self.simulated {
            return Some(means.clone());
        }
        means(settings, roots)
    }

    /// Judges what is at hand for each of these, and remembers it.
    fn look_at(
        &mut self,
        new: Vec<Arc<Certified>>,
        occasion: Occasion,
        now: Moment,
    ) -> Vec<Watched> {
        let found = match (&self.means, occasion) {
            (None, _) => Vec::new(),
            (Some(means), Occasion::Beginning { threads }) => {
                in_parallel(&new, threads, |one| at_hand(one, &*means.store, &means.trust, now))
            }
            // The keeper looks into the store for the others, and nothing waits for it.
            (Some(means), Occasion::Change) => {
                let at_once = |one: &Arc<Certified>| {
                    let is_urgent = one.named.must_staple || one.key.ocsp.is_some();
                    is_urgent.then(|| at_hand(one, &*means.store, &means.trust, now))
                };
                new.iter().map(|one| at_once(one).unwrap_or_default()).collect()
            }
        };
        let mut found = found.into_iter();
        new.into_iter()
            .map(|plain| {
                let (staple, bad) = found.next().unwrap_or_default();
                let state = state_of(&plain, staple.as_ref(), bad);
                let good = staple.as_ref().map(|staple| staple.good);
                let dressed = dressed(
                    &plain,
                    staple.map(|staple| staple.der),
                    matches!(state, State::Revoked(_)),
                );
                let watched = Watched { certified: plain.clone(), good, state: state.clone() };
                let turn = self.turn;
                self.shown.insert(plain.identity(), Shown { plain, dressed, state, turn });
                watched
            })
            .collect()
    }

    fn send(&mut self, watch: Watch) {
        match &self.keeper {
            // The keeper ends only when we let go of this end.
            Some(keeper) => drop(keeper.watches.send(watch)),
            None => self.unsent.push(watch),
        }
    }

    /// Starts the keeper, if there is something to keep. Within the runtime.
    pub fn start(&mut self) {
        if self.unsent.is_empty() {
            return;
        }
        if self.keeper.is_none()
            && let Some(means) = &self.means
        {
            let (watches, news) = keeper::start(means.clone());
            self.keeper = Some(Keeper { watches, news });
        }
        for watch in std::mem::take(&mut self.unsent) {
            self.send(watch);
        }
    }

    /// Waits until the keeper knows something. May be dropped and called again.
    pub async fn changed(&mut self) {
        match &mut self.keeper {
            Some(keeper) if self.said.is_empty() => {
                if keeper.news.recv_many(&mut self.said, NEWS_AT_ONCE).await == 0 {
                    std::future::pending().await
                }
            }
            Some(_) => {}
            None => std::future::pending().await,
        }
    }

    /// What the keeper has said, and what it changes.
    pub fn take(&mut self, now: Moment) -> Changes {
        let mut changes = Changes::default();
        for News { identity, certified, staple, state } in std::mem::take(&mut self.said) {
            // One that is gone meanwhile is nobody's concern.
            let Some(shown) = self.shown.get_mut(&identity) else { continue };
            if let State::Revoked(revoked) = state {
                changes.revoked.push((certified, revoked));
            }
            let before = shown.dressed.clone();
            let der = staple.map(|staple| staple.der);
            let is_revoked = matches!(state, State::Revoked(_));
            shown.state = state;
            // What serves is known by its key: it stays the same one as long as the staple does.
            if before.key.ocsp != der {
                shown.dressed = dressed(&shown.plain, der, is_revoked);
                changes.restapled.push((before.clone(), shown.dressed.clone()));
            } else if before.is_revoked != is_revoked {
                shown.dressed = Arc::new(Certified { is_revoked, ..(*before).clone() });
            }
            let serves = |one: &Certified| (one.is_revoked, one.lacks_staple());
            if serves(&before) != serves(&shown.dressed) {
                changes.patterns.extend(before.patterns.iter().cloned());
            }
        }
        self.prune(now);
        changes
    }

    /// The certified key with what is stapled to it.
    pub fn dress(&self, certified: &Arc<Certified>) -> Arc<Certified> {
        let shown = self.shown.get(&certified.identity());
        shown.map_or_else(|| certified.clone(), |shown| shown.dressed.clone())
    }

    /// The same for many; costs nothing where there is nothing to staple.
    pub fn dress_all(&self, all: Vec<Arc<Certified>>) -> Vec<Arc<Certified>> {
        match self.shown.is_empty() {
            true => all,
            false => all.iter().map(|certified| self.dress(certified)).collect(),
        }
    }

    /// What is served on for now although something has taken its place.
    pub fn outgoing(&self) -> &[Arc<Certified>] {
        self.outgoing.kept()
    }

    /// Some certificates are about to take the place of others: what still serves well stays until they have
    /// the staples that they must have.
    pub fn succeed(&mut self, before: &[Arc<Certified>], after: &[Arc<Certified>], now: Moment) {
        if !self.is_on {
            return;
        }
        let mut outgoing = std::mem::take(&mut self.outgoing);
        let lacks = |one: &Arc<Certified>| self.lacks_staple(one);
        let begun = outgoing.keep(before, after, lacks, |old| self.serves_well(old, now));
        let lines = begun.iter().map(|(new, old)| {
            format!(
                "{new} must be stapled and has no staple yet: {old} serves its names until it has; if that takes long, look at what 'ringgate certs' says of its staple"
            )
        });
        for line in shortened(&lines.collect::<Vec<_>>(), |_| "certificates") {
            warn!("{line}");
        }
        self.outgoing = outgoing;
    }

    /// Lets go of what need not or cannot serve on.
    pub fn prune(&mut self, now: Moment) {
        let mut outgoing = std::mem::take(&mut self.outgoing);
        let lacks = |one: &Arc<Certified>| self.lacks_staple(one);
        let let_go = outgoing.prune(lacks, |old| self.serves_well(old, now));
        self.outgoing = outgoing;
        let mut gone = Vec::new();
        for old in let_go {
            match self.serves_well(&old, now) {
                true => info!("{old} serves no more: what takes its place has its staple"),
                false => warn!(
                    "{old} serves no more: it has ended, is revoked or has lost its own staple; what takes its place has none yet"
                ),
            }
            if self.shown.remove(&old.identity()).is_some() {
                gone.push(old.identity());
            }
            self.freed.extend(old.patterns.iter().cloned());
        }
        if !gone.is_empty() && self.means.is_some() {
            self.send(Watch { gone, new: Vec::new(), again: false });
        }
    }

    /// The names of what has been let go, to choose anew what serves them.
    pub fn freed(&mut self) -> HashSet<Pattern> {
        std::mem::take(&mut self.freed)
    }

    /// Whether a client would have nothing against it.
    pub fn serves_well(&self, certified: &Arc<Certified>, now: Moment) -> bool {
        let state = self.shown.get(&certified.identity()).map(|shown| &shown.state);
        certified.is_valid(now)
            && !self.lacks_staple(certified)
            && !matches!(state, Some(State::Revoked(_)))
    }

    fn lacks_staple(&self, certified: &Arc<Certified>) -> bool {
        certified.named.must_staple && self.dress(certified).lacks_staple()
    }

    /// What is to be said of the staple of each certificate that names a responder, was given a staple, or is
    /// revoked.
    pub fn states(&self) -> HashMap<Identity, String> {
        let told = self.shown.iter().filter(|(_, shown)| {
            let expects = shown.plain.named.responder || shown.plain.key.ocsp.is_some();
            self.means.is_some() && (expects || shown.state != State::None)
        });
        told.map(|(identity, shown)| (*identity, shown.state.to_string())).collect()
    }
}

/// Whether anything is to be known of its revocation.
fn is_watched(certified: &Certified) -> bool {
    let named = certified.named;
    named.responder || named.crl || named.must_staple || certified.key.ocsp.is_some()
}

/// Reads what asking takes.
fn means(settings: &config::stapling::Stapling, roots: &[u8]) -> Option<Means> {
    let trust = TrustStore::load(roots);
    let mut trusted = rustls::RootCertStore::empty();
    trusted.add_parsable_certificates(trust.roots());
    for note in &settings.notes {
        warn!("{note}");
    }
    match Transport::over(trusted, settings.https_proxy.clone()) {
        Ok(transport) => Some(Means {
            transport: transport.with_http_proxy(settings.http_proxy.clone()),
            store: Arc::new(Directory::new(&settings.dir)),
            trust,
        }),
        Err(error) => {
            warn!(error, "no staples are fetched");
            None
        }
    }
}

/// The certified key with this staple or none, and with what is known of its revocation; the very same one if
/// that is what it has.
fn dressed(plain: &Arc<Certified>, der: Option<Vec<u8>>, is_revoked: bool) -> Arc<Certified> {
    if plain.key.ocsp == der && plain.is_revoked == is_revoked {
        return plain.clone();
    }
    let mut dressed = Certified { is_revoked, ..(**plain).clone() };
    attach(&mut dressed, der);
    Arc::new(dressed)
}

/// What is known of a certificate that nobody has been asked about; says what is wrong with a staple by hand.
fn state_of(plain: &Certified, staple: Option<&Staple>, bad: Option<Bad>) -> State {
    match (staple, bad) {
        (_, Some(Bad::Revoked(revoked))) => {
            error!(
                "{plain} IS REVOKED by its issuer since {}, as its staple says; replace it NOW, with a new private key",
                revoked.at
            );
            State::Revoked(revoked)
        }
        (staple, Some(Bad::Refused(why) | Bad::TryLater(why))) => {
            warn!("the staple beside {plain} is not stapled: {why}; put a new one in its place");
            match staple {
                Some(staple) => State::Good { until: staple.good.until },
                None => State::Refused(why),
            }
        }
        (Some(staple), None) => State::Good { until: staple.good.until },
        (None, None) if plain.named.must_staple && !plain.named.responder => {
            let why = "it must be stapled and names no OCSP responder";
            warn!("no staple for {plain}: {why}; put one beside it, or clients refuse it");
            State::Refused(why.into())
        }
        (None, None) => State::None,
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;
    use std::time::Duration;

    use super::super::certified::certify;
    use super::super::certified::samples::{Scratch, source};
    use super::super::staples::response::Good;
    use super::super::staples::samples::Authority;
    use super::*;
    use crate::config::stapling::Stapling as Settings;

    /// A certificate by hand that must be stapled, its issuer below it, and its issuer.
    fn certified(authority: &Authority, must_staple: bool) -> Arc<Certified> {
        let (chain, key) = authority.pair("a.example", must_staple);
        Arc::new(certify(chain.as_bytes(), key.as_bytes(), source()).unwrap())
    }

    fn settings(scratch: &Scratch) -> Settings {
        Settings { dir: scratch.0.clone(), http_proxy: None, https_proxy: None, notes: Vec::new() }
    }

    fn stapled(authority: &Authority, certified: &Arc<Certified>, now: Moment) -> Arc<Certified> {
        let leaf = certified.key.cert.first().unwrap();
        let mut data = authority.good(leaf);
        data.responses[0].this_update = super::super::staples::samples::time(now);
        data.responses[0].next_update =
            Some(super::super::staples::samples::time(now.plus(Duration::from_secs(9))));
        let mut stapled = (**certified).clone();
        attach(&mut stapled, Some(authority.signed(&data)));
        Arc::new(stapled)
    }

    #[test]
    fn a_staple_by_hand_is_served_only_if_it_is_good_and_stapling_is_on() {
        let (scratch, authority) = (Scratch::new("stapling-hand"), Authority::new("hand"));
        let now = Moment::now();
        let with = stapled(&authority, &certified(&authority, false), now);
        let mut stapling = Stapling::default();
        let settings = settings(&scratch);
        let mut shown = |settings: Option<&Settings>, one: &Arc<Certified>, now| {
            stapling.adopt(settings, b"", from_ref(one), Occasion::Change, now);
            let dressed = stapling.dress(one);
            (dressed.key.ocsp.is_some(), stapling.states().values().next().cloned())
        };
        let (is_stapled, state) = shown(Some(&settings), &with, now);
        assert!(is_stapled && state.unwrap().starts_with("good until"));
        assert_eq!(shown(None, &with, now), (false, None));
        // Another file with another staple is judged anew, though the certificate is the same.
        let over = stapled(&authority, &with, now.minus(Duration::from_secs(60)));
        let (is_stapled, state) = shown(Some(&settings), &over, now);
        assert!(!is_stapled && state.unwrap().contains("has expired"));
    }

    #[test]
    fn what_must_be_stapled_leaves_the_one_before_in_place_until_it_is() {
        let (scratch, authority) = (Scratch::new("stapling-must"), Authority::new("must"));
        let now = Moment::now();
        let (old, new) = (certified(&authority, false), certified(&authority, true));
        let (mut stapling, settings) = (Stapling::default(), settings(&scratch));
        let adopt = |stapling: &mut Stapling, all: &[Arc<Certified>], settings| {
            stapling.adopt(settings, b"", all, Occasion::Change, now);
        };
        let is_kept = |stapling: &Stapling| matches!(stapling.outgoing(), [kept] if kept.identity() == old.identity());
        adopt(&mut stapling, from_ref(&old), Some(&settings));
        stapling.succeed(from_ref(&old), from_ref(&new), now);
        adopt(&mut stapling, from_ref(&new), Some(&settings));
        assert!(is_kept(&stapling));
        let with = stapled(&authority, &new, now);
        adopt(&mut stapling, &[with], Some(&settings));
        assert!(!is_kept(&stapling));
        // Nothing that must not be stapled waits, nor anything where all of it is off.
        stapling.succeed(from_ref(&new), from_ref(&old), now);
        assert!(stapling.outgoing().is_empty());
        adopt(&mut stapling, from_ref(&old), None);
        stapling.succeed(from_ref(&old), &[new], now);
        assert!(stapling.outgoing().is_empty());
    }

    /// What the keeper says of this one.
    fn news(of: &Arc<Certified>, der: Option<Vec<u8>>, state: State, now: Moment) -> News {
        let good = Good { this_update: now, until: now.plus(Duration::from_secs(60)) };
        let staple = der.map(|der| Staple { der, good });
        News { identity: of.identity(), certified: of.clone(), staple, state }
    }

    #[test]
    fn what_is_outgoing_is_served_with_the_staple_that_it_has_and_no_longer_than_that() {
        let (scratch, authority) = (Scratch::new("stapling-outgoing"), Authority::new("outgoing"));
        let (now, settings) = (Moment::now(), settings(&scratch));
        let revoked = Revoked { at: now, as_of: now, key_compromise: false };
        for state in [State::Refused("it has expired".into()), State::Revoked(revoked)] {
            let old = stapled(&authority, &certified(&authority, true), now);
            let new = certified(&authority, true);
            let mut stapling = Stapling::default();
            stapling.adopt(Some(&settings), b"", from_ref(&old), Occasion::Change, now);
            stapling.succeed(from_ref(&old), from_ref(&new), now);
            stapling.adopt(Some(&settings), b"", from_ref(&new), Occasion::Change, now);
            let dressed = |stapling: &Stapling| stapling.dress_all(stapling.outgoing().to_vec());
            assert!(dressed(&stapling)[0].key.ocsp.is_some());
            let good = State::Good { until: now };
            stapling.said.push(news(&old, Some(vec![1]), good, now));
            let changes = stapling.take(now);
            assert_eq!((changes.restapled.len(), changes.patterns.len()), (1, 0));
            assert_eq!(dressed(&stapling)[0].key.ocsp, Some(vec![1]));
            stapling.said.push(news(&old, None, state, now));
            stapling.take(now);
            assert!(stapling.outgoing().is_empty());
            assert_eq!(stapling.freed().into_iter().collect::<Vec<_>>(), old.patterns);
        }
    }

    #[test]
    fn what_serves_keeps_its_key_until_its_staple_is_another() {
        let (scratch, authority) = (Scratch::new("stapling-key"), Authority::new("key"));
        let (now, settings) = (Moment::now(), settings(&scratch));
        let plain = certified(&authority, false);
        // A staple by hand that is over: what serves is another than what was read.
        let one = stapled(&authority, &plain, now.minus(Duration::from_secs(60)));
        let mut stapling = Stapling::default();
        stapling.adopt(Some(&settings), b"", from_ref(&one), Occasion::Change, now);
        let first = stapling.dress(&one);
        assert!(first.key.ocsp.is_none());
        let revoked = Revoked { at: now, as_of: now, key_compromise: false };
        let patterns: HashSet<_> = one.patterns.iter().cloned().collect();
        for (state, expected) in [
            (State::None, HashSet::new()),
            (State::Revoked(revoked), patterns.clone()),
            (State::None, patterns),
        ] {
            stapling.said.push(news(&one, None, state, now));
            let changes = stapling.take(now);
            assert!(changes.restapled.is_empty());
            assert_eq!(changes.patterns, expected);
            assert!(Arc::ptr_eq(&stapling.dress(&one).key, &first.key));
        }
        stapling.said.push(news(&one, Some(vec![1]), State::Good { until: now }, now));
        assert!(Arc::ptr_eq(&stapling.take(now).restapled[0].0.key, &first.key));
    }

    #[test]
    fn each_is_new_once_however_often_it_is_there_and_what_is_gone_is_forgotten() {
        let (scratch, authority) = (Scratch::new("stapling-all"), Authority::new("all"));
        let (now, settings) = (Moment::now(), settings(&scratch));
        let (one, other) = (certified(&authority, true), certified(&authority, true));
        let again = stapled(&authority, &one, now);
        let mut stapling = Stapling::default();
        for (all, new, gone) in [
            (vec![&one, &again, &other], 2, 0),
            (vec![&one, &again, &other], 0, 0),
            (vec![&one, &again], 0, 1),
            (vec![&again, &other], 2, 0),
            (vec![&other], 0, 1),
        ] {
            let all: Vec<_> = all.into_iter().cloned().collect();
            stapling.unsent.clear();
            stapling.adopt(Some(&settings), b"", &all, Occasion::Change, now);
            let sent = stapling.unsent.pop();
            let counts = sent.map_or((0, 0), |sent| (sent.new.len(), sent.gone.len()));
            assert_eq!(counts, (new, gone));
            assert_eq!(
                stapling.shown.len(),
                all.iter().map(|one| one.identity()).collect::<HashSet<_>>().len()
            );
        }
    }

    #[test]
    fn what_was_said_before_it_is_turned_off_is_not_stapled_after() {
        let (scratch, authority) = (Scratch::new("stapling-off"), Authority::new("off"));
        let (now, settings) = (Moment::now(), settings(&scratch));
        let one = certified(&authority, true);
        let mut stapling = Stapling::default();
        stapling.adopt(Some(&settings), b"", from_ref(&one), Occasion::Change, now);
        stapling.said.push(news(&one, Some(vec![1]), State::Good { until: now }, now));
        stapling.adopt(None, b"", from_ref(&one), Occasion::Change, now);
        assert!(stapling.take(now).restapled.is_empty());
        assert!(stapling.dress(&one).lacks_staple());
    }

    #[test]
    fn a_refreshed_staple_chooses_nothing_anew_and_one_that_comes_or_goes_does() {
        let (scratch, authority) = (Scratch::new("stapling-anew"), Authority::new("anew"));
        let now = Moment::now();
        for must_staple in [true, false] {
            let one = certified(&authority, must_staple);
            let mut stapling = Stapling::default();
            let settings = settings(&scratch);
            stapling.adopt(Some(&settings), b"", from_ref(&one), Occasion::Change, now);
            // Not watched unless it names somebody.
            if !must_staple {
                let (plain, dressed, turn) = (one.clone(), one.clone(), stapling.turn);
                let shown = Shown { plain, dressed, state: State::None, turn };
                stapling.shown.insert(one.identity(), shown);
            }
            let mut after = |der: Option<u8>| {
                let state = State::Good { until: now };
                stapling.said.push(news(&one, der.map(|byte| vec![byte]), state, now));
                let changes = stapling.take(now);
                (changes.restapled.len(), !changes.patterns.is_empty())
            };
            assert_eq!(after(Some(1)), (1, must_staple));
            assert_eq!(after(Some(1)), (0, false));
            assert_eq!(after(Some(2)), (1, false));
            assert_eq!(after(None), (1, must_staple));
        }
    }
}
