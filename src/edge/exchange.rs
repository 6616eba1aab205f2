//! X25519 and X25519MLKEM768 for rustls: what a key exchange agrees on is computed ahead where it could be, and by
//! aws-lc when rustls asks where not.

use std::cell::RefCell;

use rustls::crypto::aws_lc_rs::kx_group as aws_lc;
use rustls::crypto::{ActiveKeyExchange, CompletedKeyExchange, SharedSecret, SupportedKxGroup};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup, ProtocolVersion};

use crate::crypto::lend::{Slot, lend};
use crate::crypto::x25519::{Agreed, Bytes};

thread_local! {
    static COMPUTED: Slot<Agreed> = const { RefCell::new(None) };
}

/// Runs `work`, in which rustls may ask for a key exchange, with this one computed already.
pub fn with_exchange<T>(agreed: Option<Agreed>, work: impl FnOnce() -> T) -> T {
    lend(&COMPUTED, agreed, work).0
}

fn computed(peer: &[u8]) -> Option<Agreed> {
    COMPUTED.take().filter(|agreed| agreed.peer == *peer)
}

/// RFC 8446 §7.4.2.
pub static X25519: &dyn SupportedKxGroup = &Classical;
/// draft-ietf-tls-ecdhe-mlkem.
pub static X25519MLKEM768: &dyn SupportedKxGroup = &Hybrid;

#[derive(Debug)]
struct Classical;

impl SupportedKxGroup for Classical {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        aws_lc::X25519.start()
    }

    fn start_and_complete(&self, peer: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let Some(agreed) = computed(peer) else {
            return aws_lc::X25519.start_and_complete(peer);
        };
        Ok(CompletedKeyExchange {
            group: self.name(),
            pub_key: agreed.public.to_vec(),
            secret: SharedSecret::from(&agreed.secret[..]),
        })
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

#[derive(Debug)]
struct Hybrid;

impl SupportedKxGroup for Hybrid {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        aws_lc::X25519MLKEM768.start()
    }

    /// Shares and secrets are those of ML-KEM-768 and then those of X25519 (draft-ietf-tls-ecdhe-mlkem §4).
    fn start_and_complete(&self, peer: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let (Some((post_quantum, _)), Some(agreed)) = (
            peer.split_last_chunk::<{ size_of::<Bytes>() }>(),
            peer.last_chunk().and_then(|classical: &Bytes| computed(classical)),
        ) else {
            return aws_lc::X25519MLKEM768.start_and_complete(peer);
        };
        let post_quantum = aws_lc::MLKEM768.start_and_complete(post_quantum)?;
        // In one piece at once: growing would leave a copy behind.
        let secret = [post_quantum.secret.secret_bytes(), &agreed.secret[..]].concat();
        let mut pub_key = post_quantum.pub_key;
        pub_key.extend_from_slice(&agreed.public);
        Ok(CompletedKeyExchange { group: self.name(), pub_key, secret: SharedSecret::from(secret) })
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}
