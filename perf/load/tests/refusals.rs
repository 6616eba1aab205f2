//! A deliberately broken server is refused: no ratio, the reason in words, exit status 1.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A directory of its own, removed at the end, with descriptions of systems.
struct Systems(PathBuf);

impl Systems {
    fn new(test: &str) -> Self {
        let name = format!("ringgate-refusals-{test}-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// An nginx that does well but for `server`, which goes into its `server` block.
    fn nginx(&self, name: &str, port: u16, server: &str) -> String {
        let config = format!(
            "daemon off; user root; worker_processes 1; pid {{dir}}/pid; error_log stderr;\n\
             events {{ worker_connections 1000; }}\n\
             http {{\n\
               access_log off; client_body_temp_path {{dir}}; proxy_temp_path {{dir}};\n\
               fastcgi_temp_path {{dir}}; uwsgi_temp_path {{dir}}; scgi_temp_path {{dir}};\n\
               server {{\n\
                 listen {{host}}:{{port}} ssl; ssl_protocols TLSv1.3; {server}\n\
               }}\n\
             }}\n"
        );
        self.write(&format!("{name}.conf"), &config);
        let system = format!(
            "start = nginx -p {{dir}} -c {{config}}\nport = {port}\nconfig = {name}.conf\n"
        );
        self.write(&format!("{name}.system"), &system).display().to_string()
    }
}

impl Drop for Systems {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const OWN: &str = "ssl_certificate {cert}; ssl_certificate_key {key};";
const PASS: &str = "location / { proxy_pass http://{upstream}; }";

/// A short comparison. What else runs on the machine does not matter, but for the test of just that.
fn start(systems: &str, scenario: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_compare"));
    command
        .args(["--seconds", "0.3", "--bulk-mib", "1", "--clients", "4"])
        .args(["--systems", systems, "--scenario", scenario])
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn compare(systems: &str, scenario: &str, more: &[&str]) -> Output {
    start(systems, scenario, &[&["--rounds", "1"], more].concat()).output().unwrap()
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// A sound system beside the broken one: it must not be refused, and still no ratio is printed.
#[track_caller]
fn refused(systems: &Systems, broken: &str, scenario: &str, says: &str) {
    let sound = systems.nginx("sound", 9450, &format!("{OWN} {PASS}"));
    let output = compare(&format!("{sound},{broken}"), scenario, &["--smoke"]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let refusals: Vec<_> = text.lines().filter(|line| line.starts_with("refused: ")).collect();
    assert!(!refusals.is_empty(), "{text}");
    for refusal in refusals {
        assert!(refusal.starts_with("refused: broken: ") && refusal.contains(says), "{text}");
    }
    assert!(text.contains("no ratios") && !text.contains("row over column"), "{text}");
}

#[test]
fn a_sound_system_is_not_refused() {
    let systems = Systems::new("sound");
    let sound = systems.nginx("sound", 9450, &format!("{OWN} {PASS}"));
    for scenario in ["full,handshake,resumed", "keep-alive,bulk-down,idle"] {
        let output = compare(&sound, scenario, &["--smoke"]);
        assert!(output.status.success(), "{}", text(&output));
        assert!(text(&output).contains("3 runs, each verified"), "{}", text(&output));
    }
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let systems = Systems::new("certificate");
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![load::stage::SERVER_NAME.to_owned()]).unwrap();
    let cert = systems.write("other.crt", &params.self_signed(&key).unwrap().pem());
    let key = systems.write("other.key", &key.serialize_pem());
    let other =
        format!("ssl_certificate {}; ssl_certificate_key {};", cert.display(), key.display());
    let broken = systems.nginx("broken", 9451, &format!("{other} {PASS}"));
    refused(&systems, &broken, "full", "certificate, ");
}

/// It verifies, but it is not the one that the others were given: its signature costs something else.
#[test]
fn the_certificate_of_another_scenario_is_refused() {
    let systems = Systems::new("rsa");
    // {cert} is the ECDSA one here; the RSA one of the same authority stands beside it.
    let rsa = "ssl_certificate {dir}/../rsa.crt; ssl_certificate_key {dir}/../rsa.key;";
    let broken = systems.nginx("broken", 9451, &format!("{rsa} {PASS}"));
    refused(&systems, &broken, "full", "certificate, ");
}

#[test]
fn a_body_that_is_not_the_upstreams_is_refused() {
    let systems = Systems::new("body");
    // Of the right length, which only the comparison of content finds.
    let body = format!("return 200 \"{}\";", "x".repeat(100));
    let broken = systems.nginx("broken", 9451, &format!("{OWN} {body}"));
    refused(&systems, &broken, "keep-alive", "content, ");
}

#[test]
fn a_stored_response_is_refused() {
    let systems = Systems::new("stored");
    // Every request gets the upstream's true answer to one nonce.
    let body =
        "location / { rewrite ^ /small?n=0123456789abcdef? break; proxy_pass http://{upstream}; }";
    let broken = systems.nginx("broken", 9451, &format!("{OWN} {body}"));
    refused(&systems, &broken, "full", "content, ");
}

#[test]
fn content_that_is_not_the_upstreams_is_refused() {
    let systems = Systems::new("content");
    let other = systems.write("bulk", &"x".repeat(1 << 20));
    let body = format!("location = /bulk {{ alias {}; }}", other.display());
    let broken = systems.nginx("broken", 9451, &format!("{OWN} {body}"));
    refused(&systems, &broken, "bulk-down", "content, ");
}

#[test]
fn an_upload_that_does_not_arrive_is_refused() {
    let systems = Systems::new("upload");
    // Stored somewhere else: the status says that all is well.
    let body = "client_max_body_size 0; location / { root {dir}; dav_methods PUT; create_full_put_path on; }";
    let broken = systems.nginx("broken", 9451, &format!("{OWN} {body}"));
    let sound = format!("{OWN} client_max_body_size 0; {PASS}");
    let sound = systems.nginx("sound", 9450, &sound);
    let output = compare(&format!("{sound},{broken}"), "bulk-up", &["--smoke"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("refused: broken: content, "), "{}", text(&output));
    assert!(!text(&output).contains("refused: sound"), "{}", text(&output));
}

#[test]
fn a_server_that_does_not_resume_is_refused() {
    let systems = Systems::new("resumption");
    let off = "ssl_session_tickets off; ssl_session_cache off;";
    let broken = systems.nginx("broken", 9451, &format!("{OWN} {off} {PASS}"));
    refused(&systems, &broken, "resumed", "0.0 % of the handshakes resumed");
}

#[test]
fn a_server_with_other_parameters_is_refused() {
    let systems = Systems::new("parameters");
    let other = "ssl_conf_command Ciphersuites TLS_AES_256_GCM_SHA384;";
    let broken = systems.nginx("broken", 9451, &format!("{OWN} {other} {PASS}"));
    refused(&systems, &broken, "full", "handshake, ");
}

#[test]
fn a_busy_core_is_refused() {
    let systems = Systems::new("busy");
    let sound = systems.nginx("sound", 9450, &format!("{OWN} {PASS}"));
    let core = load::cores::Cores::of_this_machine().unwrap().server.to_string();
    let mut busy = Command::new("taskset")
        .args(["-c", &core, "sh", "-c", "while :; do :; done"])
        .spawn()
        .unwrap();
    let output = compare(&sound, "full", &[]);
    busy.kill().unwrap();
    busy.wait().unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("refused: sound: something else ran on the server's core"), "{text}");
}

#[test]
fn a_system_that_does_not_start_is_said_to_and_why() {
    let systems = Systems::new("start");
    let broken = systems.nginx("broken", 9451, "no_such_directive;");
    let output = compare(&broken, "full", &[]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("broken ended with") && text.contains("no_such_directive"), "{text}");
}

/// Where a comparison keeps its files.
fn directory(pid: u32) -> PathBuf {
    Path::new("/dev/shm").join(format!("ringgate-load-{pid}"))
}

#[test]
fn nothing_is_left_behind() {
    let systems = Systems::new("left");
    let sound = systems.nginx("sound", 9450, &format!("{OWN} {PASS}"));
    let child = start(&sound, "full", &["--smoke", "--json", "--rounds", "1"]).spawn().unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["cells"][0]["rounds"][0]["operations"].as_u64() > Some(0), "{json}");
    assert!(!directory(pid).exists());
}

/// nginx's first processes, and whatever becomes one, carry the directory in their command line.
fn servers_of(dir: &Path) -> Vec<PathBuf> {
    let name = dir.display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let is_of = |process: &PathBuf| {
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&name)
    };
    processes.filter(is_of).collect()
}

/// Whether an nginx has come as far as its worker. A SIGTERM a moment before is forgotten by it.
fn has_worker(process: &Path) -> bool {
    let pid = process.file_name().unwrap_or_default();
    let children = std::fs::read_to_string(process.join("task").join(pid).join("children"));
    children.is_ok_and(|children| !children.trim().is_empty())
}

#[track_caller]
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_killed_comparison_leaves_no_server_behind() {
    let systems = Systems::new("killed");
    let sound = systems.nginx("sound", 9450, &format!("{OWN} {PASS}"));
    let mut child = start(&sound, "full", &["--smoke", "--rounds", "1000"]).spawn().unwrap();
    let dir = directory(child.id());
    wait_for("upstream and server", || {
        servers_of(&dir).iter().filter(|process| has_worker(process.as_path())).count() >= 2
    });
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("both to end", || servers_of(&dir).is_empty());
    let _ = std::fs::remove_dir_all(dir);
}
