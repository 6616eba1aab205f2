//! What issuers have revoked and is not noted yet. Pure.

use std::collections::BTreeMap;

use rustls::pki_types::CertificateDer;

use crate::name::ServerName;

/// Notes that are written at once, each a few writes; the others wait their turn, for an issuer that takes
/// one certificate back may take ten thousand back.
const AT_ONCE: usize = 4;

/// The last that was said of each name: its leaf, and whether its private key is compromised.
#[derive(Default)]
pub struct ToldRevoked {
    waiting: BTreeMap<ServerName, (CertificateDer<'static>, bool)>,
}

impl ToldRevoked {
    pub fn add(&mut self, name: ServerName, leaf: CertificateDer<'static>, key_compromise: bool) {
        self.waiting.insert(name, (leaf, key_compromise));
    }

    /// The next to note while so many are being noted, if there is room for one more.
    pub fn next(
        &mut self,
        at_work: usize,
    ) -> Option<(ServerName, (CertificateDer<'static>, bool))> {
        if at_work < AT_ONCE { self.waiting.pop_first() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ten_thousand_at_once_are_all_noted_few_at_a_time() {
        let mut told = ToldRevoked::default();
        let leaf = |byte: u8| CertificateDer::from(vec![byte]);
        for number in 0..10_000 {
            let name = || ServerName::parse(&format!("n{number}.example")).unwrap();
            told.add(name(), leaf(0), false);
            // What is said again is noted once, as it was said last.
            told.add(name(), leaf(1), true);
        }
        assert_eq!(told.next(AT_ONCE), None);
        let mut noted = HashSet::new();
        while let Some((name, said)) = told.next(AT_ONCE - 1) {
            assert_eq!(said, (leaf(1), true));
            noted.insert(name);
        }
        assert_eq!(noted.len(), 10_000);
    }
}
