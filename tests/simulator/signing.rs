//! The simulated CA's certificates: real ones, the same for the same seed, for Ed25519 signs without random
//! numbers.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer,
    DistinguishedName, DnType, IsCa, KeyPair, SanType, SerialNumber,
};
use ringgate::clock::Moment;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

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
    issuer: CertifiedIssuer<'static, KeyPair>,
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
        Self { pem: issuer.pem(), issuer }
    }

    /// Signs a request (RFC 2986) for exactly this name. `Err`: what is wrong with it.
    pub fn sign(
        &self,
        request: &[u8],
        name: &str,
        serial: u64,
        from: Moment,
        to: Moment,
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
        let leaf = request.signed_by(&self.issuer).map_err(|error| error.to_string())?;
        let der = leaf.der().to_vec();
        let id = identifier(&der).ok_or("the leaf has no authority key identifier")?;
        Ok(Signed { id, chain: leaf.pem() + &self.pem, der })
    }
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
