//! A CA of openssl's with its responder and its lists, and a responder that answers what a test puts into it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use der::asn1::{BitString, GeneralizedTime};
use der::{Decode, Encode};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use x509_ocsp::{BasicOcspResponse, OcspGeneralizedTime, OcspResponse};

use super::{Key, Scratch, command, free_port, loopback, wait_for};

/// A root of `openssl ca`, which issues leaves itself.
pub struct OpensslCa {
    scratch: Scratch,
    key: Key,
}

/// What a leaf names.
#[derive(Clone, Copy, Default)]
pub struct Leaf<'a> {
    pub responder: Option<&'a str>,
    pub list: Option<&'a str>,
    pub must_staple: bool,
}

impl OpensslCa {
    pub fn new(key: Key) -> Self {
        let ca = Self { scratch: Scratch::new(), key };
        let dir = ca.path("");
        let settings = format!(
            "[ca]\ndefault_ca = here\n[here]\ndatabase = {dir}index\nnew_certs_dir = {dir}\nserial = {dir}serial\n\
             crlnumber = {dir}crlnumber\ndefault_md = sha256\npolicy = any\ndefault_days = 30\ndefault_crl_days = 1\n\
             unique_subject = no\ncertificate = {dir}ca.crt\nprivate_key = {dir}ca.key\n[any]\ncommonName = supplied\n"
        );
        for (name, content) in [
            ("ca.cnf", settings.as_str()),
            ("index", ""),
            ("serial", "1000\n"),
            ("crlnumber", "01\n"),
        ] {
            ca.scratch.write(name, content);
        }
        ca.make_key("ca.key");
        ca.openssl(&format!(
            "req -x509 -new -key {dir}ca.key -subj /CN=test-ca -days 60 -out {dir}ca.crt \
             -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature"
        ));
        ca
    }

    pub fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.scratch.path().display())
    }

    pub fn root_pem(&self) -> String {
        std::fs::read_to_string(self.path("ca.crt")).expect("the root")
    }

    #[track_caller]
    fn openssl(&self, arguments: &str) {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let output = command("openssl", &arguments, "");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments:?}: {said}");
    }

    fn make_key(&self, name: &str) {
        let algorithm = match self.key {
            Key::P256 => "-algorithm EC -pkeyopt ec_paramgen_curve:P-256",
            Key::Rsa => "-algorithm RSA -pkeyopt rsa_keygen_bits:2048",
        };
        self.openssl(&format!("genpkey {algorithm} -out {}", self.path(name)));
    }

    fn sign(&self, file: &str, common_name: &str, extensions: &str) {
        self.make_key(&format!("{file}.key"));
        let (key, request) = (self.path(&format!("{file}.key")), self.path(&format!("{file}.csr")));
        self.openssl(&format!("req -new -key {key} -subj /CN={common_name} -out {request}"));
        let extfile = self.scratch.write(&format!("{file}.ext"), extensions);
        self.openssl(&format!(
            "ca -batch -notext -config {} -in {request} -out {} -extfile {}",
            self.path("ca.cnf"),
            self.path(&format!("{file}.crt")),
            extfile.display()
        ));
    }

    /// Issues `FILE.crt`, which holds the leaf alone, with `FILE.key`.
    pub fn issue(&self, file: &str, name: &str, leaf: Leaf<'_>) -> (PathBuf, PathBuf) {
        let mut extensions =
            format!("subjectAltName = DNS:{name}\nauthorityKeyIdentifier = keyid\n");
        if let Some(url) = leaf.responder {
            extensions.push_str(&format!("authorityInfoAccess = OCSP;URI:{url}\n"));
        }
        if let Some(url) = leaf.list {
            extensions.push_str(&format!("crlDistributionPoints = URI:{url}\n"));
        }
        if leaf.must_staple {
            extensions.push_str("tlsfeature = status_request\n");
        }
        self.sign(file, name, &extensions);
        (self.path(&format!("{file}.crt")).into(), self.path(&format!("{file}.key")).into())
    }

    /// The same with the root below the leaf.
    pub fn issue_with_root(&self, file: &str, name: &str, leaf: Leaf<'_>) -> (PathBuf, PathBuf) {
        let (cert, key) = self.issue(file, name, leaf);
        let leaf = std::fs::read_to_string(&cert).expect("the leaf");
        std::fs::write(&cert, leaf + &self.root_pem()).expect("the chain");
        (cert, key)
    }

    /// A certificate that may sign responses in the CA's name.
    pub fn make_delegate(&self) {
        let extensions = "extendedKeyUsage = OCSPSigning\nkeyUsage = digitalSignature\n";
        self.sign("delegate", "delegate", extensions);
    }

    pub fn revoke(&self, file: &str, reason: &str) {
        let (config, cert) = (self.path("ca.cnf"), self.path(&format!("{file}.crt")));
        self.openssl(&format!("ca -batch -config {config} -revoke {cert} -crl_reason {reason}"));
    }

    /// The list of what is revoked, in DER.
    pub fn list(&self) -> Vec<u8> {
        let (config, pem, der) = (self.path("ca.cnf"), self.path("crl.pem"), self.path("crl.der"));
        self.openssl(&format!("ca -batch -config {config} -gencrl -out {pem}"));
        self.openssl(&format!("crl -in {pem} -outform DER -out {der}"));
        std::fs::read(der).expect("the list")
    }

    /// A response about `FILE.crt`, in DER, as openssl makes it with these arguments.
    pub fn response(&self, file: &str, signer: &str, more: &str) -> Vec<u8> {
        let path = |name: &str| self.path(name);
        let (request, response) = (path(&format!("{file}.req")), path(&format!("{file}.resp")));
        self.openssl(&format!(
            "ocsp -issuer {} -cert {} -no_nonce -reqout {request}",
            path("ca.crt"),
            path(&format!("{file}.crt"))
        ));
        self.openssl(&format!(
            "ocsp -index {} -CA {} -rsigner {} -rkey {} -reqin {request} -respout {response} {more}",
            path("index"),
            path("ca.crt"),
            path(&format!("{signer}.crt")),
            path(&format!("{signer}.key")),
        ));
        std::fs::read(response).expect("the response")
    }

    /// The same response signed again, as if it had been made this long ago. For a CA on P-256.
    pub fn aged(&self, response: &[u8], by: Duration) -> Vec<u8> {
        let response = OcspResponse::from_der(response).expect("a response");
        let bytes = response.response_bytes.expect("a successful one").response;
        let mut basic = BasicOcspResponse::from_der(bytes.as_bytes()).expect("a basic one");
        let aged = |time: &OcspGeneralizedTime| {
            let since_1970 = time.0.to_unix_duration() - by;
            OcspGeneralizedTime(GeneralizedTime::from_unix_duration(since_1970).expect("a time"))
        };
        for single in &mut basic.tbs_response_data.responses {
            single.this_update = aged(&single.this_update);
            single.next_update = single.next_update.as_ref().map(aged);
        }
        let pem = std::fs::read(self.path("ca.key")).expect("the private key");
        let key = PrivatePkcs8KeyDer::from_pem_slice(&pem).expect("a private key");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.secret_pkcs8_der());
        let content = basic.tbs_response_data.to_der().expect("its content");
        let key = key.expect("a key on P-256");
        let signature = key.sign(&SystemRandom::new(), &content).expect("a signature");
        basic.signature = BitString::from_bytes(signature.as_ref()).expect("bits");
        OcspResponse::successful(basic).and_then(|response| response.to_der()).expect("a response")
    }
}

/// A running `openssl ocsp`. It serves one request at a time.
pub struct OpensslOcsp {
    child: Child,
}

impl OpensslOcsp {
    /// Starts it at `port` of every address; responses are signed by `SIGNER.crt` and are good for so long.
    pub fn start(ca: &OpensslCa, port: u16, signer: &str, life: &str) -> Self {
        let mut command = Command::new("openssl");
        command.args(["ocsp", "-port", &port.to_string(), "-index", &ca.path("index")]);
        command.args(["-CA", &ca.path("ca.crt"), "-rsigner", &ca.path(&format!("{signer}.crt"))]);
        command.args(["-rkey", &ca.path(&format!("{signer}.key"))]).args(life.split(' '));
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl");
        // It says so on one of them; a connection to see whether it listens would wedge it.
        let (out, err) =
            (child.stdout.take().expect("stdout"), child.stderr.take().expect("stderr"));
        let ready = Arc::new(AtomicUsize::new(0));
        for stream in [Box::new(out) as Box<dyn Read + Send>, Box::new(err)] {
            let ready = ready.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if line.contains("waiting for OCSP client connections") {
                        ready.store(1, Ordering::Release);
                    }
                }
            });
        }
        wait_for("the responder", || (ready.load(Ordering::Acquire) == 1).then_some(()));
        Self { child }
    }
}

impl Drop for OpensslOcsp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A responder that answers what a test puts into it, and a proxy to wherever it is asked for.
pub struct Responder {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    answer: Answer,
    /// Of each request: its first line, and the value of If-None-Match.
    asked: VecDeque<(String, Option<String>)>,
}

/// One HTTP answer.
#[derive(Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, head: String::new(), body: body.into() }
    }

    pub fn with(status: u16, head: &str) -> Self {
        Self { status, head: head.to_owned(), body: Vec::new() }
    }
}

impl Responder {
    pub fn start(answer: Answer) -> Self {
        let host = loopback();
        let listener = TcpListener::bind((host, 0)).expect("a listener");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(Mutex::new(State { answer, ..State::default() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = shared.clone();
                std::thread::spawn(move || drop(serve(stream, &shared)));
            }
        });
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}/ocsp", self.address)
    }

    pub fn set(&self, answer: Answer) {
        self.state.lock().expect("no panic").answer = answer;
    }

    /// The first lines of all requests, with their If-None-Match.
    pub fn asked(&self) -> Vec<(String, Option<String>)> {
        self.state.lock().expect("no panic").asked.iter().cloned().collect()
    }

    /// Waits until it is asked once more than so often.
    #[track_caller]
    pub fn wait_for_more_than(&self, count: usize) {
        wait_for("another question", || (self.asked().len() > count).then_some(()));
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(super::PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut first, mut length, mut tag) = (String::new(), 0, None);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "if-none-match" => tag = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    reader.read_exact(&mut vec![0; length])?;
    let answer = {
        let mut state = state.lock().expect("no panic");
        state.asked.push_back((first.trim().to_owned(), tag.clone()));
        let answer = state.answer.clone();
        let is_known = tag.is_some_and(|tag| answer.head.contains(&tag));
        if is_known { Answer::with(304, "") } else { answer }
    };
    let head = format!(
        "HTTP/1.1 {} x\r\n{}Content-Length: {}\r\nConnection: close\r\n\r\n",
        answer.status,
        answer.head,
        answer.body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&answer.body)
}

/// What `openssl s_client -status` shows of the staple of a name.
pub fn shown(at: SocketAddr, name: &str, more: &[&str]) -> String {
    let at = at.to_string();
    let mut arguments = vec!["s_client", "-connect", &at, "-servername", name, "-status"];
    arguments.extend(more);
    let output = command("openssl", &arguments, "");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether a good response is stapled.
pub fn is_stapled(at: SocketAddr, name: &str, more: &[&str]) -> bool {
    let text = shown(at, name, more);
    text.contains("OCSP Response Status: successful") && text.contains("Cert Status: good")
}

/// A port that nothing uses, for a responder that is started later.
pub fn responder_port() -> u16 {
    free_port(std::net::Ipv4Addr::UNSPECIFIED)
}

/// An entry of a configuration.
pub fn certificates(pairs: &[(&Path, &Path)], names: &[&str]) -> String {
    let mut yaml = "certificates:\n".to_owned();
    for (cert, key) in pairs {
        yaml.push_str(&format!("- cert: {}\n  key: {}\n", cert.display(), key.display()));
    }
    yaml.push_str("routes:\n");
    for name in names {
        yaml.push_str(&format!("- from: https://{name}\n  to: tcp://127.0.0.1:1\n"));
    }
    yaml
}
