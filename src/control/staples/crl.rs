//! What an issuer's list of revoked certificates says of its leaves: RFC 5280 §5 and §6.3.3. Pure.
//!
//! The list is gone through entry by entry where it lies, however long it is: until its signature is checked
//! anybody may have made it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use der::asn1::ObjectIdentifier;
use der::{AnyRef, Decode, DecodeValue, FixedTag, Header, Reader, Sequence, SliceReader, Tag};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{CrlReason, IssuingDistributionPoint};
use x509_cert::time::Time;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Moment;

use super::response::Revoked;
use super::signed::Signed;

/// How far an issuer's clock may be ahead of ours.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);
const CRL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.20");
const CRL_REASON: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.21");
const ISSUING_DISTRIBUTION_POINT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.28");
const AUTHORITY_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");

/// What a list says.
#[derive(Debug, PartialEq, Eq)]
pub struct Listed {
    pub this_update: Moment,
    pub next_update: Option<Moment>,
    /// Those of the serial numbers asked for that are in it.
    pub revoked: HashMap<Vec<u8>, Revoked>,
}

#[derive(Sequence)]
struct List<'a> {
    #[asn1(optional = "true")]
    version: Option<u8>,
    algorithm: AnyRef<'a>,
    issuer: AnyRef<'a>,
    this_update: Time,
    #[asn1(optional = "true")]
    next_update: Option<Time>,
    #[asn1(optional = "true")]
    entries: Option<Entries<'a>>,
    #[asn1(context_specific = "0", optional = "true", tag_mode = "EXPLICIT")]
    extensions: Option<Entries<'a>>,
}

#[derive(Sequence)]
struct Entry<'a> {
    serial: AnyRef<'a>,
    at: Time,
    #[asn1(optional = "true")]
    extensions: Option<Entries<'a>>,
}

/// A SEQUENCE that is not gone into yet.
struct Entries<'a>(&'a [u8]);

impl FixedTag for Entries<'_> {
    const TAG: Tag = Tag::Sequence;
}

impl<'a> DecodeValue<'a> for Entries<'a> {
    fn decode_value<R: Reader<'a>>(reader: &mut R, header: Header) -> der::Result<Self> {
        reader.read_slice(header.length).map(Self)
    }
}

impl der::EncodeValue for Entries<'_> {
    fn value_len(&self) -> der::Result<der::Length> {
        self.0.len().try_into()
    }

    fn encode_value(&self, writer: &mut impl der::Writer) -> der::Result<()> {
        writer.write(self.0)
    }
}

/// Looks serial numbers (as they stand in DER) up in a list that `issuer` must have signed, for a distribution
/// point that the leaves know by these names.
///
/// # Errors
/// Why the list says nothing.
pub fn look_up<'a>(
    der: &[u8],
    point: &[&str],
    issuer: &[u8],
    serials: impl Iterator<Item = &'a [u8]>,
    now: Moment,
) -> Result<Listed, String> {
    let damaged = || "it is no certificate revocation list".to_owned();
    let (_, issuer) =
        X509Certificate::from_der(issuer).map_err(|_| "the issuer's certificate is damaged")?;
    let signed = Signed::read(der).ok_or_else(damaged)?;
    let list: List<'_> = signed.content.decode_as().map_err(|_| damaged())?;
    if whole(&list.issuer)? != issuer.subject().as_raw() {
        return Err("it is another issuer's".into());
    }
    if matches!(issuer.key_usage(), Ok(Some(usage)) if !usage.value.crl_sign()) {
        return Err("its issuer's certificate is not for signing lists".into());
    }
    if list.algorithm != signed.algorithm || !signed.is_by(issuer.public_key()) {
        return Err("its signature is not the issuer's".into());
    }
    check_scope(list.extensions.as_ref(), point)?;
    let (this_update, next_update) =
        (moment(&list.this_update), list.next_update.as_ref().map(moment));
    let wanted: HashSet<&[u8]> = serials.collect();
    let mut revoked = HashMap::new();
    let bytes = list.entries.map(|entries| entries.0).unwrap_or_default();
    let mut reader = SliceReader::new(bytes).map_err(|_| damaged())?;
    while !reader.is_finished() {
        let entry = Entry::decode(&mut reader).map_err(|_| damaged())?;
        if wanted.contains(entry.serial.value()) {
            let key_compromise =
                reason(entry.extensions.as_ref()) == Some(CrlReason::KeyCompromise);
            let found = Revoked { at: moment(&entry.at), as_of: this_update, key_compromise };
            revoked.insert(entry.serial.value().to_vec(), found);
        }
    }
    // An old list tells the truth about what is in it, and nothing about what is not; so does one from a time that is
    // yet to come by our clock.
    if revoked.is_empty() && this_update > now.plus(TOLERANCE) {
        return Err(format!(
            "it is from {this_update}, which is yet to come; check the machine's clock"
        ));
    }
    if revoked.is_empty() && next_update.is_some_and(|next| next <= now) {
        return Err("it has expired".into());
    }
    Ok(Listed { this_update, next_update, revoked })
}

fn whole(any: &AnyRef<'_>) -> Result<Vec<u8>, String> {
    der::Encode::to_der(any).map_err(|error| error.to_string())
}

/// Whether the list speaks of server certificates of this point, of which any name will do (RFC 5280 §6.3.3
/// (b)(2)(i)): of an issuer's many lists another one would be as validly signed and not mention ours.
fn check_scope(extensions: Option<&Entries<'_>>, names: &[&str]) -> Result<(), String> {
    let damaged = |_| "its extensions are damaged".to_owned();
    let bytes = extensions.map(|extensions| extensions.0).unwrap_or_default();
    let mut reader = SliceReader::new(bytes).map_err(damaged)?;
    while !reader.is_finished() {
        let extension = Extension::decode(&mut reader).map_err(damaged)?;
        if extension.extn_id == ISSUING_DISTRIBUTION_POINT {
            let point = IssuingDistributionPoint::from_der(extension.extn_value.as_bytes())
                .map_err(|_| "its distribution point is damaged")?;
            if point.only_contains_ca_certs
                || point.only_contains_attribute_certs
                || point.indirect_crl
                || point.only_some_reasons.is_some()
            {
                return Err("it is not for server certificates of this issuer alone".into());
            }
            let theirs = match &point.distribution_point {
                Some(DistributionPointName::FullName(names)) => names,
                Some(DistributionPointName::NameRelativeToCRLIssuer(_)) => {
                    return Err("it is for another distribution point".into());
                }
                None => continue,
            };
            let is_ours = |name: &GeneralName| matches!(name, GeneralName::UniformResourceIdentifier(uri) if names.contains(&uri.as_str()));
            if !theirs.iter().any(is_ours) {
                return Err("it is for another distribution point".into());
            }
        } else if extension.critical
            && ![CRL_NUMBER, AUTHORITY_KEY_IDENTIFIER].contains(&extension.extn_id)
        {
            return Err(format!("it has a critical extension {}", extension.extn_id));
        }
    }
    Ok(())
}

fn reason(extensions: Option<&Entries<'_>>) -> Option<CrlReason> {
    let mut reader = SliceReader::new(extensions?.0).ok()?;
    while !reader.is_finished() {
        let extension = Extension::decode(&mut reader).ok()?;
        if extension.extn_id == CRL_REASON {
            return CrlReason::from_der(extension.extn_value.as_bytes()).ok();
        }
    }
    None
}

fn moment(time: &Time) -> Moment {
    let seconds = time.to_unix_duration().as_secs();
    Moment::from_unix_seconds(i64::try_from(seconds).unwrap_or(i64::MAX))
}
