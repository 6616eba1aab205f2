//! What is known of one name and one issuer: the object whose atomic write is the commit.
//!
//! It holds the chain with its private key, the order that is open, and what went wrong lately, so that
//! neither a crash nor a restart forgets an order or asks a CA again too soon.

use serde::{Deserialize, Serialize};

use crate::clock::Moment;

/// Raised when an older ringgate could not understand what a newer one wrote.
const VERSION: u32 = 1;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    pub name: String,
    /// The issuer's directory URL.
    pub issuer: String,
    #[serde(default)]
    pub certificate: Option<Certificate>,
    #[serde(default)]
    pub order: Option<OpenOrder>,
    #[serde(default)]
    pub attempts: Attempts,
    /// The challenge that last proved control of the name.
    #[serde(default)]
    pub worked: Option<String>,
    /// What lies in CertMagic's three files, as far as we wrote it: whatever else is found there is
    /// somebody else's.
    #[serde(default)]
    pub written: Vec<String>,
}

/// A certificate that is served.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// PEM, as the issuer sent it.
    pub chain: String,
    /// PEM.
    pub private_key: String,
    #[serde(default)]
    pub url: String,
    /// The URL of the account that ordered it.
    #[serde(default)]
    pub account: String,
    /// When we got it; `None` for one that was found.
    #[serde(default)]
    pub obtained: Option<Moment>,
    #[serde(default)]
    pub revoked: bool,
    /// The issuer would not take an order that names it as the one to be replaced (RFC 9773 §5).
    #[serde(default)]
    pub replaces_refused: bool,
    #[serde(default)]
    pub renewal: Option<Renewal>,
    /// When to ask for renewal information (again).
    #[serde(default)]
    pub ask_renewal_at: Option<Moment>,
}

impl Certificate {
    /// Whether this account ordered it, as far as is known: another's cannot be replaced (RFC 9773 §5).
    pub fn is_of(&self, account: &str) -> bool {
        self.account.is_empty() || self.account == account
    }
}

/// The issuer's renewal information (RFC 9773 §4.2) and the time chosen by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// The certificate's identifier (RFC 9773 §4.1).
    pub id: String,
    pub start: Moment,
    pub end: Moment,
    pub selected: Moment,
    #[serde(default)]
    pub explanation: Option<String>,
}

/// An order that has begun: its private key is stored before the order is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenOrder {
    /// PEM.
    pub private_key: String,
    /// Known once the issuer has answered.
    #[serde(default)]
    pub url: Option<String>,
    pub begun: Moment,
    /// The challenge that the CA was told to look at: the order goes on with it or not at all.
    #[serde(default)]
    pub challenge: Option<String>,
    /// As what it was counted when it was placed, so that as much is given back.
    #[serde(default)]
    pub counts: Option<Counts>,
}

/// What an order is to an issuer that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counts {
    /// Everywhere.
    New,
    /// For the same names alone.
    Renewal,
    /// Nowhere: it replaces a certificate inside the issuer's window.
    Exempt,
}

/// What went wrong since the last success.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// Failures in a row of the last one's class, with its settings.
    #[serde(default)]
    pub failures: u32,
    /// Failed validations with these settings, whatever else failed between them: each counted against the
    /// issuer's limits.
    #[serde(default)]
    pub validations: u32,
    #[serde(default)]
    pub last: Option<Failure>,
    /// When the failures began of which the last one is one: those of proving control of the name, or all
    /// others.
    #[serde(default)]
    pub since: Option<Moment>,
}

/// One failure, with what it says about the next attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub at: Moment,
    pub class: Class,
    pub what: String,
    /// What an operator can do, if that is needed.
    #[serde(default)]
    pub remedy: Option<String>,
    /// The issuer asked not to be asked before.
    #[serde(default)]
    pub not_before: Option<Moment>,
    /// Tells the settings that it failed with from others: a person who changed them may have mended it.
    #[serde(default)]
    pub settings: String,
}

/// What kind of failure it was: each has its own patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The issuer could not be asked, or was at a loss itself. Costs nothing to try again.
    Unreachable,
    /// Control of the name was not proved. Counts against the issuer's limits.
    Validation,
    /// The issuer has had enough of us for a while.
    Limited,
    /// Only a person can mend it.
    Operator,
}

impl Attempts {
    /// Counts one more failure.
    pub fn count(&mut self, failure: Failure) {
        let last = self.last.as_ref();
        if last.is_none_or(|last| last.settings != failure.settings) {
            *self = Self::default();
        }
        if self.last.as_ref().is_none_or(|last| last.class != failure.class) {
            self.failures = 0;
        }
        let is_validation = |class: Class| class == Class::Validation;
        let goes_on = |last: &Failure| is_validation(last.class) == is_validation(failure.class);
        if !self.last.as_ref().is_some_and(goes_on) {
            self.since = None;
        }
        self.since.get_or_insert(failure.at);
        self.failures = self.failures.saturating_add(1);
        if failure.class == Class::Validation {
            self.validations = self.validations.saturating_add(1);
            self.failures = self.failures.max(self.validations);
        }
        self.last = Some(failure);
    }
}

impl Record {
    pub fn new(name: &str, issuer: &str) -> Self {
        Self { version: VERSION, name: name.into(), issuer: issuer.into(), ..Self::default() }
    }

    /// Reads a record; `None` if it is damaged or of a version to come.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|record: &Self| record.version == VERSION)
    }

    pub fn encode(&self) -> Vec<u8> {
        // Strings and numbers only: it cannot fail.
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_reads_back() {
        let mut record = Record::new("a.example", "https://ca.example/dir");
        record.order = Some(OpenOrder {
            private_key: "key".into(),
            url: Some("https://ca.example/order/1".into()),
            begun: Moment::from_unix_seconds(1),
            challenge: Some("http-01".into()),
            counts: Some(Counts::Renewal),
        });
        record.attempts = Attempts {
            failures: 2,
            validations: 1,
            last: Some(Failure {
                at: Moment::from_unix_seconds(2),
                class: Class::Limited,
                what: "too many".into(),
                remedy: None,
                not_before: Some(Moment::from_unix_seconds(3)),
                settings: "x".into(),
            }),
            since: Some(Moment::from_unix_seconds(1)),
        };
        record.certificate = Some(Certificate { chain: "chain".into(), ..Certificate::default() });
        assert_eq!(Record::decode(&record.encode()), Some(record.clone()));
        record.version += 1;
        assert_eq!(Record::decode(&record.encode()), None);
    }

    #[test]
    fn each_class_of_failures_is_counted_apart_and_other_settings_begin_anew() {
        use Class::*;
        let mut attempts = Attempts::default();
        for (class, settings, failures, validations) in [
            (Unreachable, "a", 1, 0),
            (Unreachable, "a", 2, 0),
            (Limited, "a", 1, 0),
            (Validation, "a", 1, 1),
            (Validation, "a", 2, 2),
            (Unreachable, "a", 1, 2),
            // A CA that fails now and then is no reason to fail validations faster.
            (Validation, "a", 3, 3),
            (Operator, "a", 1, 3),
            (Operator, "b", 1, 0),
            (Validation, "b", 1, 1),
        ] {
            let (what, settings) = (String::new(), settings.to_owned());
            let at = Moment::from_unix_seconds(1);
            attempts.count(Failure { at, class, what, remedy: None, not_before: None, settings });
            let counted = (attempts.failures, attempts.validations);
            assert_eq!(counted, (failures, validations), "{class:?}");
        }
    }

    #[test]
    fn failures_began_with_the_first_of_their_kind() {
        use Class::*;
        let mut attempts = Attempts::default();
        for (at, class, since) in [
            (1, Unreachable, 1),
            (2, Limited, 1),
            (3, Validation, 3),
            (4, Validation, 3),
            (5, Operator, 5),
            (6, Unreachable, 5),
        ] {
            let (what, settings) = (String::new(), String::new());
            let at = Moment::from_unix_seconds(at);
            attempts.count(Failure { at, class, what, remedy: None, not_before: None, settings });
            assert_eq!(attempts.since, Some(Moment::from_unix_seconds(since)), "{class:?}");
        }
        let before = br#"{"version":1,"name":"a","issuer":"i","attempts":{"failures":3}}"#;
        assert_eq!(Record::decode(before).unwrap().attempts.since, None);
    }

    proptest! {
        #[test]
        fn damaged_records_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Record::decode(&bytes), None);
        }
    }
}
