//! Signatures of handshakes, kept while the load goes on and verified when it is over, each of them.
//!
//! A client that verifies at once needs as long for that as the server for the rest of the handshake, on a core
//! that must keep the server busy. Nothing is believed meanwhile: a window with one wrong signature is refused.

use std::sync::Mutex;

use rustls::{DigitallySignedStruct, Error};

/// So many wait at most, half a minute's on a fast machine; more are verified at once.
const MOST: usize = 1 << 18;

/// What a server signed in one handshake, and how.
#[derive(Debug)]
struct Signed {
    message: Box<[u8]>,
    signature: DigitallySignedStruct,
}

/// Signatures that nobody has looked at.
#[derive(Debug, Default)]
pub struct Signatures(Mutex<Vec<Signed>>);

impl Signatures {
    /// Keeps one for later; `false` where too many wait already.
    pub fn keep(&self, message: &[u8], signature: &DigitallySignedStruct) -> bool {
        let mut kept = self.0.lock().expect("nothing panics with it");
        let room = kept.len() < MOST;
        if room {
            kept.push(Signed { message: message.into(), signature: signature.clone() });
        }
        room
    }

    /// Verifies all that are kept, and keeps none; gives what is wrong with those that are.
    pub fn verify<T>(
        &self,
        mut one: impl FnMut(&[u8], &DigitallySignedStruct) -> Result<T, Error>,
    ) -> Vec<Error> {
        let kept = std::mem::take(&mut *self.0.lock().expect("nothing panics with it"));
        kept.iter().filter_map(|kept| one(&kept.message, &kept.signature).err()).collect()
    }
}
