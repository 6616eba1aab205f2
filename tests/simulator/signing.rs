//! The simulated CA's certificates: real ones, the same for the same seed, for Ed25519 signs without random
//! numbers.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use der::Decode;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer,
    CustomExtension, DistinguishedName, DnType, IsCa, KeyPair, SanType, SerialNumber, SigningKey,
};
use ringgate::clock::Moment;
use x509_ocsp::ResponderId;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use crate::responses::Responses;

/// What was signed.
#[derive(Clone, Debug)]
pub struct Signed {
    pub der: Vec<u8>,
    pub chain: String,
    /// RFC 9773 §4.1.
    pub id: String,
}

/// An intermediate that signs.
pub struct Signer {
    number: u8,
    issuer: CertifiedIssuer<'static, KeyPair>,
    responder_id: ResponderId,
    key: KeyPair,
    pem: String,
}

static SIGNERS: LazyLock<Vec<Signer>> = LazyLock::new(|| (1..=2).map(Signer::new).collect());

/// The signer of the so-manieth CA.
pub fn signer(ca: usize) -> &'static Signer {
    &SIGNERS[ca]
}

fn key(secret: u8) -> KeyPair {
    // PKCS#8 (RFC 8410 §7) of a secret of equal bytes.
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend([secret; 32]);
    let der = rustls::pki_types::PrivatePkcs8KeyDer::from(der);
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519).unwrap()
}

impl Signer {
    fn new(number: u8) -> Self {
        let params = |name: String| {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.use_authority_key_identifier_extension = true;
            params.serial_number = Some(SerialNumber::from(u64::from(number)));
            params
        };
        let root = CertifiedIssuer::self_signed(
            params(format!("Simulated Root {number}")),
            key(number + 100),
        )
        .unwrap();
        let name = format!("Simulated Intermediate {number}");
        let issuer = CertifiedIssuer::signed_by(params(name), key(number), &root).unwrap();
        let subject = x509_cert::Certificate::from_der(issuer.der()).unwrap();
        let responder_id = ResponderId::ByName(subject.tbs_certificate.subject);
        Self { number, pem: issuer.pem(), issuer, responder_id, key: key(number) }
    }

    pub fn responder_id(&self) -> ResponderId {
        self.responder_id.clone()
    }

    pub fn sign_bytes(&self, bytes: &[u8]) -> Vec<u8> {
        self.key.sign(bytes).unwrap()
    }

    /// Signs a request (RFC 2986) for exactly this name. `Err`: what is wrong with it.
    pub fn sign(
        &self,
        request: &[u8],
        name: &str,
        serial: u64,
        from: Moment,
        to: Moment,
        responses: Option<&Responses>,
    ) -> Result<Signed, String> {
        let mut request = CertificateSigningRequestParams::from_der(&request.to_vec().into())
            .map_err(|error| error.to_string())?;
        let names = &request.params.subject_alt_names;
        let is_for = matches!(names.as_slice(), [SanType::DnsName(one)] if one.as_str() == name);
        if !is_for {
            return Err(format!("the request is for {names:?}, the order for {name}"));
        }
        let date = |at: Moment| time::OffsetDateTime::from_unix_timestamp(at.unix_seconds());
        request.params.not_before = date(from).map_err(|error| error.to_string())?;
        request.params.not_after = date(to).map_err(|error| error.to_string())?;
        request.params.serial_number = Some(SerialNumber::from(serial));
        request.params.use_authority_key_identifier_extension = true;
        request.params.custom_extensions.extend(responses.map(|_| responder(self.number)));
        if responses.is_some_and(|responses| responses.must_staple) {
            // RFC 7633 §6: a sequence of the one number 5.
            let (oid, content) = ([1, 3, 6, 1, 5, 5, 7, 1, 24], vec![0x30, 3, 2, 1, 5]);
            let feature = CustomExtension::from_oid_content(&oid, content);
            request.params.custom_extensions.push(feature);
        }
        let leaf = request.signed_by(&self.issuer).map_err(|error| error.to_string())?;
        let der = leaf.der().to_vec();
        let id = identifier(&der).ok_or("the leaf has no authority key identifier")?;
        Ok(Signed { id, chain: leaf.pem() + &self.pem, der })
    }
}

/// The extension that names this CA's responder (RFC 5280 §4.2.2.1).
fn responder(number: u8) -> CustomExtension {
    let url = format!("http://ocsp{number}.sim");
    let length = |more: usize| (url.len() + more) as u8;
    let mut content = vec![0x30, length(14), 0x30, length(12)];
    content.extend([6, 8, 0x2b, 6, 1, 5, 5, 7, 48, 1, 0x86, length(0)]);
    content.extend(url.as_bytes());
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], content)
}

fn identifier(leaf: &[u8]) -> Option<String> {
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    let authority =
        leaf.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(one) => Some(one.key_identifier.as_ref()?.0),
            _ => None,
        })?;
    let serial = leaf.tbs_certificate.raw_serial();
    Some(format!("{}.{}", URL_SAFE_NO_PAD.encode(authority), URL_SAFE_NO_PAD.encode(serial)))
}
