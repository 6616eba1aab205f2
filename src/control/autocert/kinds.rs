//! Which challenges a turn tries, and in which order. Pure.

use crate::config::autocert::ChallengeKind;
use crate::store::record::{Attempts, Class, Record};

/// All of them at first, then one at a time in turn, for each failure counts against the CA's limits. An
/// order that has begun goes on with its challenge; what worked before comes first, also after failures that
/// were not its own.
pub fn kinds(configured: &[ChallengeKind], record: &Record) -> Vec<ChallengeKind> {
    let named = |name: Option<&String>| {
        name.and_then(|name| configured.iter().copied().find(|kind| kind.as_str() == name))
    };
    let begun = record.order.as_ref().filter(|order| order.url.is_some());
    if let Some(kind) = named(begun.and_then(|order| order.challenge.as_ref())) {
        return vec![kind];
    }
    let worked = named(record.worked.as_ref());
    let mut kinds = configured.to_vec();
    kinds.sort_by_key(|kind| Some(*kind) != worked);
    let Attempts { validations, last, .. } = &record.attempts;
    let last = last.as_ref().map(|last| last.class);
    match (last, worked) {
        (Some(Class::Unreachable | Class::Limited | Class::Operator), Some(worked)) => vec![worked],
        _ if *validations == 0 => kinds,
        _ => kinds.into_iter().cycle().skip(*validations as usize).take(1).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::ChallengeKind::{Http01, TlsAlpn01};
    use super::*;
    use crate::clock::Moment;
    use crate::store::record::{Failure, OpenOrder};

    const NOW: Moment = Moment::from_unix_seconds(1_800_000_000);

    fn record(classes: &[Class], worked: Option<&str>) -> Record {
        let mut record = Record::new("a.example", "https://ca.example/dir");
        record.worked = worked.map(str::to_owned);
        for class in classes.iter().copied() {
            let (what, settings) = (String::new(), String::new());
            let failure =
                Failure { at: NOW, class, what, remedy: None, not_before: None, settings };
            record.attempts.count(failure);
        }
        record
    }

    #[test]
    fn failed_validations_alone_move_on_to_the_next_challenge() {
        use Class::*;
        let http = Some("http-01");
        for (classes, worked, expected) in [
            (&[][..], None, &[TlsAlpn01, Http01][..]),
            (&[], http, &[Http01, TlsAlpn01]),
            (&[Unreachable, Unreachable, Unreachable], None, &[TlsAlpn01, Http01]),
            (&[Unreachable], http, &[Http01]),
            (&[Limited, Operator], http, &[Http01]),
            (&[Validation], None, &[Http01]),
            (&[Validation, Validation], None, &[TlsAlpn01]),
            (&[Validation, Unreachable], None, &[Http01]),
            (&[Validation], http, &[TlsAlpn01]),
            (&[Validation, Unreachable], http, &[Http01]),
            (&[Unreachable, Validation, Validation], http, &[Http01]),
        ] {
            let found = kinds(&[TlsAlpn01, Http01], &record(classes, worked));
            assert_eq!(found, expected, "{classes:?} {worked:?}");
        }
    }

    #[test]
    fn an_order_goes_on_with_the_challenge_that_it_began_with() {
        let mut record = record(&[Class::Validation], None);
        let challenge = Some("tls-alpn-01".to_owned());
        let url = Some("https://ca.example/order/1".to_owned());
        let private_key = "key".to_owned();
        record.order = Some(OpenOrder { private_key, url, begun: NOW, challenge, counts: None });
        assert_eq!(kinds(&[TlsAlpn01, Http01], &record), [TlsAlpn01]);
        // Not with one that cannot be answered any more.
        assert_eq!(kinds(&[Http01], &record), [Http01]);
    }
}
