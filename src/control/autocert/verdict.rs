//! What an issuer's answer means for the next attempt: try again, ask the next issuer, or ask a person. Pure.
//!
//! Decided where the answer is read, never by whoever tries again (RFC 8555 §6.7).

use std::fmt;

use instant_acme::{Error, Problem};

use crate::clock::Moment;
use crate::store::record::{Class, Failure};

use super::http_client::Answer;
use super::transport::Trouble;

/// The kind of what was not asked of an issuer because its limit would be passed.
pub const BUDGET: &str = "ringgate:budget";
/// The kind of an answer that was lost on its way.
pub const LOST: &str = "ringgate:lost";
const PREFIX: &str = "urn:ietf:params:acme:error:";

/// What to do after a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Retry {
        not_before: Option<Moment>,
    },
    /// This issuer refuses for good, until a person does something about it.
    NextIssuer {
        remedy: String,
    },
    /// No issuer would do better.
    AskOperator {
        remedy: String,
    },
}

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    Registering,
    Ordering,
    Validating,
    Finalizing,
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub class: Class,
    pub verdict: Verdict,
    /// The issuer's own words where there are any.
    pub what: String,
    /// The last part of the problem's type (RFC 8555 §6.7).
    pub kind: Option<String>,
}

impl Failed {
    pub fn new(class: Class, what: impl Into<String>) -> Self {
        let verdict = Verdict::Retry { not_before: None };
        Self { class, verdict, what: what.into(), kind: None }
    }

    pub fn operator(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        let verdict = Verdict::AskOperator { remedy: remedy.into() };
        Self { class: Class::Operator, verdict, what: what.into(), kind: None }
    }

    /// The issuer refuses, and will until a person does something.
    pub fn refused(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        let verdict = Verdict::NextIssuer { remedy: remedy.into() };
        Self { class: Class::Operator, verdict, what: what.into(), kind: None }
    }

    /// One order more would pass a limit of the issuer's that we know; there is room at `free`.
    pub fn budget(issuer: &str, domain: &str, free: Moment) -> Self {
        let what = format!(
            "one order more for {domain} would pass a limit of {issuer}; there is room at {free}"
        );
        let verdict = Verdict::Retry { not_before: Some(free) };
        Self { class: Class::Limited, verdict, what, kind: Some(BUDGET.into()) }
    }

    /// A person can mend it, and it may mend itself; asking meanwhile costs nothing, so that it is tried
    /// again as often as whatever is out of reach.
    pub fn mendable(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { class: Class::Unreachable, ..Self::operator(what, remedy) }
    }

    /// What a person can do, if that is needed.
    pub fn remedy(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Retry { .. } => None,
            Verdict::NextIssuer { remedy } | Verdict::AskOperator { remedy } => Some(remedy),
        }
    }

    pub fn is(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }

    /// Whether it says something about the name, as a CAA record does too, and not about the CA or us.
    pub fn is_about_name(&self) -> bool {
        self.class == Class::Validation || self.is("caa")
    }

    /// The failure as it is stored; `settings` tells those it failed with from others.
    pub fn at(&self, at: Moment, settings: &str) -> Failure {
        let not_before = match &self.verdict {
            Verdict::Retry { not_before } => *not_before,
            Verdict::NextIssuer { .. } | Verdict::AskOperator { .. } => None,
        };
        let remedy = self.remedy().map(str::to_owned);
        let (what, settings) = (self.what.clone(), settings.to_owned());
        Failure { at, class: self.class, what, remedy, not_before, settings }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match self.remedy() {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// Judges what instant-acme returned, with what the last answer said besides.
pub fn judge(doing: Doing, error: &Error, answer: &Answer) -> Failed {
    match error {
        Error::Api(problem) => judge_problem(doing, problem, answer),
        Error::Other(other) => match other.downcast_ref::<Trouble>() {
            Some(Trouble { what, remedy: Some(remedy), .. }) => Failed::mendable(what, remedy),
            Some(Trouble { what, is_lost: true, .. }) => {
                Failed { kind: Some(LOST.into()), ..unreachable(what.clone(), answer) }
            }
            _ => unreachable(other.to_string(), answer),
        },
        Error::Json(error) => {
            unreachable(format!("the CA's answer is not what ACME says: {error}"), answer)
        }
        other => unreachable(other.to_string(), answer),
    }
}

fn unreachable(what: String, answer: &Answer) -> Failed {
    let verdict = Verdict::Retry { not_before: answer.retry_after };
    Failed { class: Class::Unreachable, verdict, what, kind: None }
}

/// Judges a problem document.
pub fn judge_problem(doing: Doing, problem: &Problem, answer: &Answer) -> Failed {
    let full = problem.r#type.as_deref().unwrap_or_default();
    let kind = full.strip_prefix(PREFIX).unwrap_or(full);
    let status = problem.status.unwrap_or(answer.status);
    let (class, remedy) = classify(doing, kind, status);
    let verdict = match remedy {
        Some(remedy) => Verdict::NextIssuer { remedy: remedy.into() },
        None => Verdict::Retry { not_before: answer.retry_after },
    };
    Failed { class, verdict, what: words(problem, kind), kind: Some(kind.to_owned()) }
}

fn classify(doing: Doing, kind: &str, status: u16) -> (Class, Option<&'static str>) {
    let operator = |remedy| (Class::Operator, Some(remedy));
    match kind {
        "rateLimited" => (Class::Limited, None),
        "badNonce" => (Class::Unreachable, None),
        "caa" => operator(
            "a CAA record in DNS forbids this CA: add one that allows it, or name another CA with autocert_ca",
        ),
        "rejectedIdentifier" => operator(
            "the CA does not issue for this name: remove its route, give it a certificate by hand, or name another CA with autocert_ca",
        ),
        "unsupportedIdentifier" => operator(
            "the CA does not issue for names of this kind: give it a certificate by hand, or set autocert_profile",
        ),
        "externalAccountRequired" => operator(
            "the CA wants an external account: set autocert_eab_key_id and autocert_eab_mac_key",
        ),
        "invalidContact" | "unsupportedContact" => operator("correct autocert_email"),
        "userActionRequired" => operator("do what the CA asks for, at the address that it names"),
        "badCSR" | "badPublicKey" | "badSignatureAlgorithm" => {
            operator("choose another autocert_key_type, or report this as a bug of ringgate")
        }
        "alreadyRevoked" | "badRevocationReason" => {
            operator("nothing needs to be done for a certificate that is revoked")
        }
        "unauthorized" | "malformed" if doing == Doing::Registering => {
            operator("check autocert_eab_key_id and autocert_eab_mac_key; some work only once")
        }
        "unauthorized" if doing == Doing::Ordering || doing == Doing::Finalizing => {
            operator("the CA does not serve this account: see what it says")
        }
        "connection" | "dns" | "tls" | "incorrectResponse" | "unauthorized" => {
            (Class::Validation, None)
        }
        _ if doing == Doing::Validating && status < 500 => (Class::Validation, None),
        _ => (Class::Unreachable, None),
    }
}

/// The CA's own words, with those about single names.
fn words(problem: &Problem, kind: &str) -> String {
    let mut words = match problem.detail.as_deref() {
        Some(detail) if !detail.is_empty() => format!("{detail} ({kind})"),
        _ => format!("the CA says {kind:?} and no more"),
    };
    for part in &problem.subproblems {
        words.push_str(&format!("; {part}"));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: &str, status: Option<u16>) -> Error {
        Error::Api(Problem {
            r#type: Some(format!("{PREFIX}{kind}")),
            detail: Some("the CA's words".into()),
            status,
            subproblems: Vec::new(),
        })
    }

    #[test]
    fn each_answer_has_its_class_and_only_some_need_a_person() {
        use Class::*;
        use Doing::*;
        for (doing, kind, class) in [
            (Ordering, "rateLimited", Limited),
            (Ordering, "rejectedIdentifier", Operator),
            (Validating, "caa", Operator),
            (Finalizing, "caa", Operator),
            (Validating, "unauthorized", Validation),
            (Validating, "connection", Validation),
            (Registering, "unauthorized", Operator),
            (Registering, "externalAccountRequired", Operator),
            (Ordering, "badNonce", Unreachable),
            (Ordering, "serverInternal", Unreachable),
            (Ordering, "accountDoesNotExist", Unreachable),
            (Finalizing, "badCSR", Operator),
        ] {
            let failed = judge(doing, &problem(kind, Some(400)), &Answer::default());
            assert_eq!(failed.class, class, "{kind}");
            assert!(failed.is(kind) && failed.what.starts_with("the CA's words"), "{failed}");
            let asks = matches!(failed.verdict, Verdict::NextIssuer { .. });
            assert_eq!(asks, class == Operator, "{kind}");
        }
    }

    #[test]
    fn the_time_that_the_ca_asks_for_is_kept() {
        let at = Moment::from_unix_seconds(1_800_000_000);
        let answer = Answer { status: 429, retry_after: Some(at), location: None };
        for error in [problem("rateLimited", None), Error::Str("odd")] {
            let failed = judge(Doing::Ordering, &error, &answer);
            assert_eq!(failed.at(at, "").not_before, Some(at));
        }
    }

    #[test]
    fn an_untrusted_ca_is_for_a_person_and_tried_as_often_as_one_that_is_down() {
        let trouble = |remedy: Option<&str>| {
            let trouble = Trouble { remedy: remedy.map(str::to_owned), ..Trouble::new("no TLS") };
            judge(Doing::Ordering, &Error::Other(Box::new(trouble)), &Answer::default())
        };
        let untrusted = trouble(Some("name its root"));
        assert_eq!(untrusted.verdict, Verdict::AskOperator { remedy: "name its root".into() });
        assert_eq!(untrusted.class, Class::Unreachable);
        assert_eq!(trouble(None).class, Class::Unreachable);
        assert_eq!(trouble(None).verdict, Verdict::Retry { not_before: None });
        let lost = Error::Other(Box::new(Trouble::lost("it broke off")));
        let lost = judge(Doing::Ordering, &lost, &Answer::default());
        assert!(lost.is(LOST) && lost.class == Class::Unreachable && !trouble(None).is(LOST));
    }
}
