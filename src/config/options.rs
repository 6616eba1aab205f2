//! THE table: every option once. Flags, environment names, YAML keys and the help text derive from it.

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Path,
    Bool,
    Duration,
    /// A list of texts; in flags and environment separated by commas.
    List,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of files, directories or maps.
    Certificates,
    /// A list of maps, or `FROM=TO` in flags and environment.
    Routes,
    /// A list of URLs or maps, or one.
    Issuers,
}

/// One option.
#[derive(Debug)]
pub struct Opt {
    /// The YAML key; flag and environment names derive from it.
    pub key: &'static str,
    pub kind: Kind,
    /// As help shows it.
    pub default: &'static str,
    /// Pomerium has it too, so its bare name is read from the environment.
    pub bare: bool,
    /// Not built yet: refused with those words, never ignored.
    pub built: bool,
    pub help: &'static str,
    /// Why the default is what it is.
    pub why: &'static str,
}

const fn built(
    key: &'static str,
    kind: Kind,
    default: &'static str,
    bare: bool,
    help: &'static str,
    why: &'static str,
) -> Opt {
    Opt { key, kind, default, bare, built: true, help, why }
}

const fn not_built(key: &'static str, bare: bool) -> Opt {
    Opt { key, kind: Kind::Text, default: "", bare, built: false, help: "", why: "" }
}

/// Every option, in the order of the help text.
#[rustfmt::skip] // A row is read as a row: three lines, not eight.
pub static OPTIONS: &[Opt] = &[
    built(
        "address", Kind::List, ":443; localhost:8443 with no configuration at all", true,
        "Where to listen: HOST:PORT or :PORT, one or several.",
        "the port of https; without configuration one that needs no root",
    ),
    built(
        "routes", Kind::Routes, "none: a built-in page", true,
        "What to serve: FROM=TO, like https://app.example.com=tcp://127.0.0.1:8080; may be repeated.",
        "with nothing to serve, the built-in page shows that TLS works",
    ),
    built(
        "http_redirect_addr", Kind::Text, "unset", true,
        "A plain listener, like :80, that sends clients to https for hosts that a route covers.",
        "port 80 may be somebody else's",
    ),
    built(
        "accept_proxy", Kind::List, "unset", false,
        "Networks, like 10.0.0.0/8, from which every connection must begin with a PROXY header (version 1 or 2); from others one is never read.",
        "whoever may send one may claim to be anyone",
    ),
    built(
        "certificates", Kind::Certificates, "none", true,
        "Directories, combined PEM files, or CERT:KEY pairs; watched. Names that none covers get a certificate from the local CA.",
        "a name without a certificate of its own works at once, for whoever trusts the local CA",
    ),
    built(
        "default_server_name", Kind::Text, "unset", false,
        "Whose certificate and route serve a client that sends no or an unknown server name.",
        "a wrong certificate helps nobody: unset, such clients get the alert unrecognized_name",
    ),
    built(
        "data_dir", Kind::Path, "$STATE_DIRECTORY, $XDG_DATA_HOME/ringgate, $HOME/.local/share/ringgate or /var/lib/ringgate", false,
        "Where the local CA, what autocert obtains and the socket of 'ringgate certs' are kept.",
        "the first of these that the environment knows",
    ),
    built(
        "cores", Kind::List, "all that the process may run on", false,
        "Cores for workers, one pinned thread each: 0,2-5.",
        "capped by the cgroup's CPU quota: more threads than that only wait for each other",
    ),
    built(
        "tls_min_version", Kind::Choice(&["1.2", "1.3"]), "1.2", false,
        "The oldest TLS version on offer.",
        "TLS 1.2 with AEAD suites is sound, and older clients have nothing else",
    ),
    built(
        "tls_cipher_suites", Kind::List, "ours, TLS_AES_128_GCM_SHA256 first", false,
        "Cipher suites by IANA name, in server order.",
        "the first is the cheapest that is strong; ChaCha20 goes first for clients that put it first",
    ),
    built(
        "tls_groups", Kind::List, "X25519MLKEM768,X25519,secp256r1,secp384r1", false,
        "Key exchange groups by IANA name, in server order.",
        "post-quantum where the client has it, then the cheapest",
    ),
    built(
        "ticket_rotation", Kind::Duration, "12h", false,
        "How often the ticket key changes; a ticket opens for two rotations.",
        "a day of resumption; a ticket key that leaks opens no more than that",
    ),
    built(
        "handshake_timeout", Kind::Duration, "10s", false,
        "From the accept to the end of the TLS handshake.",
        "three round trips on the worst mobile network",
    ),
    built(
        "connect_timeout", Kind::Duration, "5s", false,
        "To connect to one endpoint of an upstream.",
        "a lost SYN is sent again after 1 and after 3 seconds",
    ),
    built(
        "idle_timeout", Kind::Duration, "10m", false,
        "A connection that moves no byte for this long is closed.",
        "longer than keep-alive pings, shorter than a day of dead peers",
    ),
    built(
        "shutdown_timeout", Kind::Duration, "30s", false,
        "How long connections may go on after SIGTERM.",
        "shorter than systemd's 90 seconds; it ends at once when nothing is open",
    ),
    built(
        "log_format", Kind::Choice(&["text", "json"]), "text on a terminal, json otherwise", false,
        "How log lines look.",
        "a person reads terminals, a program reads pipes",
    ),
    built(
        "log_level", Kind::Choice(&["error", "warn", "info", "debug", "trace"]), "info", true,
        "What is logged.",
        "info says nothing while nothing happens",
    ),
    built(
        "autocert", Kind::Bool, "false", true,
        "Obtain and renew certificates from an ACME CA for the hosts of routes; this agrees to the CA's terms. Try it with autocert_use_staging first: Let's Encrypt issues 50 certificates a week per registered domain and 5 for the same names.",
        "asking a CA for a certificate publishes the name in its logs: only when told to",
    ),
    built(
        "autocert_ca", Kind::Issuers, "Let's Encrypt", true,
        "The ACME CA's directory URL, or several in the order to ask them: the next one when one stays down or refuses for good. Beats autocert_use_staging. autocert_email, autocert_profile and the trusted roots are for all that do not say their own; autocert_eab_key_id and autocert_eab_mac_key for the first, for an external account is one CA's.",
        "free, and trusted by every client",
    ),
    built(
        "autocert_use_staging", Kind::Bool, "false", true,
        "Use Let's Encrypt's staging directory, whose limits are generous and whose certificates no client trusts.",
        "a certificate that nobody trusts is of use in a trial only",
    ),
    built(
        "autocert_email", Kind::Text, "unset", true,
        "Where the CA reaches the account's owner.",
        "an account works without one",
    ),
    built(
        "autocert_must_staple", Kind::Bool, "false", true,
        "Ask for certificates that are only valid with a stapled OCSP response.",
        "a responder that is down would take the site down",
    ),
    built(
        "autocert_dir", Kind::Path, "autocert in data_dir", true,
        "Where certificates, accounts and orders are kept, in CertMagic's layout; a directory of Caddy's or Pomerium's is taken over.",
        "beside what else must survive a restart",
    ),
    built(
        "autocert_eab_key_id", Kind::Text, "unset", true,
        "The key identifier of an external account binding, at the first CA of autocert_ca; with autocert_eab_mac_key.",
        "only some CAs ask for one",
    ),
    built(
        "autocert_eab_mac_key", Kind::Text, "unset", true,
        "The MAC key of an external account binding, in base64url without padding.",
        "only some CAs ask for one",
    ),
    built(
        "autocert_trusted_ca", Kind::Text, "unset", true,
        "Further roots to trust when talking to the CA: PEM in base64.",
        "a public CA's server is trusted by the system's roots",
    ),
    built(
        "autocert_trusted_ca_file", Kind::Path, "unset", true,
        "Further roots to trust when talking to the CA: a PEM file.",
        "a public CA's server is trusted by the system's roots",
    ),
    built(
        "autocert_hosts", Kind::List, "none", false,
        "Names to obtain certificates for besides the hosts of routes.",
        "a name without a route of its own is the exception",
    ),
    built(
        "authenticate_service_url", Kind::Text, "unset", true,
        "The URL of an authentication service, whose host gets a certificate too.",
        "only Pomerium's users have one",
    ),
    built(
        "autocert_key_type", Kind::Choice(&["p256", "p384", "rsa2048"]), "p256", false,
        "The private keys of obtained certificates.",
        "every client verifies P-256, and it signs twenty times faster than RSA",
    ),
    built(
        "autocert_profile", Kind::Text, "unset", false,
        "The CA's profile for certificates, like shortlived; one that it does not list is left out with a warning.",
        "the CA's own default changes with the rules for CAs",
    ),
    built(
        "autocert_challenges", Kind::List, "tls-alpn-01,http-01", false,
        "How to prove control of a name to the CA, in the order to try; http-01 needs http_redirect_addr.",
        "TLS-ALPN-01 needs no port but the one that is served anyway",
    ),
    built(
        "autocert_until_issued", Kind::Choice(&["reject", "local"]), "reject", false,
        "What a name without a certificate gets meanwhile: no handshake, or the local CA's certificate.",
        "a certificate that clients do not trust teaches people to click warnings away",
    ),
    built(
        "autocert_hook", Kind::List, "unset", false,
        "A command to run after each event (cert_obtaining, cert_obtained, cert_failed, cert_revoked), as its list of arguments, without a shell; facts are in RINGGATE_EVENT, RINGGATE_EVENT_NAME, ..._ISSUER, ..._NOT_AFTER, ..._RENEWED, ..._WHY, ..._ERROR, ..._REMEDY, ..._RETRY_AT and ..._REASON.",
        "the log says the same",
    ),
    not_built("autocert_on_demand", false),
    not_built("autocert_resolvers", false),
    not_built("system_certificates", false),
    built(
        "ocsp_stapling", Kind::Bool, "true", false,
        "Fetch an OCSP staple for each certificate that names a responder, look daily into the revocation lists of the others, and staple what is good. False: all of it off, staples set by hand too.",
        "certificates that name neither cost nothing; air-gapped nodes turn it off",
    ),
];

/// The keys of a route that are built.
pub const ROUTE_KEYS: &[&str] = &[
    "from",
    "to",
    "alpn",
    "load_balancing_policy",
    "send_proxy",
    "tls_custom_ca_file",
    "tls_server_name",
    "tls_skip_verify",
    "tls_client_cert_file",
    "tls_client_key_file",
];
/// The keys of an entry of `certificates` that are built.
pub const CERTIFICATE_KEYS: &[&str] = &["cert", "key", "ocsp"];

/// The keys of an entry of `autocert_ca`.
pub const ISSUER_KEYS: &[&str] =
    &["url", "email", "eab_key_id", "eab_mac_key", "trusted_ca_file", "profile", "test_url"];

/// A key of the maps that are the entries of an option.
#[derive(Debug)]
pub struct Part {
    /// The option whose entries have it.
    pub of: &'static str,
    pub key: &'static str,
    pub kind: Kind,
    pub needed: bool,
    pub help: &'static str,
}

const fn part(
    of: &'static str,
    key: &'static str,
    kind: Kind,
    needed: bool,
    help: &'static str,
) -> Part {
    Part { of, key, kind, needed, help }
}

/// What those keys mean; which of them are built, the lists above say.
#[rustfmt::skip] // A row is read as a row.
pub static PARTS: &[Part] = &[
    part("routes", "from", Kind::Text, true, "`https://HOST` or `https://HOST:PORT`; the host may be `*.example.com`, or `*` for any remaining name. With a port it matches on that listener only, or everywhere if no `address` has it."),
    part("routes", "to", Kind::List, true, "Where its connections go, one or several: `tcp://HOST:PORT`, `tls://HOST:PORT` (encrypted again) or `unix:/PATH`."),
    part("routes", "load_balancing_policy", Kind::Choice(&["round_robin", "least_connections"]), false, "How one of several is picked. Default: round_robin."),
    part("routes", "alpn", Kind::List, false, "Protocols to offer clients, like `h2` and `http/1.1`. Default: none."),
    part("routes", "send_proxy", Kind::Choice(&["v1", "v2"]), false, "Tell the upstream the client's address in a PROXY header of this version."),
    part("routes", "tls_custom_ca_file", Kind::Path, false, "For `tls://`: the roots to verify the upstream with. Default: the system's."),
    part("routes", "tls_server_name", Kind::Text, false, "For `tls://`: the name that the upstream's certificate must have. Default: the host in `to`."),
    part("routes", "tls_skip_verify", Kind::Bool, false, "For `tls://`: take any certificate; then anyone on the way can read and change what is sent."),
    part("routes", "tls_client_cert_file", Kind::Path, false, "For `tls://`: the chain to show to an upstream that asks."),
    part("routes", "tls_client_key_file", Kind::Path, false, "For `tls://`: its private key."),
    part("certificates", "cert", Kind::Path, true, "The chain as PEM, the leaf first."),
    part("certificates", "key", Kind::Path, false, "Its private key as PEM. Default: it is in the chain's file."),
    part("certificates", "ocsp", Kind::Path, false, "The staple, an OCSP response in DER. Default: none."),
    part("autocert_ca", "url", Kind::Text, true, "The directory URL."),
    part("autocert_ca", "email", Kind::Text, false, "Where this CA reaches the account's owner; empty: nowhere. Default: `autocert_email`."),
    part("autocert_ca", "eab_key_id", Kind::Text, false, "The key identifier of this CA's external account; with `eab_mac_key`."),
    part("autocert_ca", "eab_mac_key", Kind::Text, false, "Its MAC key, in base64url without padding."),
    part("autocert_ca", "trusted_ca_file", Kind::Path, false, "Further roots to trust when talking to this CA. Default: those for all."),
    part("autocert_ca", "profile", Kind::Text, false, "This CA's profile. Default: `autocert_profile`."),
    part("autocert_ca", "test_url", Kind::Text, false, "The directory URL of this CA's staging environment: a name whose validation failed repeatedly is tried there before this CA is asked again. Default: Let's Encrypt's own for Let's Encrypt, else none."),
];

/// The option of this key.
pub fn find(key: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| option.key == key)
}

/// The option, not built yet, whose part a nested key is: `autocert_on_demand.ask`, or `_ask` in the
/// environment.
pub fn not_built_above(nested: &str) -> Option<&'static Opt> {
    let above = |option: &&Opt| {
        nested.strip_prefix(option.key).is_some_and(|rest| rest.starts_with(['.', '_']))
    };
    OPTIONS
        .iter()
        .filter(|option| !option.built)
        .filter(above)
        .max_by_key(|option| option.key.len())
}

impl Opt {
    /// Under which heading help and reference show it.
    pub fn heading(&self) -> &'static str {
        match self.key {
            key if key.starts_with("tls_") || key.starts_with("ticket_") => "TLS",
            key if key.ends_with("_timeout") => "Timeouts",
            key if key.starts_with("log_") => "Logging",
            key if key.starts_with("autocert") || key.starts_with("authenticate") => "Autocert",
            _ => "Serving",
        }
    }

    /// The keys of its entries that are built, where they are maps.
    pub fn parts(&self) -> impl Iterator<Item = &'static Part> {
        let built = match self.kind {
            Kind::Routes => ROUTE_KEYS,
            Kind::Certificates => CERTIFICATE_KEYS,
            Kind::Issuers => ISSUER_KEYS,
            _ => &[],
        };
        PARTS.iter().filter(|part| part.of == self.key && built.contains(&part.key))
    }

    /// `--idle-timeout`; routes are written one by one, so theirs is `--route`.
    pub fn flag(&self) -> String {
        match self.kind {
            Kind::Routes => "--route".to_owned(),
            _ => format!("--{}", self.key.replace('_', "-")),
        }
    }

    /// `RINGGATE_IDLE_TIMEOUT`.
    pub fn environment(&self) -> String {
        format!("RINGGATE_{}", self.key.to_uppercase())
    }

    /// `IDLE_TIMEOUT`, if Pomerium reads it too.
    pub fn bare_environment(&self) -> Option<String> {
        self.bare.then(|| self.key.to_uppercase())
    }
}

/// The most similar of `valid`, if it is similar enough to be what was meant.
pub fn nearest<'a>(written: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Twice the longest key, for the distance costs a product of lengths and anything may be written.
    const LONGEST: usize = 64;
    if written.len() > LONGEST {
        return None;
    }
    let written = written.replace('-', "_").to_lowercase();
    let (distance, nearest) =
        valid.into_iter().map(|key| (edit_distance(&written, key), key)).min()?;
    (distance <= written.chars().count().max(3) / 3).then_some(nearest)
}

/// Letters to insert, delete, replace or swap with their neighbour to make `b` of `a` (optimal string
/// alignment).
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_finds_the_one_that_was_meant() {
        let keys = || OPTIONS.iter().map(|option| option.key);
        for (written, meant) in [
            ("idle_timout", Some("idle_timeout")),
            ("Idle-Timeout", Some("idle_timeout")),
            ("adress", Some("address")),
            ("route", Some("routes")),
            ("color", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, keys()), meant, "{written}");
        }
        assert_eq!(nearest(&"k".repeat(1 << 20), keys()), None);
    }

    #[test]
    fn a_part_of_what_is_not_built_is_found_under_the_longest_key() {
        for (nested, above) in [
            ("autocert_on_demand.ask", Some("autocert_on_demand")),
            ("autocert_on_demand_ask", Some("autocert_on_demand")),
            ("autocert_emial", None),
            ("autocert", None),
            ("autocerts", None),
            ("address_x", None),
        ] {
            assert_eq!(not_built_above(nested).map(|option| option.key), above, "{nested}");
        }
    }

    #[test]
    fn every_key_of_a_route_and_of_a_certificate_has_its_row() {
        for (of, keys) in [("routes", ROUTE_KEYS), ("certificates", CERTIFICATE_KEYS)] {
            let rows: Vec<_> = find(of).unwrap().parts().map(|part| part.key).collect();
            let mut keys = keys.to_vec();
            keys.retain(|key| !rows.contains(key));
            assert_eq!(keys, [""; 0], "{of} has keys without a row in PARTS");
        }
    }

    #[test]
    fn every_built_option_says_what_it_does_and_why() {
        for option in OPTIONS.iter().filter(|option| option.built) {
            assert!(option.help.ends_with('.') && !option.why.is_empty(), "{}", option.key);
            assert!(!option.default.is_empty(), "{}", option.key);
        }
        let mut keys: Vec<_> = OPTIONS.iter().map(|option| option.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), OPTIONS.len());
    }
}
