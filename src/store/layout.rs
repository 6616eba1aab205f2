//! Every name in the store. Pure.
//!
//! `certificates`, `acme`, `locks` and `ocsp` are CertMagic's layout, byte for byte, so that Caddy and
//! Pomerium can go on from a directory of ours and we from theirs. What they have no place for lies under
//! one root of our own, [`OWN_ROOT`].

/// CertMagic looks at nothing below it.
pub const OWN_ROOT: &str = "ringgate";

/// CertMagic's rule for one part of a path.
pub fn safe(text: &str) -> String {
    let lower = text.to_lowercase();
    let mut rest = lower.trim();
    let mut replaced = String::with_capacity(rest.len());
    while let Some(first) = rest.chars().next() {
        let (taken, put) = match first {
            ' ' => (1, "_"),
            '+' => (1, "_plus_"),
            '*' => (1, "wildcard_"),
            ':' => (1, "-"),
            '.' if rest.starts_with("..") => (2, ""),
            _ => {
                replaced.push(first);
                (first.len_utf8(), "")
            }
        };
        replaced.push_str(put);
        rest = rest.get(taken..).unwrap_or_default();
    }
    replaced.retain(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '@' | '.' | '-'));
    replaced
}

/// The part of a path that stands for an issuer: host with port, and path.
pub fn issuer_key(directory_url: &str) -> String {
    let rest = directory_url.split_once("://").map_or(directory_url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or(rest);
    let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let path = path.replace(['/', '\\'], "-");
    let path = path.trim_matches('-');
    if path.is_empty() { safe(host) } else { safe(&format!("{host}-{path}")) }
}

/// Below it, the issuers' folders with a folder for each name, as CertMagic has them ...
pub const CERTIFICATES: &str = "certificates";
/// ... and likewise with our records.
pub const RECORDS: &str = "ringgate/certificates";

/// The three objects of one certificate, as CertMagic has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Triple {
    pub chain: String,
    pub private_key: String,
    pub metadata: String,
}

pub fn triple(issuer_key: &str, name: &str) -> Triple {
    let name = safe(name);
    let path = |ending| format!("{CERTIFICATES}/{issuer_key}/{name}/{name}.{ending}");
    Triple { chain: path("crt"), private_key: path("key"), metadata: path("json") }
}

/// The folders of an issuer's accounts.
pub fn accounts(issuer_key: &str) -> String {
    format!("{ISSUERS}/{issuer_key}/users")
}

/// The two objects of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountFiles {
    pub metadata: String,
    pub private_key: String,
}

/// `email` is empty for an account without one.
pub fn account(issuer_key: &str, email: &str) -> AccountFiles {
    let (folder, file) = match email.trim() {
        "" => ("default".to_owned(), "default".to_owned()),
        email => (safe(email), safe(email.split('@').next().unwrap_or(email))),
    };
    account_in(issuer_key, &folder, &file)
}

/// The account in a folder that was found by listing, whose file names derive from the folder's.
pub fn account_of_folder(issuer_key: &str, folder: &str) -> AccountFiles {
    account_in(issuer_key, folder, folder.split('@').next().unwrap_or(folder))
}

fn account_in(issuer_key: &str, folder: &str, file: &str) -> AccountFiles {
    let path = |ending| format!("{}/{folder}/{file}.{ending}", accounts(issuer_key));
    AccountFiles { metadata: path("json"), private_key: path("key") }
}

/// CertMagic's lock for everything that is done about one name.
pub fn issue_lock(name: &str) -> String {
    format!("locks/{}.lock", safe(&format!("issue_cert_{name}")))
}

/// CertMagic's lock for registering an account.
pub fn account_lock(email: &str) -> String {
    let name = match email.trim() {
        "" => "register_acme_account".to_owned(),
        email => format!("register_acme_account_{email}"),
    };
    format!("locks/{}.lock", safe(&name))
}

/// Our own record of one name: the commit.
pub fn record(issuer_key: &str, name: &str) -> String {
    format!("{RECORDS}/{issuer_key}/{}.json", safe(name))
}

/// What has been used of an issuer's limits.
pub fn budget(issuer_key: &str) -> String {
    format!("{OWN_ROOT}/budgets/{issuer_key}.json")
}

/// Below it, the folders of issuers with their accounts and challenges.
pub const ISSUERS: &str = "acme";

/// Where the challenges of an issuer lie while they are to be answered, for the other nodes.
pub fn challenge_tokens(issuer_key: &str) -> String {
    format!("{ISSUERS}/{issuer_key}/challenge_tokens")
}

/// `name` is an address as such for HTTP-01, and its reverse name for TLS-ALPN-01.
pub fn challenge_token(issuer_key: &str, name: &str) -> String {
    format!("{}/{}.json", challenge_tokens(issuer_key), safe(name))
}

/// The staple of a certificate: by the first name in its leaf, if it has one, and a hash of its chain's PEM.
pub fn staple(first_name: Option<&str>, chain_hash: u32) -> String {
    match first_name {
        Some(name) => format!("{STAPLES}/{}-{chain_hash:x}", safe(name)),
        None => format!("{STAPLES}/{chain_hash:x}"),
    }
}

const STAPLES: &str = "ocsp";

/// FNV-1a of 32 bits, which CertMagic names staples by.
pub fn fnv1a(bytes: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.iter().fold(0x811c_9dc5, step)
}

/// A name that says what became of an object: ours was put in its place.
pub fn set_aside(name: &str, unix_seconds: i64) -> String {
    format!("{name}.set-aside-by-ringgate-{unix_seconds}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_are_as_certmagic_writes_them() {
        for (text, expected) in [
            ("*.a.example", "wildcard_.a.example"),
            ("2001:db8::1", "2001-db8--1"),
            (" A b+c.Example ", "a_b_plus_c.example"),
            ("a..b/../c", "abc"),
            ("...", "."),
            ("Ops+Tls@X.com", "ops_plus_tls@x.com"),
        ] {
            assert_eq!(safe(text), expected, "{text}");
        }
        for (url, expected) in [
            (
                "https://acme-v02.api.letsencrypt.org/directory",
                "acme-v02.api.letsencrypt.org-directory",
            ),
            ("https://acme.zerossl.com/v2/DV90", "acme.zerossl.com-v2-dv90"),
            ("https://localhost:14000/dir", "localhost-14000-dir"),
            ("https://ca.example", "ca.example"),
            ("https://ca.example/?x=/y", "ca.example"),
        ] {
            assert_eq!(issuer_key(url), expected, "{url}");
        }
    }

    #[test]
    fn accounts_lie_in_folders_named_for_their_address() {
        let with = account("ca", "Ops+Tls@X.com");
        assert_eq!(with.private_key, "acme/ca/users/ops_plus_tls@x.com/ops_plus_tls.key");
        assert_eq!(account_of_folder("ca", "ops_plus_tls@x.com"), with);
        assert_eq!(account("ca", "").metadata, "acme/ca/users/default/default.json");
        assert_eq!(account_of_folder("ca", "default"), account("ca", ""));
    }

    #[test]
    fn staples_are_named_for_their_chain() {
        // The published test vectors of FNV-1a.
        for (text, hash) in [("", 0x811c_9dc5), ("a", 0xe40c_292c), ("foobar", 0xbf9c_f968)] {
            assert_eq!(fnv1a(text.as_bytes()), hash, "{text:?}");
        }
        assert_eq!(staple(Some("*.A.example"), 0xb), "ocsp/wildcard_.a.example-b");
        assert_eq!(staple(None, 0xb), "ocsp/b");
    }

    #[test]
    fn locks_are_named_for_what_they_guard() {
        assert_eq!(issue_lock("a.example"), "locks/issue_cert_a.example.lock");
        assert_eq!(account_lock(""), "locks/register_acme_account.lock");
        assert_eq!(account_lock("a@b.c"), "locks/register_acme_account_a@b.c.lock");
    }

    proptest! {
        #[test]
        fn no_name_leaves_its_folder(text in "\\PC{0,40}") {
            let part = safe(&text);
            prop_assert!(!part.contains('/') && !part.contains('\\') && !part.contains('\0'));
            prop_assert!(!record("ca", &text).contains("/../"));
        }
    }
}
