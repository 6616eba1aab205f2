//! Buffers that the kernel picks from when bytes arrive, per worker, so that an idle connection holds none.

use std::alloc::Layout;
use std::cell::Cell;
use std::io;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::driver;

/// Bytes in one buffer: a ClientHello with a post-quantum share and most requests fit. A direction that
/// fills one is in bulk and reads into the worker's scratch memory instead.
pub const BUFFER_BYTES: usize = 4096;
/// Buffers of one worker, a power of two: 1 MiB. They are in use from the completion until the task that
/// waited for it has run, so this bounds completions per turn; one more falls back to waiting for
/// readability.
const BUFFERS: u16 = 256;
/// The group that receive operations name; a worker has only one.
const GROUP: u16 = 0;
/// The kernel wants the ring of entries on a page of its own.
pub const PAGE_BYTES: usize = 4096;
/// How far within a page memory begins that large copies are made from and to. glibc before 2.39 makes those
/// by `rep movsb`, and AMD's Zen 3 needs twenty times as long for that where the destination is less than a
/// cache line ahead of the source, both counted within their pages. rustls copies what it is to encrypt into
/// vectors of its own, which begin with a page and five bytes of header (perf/results/zen-3.md).
pub const WITHIN_PAGE_BYTES: usize = 128;

/// The buffers of one worker; clones share them.
#[derive(Clone)]
pub struct Buffers {
    shared: Rc<Shared>,
}

struct Shared {
    /// `BUFFERS` entries that the kernel reads; the 16 bits that would be the first one's `resv` are the
    /// tail (io_uring_register_buf_ring(3)).
    entries: *mut BufRingEntry,
    memory: *mut u8,
    tail: Cell<u16>,
}

impl Buffers {
    /// Allocates the buffers and registers them with the ring of this thread. They are never freed: a worker
    /// lives as long as the process, and the kernel may write to them until the ring is gone.
    ///
    /// # Errors
    /// If the kernel refuses; before 5.19 it knows no such rings.
    pub(super) fn register() -> io::Result<Self> {
        let entries = allocate(usize::from(BUFFERS) * size_of::<BufRingEntry>())?.cast();
        let memory = allocate(WITHIN_PAGE_BYTES + usize::from(BUFFERS) * BUFFER_BYTES)?;
        driver::register(|ring| {
            // SAFETY: the memory of the entries is of that size and never freed.
            unsafe { ring.register_buf_ring_with_flags(entries as u64, BUFFERS, GROUP, 0) }
        })?;
        let shared = Shared { entries, memory, tail: Cell::new(0) };
        for id in 0..BUFFERS {
            shared.give(id);
        }
        Ok(Self { shared: Rc::new(shared) })
    }

    pub(super) fn group(&self) -> u16 {
        GROUP
    }

    /// # Safety
    /// The kernel must have handed over buffer `id`, with `len` bytes in it, and nobody else may have
    /// taken it since.
    pub(super) unsafe fn taken(&self, id: u16, len: usize) -> Buffer {
        Buffer { buffers: self.clone(), id, len: len.min(BUFFER_BYTES) }
    }
}

impl Shared {
    fn address(&self, id: u16) -> *mut u8 {
        let begin = WITHIN_PAGE_BYTES + usize::from(id & (BUFFERS - 1)) * BUFFER_BYTES;
        // SAFETY: `id` is below `BUFFERS` (masked), so the address is inside `memory`.
        unsafe { self.memory.add(begin) }
    }

    /// Hands buffer `id` to the kernel.
    fn give(&self, id: u16) {
        let tail = self.tail.get();
        // SAFETY: the index is masked into the ring. The kernel reads an entry only after the tail has
        // passed it, which happens below; only this thread writes entries. Fields are written one by
        // one because the first entry's last field is the tail.
        let shared_tail = unsafe {
            let entry = &mut *self.entries.add(usize::from(tail & (BUFFERS - 1)));
            entry.set_addr(self.address(id) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(id);
            &*BufRingEntry::tail(self.entries).cast::<AtomicU16>()
        };
        self.tail.set(tail.wrapping_add(1));
        shared_tail.store(self.tail.get(), Ordering::Release);
    }
}

/// Zeroed, page-aligned memory that is never freed.
fn allocate(bytes: usize) -> io::Result<*mut u8> {
    let layout = Layout::from_size_align(bytes, PAGE_BYTES).map_err(io::Error::other)?;
    // SAFETY: the layout is not of size zero.
    let memory = unsafe { std::alloc::alloc_zeroed(layout) };
    if memory.is_null() { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(memory) }
}

/// Received bytes in one of the worker's buffers; dropping it gives the buffer back to the kernel. Do
/// not keep one across a wait: others need it.
pub struct Buffer {
    buffers: Buffers,
    id: u16,
    len: usize,
}

impl Buffer {
    /// Whether the buffer was filled to the end, so that more is likely to wait.
    pub fn is_full(&self) -> bool {
        self.len == BUFFER_BYTES
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the kernel handed this buffer over and gets it back in `drop`; the memory is never
        // freed and its first `len` bytes are initialised.
        unsafe { std::slice::from_raw_parts(self.buffers.shared.address(self.id), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; nobody else holds a `Buffer` of this id.
        unsafe { std::slice::from_raw_parts_mut(self.buffers.shared.address(self.id), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.buffers.shared.give(self.id);
    }
}
