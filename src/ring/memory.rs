//! Gives memory back to the system that a thread's allocator keeps for later.

/// Gives back every page of this thread in which nothing is any more. mimalloc does so when something is
/// freed a second later, and on a thread with nothing to do nothing is.
pub fn give_back_memory() {
    // SAFETY: it is given no address, and any thread may call it at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
