//! An OCSP responder in the same process (RFC 6960, RFC 5019): what the CA has signed, it says to be good or
//! revoked, in DER that the issuer's private key has signed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use der::asn1::{BitString, GeneralizedTime, ObjectIdentifier};
use der::{Decode, Encode};
use http::{Method, Request, Response};
use ringgate::clock::Moment;
use ringgate::clock::simulated::true_time;
use ringgate::control::autocert::simulated::Trouble;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspGeneralizedTime, OcspRequest, OcspResponse,
    OcspResponseStatus, ResponseData, RevokedInfo, SingleResponse, Version,
};

use crate::ca::Ca;
use crate::dice::Dice;
use crate::responses::{BRIEF, Fault, Responses};
use crate::signing::signer;
use crate::sky::Sky;
use crate::stapled::{Said, Stapled};

const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// The responder of one CA.
pub struct Responder {
    number: usize,
    responses: Responses,
    ca: Arc<Ca>,
    sky: Arc<Sky>,
    stapled: Arc<Stapled>,
    dice: Mutex<Dice>,
}

impl Responder {
    pub fn new(
        number: usize,
        seed: u64,
        responses: Responses,
        ca: Arc<Ca>,
        sky: Arc<Sky>,
        stapled: Arc<Stapled>,
    ) -> Self {
        let dice = Mutex::new(Dice::new(seed, 200 + number as u64));
        Self { number, responses, ca, sky, stapled, dice }
    }

    fn dice(&self) -> MutexGuard<'_, Dice> {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One exchange with this process.
    pub async fn exchange(
        &self,
        process: u64,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Trouble> {
        let latency = self.dice().between(Duration::from_millis(20), Duration::from_millis(400));
        tokio::time::sleep(latency).await;
        let now = true_time();
        let Some(id) = question(&request) else {
            self.stapled.bug(format!("a responder is asked something else: {request:?}"));
            return Err(Trouble::new("no question"));
        };
        let serial = serial(&id);
        let known = self.ca.revocation(serial);
        let leaf = known.as_ref().and_then(|(der, _)| self.stapled.leaf(der));
        match leaf {
            Some(leaf) => self.stapled.asked(process, leaf, now),
            None => self.stapled.bug(format!("a responder is asked for the number {serial:x}")),
        }
        let (status, retry_after, body) = match self.sky.responder() {
            Some(Fault::Refused) => {
                return Err(Trouble::new("cannot connect to the responder: Connection refused"));
            }
            Some(Fault::Silent) => std::future::pending().await,
            Some(Fault::Broken) => (500, None, Vec::new()),
            Some(Fault::Maintenance { retry_after }) => {
                self.stapled.retry_after(self.number, now, retry_after);
                (503, Some(retry_after), Vec::new())
            }
            Some(Fault::TryLater) => (200, None, failure(OcspResponseStatus::TryLater)),
            Some(Fault::Unauthorized) => (200, None, failure(OcspResponseStatus::Unauthorized)),
            Some(Fault::Garbage) => (200, None, b"<html>Sign in to this network</html>".to_vec()),
            Some(Fault::NoGet) if request.method() == Method::GET => (405, None, Vec::new()),
            fault => {
                let by = match fault {
                    Some(Fault::Stale { by }) => by,
                    _ => Duration::ZERO,
                };
                let revoked = known.and_then(|(_, revoked)| revoked);
                let (der, said) = self.response(id, revoked, now.minus(by));
                if let Some(leaf) = leaf {
                    self.stapled.said(der.clone(), Said { leaf, ..said });
                }
                (200, None, der)
            }
        };
        let mut response = Response::builder().status(status);
        if let Some(after) = retry_after {
            response = response.header("retry-after", after.as_secs().to_string());
        }
        response.body(body.into()).map_err(|error| Trouble::new(error.to_string()))
    }

    /// What is said at this moment of a certificate that is revoked since then.
    fn response(&self, id: CertId, revoked: Option<Moment>, now: Moment) -> (Vec<u8>, Said) {
        let life = if self.sky.has_brief_responses() { BRIEF } else { self.responses.life };
        let this_update = match self.responses.are_prepared {
            true => {
                let each = (life / 2).as_secs() as i64;
                Moment::from_unix_seconds(now.unix_seconds() / each * each)
            }
            false => now,
        };
        let until = this_update.plus(life);
        let revoked = revoked.filter(|at| *at <= this_update);
        let status = match revoked {
            Some(at) => {
                let (revocation_time, revocation_reason) = (time(at), None);
                CertStatus::revoked(RevokedInfo { revocation_time, revocation_reason })
            }
            None => CertStatus::good(),
        };
        let single = SingleResponse {
            cert_id: id,
            cert_status: status,
            this_update: time(this_update),
            next_update: Some(time(until)),
            single_extensions: None,
        };
        let signer = signer(self.number);
        let data = ResponseData {
            version: Version::V1,
            responder_id: signer.responder_id(),
            produced_at: time(this_update),
            responses: vec![single],
            response_extensions: None,
        };
        let content = data.to_der().expect("a response in DER");
        let basic = BasicOcspResponse {
            tbs_response_data: data,
            signature_algorithm: AlgorithmIdentifierOwned { oid: ED25519, parameters: None },
            signature: BitString::from_bytes(&signer.sign_bytes(&content)).expect("a signature"),
            certs: None,
        };
        let der = OcspResponse::successful(basic).and_then(|response| response.to_der());
        let said = Said { leaf: usize::MAX, this_update, until, is_good: revoked.is_none() };
        (der.expect("a response in DER"), said)
    }
}

fn failure(response_status: OcspResponseStatus) -> Vec<u8> {
    let response = OcspResponse { response_status, response_bytes: None };
    response.to_der().expect("a response in DER")
}

/// What is asked for: the path of a GET (RFC 6960 appendix A.1), or the body of a POST.
fn question(request: &Request<Bytes>) -> Option<CertId> {
    let der = match *request.method() {
        Method::GET => {
            let path = request.uri().path().trim_start_matches('/');
            let path = path.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
            STANDARD.decode(path).ok()?
        }
        _ => request.body().to_vec(),
    };
    let request = OcspRequest::from_der(&der).ok()?;
    request.tbs_request.request_list.into_iter().next().map(|one| one.req_cert)
}

fn serial(id: &CertId) -> u64 {
    let bytes = id.serial_number.as_bytes().iter();
    bytes.fold(0, |number: u64, byte| (number << 8) | u64::from(*byte))
}

fn time(moment: Moment) -> OcspGeneralizedTime {
    let since_1970 = Duration::from_secs(moment.unix_seconds().unsigned_abs());
    OcspGeneralizedTime(GeneralizedTime::from_unix_duration(since_1970).expect("a time"))
}
