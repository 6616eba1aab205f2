//! Hands a value to whom a call reaches, past a library in between that does not know of it.

use std::cell::RefCell;
use std::thread::LocalKey;

/// Where such a value lies for the length of a call.
pub type Slot<V> = RefCell<Option<V>>;

/// Runs `work` with `value` in the slot, and gives back what it has left there. Nothing stays for another call, also
/// where `work` panics.
pub fn lend<V, T>(
    slot: &'static LocalKey<Slot<V>>,
    value: Option<V>,
    work: impl FnOnce() -> T,
) -> (T, Option<V>) {
    struct Emptied<V: 'static>(&'static LocalKey<Slot<V>>);
    impl<V> Drop for Emptied<V> {
        fn drop(&mut self) {
            self.0.take();
        }
    }
    slot.set(value);
    let _emptied = Emptied(slot);
    let result = work();
    (result, slot.take())
}
