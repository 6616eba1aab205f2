//! Tells systemd how we are (sd_notify(3)); without systemd, tells nobody.

use sd_notify::NotifyState;

/// What systemd is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    Reloading,
    Stopping,
}

/// Sends the state to NOTIFY_SOCKET, if there is one. A failure changes nothing for connections.
pub fn notify(state: State) {
    let outcome = match state {
        State::Ready => sd_notify::notify(&[NotifyState::Ready]),
        State::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        // Type=notify-reload wants the time at which the reload began.
        State::Reloading => NotifyState::monotonic_usec_now()
            .and_then(|now| sd_notify::notify(&[NotifyState::Reloading, now])),
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "systemd cannot be told");
    }
}
