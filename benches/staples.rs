//! What a staple costs in memory: certified keys that name a responder are given the staples that the store
//! holds, through the real stapling and its keeper. Issued ones, with leaves and responses of the size that a
//! public CA's have.
#![allow(clippy::disallowed_methods, reason = "a benchmark sets its own inputs up")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use der::asn1::{BitString, GeneralizedTime, Ia5String, ObjectIdentifier, OctetString};
use der::{Decode, Encode};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName,
    DnType, IsCa, KeyPair, SigningKey,
};
use ringgate::clock::Moment;
use ringgate::config::stapling::Stapling as Settings;
use ringgate::control::certified::{Certified, Source, certify};
use ringgate::control::parallel::in_parallel;
use ringgate::control::stapling::{Occasion, Stapling};
use ringgate::store::layout;
use x509_cert::Certificate;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{AccessDescription, AuthorityInfoAccessSyntax};
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspGeneralizedTime, OcspResponse, ResponderId,
    ResponseData, SingleResponse, Version,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CERTIFICATES: usize = 50_000;
const THREADS: usize = 2;
/// With it a leaf on P-256 has the kilobyte that a public CA's has.
const PADDING: usize = 550;
/// With it a response has the 500 bytes that Let's Encrypt's had.
const RESPONSE_PADDING: usize = 190;

fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}

struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    parsed: Certificate,
    key: KeyPair,
    /// All leaves have one: to make each its own takes the longest.
    leaf_key: KeyPair,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an issuer");
        let key = KeyPair::generate().expect("a key");
        let again = KeyPair::from_pem(&key.serialize_pem()).expect("the same key");
        let issuer = CertifiedIssuer::self_signed(params, again).expect("an issuer");
        let parsed = Certificate::from_der(issuer.der()).expect("a certificate");
        Self { issuer, parsed, key, leaf_key: KeyPair::generate().expect("a key") }
    }

    fn certified(&self, number: usize) -> Arc<Certified> {
        let name = format!("host-{number}.customers.example.com");
        let mut params = CertificateParams::new([name]).expect("a name");
        params.distinguished_name = DistinguishedName::new();
        let url = Ia5String::new("http://ocsp.issuer.example/responder").expect("a URL");
        let access = AuthorityInfoAccessSyntax(vec![AccessDescription {
            access_method: oid("1.3.6.1.5.5.7.48.1"),
            access_location: GeneralName::UniformResourceIdentifier(url),
        }]);
        let access = access.to_der().expect("an extension");
        params.custom_extensions = vec![
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], access),
            CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![0; PADDING]),
        ];
        let leaf = params.signed_by(&self.leaf_key, &self.issuer).expect("a leaf");
        let chain = leaf.pem() + &self.issuer.pem();
        let key = self.leaf_key.serialize_pem();
        let source = Source::Issued { issuer: "https://ca.example/directory".into() };
        Arc::new(certify(chain.as_bytes(), key.as_bytes(), source).expect("a certified key"))
    }

    fn response(&self, certified: &Certified, now: Moment) -> Vec<u8> {
        let sha1 = |bytes: &[u8]| {
            let algorithm = &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
            let digest = aws_lc_rs::digest::digest(algorithm, bytes);
            OctetString::new(digest.as_ref()).expect("a digest")
        };
        let issuer = &self.parsed.tbs_certificate;
        let leaf = Certificate::from_der(&certified.key.cert[0]).expect("a leaf");
        let at = |moment: Moment| {
            let since_1970 = Duration::from_secs(moment.unix_seconds().unsigned_abs());
            OcspGeneralizedTime(GeneralizedTime::from_unix_duration(since_1970).expect("a time"))
        };
        let algorithm =
            |oid| AlgorithmIdentifierOwned { oid, parameters: Some(der::asn1::Null.into()) };
        let key = issuer.subject_public_key_info.subject_public_key.raw_bytes();
        let data = ResponseData {
            version: Version::V1,
            responder_id: ResponderId::ByName(issuer.subject.clone()),
            produced_at: at(now),
            responses: vec![SingleResponse {
                cert_id: CertId {
                    hash_algorithm: algorithm(oid("1.3.14.3.2.26")),
                    issuer_name_hash: sha1(&issuer.subject.to_der().expect("a name")),
                    issuer_key_hash: sha1(key),
                    serial_number: leaf.tbs_certificate.serial_number,
                },
                cert_status: CertStatus::good(),
                this_update: at(now),
                next_update: Some(at(now.plus(Duration::from_secs(7 * 24 * 3600)))),
                single_extensions: None,
            }],
            response_extensions: Some(vec![x509_cert::ext::Extension {
                extn_id: oid("1.2.3.4"),
                critical: false,
                extn_value: OctetString::new(vec![0; RESPONSE_PADDING]).expect("bytes"),
            }]),
        };
        let content = data.to_der().expect("a response");
        let signature = self.key.sign(&content).expect("a signature");
        let basic = BasicOcspResponse {
            tbs_response_data: data,
            signature_algorithm: AlgorithmIdentifierOwned {
                oid: oid("1.2.840.10045.4.3.2"),
                parameters: None,
            },
            signature: BitString::from_bytes(&signature).expect("bits"),
            certs: None,
        };
        let response = OcspResponse::successful(basic).expect("a response");
        response.to_der().expect("a response")
    }
}

/// A store, removed at the end.
struct Store(PathBuf);

impl Drop for Store {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).unwrap_or(0) * 1024
}

fn main() {
    let (ca, now) = (Ca::new(), Moment::now());
    let store =
        Store(std::env::temp_dir().join(format!("ringgate-staples-{}", std::process::id())));
    std::fs::create_dir_all(store.0.join("ocsp")).expect("a store");
    let numbers: Vec<usize> = (0..CERTIFICATES).collect();
    let all = in_parallel(&numbers, THREADS, |number| ca.certified(*number));
    in_parallel(&all, THREADS, |certified| {
        let name = layout::staple(Some(&certified.patterns[0].to_string()), certified.chain_hash);
        std::fs::write(store.0.join(name), ca.response(certified, now)).expect("stored");
    });
    let (leaf, staple) = (all[0].key.cert[0].len(), ca.response(&all[0], now).len());
    let settings =
        Settings { dir: store.0.clone(), http_proxy: None, https_proxy: None, notes: Vec::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut stapling = Stapling::default();
    let roots = ca.issuer.pem();
    let before = resident_bytes();
    stapling.adopt(
        Some(&settings),
        roots.as_bytes(),
        &all,
        Occasion::Beginning { threads: THREADS },
        now,
    );
    runtime.block_on(async {
        stapling.start();
        // The keeper takes what it is told when it is first polled; then the allocator gives back what was in
        // use for a moment.
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let used = resident_bytes().saturating_sub(before);
    let is_stapled = |one: &&Arc<Certified>| stapling.dress(one).key.ocsp.is_some();
    let stapled = all.iter().filter(is_stapled).count();
    println!(
        "{stapled} stapled certificates (leaf {leaf} B, response {staple} B): {} B each above the certificate itself",
        used / CERTIFICATES
    );
}
