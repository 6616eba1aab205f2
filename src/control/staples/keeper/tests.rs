//! What the keeper does with what it is told, without its loop.

use super::super::super::autocert::transport::Transport;
use super::super::super::certified::certify;
use super::super::super::certified::samples::source;
use super::super::issuer::TrustStore;
use super::super::samples::Authority;
use super::*;
use crate::store::directory::scratch::ScratchStore;

const PLACE: &str = "ocsp.example";

/// A keeper that is not running, and what it would tell.
fn keeper(name: &str) -> (ScratchStore, Keeper, mpsc::UnboundedReceiver<News>) {
    let (scratch, store) = ScratchStore::new(name);
    let transport = Transport::over(rustls::RootCertStore::empty(), None).unwrap();
    let means = Means { transport, store: Arc::new(store), trust: TrustStore::default() };
    let (commands, (news, told)) = (mpsc::unbounded_channel().1, mpsc::unbounded_channel());
    (scratch, Keeper::new(means, commands, news), told)
}

fn certified(naming: &[String]) -> Arc<Certified> {
    let (chain, key) = Authority::new("keeper").pair_naming("a.example", naming);
    Arc::new(certify(chain.as_bytes(), key.as_bytes(), source()).unwrap())
}

fn watch(new: Vec<(&Arc<Certified>, Option<Good>)>) -> Watch {
    let watched = |(certified, good): (&Arc<Certified>, Option<Good>)| Watched {
        certified: certified.clone(),
        good,
        state: State::None,
    };
    Watch { gone: Vec::new(), new: new.into_iter().map(watched).collect(), again: false }
}

#[tokio::test]
async fn a_question_that_cannot_be_asked_is_no_sign_of_life_of_its_responder() {
    let (_scratch, mut keeper, _told) = keeper("keeper-unasked");
    let one = certified(&[format!("http://{PLACE}/")]);
    keeper.watch(watch(vec![(&one, None)]));
    let now = Moment::now();
    assert_eq!(keeper.responders.is_silent(PLACE, "down", now), Telling::Tell);
    let unasked = Answer::Unasked("its issuer's certificate is not at hand".into());
    keeper.finish_asked(one.identity(), PLACE, unasked, now);
    assert_eq!(keeper.responders.is_silent(PLACE, "down", now), Telling::Silent);
    let refused = Answer::Bad(Bad::Refused("it says unauthorized".into()));
    keeper.finish_asked(one.identity(), PLACE, refused, now);
    assert_eq!(keeper.responders.is_silent(PLACE, "down", now), Telling::Tell);
}

#[tokio::test]
async fn a_staple_by_hand_that_was_taken_away_is_not_watched_over() {
    let (_scratch, mut keeper, mut told) = keeper("keeper-by-hand");
    let one = certified(&[]);
    let now = Moment::now();
    let good = Good { this_update: now, until: now.plus(Duration::from_secs(100)) };
    keeper.watch(watch(vec![(&one, Some(good))]));
    assert_eq!(keeper.due.len(), 1);
    keeper.watch(watch(vec![(&one, None)]));
    assert!(keeper.due.is_empty() && keeper.entries.is_empty());
    keeper.start_due(good.until);
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn a_staple_that_ends_while_its_successor_is_waited_for_is_dropped_in_time() {
    let (_scratch, mut keeper, mut told) = keeper("keeper-end");
    let (one, other) =
        (certified(&[format!("http://{PLACE}/")]), certified(&[format!("http://{PLACE}/")]));
    let now = Moment::now();
    let good = |seconds| {
        let until = now.plus(Duration::from_secs(seconds));
        Good { this_update: now.minus(Duration::from_secs(3600)), until }
    };
    keeper.watch(watch(vec![(&one, Some(good(600))), (&other, Some(good(1200)))]));
    keeper.start_due(now);
    // Both are being asked for; nobody answers.
    assert_eq!((keeper.workers.len(), keeper.due.len()), (2, 2));
    keeper.start_due(dropped_at(&good(600)));
    let news = told.try_recv().unwrap();
    assert_eq!((news.identity, news.staple), (one.identity(), None));
    assert!(told.try_recv().is_err());
    // Its place in the queue is kept, and what comes is taken.
    let staple = Staple { der: vec![1], good: good(7200) };
    keeper.finish_asked(one.identity(), PLACE, Answer::Fetched(staple, None), now);
    assert!(told.try_recv().unwrap().staple.is_some());
    // The end of a staple that was replaced in time is nobody's.
    let staple = Staple { der: vec![2], good: good(9000) };
    keeper.finish_asked(other.identity(), PLACE, Answer::Fetched(staple, None), now);
    assert!(told.try_recv().unwrap().staple.is_some());
    keeper.start_due(dropped_at(&good(1200)));
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn a_list_whose_certificates_have_gone_while_it_was_looked_into_is_looked_into_no_more() {
    let (_scratch, mut keeper, _told) = keeper("keeper-list");
    let (one, url) = (certified(&[]), Arc::<str>::from("http://lists.example/1.crl"));
    let now = Moment::now();
    let mut list = WatchedList::due_at(now, Vec::new());
    list.add(one.clone(), now);
    list.begin();
    keeper.lists.insert(url.clone(), list);
    keeper.watch(Watch { gone: vec![one.identity()], new: Vec::new(), again: false });
    assert_eq!(keeper.lists.len(), 1);
    keeper.finish_list(&url, Looked::Same, now);
    assert!(keeper.lists.is_empty() && keeper.due.is_empty());
}
