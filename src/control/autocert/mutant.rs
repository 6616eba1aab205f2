//! Mistakes of policy that somebody could make, each at the place where it would be made: a simulator that
//! does not find them is worth nothing.
//!
//! Without the feature `simulation` none of them is in the program.

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Certificates of the same minute are renewed in the same minute for ever.
    NoJitter,
    /// A restart asks the CA at once, whatever it failed with.
    BackoffForgotten,
    /// An order is refused for its `replaces`, and the next one has it again.
    ReplacesKept,
    /// Certificates of days are renewed with a third of their life left, as those of months are.
    ThirdOfShort,
    /// The CA's `Retry-After` is not waited for.
    RetryAfterIgnored,
    /// An open order is forgotten, and another one placed.
    OrderForgotten,
    /// What is due the moment it was obtained is replaced at once.
    JustObtainedForgotten,
    /// Failed validations are repeated as quickly as requests that were not answered.
    ValidationHurried,
    /// A window that the CA puts too late is waited for.
    WindowTrusted,
    /// After the clock was set back, pauses last until the time before.
    PauseByWrongClock,
    /// Renewal information is asked for once and never again.
    WindowAskedOnce,
    /// Nodes do not lock a name before they order.
    LockIgnored,
    /// A certificate is served and not stored.
    NotStored,
    /// Each start registers an account.
    AccountForgotten,
    /// Pauses after failures double without end.
    BackoffUnbounded,
    /// Limits that are known are not kept to.
    BudgetForgotten,
    /// What is used of them is not kept in the store.
    BudgetUnstored,
    /// Staples of one moment are refreshed at one moment.
    StaplesInStep,
    /// A responder is asked each minute, however often it has failed.
    StapleBackoffForgotten,
    /// A staple that could not be refreshed is served on when it has ended.
    StapleKeptPastEnd,
    /// A staple is refreshed shortly before it ends.
    StapleRefreshedLate,
    /// A response that says 'revoked' is one that is refused.
    StapleRevokedIgnored,
    /// A staple is served and not stored.
    StapleNotStored,
}

/// All of them, by the names that the simulator's command line takes.
#[cfg(feature = "simulation")]
pub const ALL: [(&str, Mutant); 23] = [
    ("no-jitter", Mutant::NoJitter),
    ("backoff-forgotten", Mutant::BackoffForgotten),
    ("replaces-kept", Mutant::ReplacesKept),
    ("third-of-short", Mutant::ThirdOfShort),
    ("retry-after-ignored", Mutant::RetryAfterIgnored),
    ("order-forgotten", Mutant::OrderForgotten),
    ("just-obtained-forgotten", Mutant::JustObtainedForgotten),
    ("validation-hurried", Mutant::ValidationHurried),
    ("window-trusted", Mutant::WindowTrusted),
    ("pause-by-wrong-clock", Mutant::PauseByWrongClock),
    ("window-asked-once", Mutant::WindowAskedOnce),
    ("lock-ignored", Mutant::LockIgnored),
    ("not-stored", Mutant::NotStored),
    ("account-forgotten", Mutant::AccountForgotten),
    ("backoff-unbounded", Mutant::BackoffUnbounded),
    ("budget-forgotten", Mutant::BudgetForgotten),
    ("budget-unstored", Mutant::BudgetUnstored),
    ("staples-in-step", Mutant::StaplesInStep),
    ("staple-backoff-forgotten", Mutant::StapleBackoffForgotten),
    ("staple-kept-past-end", Mutant::StapleKeptPastEnd),
    ("staple-refreshed-late", Mutant::StapleRefreshedLate),
    ("staple-revoked-ignored", Mutant::StapleRevokedIgnored),
    ("staple-not-stored", Mutant::StapleNotStored),
];

#[cfg(feature = "simulation")]
thread_local! {
    static AT_LARGE: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Makes this mistake on this thread from here on, and no other.
#[cfg(feature = "simulation")]
pub fn release(mutant: Option<Mutant>) {
    AT_LARGE.set(mutant);
}

/// Whether this mistake is made.
#[cfg(feature = "simulation")]
pub fn mutant(mutant: Mutant) -> bool {
    AT_LARGE.get() == Some(mutant)
}

/// Whether this mistake is made: never.
#[cfg(not(feature = "simulation"))]
pub const fn mutant(_: Mutant) -> bool {
    false
}
