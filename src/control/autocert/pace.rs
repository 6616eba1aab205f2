//! How long the tasks of autocert pause between looks at what nobody tells them of: a clock that jumped, a
//! challenge that another node placed.
//!
//! The simulator tells them. Its years would else be spent on looks.

use std::time::Duration;

/// The pause between two looks.
pub fn between_looks(every: Duration) -> Duration {
    #[cfg(feature = "simulation")]
    if crate::clock::simulated::is_on() {
        return super::simulated::BETWEEN_LOOKS;
    }
    every
}

/// Waits for as long.
pub async fn pause(span: Duration) {
    #[cfg(feature = "simulation")]
    if crate::clock::simulated::is_on() {
        return super::simulated::pause(span).await;
    }
    tokio::time::sleep(span).await;
}
