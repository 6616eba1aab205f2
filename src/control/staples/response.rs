//! What a responder's answer about a leaf is worth: RFC 6960 §3.2 and §4.2.2.2, RFC 5019 §4. Pure.
//!
//! A response is checked with the issuer's key, or with that of a certificate in it which the issuer has
//! signed for this purpose; never with one that it brings along alone.

use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use der::asn1::BitStringRef;
use der::{AnyRef, Decode, Encode, Sequence};
use x509_cert::ext::Extensions;
use x509_cert::ext::pkix::CrlReason;
use x509_ocsp::{
    CertStatus, OcspGeneralizedTime, OcspResponse, OcspResponseStatus, ResponderId, ResponseData,
    SingleResponse,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Moment;

use super::request::{is_serial, means};
use super::signed::{Signed, is_signed_by};

/// A response with its signer's certificate is half a KiB to 4 KiB. What is longer than this is none, and
/// would slow down every handshake that it is stapled to.
pub const LONGEST_RESPONSE: usize = 64 * 1024;
/// How far a responder's clock may be ahead of ours.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);
/// id-pkix-ocsp-basic (RFC 6960 §4.2.1), the one type of response that clients know.
const BASIC: &str = "1.3.6.1.5.5.7.48.1.1";

/// A response that says that the leaf is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Good {
    pub this_update: Moment,
    /// `nextUpdate`, or the end of the responder's certificate if that is sooner.
    pub until: Moment,
}

/// Why there is nothing to staple.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bad {
    Revoked(Revoked),
    /// The responder is at a loss and asks to be asked again.
    TryLater(String),
    Refused(String),
}

/// The issuer has taken the leaf back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    pub at: Moment,
    /// The `thisUpdate` of whoever said so: what is older does not know of it.
    pub as_of: Moment,
    /// The private key is known to others.
    pub key_compromise: bool,
}

/// BasicOCSPResponse, with the bytes that were signed as they are.
#[derive(Sequence)]
struct Basic<'a> {
    content: AnyRef<'a>,
    algorithm: AnyRef<'a>,
    signature: BitStringRef<'a>,
    #[asn1(context_specific = "0", optional = "true", tag_mode = "EXPLICIT")]
    certificates: Option<Vec<AnyRef<'a>>>,
}

/// Judges a response about `leaf`, which `issuer` has issued, both in DER.
///
/// # Errors
/// Why it is not stapled.
pub fn judge(der: &[u8], leaf: &[u8], issuer: &[u8], now: Moment) -> Result<Good, Bad> {
    let parsed = |der| X509Certificate::from_der(der).map(|(_, certificate)| certificate);
    let (Ok(leaf), Ok(issuer)) = (parsed(leaf), parsed(issuer)) else {
        return Err(refused("the certificate or its issuer's is damaged"));
    };
    let basic = successful(der)?;
    let basic = Basic::from_der(&basic).map_err(|_| not_der())?;
    let content = basic.content.to_der().map_err(|_| not_der())?;
    let data = ResponseData::from_der(&content).map_err(|_| not_der())?;
    let signer_ends = check_signature(&basic, &data, &issuer, now)?;
    no_critical(data.response_extensions.as_ref())?;
    let about = data.responses.iter().find(|one| means(&one.cert_id, &leaf, &issuer));
    let about = about.ok_or_else(|| refused("it is for another certificate"))?;
    let mut good = judge_single(about, now)?;
    if let Some(ends) = signer_ends {
        good.until = good.until.min(ends);
    }
    Ok(good)
}

/// The same for a response that an operator gave without the issuer's certificate being at hand: all but
/// its signature, which is the operator's to vouch for.
///
/// # Errors
/// Why it is not stapled.
pub fn judge_unsigned(der: &[u8], leaf: &[u8], now: Moment) -> Result<Good, Bad> {
    let (_, leaf) =
        X509Certificate::from_der(leaf).map_err(|_| refused("the certificate is damaged"))?;
    let basic = successful(der)?;
    let basic = Basic::from_der(&basic).map_err(|_| not_der())?;
    let content = basic.content.to_der().map_err(|_| not_der())?;
    let data = ResponseData::from_der(&content).map_err(|_| not_der())?;
    let about = data.responses.iter().find(|one| is_serial(&one.cert_id.serial_number, &leaf));
    judge_single(about.ok_or_else(|| refused("it is for another certificate"))?, now)
}

/// Whether these bytes have the form of a response that says something, be it true or not.
///
/// # Errors
/// What they are instead.
pub fn shape(der: &[u8]) -> Result<(), String> {
    let basic =
        successful(der).and_then(|basic| Basic::from_der(&basic).map(drop).map_err(|_| not_der()));
    basic.map_err(|bad| match bad {
        Bad::TryLater(what) | Bad::Refused(what) => what,
        Bad::Revoked(_) => "it says that the certificate is REVOKED".into(),
    })
}

fn refused(what: impl Into<String>) -> Bad {
    Bad::Refused(what.into())
}

fn not_der() -> Bad {
    refused("it is no OCSP response")
}

/// The basic response inside a successful one (RFC 6960 §4.2.1).
fn successful(der: &[u8]) -> Result<Vec<u8>, Bad> {
    if der.len() > LONGEST_RESPONSE {
        return Err(refused(format!("it is longer than {LONGEST_RESPONSE} bytes")));
    }
    let response = OcspResponse::from_der(der).map_err(|_| not_der())?;
    match response.response_status {
        OcspResponseStatus::Successful => {}
        OcspResponseStatus::TryLater => return Err(Bad::TryLater("it says tryLater".into())),
        OcspResponseStatus::InternalError => {
            return Err(Bad::TryLater("it says internalError".into()));
        }
        OcspResponseStatus::Unauthorized => {
            return Err(refused(
                "it says unauthorized: the responder does not know the certificate",
            ));
        }
        OcspResponseStatus::MalformedRequest => return Err(refused("it says malformedRequest")),
        OcspResponseStatus::SigRequired => return Err(refused("it says sigRequired")),
    }
    let bytes = response.response_bytes.ok_or_else(not_der)?;
    if bytes.response_type.to_string() != BASIC {
        return Err(refused(format!("it is of the type {}", bytes.response_type)));
    }
    Ok(bytes.response.as_bytes().to_vec())
}

/// Finds the one who signed and has the right to (RFC 6960 §4.2.2.2). Returns when that right ends.
fn check_signature(
    basic: &Basic<'_>,
    data: &ResponseData,
    issuer: &X509Certificate<'_>,
    now: Moment,
) -> Result<Option<Moment>, Bad> {
    let signed =
        Signed { content: basic.content, algorithm: basic.algorithm, signature: basic.signature };
    let mut why = "it is signed by neither the issuer nor a responder that the issuer named";
    if is_responder(&data.responder_id, issuer) {
        if signed.is_by(issuer.public_key()) {
            return Ok(None);
        }
        why = "its signature is not the issuer's";
    }
    for certificate in basic.certificates.iter().flatten() {
        let der = certificate.to_der().map_err(|_| not_der())?;
        let Ok((_, delegate)) = X509Certificate::from_der(&der) else { continue };
        if !is_responder(&data.responder_id, &delegate) {
            continue;
        }
        if delegate.issuer().as_raw() != issuer.subject().as_raw()
            || !is_signed_by(&der, issuer.public_key())
        {
            why = "its responder's certificate is not of this certificate's issuer";
        } else if !has_right(&delegate) {
            why = "its responder's certificate is not for OCSP signing";
        } else if !is_valid(&delegate, now) {
            why = "its responder's certificate is not valid";
        } else if !signed.is_by(delegate.public_key()) {
            why = "its signature is not its responder's";
        } else {
            let ends = delegate.validity().not_after.timestamp();
            return Ok(Some(Moment::from_unix_seconds(ends)));
        }
    }
    Err(refused(why))
}

/// Whether the response names this certificate as its signer's.
fn is_responder(id: &ResponderId, certificate: &X509Certificate<'_>) -> bool {
    match id {
        ResponderId::ByName(name) => {
            name.to_der().is_ok_and(|name| name == certificate.subject().as_raw())
        }
        ResponderId::ByKey(hash) => {
            let key = &certificate.public_key().subject_public_key.data;
            hash.as_bytes() == digest(&SHA1_FOR_LEGACY_USE_ONLY, key).as_ref()
        }
    }
}

/// id-kp-OCSPSigning, and no key usage that forbids signing.
fn has_right(delegate: &X509Certificate<'_>) -> bool {
    let purposes = delegate.extended_key_usage();
    let signs = match delegate.key_usage() {
        Ok(Some(usage)) => usage.value.digital_signature(),
        Ok(None) => true,
        Err(_) => false,
    };
    signs && matches!(purposes, Ok(Some(purposes)) if purposes.value.ocsp_signing)
}

fn is_valid(certificate: &X509Certificate<'_>, now: Moment) -> bool {
    let at = |time: x509_parser::time::ASN1Time| Moment::from_unix_seconds(time.timestamp());
    let validity = certificate.validity();
    at(validity.not_before) <= now.plus(TOLERANCE) && now <= at(validity.not_after)
}

fn judge_single(about: &SingleResponse, now: Moment) -> Result<Good, Bad> {
    no_critical(about.single_extensions.as_ref())?;
    let this_update = moment(&about.this_update);
    // An old response says so as truly as a new one, and one from a time that is yet to come by our clock: only what
    // was on hold is ever good again.
    if let CertStatus::Revoked(info) = &about.cert_status {
        return Err(Bad::Revoked(Revoked {
            at: moment(&info.revocation_time),
            as_of: this_update,
            key_compromise: info.revocation_reason == Some(CrlReason::KeyCompromise),
        }));
    }
    if this_update > now.plus(TOLERANCE) {
        return Err(refused(format!(
            "it is from {this_update}, which is yet to come; check the machine's clock"
        )));
    }
    if let CertStatus::Unknown(_) = &about.cert_status {
        return Err(refused("it says that the certificate is unknown"));
    }
    // RFC 5019 §4: clients of that profile refuse a response that does not say until when.
    let Some(next_update) = about.next_update.as_ref().map(moment) else {
        return Err(refused("it names no nextUpdate, without which clients refuse it"));
    };
    if next_update <= now || next_update <= this_update {
        return Err(refused(format!("it has expired on {next_update}")));
    }
    Ok(Good { this_update, until: next_update })
}

fn no_critical(extensions: Option<&Extensions>) -> Result<(), Bad> {
    match extensions.into_iter().flatten().find(|extension| extension.critical) {
        Some(extension) => {
            Err(refused(format!("it has a critical extension {}", extension.extn_id)))
        }
        None => Ok(()),
    }
}

fn moment(time: &OcspGeneralizedTime) -> Moment {
    let seconds = time.0.to_unix_duration().as_secs();
    Moment::from_unix_seconds(i64::try_from(seconds).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use rcgen::ExtendedKeyUsagePurpose::{Any, OcspSigning, ServerAuth};
    use x509_cert::ext::Extension;
    use x509_ocsp::RevokedInfo;

    use super::super::super::certified::samples::{DAY, NOW};
    use super::super::samples::{Authority, by_name, other_id, signed, time};
    use super::*;

    /// An authority, a leaf of its, and what it says of it.
    fn setting() -> (Authority, Vec<u8>, ResponseData) {
        let authority = Authority::new("authority");
        let leaf = authority.leaf("a.example");
        let data = authority.good(&leaf);
        (authority, leaf, data)
    }

    fn why(judged: Result<Good, Bad>) -> String {
        match judged {
            Err(Bad::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_good_response_is_good_for_as_long_as_it_says() {
        let (authority, leaf, data) = setting();
        let response = authority.signed(&data);
        let judged = |now| judge(&response, &leaf, authority.der(), now);
        let good = Good { this_update: NOW.minus(DAY), until: NOW.plus(6 * DAY) };
        assert_eq!(judged(NOW), Ok(good));
        // A clock that is a little behind the responder's is no reason to refuse.
        assert_eq!(judged(NOW.minus(DAY + Duration::from_secs(299))), Ok(good));
        assert!(why(judged(NOW.minus(DAY + Duration::from_secs(301)))).contains("yet to come"));
        assert!(why(judged(NOW.plus(6 * DAY))).contains("has expired"));
    }

    #[test]
    fn each_field_that_is_checked_makes_it_refused_when_it_is_another() {
        let (authority, leaf, data) = setting();
        let flip = |edit: &dyn Fn(&mut ResponseData)| {
            let mut data = data.clone();
            edit(&mut data);
            why(judge(&authority.signed(&data), &leaf, authority.der(), NOW))
        };
        for id in other_id(&data.responses[0].cert_id) {
            let said = flip(&|data| data.responses[0].cert_id = id.clone());
            assert_eq!(said, "it is for another certificate");
        }
        assert_eq!(flip(&|data| data.responses.clear()), "it is for another certificate");
        let said = flip(&|data| data.responses[0].cert_status = CertStatus::unknown());
        assert!(said.contains("unknown"), "{said}");
        let said = flip(&|data| data.responses[0].next_update = None);
        assert!(said.contains("no nextUpdate"), "{said}");
        let said = flip(&|data| data.responses[0].next_update = Some(time(NOW)));
        assert!(said.contains("has expired"), "{said}");
        let said = flip(&|data| data.responses[0].this_update = time(NOW.plus(DAY)));
        assert!(said.contains("yet to come"), "{said}");
        let critical = Extension {
            extn_id: der::asn1::ObjectIdentifier::new_unwrap("1.2.3.4"),
            critical: true,
            extn_value: der::asn1::OctetString::new(vec![5, 0]).unwrap(),
        };
        let said = flip(&|data| data.response_extensions = Some(vec![critical.clone()]));
        assert!(said.contains("critical extension 1.2.3.4"), "{said}");
        let said = flip(&|data| data.responses[0].single_extensions = Some(vec![critical.clone()]));
        assert!(said.contains("critical extension 1.2.3.4"), "{said}");
        let said = flip(&|data| data.responder_id = by_name(&leaf));
        assert!(said.contains("neither the issuer nor a responder"), "{said}");
    }

    #[test]
    fn only_the_issuer_and_whom_it_named_for_this_sign_responses() {
        let (authority, leaf, mut data) = setting();
        let judged = |response: &[u8]| judge(response, &leaf, authority.der(), NOW);
        let right = authority.delegate(&[OcspSigning], NOW.plus(2 * DAY));
        data.responder_id = by_name(&right.der);
        let response = signed(&data, &right.key, &[&right.der]);
        // It ends with its responder's certificate.
        assert_eq!(judged(&response).unwrap().until, NOW.plus(2 * DAY));
        let without = signed(&data, &right.key, &[]);
        assert!(why(judged(&without)).contains("neither the issuer nor"));
        for purposes in [vec![], vec![ServerAuth], vec![Any]] {
            let wrong = authority.delegate(&purposes, NOW.plus(2 * DAY));
            let response = signed(&data, &wrong.key, &[&wrong.der]);
            assert!(why(judged(&response)).contains("not for OCSP signing"), "{purposes:?}");
        }
        let over = authority.delegate(&[OcspSigning], NOW.minus(DAY));
        let response = signed(&data, &over.key, &[&over.der]);
        assert!(why(judged(&response)).contains("certificate is not valid"));
        // The key that a response brings along alone is nobody's, whatever its certificate says.
        let stranger = Authority::new("authority");
        let self_made = stranger.delegate(&[OcspSigning], NOW.plus(2 * DAY));
        let response = signed(&data, &self_made.key, &[&self_made.der]);
        assert!(why(judged(&response)).contains("not of this certificate's issuer"));
        // The issuer's name in it, and a stranger's signature under it.
        let forged = signed(&authority.good(&leaf), &self_made.key, &[]);
        assert!(why(judged(&forged)).contains("signature is not the issuer's"));
        let mixed = signed(&data, &self_made.key, &[&right.der]);
        assert!(why(judged(&mixed)).contains("not its responder's"));
    }

    #[test]
    fn a_revocation_is_told_apart_from_all_else_and_never_expires() {
        let (authority, leaf, mut data) = setting();
        let mut info =
            RevokedInfo { revocation_time: time(NOW.minus(DAY)), revocation_reason: None };
        for (reason, key_compromise) in [
            (None, false),
            (Some(CrlReason::Superseded), false),
            (Some(CrlReason::KeyCompromise), true),
        ] {
            info.revocation_reason = reason;
            data.responses[0].cert_status = CertStatus::revoked(info);
            let at = NOW.minus(DAY);
            let revoked = Revoked { at, as_of: at, key_compromise };
            for now in [NOW, NOW.plus(100 * DAY), NOW.minus(100 * DAY)] {
                let judged = judge(&authority.signed(&data), &leaf, authority.der(), now);
                assert_eq!(judged, Err(Bad::Revoked(revoked)));
            }
        }
        // Whoever may not say that it is good may not say that it is revoked.
        let forged = Authority::new("authority").signed(&data);
        assert!(why(judge(&forged, &leaf, authority.der(), NOW)).contains("signature"));
    }

    #[test]
    fn a_response_by_hand_without_the_issuer_at_hand_is_checked_for_all_but_its_signature() {
        let (authority, leaf, mut data) = setting();
        let response = authority.signed(&data);
        assert_eq!(judge_unsigned(&response, &leaf, NOW).unwrap().until, NOW.plus(6 * DAY));
        assert!(why(judge_unsigned(&response, &leaf, NOW.plus(7 * DAY))).contains("has expired"));
        data.responses[0].cert_id.serial_number = 77u8.into();
        let response = authority.signed(&data);
        assert!(why(judge_unsigned(&response, &leaf, NOW)).contains("another certificate"));
    }
}
