//! An issuer of test responses and lists, in which each field can be set.

use der::asn1::{BitString, GeneralizedTime, Ia5String, Null, OctetString};
use der::{Decode, Encode};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, SigningKey,
};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{AccessDescription, AuthorityInfoAccessSyntax};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspGeneralizedTime, OcspRequest, OcspResponse,
    ResponderId, ResponseData, SingleResponse, Version,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Moment;

use super::super::certified::samples::{DAY, NOW, date};
use super::request::request;

pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    key: KeyPair,
}

/// A certificate of the authority's, and its private key.
pub struct Delegate {
    pub der: Vec<u8>,
    pub key: KeyPair,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = date(NOW.minus(30 * DAY));
        params.not_after = date(NOW.plus(300 * DAY));
        let key = KeyPair::generate().unwrap();
        let again = KeyPair::from_pem(&key.serialize_pem()).unwrap();
        Self { issuer: CertifiedIssuer::self_signed(params, again).unwrap(), key }
    }

    pub fn der(&self) -> &[u8] {
        self.issuer.der()
    }

    pub fn leaf(&self, name: &str) -> Vec<u8> {
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, &self.issuer).unwrap().der().to_vec()
    }

    /// Chain and private key of a leaf, with the authority's own certificate below it.
    pub fn pair(&self, name: &str, must_staple: bool) -> (String, String) {
        // RFC 7633 §6: a sequence of the one number 5.
        let feature = || {
            let content = vec![0x30, 3, 2, 1, 5];
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 24], content)
        };
        self.pair_with(name, must_staple.then(feature).into_iter().collect())
    }

    /// The same of one that names these responders.
    pub fn pair_naming(&self, name: &str, responders: &[String]) -> (String, String) {
        let ocsp = der::asn1::ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");
        let described = |url: &String| AccessDescription {
            access_method: ocsp,
            access_location: GeneralName::UniformResourceIdentifier(Ia5String::new(url).unwrap()),
        };
        let access = AuthorityInfoAccessSyntax(responders.iter().map(described).collect());
        let content = access.to_der().unwrap();
        let access = CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], content);
        self.pair_with(name, vec![access])
    }

    fn pair_with(&self, name: &str, extensions: Vec<CustomExtension>) -> (String, String) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.custom_extensions = extensions;
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (leaf.pem() + &self.issuer.pem(), key.serialize_pem())
    }

    /// A responder of this authority, for these purposes and until then.
    pub fn delegate(&self, purposes: &[ExtendedKeyUsagePurpose], until: Moment) -> Delegate {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "delegate");
        params.extended_key_usages = purposes.to_vec();
        params.not_before = date(NOW.minus(30 * DAY));
        params.not_after = date(until);
        let key = KeyPair::generate().unwrap();
        Delegate { der: params.signed_by(&key, &self.issuer).unwrap().der().to_vec(), key }
    }

    /// What is to be said of this leaf: good, from a day ago for a week.
    pub fn good(&self, leaf: &[u8]) -> ResponseData {
        let (_, parsed) = X509Certificate::from_der(leaf).unwrap();
        let (_, issuer) = X509Certificate::from_der(self.der()).unwrap();
        let question = OcspRequest::from_der(&request(&parsed, &issuer).unwrap()).unwrap();
        let cert_id = question.tbs_request.request_list[0].req_cert.clone();
        let single = SingleResponse {
            cert_id,
            cert_status: CertStatus::good(),
            this_update: time(NOW.minus(DAY)),
            next_update: Some(time(NOW.plus(6 * DAY))),
            single_extensions: None,
        };
        ResponseData {
            version: Version::V1,
            responder_id: by_name(self.der()),
            produced_at: time(NOW.minus(DAY)),
            responses: vec![single],
            response_extensions: None,
        }
    }

    /// Signed by the authority itself.
    pub fn signed(&self, data: &ResponseData) -> Vec<u8> {
        signed(data, &self.key, &[])
    }
}

/// A response, signed with this private key and with these certificates in it.
pub fn signed(data: &ResponseData, key: &KeyPair, certificates: &[&[u8]]) -> Vec<u8> {
    let content = data.to_der().unwrap();
    let certificates: Vec<_> =
        certificates.iter().map(|der| x509_cert::Certificate::from_der(der).unwrap()).collect();
    let basic = BasicOcspResponse {
        tbs_response_data: data.clone(),
        signature_algorithm: AlgorithmIdentifierOwned {
            oid: der::asn1::ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"),
            parameters: None,
        },
        signature: BitString::from_bytes(&key.sign(&content).unwrap()).unwrap(),
        certs: (!certificates.is_empty()).then_some(certificates),
    };
    OcspResponse::successful(basic).unwrap().to_der().unwrap()
}

pub fn by_name(certificate: &[u8]) -> ResponderId {
    let certificate = x509_cert::Certificate::from_der(certificate).unwrap();
    ResponderId::ByName(certificate.tbs_certificate.subject)
}

pub fn time(moment: Moment) -> OcspGeneralizedTime {
    let since_1970 = std::time::Duration::from_secs(moment.unix_seconds().unsigned_abs());
    OcspGeneralizedTime(GeneralizedTime::from_unix_duration(since_1970).unwrap())
}

/// An identifier that means nobody's certificate.
pub fn other_id(id: &CertId) -> [CertId; 4] {
    let flipped = |bytes: &OctetString| {
        let mut bytes = bytes.as_bytes().to_vec();
        bytes[0] ^= 1;
        OctetString::new(bytes).unwrap()
    };
    let md5 = AlgorithmIdentifierOwned {
        oid: der::asn1::ObjectIdentifier::new_unwrap("1.2.840.113549.2.5"),
        parameters: Some(Null.into()),
    };
    [
        CertId { issuer_name_hash: flipped(&id.issuer_name_hash), ..id.clone() },
        CertId { issuer_key_hash: flipped(&id.issuer_key_hash), ..id.clone() },
        CertId { serial_number: SerialNumber::from(77u8), ..id.clone() },
        CertId { hash_algorithm: md5, ..id.clone() },
    ]
}
