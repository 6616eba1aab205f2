//! Answers what is asked at the admin socket; the control plane waits for none of it.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::clock::Moment;
use crate::name::ServerName;

use super::admin::{Answer, Asked, Request};
use super::autocert::keeper::Command;
use super::autocert::revocation_reason;
use super::certified::{Certified, Identity};
use super::listing::listing;

const AUTOCERT_IS_OFF: &str = "autocert is off; write autocert: true to have certificates obtained";

/// Answers one request: from `all`, every certificate that there is, with what is known of its staple, and
/// from the keeper, if there is one.
pub fn answer(
    asked: Asked,
    commands: Option<mpsc::UnboundedSender<Command>>,
    all: Vec<Arc<Certified>>,
    staples: HashMap<Identity, String>,
) {
    let Asked { request, reply } = asked;
    let name_of = |name: &str| ServerName::parse(name).map_err(|why| format!("{name:?} {why}"));
    let failed = match request {
        Request::Certs => {
            // The keeper is asked, and nothing else waits for its answer.
            tokio::spawn(async move {
                let (ask, status) = oneshot::channel();
                let sent = commands.is_some_and(|to| to.send(Command::Status(ask)).is_ok());
                let managed = if sent { status.await.unwrap_or_default() } else { Vec::new() };
                // A million names are a second of work, which challenges must not wait for.
                let listed = move || listing(&all, managed, &staples, Moment::now());
                if let Ok(listed) = tokio::task::spawn_blocking(listed).await {
                    let _ = reply.send(Answer::Certs(listed));
                }
            });
            return;
        }
        Request::Renew { name, force } => match (name_of(&name), commands) {
            (Ok(name), Some(commands)) => {
                let (done, outcome) = oneshot::channel();
                let _ = commands.send(Command::Renew { name, force, reply: done });
                return pass_on(outcome, reply);
            }
            (Err(why), _) => why,
            (_, None) => AUTOCERT_IS_OFF.into(),
        },
        Request::Revoke { name, reason } => {
            match (name_of(&name), revocation_reason(&reason), commands) {
                (Ok(name), Ok(reason), Some(commands)) => {
                    let (done, outcome) = oneshot::channel();
                    let _ = commands.send(Command::Revoke { name, reason, reply: done });
                    return pass_on(outcome, reply);
                }
                (Err(why), ..) | (_, Err(why), _) => why,
                (.., None) => AUTOCERT_IS_OFF.into(),
            }
        }
    };
    let _ = reply.send(Answer::Failed(failed));
}

/// Answers with what the keeper says, whenever it says it. Whoever waits no longer lets the keeper know.
fn pass_on(outcome: oneshot::Receiver<Result<String, String>>, mut reply: oneshot::Sender<Answer>) {
    tokio::spawn(async move {
        let outcome = tokio::select! {
            outcome = outcome => outcome,
            () = reply.closed() => return,
        };
        let answer = match outcome {
            Ok(Ok(said)) => Answer::Done(said),
            Ok(Err(why)) => Answer::Failed(why),
            Err(_) => Answer::Failed("the configuration has changed meanwhile".into()),
        };
        let _ = reply.send(answer);
    });
}
