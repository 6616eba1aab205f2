//! What happens to certificates, told to the log and to the operator's command.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::Semaphore;
use tracing::{debug, error, info, warn};

use crate::clock::{Moment, rfc3339};
use crate::name::ServerName;

/// A command that takes longer is killed: it has notified by then, or it hangs.
const HOOK_TIMEOUT: Duration = Duration::from_secs(30);
/// Commands at once; more wait.
const HOOKS_AT_ONCE: usize = 4;
/// Commands that wait; beyond, an event is not told to the command.
const HOOKS_WAITING: usize = 1000;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    Obtaining { why: String },
    Obtained { renewed: bool, not_after: Moment, why: String },
    Failed { what: String, remedy: Option<String>, retry_at: Option<Moment>, repeated: bool },
    Revoked { reason: String },
}

impl Event {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Obtaining { .. } => "cert_obtaining",
            Self::Obtained { .. } => "cert_obtained",
            Self::Failed { .. } => "cert_failed",
            Self::Revoked { .. } => "cert_revoked",
        }
    }
}

/// Tells events.
#[derive(Clone)]
pub struct Events {
    hook: Option<Arc<[String]>>,
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Events {
    pub fn new(hook: Option<&[String]>) -> Self {
        Self {
            hook: hook.map(Into::into),
            running: Arc::new(Semaphore::new(HOOKS_AT_ONCE)),
            waiting: Arc::new(Semaphore::new(HOOKS_WAITING)),
        }
    }

    /// Logs the event and starts the command, which nobody waits for.
    pub fn tell(&self, name: &ServerName, issuer: &str, event: Event) {
        log(name, issuer, &event);
        // What only a person can mend is said once, to the command too.
        let said =
            matches!(event, Event::Failed { repeated: true, ref remedy, .. } if remedy.is_some());
        if self.hook.is_none() || said {
            return;
        }
        match self.waiting.clone().try_acquire_owned() {
            Ok(place) => {
                let events = self.clone();
                let (name, issuer) = (name.clone(), issuer.to_owned());
                tokio::spawn(async move {
                    let _place = place;
                    if let Ok(_turn) = events.running.acquire().await {
                        events.run(&name, &issuer, &event).await;
                    }
                });
            }
            Err(_) => warn!(%name, event = event.name(), "autocert_hook is too slow; not told"),
        }
    }

    async fn run(&self, name: &ServerName, issuer: &str, event: &Event) {
        let Some((program, arguments)) = self.hook.as_deref().and_then(<[_]>::split_first) else {
            return;
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        command
            .env("RINGGATE_EVENT", event.name())
            .env("RINGGATE_EVENT_NAME", name.as_str())
            .env("RINGGATE_EVENT_ISSUER", issuer);
        // No secret reaches a command that need not know it.
        for secret in ["RINGGATE_AUTOCERT_EAB_MAC_KEY", "AUTOCERT_EAB_MAC_KEY"] {
            command.env_remove(secret);
        }
        match event {
            Event::Obtaining { why } => command.env("RINGGATE_EVENT_WHY", why),
            Event::Obtained { renewed, not_after, why } => command
                .env("RINGGATE_EVENT_RENEWED", renewed.to_string())
                .env("RINGGATE_EVENT_NOT_AFTER", rfc3339(*not_after))
                .env("RINGGATE_EVENT_WHY", why),
            Event::Failed { what, remedy, retry_at, .. } => command
                .env("RINGGATE_EVENT_ERROR", what)
                .envs(remedy.as_ref().map(|remedy| ("RINGGATE_EVENT_REMEDY", remedy)))
                .envs(retry_at.map(|at| ("RINGGATE_EVENT_RETRY_AT", rfc3339(at)))),
            Event::Revoked { reason } => command.env("RINGGATE_EVENT_REASON", reason),
        };
        let outcome = match command.spawn() {
            Ok(mut child) => tokio::time::timeout(HOOK_TIMEOUT, child.wait()).await,
            Err(error) => {
                return warn!(program, %error, "autocert_hook cannot be started");
            }
        };
        match outcome {
            Ok(Ok(status)) if status.success() => {}
            Ok(Ok(status)) => warn!(program, %status, "autocert_hook failed"),
            Ok(Err(error)) => warn!(program, %error, "autocert_hook is lost"),
            Err(_) => warn!(program, "autocert_hook took longer than 30 s and is killed"),
        }
    }
}

fn log(name: &ServerName, issuer: &str, event: &Event) {
    let kind = event.name();
    match event {
        Event::Obtaining { why } => {
            info!(event = kind, %name, issuer, why, "obtaining a certificate")
        }
        Event::Obtained { renewed, not_after, why } => {
            info!(event = kind, %name, issuer, renewed, %not_after, why, "certificate obtained");
        }
        Event::Failed { what, remedy, retry_at, repeated } => {
            let (retry_at, remedy) = (retry_at.map(rfc3339), remedy.as_deref());
            match remedy {
                // Said once, not at every try.
                Some(_) if *repeated => {
                    debug!(event = kind, %name, issuer, error = what, remedy, retry_at, "no certificate obtained");
                }
                Some(_) => {
                    error!(event = kind, %name, issuer, error = what, remedy, retry_at, "no certificate obtained");
                }
                None => {
                    warn!(event = kind, %name, issuer, error = what, retry_at, "no certificate obtained");
                }
            }
        }
        Event::Revoked { reason } => {
            warn!(event = kind, %name, issuer, reason, "certificate revoked");
        }
    }
}
