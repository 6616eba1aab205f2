//! Thousands of names: started fast, each served, reloaded under load, and said in a few lines when broken.
//!
//! `RINGGATE_TEST_NAMES=100000 cargo test --release --test black_box inventory -- --nocapture` goes the same
//! way with a hundred thousand and prints its figures (perf/results/hundred-thousand-names.md).

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{
    Authority, Key, Nginx, Ringgate, Scratch, SetAtEnd, Tls, root_store, wait_for,
};

/// Enough for many shards of the index, few enough for every run of the tests.
const USUAL_NAMES: usize = 2000;
const SAMPLED: usize = 200;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

fn count() -> usize {
    let asked = std::env::var("RINGGATE_TEST_NAMES").ok();
    asked.map_or(USUAL_NAMES, |text| text.parse().expect("RINGGATE_TEST_NAMES is a number"))
}

fn name(number: usize) -> String {
    format!("n{number}.inventory.example")
}

/// One directory of pairs, one issuer, a private key on P-256 for each.
fn generate(ca: &Authority, dir: &Path, count: usize) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for first in 0..threads {
            scope.spawn(move || {
                for number in (first..count).step_by(threads) {
                    ca.issue_into(dir, &name(number), &[&name(number)], Key::P256);
                }
            });
        }
    });
}

/// What the process has used of processors, in clock ticks of 10 ms.
fn cpu_ticks(ringgate: &Ringgate) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", ringgate.pid())).expect("it runs");
    let (_, fields) = stat.rsplit_once(") ").expect("its name ends");
    fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

#[test]
fn every_one_of_thousands_of_names_is_served_and_a_reload_under_load_drops_nothing() {
    let count = count();
    let scratch = Scratch::new();
    let (ca, new_ca) = (Authority::new("inventory"), Authority::new("renewed"));
    let dir = scratch.path().join("certs");
    let begun = Instant::now();
    generate(&ca, &dir, count);
    println!("{count} pairs generated in {:.1?}", begun.elapsed());

    let nginx = Nginx::start("inventory");
    let route = nginx.route("https://*");
    let empty = Ringgate::start(&["--route", &route]).resident_bytes();
    let begun = Instant::now();
    let certificates = dir.display().to_string();
    let ringgate = Ringgate::start(&["--certificates", &certificates, "--route", &route]);
    println!("started in {:.2?}", begun.elapsed());
    let bytes = ringgate.resident_bytes();
    println!(
        "resident {} MiB, of which {} bytes for each name",
        bytes >> 20,
        bytes.saturating_sub(empty) / count as u64
    );
    assert!(ringgate.log().contains(&format!("\"certificates\":{count}")), "{}", ringgate.log());

    let get = |roots: &str, name: &str| {
        let mut client = Tls::connect(root_store(roots), ringgate.address, name);
        client.send(REQUEST);
        client.read_until(b"the page of inventory\n");
    };
    let begun = Instant::now();
    for at in 0..SAMPLED {
        get(ca.pem(), &name(at * count / SAMPLED));
    }
    println!("{SAMPLED} of them asked for in {:.2?}", begun.elapsed());

    // Three clients that ask for one name after another while it reloads, with some renewed each time.
    let roots = [ca.pem(), new_ca.pem()].concat();
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _stop = SetAtEnd(&stop);
        for thread in 0..3 {
            let (get, roots, stop, served) = (&get, &roots, &stop, &served);
            scope.spawn(move || {
                let mut number = thread;
                while !stop.load(Ordering::Relaxed) {
                    get(roots, &name(number % count));
                    served.fetch_add(1, Ordering::Relaxed);
                    number += 7919;
                }
            });
        }
        for turn in 0..3 {
            let renewed = turn * count / 3..turn * count / 3 + 5;
            for number in renewed.clone() {
                new_ca.issue_into(&dir, &name(number), &[&name(number)], Key::P256);
            }
            let begun = Instant::now();
            ringgate.signal("HUP");
            wait_for("a reload", || {
                (ringgate.count_in_log("configuration reloaded") == turn + 1).then_some(())
            });
            println!("reloaded under load in {:.2?}", begun.elapsed());
            for number in renewed {
                get(new_ca.pem(), &name(number));
            }
        }
    });
    println!("{} served meanwhile, none dropped", served.load(Ordering::Relaxed));
    assert!(served.load(Ordering::Relaxed) > 20);

    // A change among so many is followed too, and the looks that find it cost next to nothing.
    let begun = Instant::now();
    new_ca.issue_into(&dir, &name(6), &[&name(6)], Key::P256);
    ringgate.wait_for_log(&format!("for {} until", name(6)));
    println!("a renewed certificate followed in {:.2?}", begun.elapsed());
    get(new_ca.pem(), &name(6));
    let begun = Instant::now();
    ca.issue_into(&dir, "new", &["new.inventory.example"], Key::P256);
    ringgate.wait_for_log("for new.inventory.example until");
    println!("a new one followed in {:.2?}", begun.elapsed());
    if count != USUAL_NAMES {
        // What was just written is read once more; that is not idle.
        std::thread::sleep(Duration::from_secs(10));
        let (before, begun) = (cpu_ticks(&ringgate), Instant::now());
        std::thread::sleep(Duration::from_secs(60));
        let used = Duration::from_millis(10 * (cpu_ticks(&ringgate) - before));
        let share = 100.0 * used.as_secs_f64() / begun.elapsed().as_secs_f64();
        println!("idle, it uses {share:.2} % of a core");
        println!("resident at the end {} MiB", ringgate.resident_bytes() >> 20);
    }
}

#[test]
fn a_flood_of_problems_and_of_warnings_is_ten_lines_and_a_count() {
    let scratch = Scratch::new();
    let ca = Authority::new("flood");
    let dir = scratch.path().join("certs");
    generate(&ca, &dir, 60);
    for number in 0..40 {
        scratch.write(&format!("certs/{}.key", name(number)), "nothing");
    }
    let certificates = dir.display().to_string();
    let routes: Vec<_> =
        (0..30).map(|number| format!("https://public{number}.example=tcp://127.0.0.1:1")).collect();
    let mut arguments = vec!["--certificates", &certificates];
    for route in &routes {
        arguments.extend(["--route", route]);
    }
    let is_short = |text: &str| {
        assert_eq!(text.matches("holds no private key").count(), 10, "{text}");
        assert!(text.contains("and 30 more of certificates"), "{text}");
        assert_eq!(text.matches("is a public name").count(), 10, "{text}");
        assert!(text.contains("and 20 more of names that the local CA serves"), "{text}");
    };
    let data = scratch.path().join("data").display().to_string();
    let check = Ringgate::output(&[&["check", "--data-dir", &data][..], &arguments].concat());
    assert!(check.status.success());
    is_short(&String::from_utf8_lossy(&check.stdout));
    is_short(&Ringgate::start(&arguments).log());

    // Named one by one, they are problems: counted, and as few lines.
    let entries: Vec<_> = (0..40)
        .map(|number| {
            let file = dir.join(name(number)).display().to_string();
            format!("{file}.crt:{file}.key")
        })
        .collect();
    let check =
        Ringgate::output(&["check", "--data-dir", &data, "--certificates", &entries.join(",")]);
    let text = String::from_utf8_lossy(&check.stderr);
    assert_eq!(check.status.code(), Some(78), "{text}");
    assert_eq!(text.lines().count(), 12, "{text}");
    assert!(
        text.ends_with("and 30 more of certificates\n40 problems; nothing was changed\n"),
        "{text}"
    );
}
