//! Panics of simulated code: the keeper survives them, the simulation must not.

use std::cell::RefCell;

thread_local! {
    static SEEN: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Notes panics of any thread instead of printing them.
pub fn watch() {
    std::panic::set_hook(Box::new(|panic| {
        let said = panic.to_string();
        if !SEEN.with_borrow_mut(|seen| seen.replace(said.clone()).is_some()) {
            eprintln!("{said}");
        }
    }));
}

pub fn forget() {
    SEEN.take();
}

/// The last one on this thread.
pub fn seen() -> Option<String> {
    SEEN.with_borrow(Clone::clone)
}
