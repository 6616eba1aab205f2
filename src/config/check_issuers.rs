//! Pure: `autocert_ca` and what belongs to an issuer, to the issuers in their order, or every problem.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::autocert::{
    ExternalAccount, IssuerConfig, LETS_ENCRYPT, LETS_ENCRYPT_STAGING, TrustedCa,
};
use super::check::{Checker, scalar_node};
use super::layers::{Entry, Node, Value};
use super::options::ISSUER_KEYS;
use super::problem::Origin;
use super::values::{Wrong, not_empty, read_bool};

/// The keys of an external account, of an entry and of the one for all.
const EAB_KEYS: [&str; 2] = ["eab_key_id", "eab_mac_key"];
const GLOBAL_EAB_KEYS: [&str; 2] = ["autocert_eab_key_id", "autocert_eab_mac_key"];

impl Checker<'_> {
    /// The issuers, each with what is its own and, where it says nothing, with what is said for all.
    pub(super) fn issuers(&mut self) -> Vec<IssuerConfig> {
        let staging = self.scalar("autocert_use_staging", read_bool).unwrap_or(false);
        let usual = if staging { LETS_ENCRYPT_STAGING } else { LETS_ENCRYPT };
        let common = IssuerConfig {
            directory: usual.to_owned(),
            email: self.scalar("autocert_email", read_email).filter(|email| !email.is_empty()),
            external_account: None,
            trusted_ca: self.trusted_ca(),
            profile: self.scalar("autocert_profile", |text| not_empty(text).map(str::to_owned)),
            test_directory: None,
        };
        let mut issuers = self.listed_issuers(&common);
        if issuers.is_empty() {
            issuers.push(common);
        }
        for issuer in &mut issuers {
            if issuer.directory == LETS_ENCRYPT {
                issuer.test_directory.get_or_insert_with(|| LETS_ENCRYPT_STAGING.to_owned());
            }
        }
        let nodes = GLOBAL_EAB_KEYS.map(|key| self.layers.values.get(key));
        let external = self.external_account(nodes, GLOBAL_EAB_KEYS);
        // An external account is one CA's: that of the first issuer.
        if let (Some(first), Some(external)) = (issuers.first_mut(), external) {
            if first.external_account.is_some() {
                let origin = self.layers.origin("autocert_eab_key_id");
                let what = "is for the first entry of autocert_ca, which has an eab_key_id";
                let wrong = (what.into(), "keep one of them".into());
                self.problem(&origin, "autocert_eab_key_id", wrong);
            } else {
                first.external_account = Some(external);
            }
        }
        issuers
    }

    /// What `autocert_ca` lists. None is the usual issuer, as it is for Pomerium.
    fn listed_issuers(&mut self, common: &IssuerConfig) -> Vec<IssuerConfig> {
        let Some(node) = self.layers.values.get("autocert_ca") else { return Vec::new() };
        let items: Vec<Node> = match &node.value {
            Value::Scalar(text) if text.is_empty() => return Vec::new(),
            Value::Scalar(text) => {
                text.split(',').map(|part| scalar_node(&node.origin, part)).collect()
            }
            _ => Self::items(node).into_iter().cloned().collect(),
        };
        let in_file = matches!(node.origin, Origin::File { .. });
        if items.is_empty() && in_file {
            let wrong = ("is an empty list".into(), "write something, or drop the key".into());
            self.problem(&node.origin, "autocert_ca", wrong);
        }
        let is_list = items.len() > 1 || (in_file && matches!(node.value, Value::List(_)));
        let mut issuers: Vec<IssuerConfig> = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let key = if is_list { format!("autocert_ca[{at}]") } else { "autocert_ca".to_owned() };
            let Some(issuer) = self.issuer(item, &key, common) else { continue };
            let same = |one: &str, other: &str| {
                one.trim_end_matches('/').eq_ignore_ascii_case(other.trim_end_matches('/'))
            };
            let twice = issuers.iter().any(|before| same(&before.directory, &issuer.directory));
            let trial = issuer.test_directory.as_deref();
            if twice {
                let what = format!("{} stands here twice", issuer.directory);
                self.problem(&item.origin, &key, (what, "keep one".into()));
            } else if trial.is_some_and(|trial| same(trial, &issuer.directory)) {
                let what = "has the same url and test_url".into();
                let remedy = "name the CA's staging directory, or drop test_url".into();
                self.problem(&item.origin, &key, (what, remedy));
            } else {
                issuers.push(issuer);
            }
        }
        issuers
    }

    fn issuer(&mut self, node: &Node, key: &str, common: &IssuerConfig) -> Option<IssuerConfig> {
        let Value::Map(entries) = &node.value else {
            let directory = self.read(node, key, read_directory)?;
            return Some(IssuerConfig { directory, ..common.clone() });
        };
        self.check_keys(key, entries, ISSUER_KEYS, &[]);
        let find = |name: &str| {
            entries.iter().find(|entry: &&Entry| entry.key == name).map(|entry| &entry.node)
        };
        let name = |field: &str| format!("{key}.{field}");
        let url = self.required(node, key, entries, "url", "write url: https://CA/directory");
        let directory = url.and_then(|url| self.read(url, &name("url"), read_directory));
        let mut text = |field: &str, read: fn(&str) -> Result<String, Wrong>| {
            find(field).and_then(|node| self.read(node, &name(field), read))
        };
        let email = text("email", read_email);
        let profile = text("profile", |text| not_empty(text).map(str::to_owned));
        let trusted = text("trusted_ca_file", |text| not_empty(text).map(str::to_owned));
        let test_directory = text("test_url", read_directory);
        let keys = EAB_KEYS.map(name);
        let external_account =
            self.external_account(EAB_KEYS.map(find), [keys[0].as_str(), keys[1].as_str()]);
        Some(IssuerConfig {
            directory: directory?,
            // Empty: none, whatever is said for all.
            email: email.or_else(|| common.email.clone()).filter(|email| !email.is_empty()),
            external_account,
            trusted_ca: match trusted {
                Some(file) => TrustedCa::File(file.into()),
                None => common.trusted_ca.clone(),
            },
            profile: profile.or_else(|| common.profile.clone()),
            test_directory,
        })
    }

    /// Both keys or neither.
    fn external_account(
        &mut self,
        nodes: [Option<&Node>; 2],
        [id_key, mac_key]: [&str; 2],
    ) -> Option<ExternalAccount> {
        let id_written = nodes[0].filter(|node| node.value != scalar_node(&node.origin, "").value);
        let some = |text: &str| Ok(Some(text.to_owned()).filter(|text| !text.is_empty()));
        let key_id = nodes[0].and_then(|node| self.read(node, id_key, some)).flatten();
        let mac = nodes[1].and_then(|node| {
            self.read(node, mac_key, |text| {
                URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| {
                    // Not the text itself: it is a secret.
                    let what = "is no base64url without padding (letters, digits, - and _)";
                    (what.into(), "copy it from the CA as it is".into())
                })
            })
        });
        let missing = match (id_written, nodes[1]) {
            (Some(id), None) => Some((id, id_key, mac_key)),
            (None, Some(mac)) => Some((mac, mac_key, id_key)),
            _ => None,
        };
        if let Some((node, written, missing)) = missing {
            let wrong = (format!("is useless without {missing}"), format!("write {missing} too"));
            self.problem(&node.origin, written, wrong);
        }
        Some(ExternalAccount { key_id: key_id?, mac_key: mac? })
    }

    fn trusted_ca(&mut self) -> TrustedCa {
        let pem = self.scalar("autocert_trusted_ca", |text| {
            STANDARD.decode(text).map_err(|_| {
                (
                    "is no base64".into(),
                    "write base64 of PEM, or use autocert_trusted_ca_file".into(),
                )
            })
        });
        let file =
            self.scalar("autocert_trusted_ca_file", |text| not_empty(text).map(str::to_owned));
        match (pem, file) {
            (Some(_), Some(_)) => {
                let origin = self.layers.origin("autocert_trusted_ca_file");
                let what = "stands beside autocert_trusted_ca".into();
                self.problem(
                    &origin,
                    "autocert_trusted_ca_file",
                    (what, "keep one of them".into()),
                );
                TrustedCa::None
            }
            (Some(pem), None) => TrustedCa::Pem(pem),
            (None, Some(file)) => TrustedCa::File(file.into()),
            (None, None) => TrustedCa::None,
        }
    }
}

fn read_directory(text: &str) -> Result<String, Wrong> {
    let remedy = || "write the CA's directory URL, like https://ca.example/directory".to_owned();
    match text.split_once("://") {
        Some(("https", rest)) if !rest.is_empty() && !rest.starts_with('/') => {
            match text.parse::<http::Uri>() {
                Ok(_) => Ok(text.to_owned()),
                Err(error) => Err((format!("{text:?} is no URL: {error}"), remedy())),
            }
        }
        Some(("http", _)) => Err((format!("{text:?} is not https, which ACME asks for"), remedy())),
        _ => Err((format!("{text:?} is no https URL"), remedy())),
    }
}

fn read_email(text: &str) -> Result<String, Wrong> {
    let text = text.trim();
    let text = text.strip_prefix("mailto:").unwrap_or(text);
    let parts = text.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && !domain.is_empty() && !domain.contains('@')
    });
    if text.is_empty() || (parts && !text.contains(char::is_whitespace)) {
        return Ok(text.to_owned());
    }
    Err((format!("{text:?} is no e-mail address"), "write NAME@DOMAIN".into()))
}

#[cfg(test)]
mod tests {
    use super::super::check_autocert::tests::{autocert, check_yaml};
    use super::*;

    const TWO: &str = "autocert: true\nautocert_email: a@b\nautocert_profile: short\nautocert_eab_key_id: k\nautocert_eab_mac_key: c2VjcmV0\nautocert_ca:\n- https://one.example/dir\n- url: https://two.example/dir\n  email: c@d\n  eab_key_id: x\n  eab_mac_key: eHh4\n  trusted_ca_file: /r\n  profile: long\n  test_url: https://two.example/test\n- url: https://three.example/dir\n  email: ''\n";

    #[test]
    fn each_issuer_has_its_own_and_what_is_said_for_all() {
        let issuers = autocert(TWO).issuers;
        let key_id = |at: usize| {
            issuers[at].external_account.as_ref().map(|external| external.key_id.as_str())
        };
        let email = |at: usize| issuers[at].email.as_deref();
        let profile = |at: usize| issuers[at].profile.as_deref();
        assert_eq!((key_id(0), key_id(1), key_id(2)), (Some("k"), Some("x"), None));
        assert_eq!((email(0), email(1), email(2)), (Some("a@b"), Some("c@d"), None));
        assert_eq!(
            (profile(0), profile(1), profile(2)),
            (Some("short"), Some("long"), Some("short"))
        );
        assert_eq!(issuers[1].trusted_ca, TrustedCa::File("/r".into()));
        assert_eq!(issuers[1].test_directory.as_deref(), Some("https://two.example/test"));
        assert_eq!(issuers[0].test_directory, None);
        let one = "autocert: true\nautocert_ca: {url: 'https://one.example/dir', email: x@y}\n";
        assert_eq!(autocert(one).issuers[0].email.as_deref(), Some("x@y"));
        let texts =
            "autocert: true\nautocert_ca: ['https://one.example/', 'https://two.example/']\n";
        assert_eq!(autocert(texts).issuers.len(), 2);
        let usual = autocert("autocert: true\nautocert_ca: ''\n").issuers;
        assert_eq!(usual[0].test_directory.as_deref(), Some(LETS_ENCRYPT_STAGING));
        let staging = autocert("autocert: true\nautocert_use_staging: true\n").issuers;
        assert_eq!(staging[0].test_directory, None);
    }

    #[test]
    fn every_mistake_is_one_problem_with_its_place() {
        let le = format!("- {LETS_ENCRYPT}\n");
        for (text, expected) in [
            ("autocert_ca: []\n".to_owned(), "f:1 autocert_ca: is an empty list; write something, or drop the key"),
            (
                "autocert_ca:\n- https://a/dir\n- HTTPS://A/dir/\n".into(),
                "f:3 autocert_ca[1]: \"HTTPS://A/dir/\" is no https URL; write the CA's directory URL, like https://ca.example/directory",
            ),
            (
                "autocert_ca:\n- https://a/dir\n- https://A/dir/\n".into(),
                "f:3 autocert_ca[1]: https://A/dir/ stands here twice; keep one",
            ),
            (
                "autocert_ca:\n- url: http://a/\n".into(),
                "f:2 autocert_ca[0].url: \"http://a/\" is not https, which ACME asks for; write the CA's directory URL, like https://ca.example/directory",
            ),
            (
                "autocert_ca:\n- url: https://a/\n  eab_key_id: x\n".into(),
                "f:3 autocert_ca[0].eab_key_id: is useless without autocert_ca[0].eab_mac_key; write autocert_ca[0].eab_mac_key too",
            ),
            (
                "autocert_ca:\n- url: https://a/\n  test_url: https://a\n".into(),
                "f:2 autocert_ca[0]: has the same url and test_url; name the CA's staging directory, or drop test_url",
            ),
            (
                "autocert_ca:\n- email: a@b\n".into(),
                "f:2 autocert_ca[0]: has no url; write url: https://CA/directory",
            ),
            (
                "autocert_ca:\n- url: https://a/\n  emial: a@b\n".into(),
                "f:3 autocert_ca[0].emial: is no key; did you mean email?",
            ),
            (
                "autocert_eab_key_id: x\nautocert_eab_mac_key: eHh4\nautocert_ca:\n- url: https://a/\n  eab_key_id: x\n  eab_mac_key: eHh4\n".into(),
                "f:1 autocert_eab_key_id: is for the first entry of autocert_ca, which has an eab_key_id; keep one of them",
            ),
            (
                format!("autocert: true\nautocert_must_staple: true\nautocert_ca:\n- https://a/\n{le}"),
                "f:2 autocert_must_staple: Let's Encrypt (acme-v02.api.letsencrypt.org) refuses must-staple certificates; leave it out, or name another CA with autocert_ca",
            ),
        ] {
            let problems = check_yaml(&text).expect_err(&text);
            assert_eq!(problems, [expected], "{text}");
        }
    }
}
