//! Every bound and deadline of the edge that is not configured, and what happens at it.

use std::time::Duration;

/// Accepts waiting in the ring at once, per listener and worker. With one, each connection paid its own
/// turn of the ring; sixteen took a full handshake from 84 to 78 µs (DESIGN measurements).
pub const ACCEPTS_IN_FLIGHT: usize = 16;

/// The longest ClientHello message. Real ones stay below 2 KiB even with an X25519MLKEM768 share. A
/// longer one is refused with `illegal_parameter`.
pub const LONGEST_HELLO_BYTES: usize = 16 * 1024;

/// The most bytes read in search of the end of a ClientHello: the message and the headers of records
/// that hold 11 bytes of it each. Refused as too long.
pub const LONGEST_HELLO_INPUT_BYTES: usize = LONGEST_HELLO_BYTES * 3 / 2;

/// The most bytes of one connection that wait for the rest of their record or handshake message: the
/// largest record (RFC 8446 §5.2) and the largest message that rustls joins. More ends the connection.
pub const LONGEST_PENDING_BYTES: usize = 96 * 1024;

/// What a bulk read takes at most at first, and of a direction whose other side is slow: what that does not take is kept.
/// 64 KiB units halved CPU per KiB against 16 KiB ones (DESIGN measurements).
pub const BULK_BYTES: usize = 64 * 1024;

/// What one takes while the other side takes all of each at once: 0.90 of the CPU per KiB of uploads, 0.94 to 0.97 of
/// downloads (perf/results/where-the-time-goes.md). So much, and its records' overhead, is kept for a direction whose
/// other side stops after that. Four times as much as [`BULK_BYTES`] gives little more, and keeps other connections
/// waiting for twice as long.
pub const BULK_MOST_BYTES: usize = 128 * 1024;

/// A bulk read of less than this ends the bulk: the next wait is for a small buffer again.
pub const BULK_ENDS_BELOW_BYTES: usize = 16 * 1024;

/// How long the TLS 1.3 ticket waits to leave in the same packet as the first response bytes (about 5 %
/// of a handshake with request, DESIGN measurements). After that it is sent on its own.
pub const TICKET_HELD: Duration = Duration::from_millis(50);

/// Upstream reads that look once more before they answer the client, so that the end of a short
/// response leaves in the same packet as its last bytes. Further responses show a kept-alive connection,
/// where looking again would be a wasted system call each.
pub const EAGER_LOOKS: u32 = 1;

/// From an orderly interruption (idle, drained) to a hard one.
pub const CLOSING: Duration = Duration::from_secs(2);

/// How long a connection that the upstream has finished waits for the client to finish too, from the
/// last byte it sent (nginx's lingering_timeout).
pub const AFTER_UPSTREAM_FINISHED: Duration = Duration::from_secs(5);

/// How long an upstream that takes nothing more may go on answering, and a client that does not hear go
/// on sending (nginx's lingering_time).
pub const DEAF_UPSTREAM: Duration = Duration::from_secs(30);

/// A connection on which nothing has moved for this long is taken to be between two messages when a drain
/// ends it: the client gets a close_notify.
pub const QUIET: Duration = Duration::from_secs(1);

/// How long a client that was sent away (alert, 400) may take to read that before it is cut off.
pub const LINGER: Duration = Duration::from_secs(1);
/// How much it may send meanwhile.
pub const LINGER_BYTES: usize = 256 * 1024;

/// Where many handshakes come, a worker that has nothing to do is not woken by each of their steps, but by as many as a
/// tenth of the hellos of the last 10 ms, or after 200 µs (`ring::be_patient`): it sleeps a third as often
/// (perf/results/together.md). That is what 200 µs bring, a handshake having some six steps.
pub const PATIENCE_SHARE: u32 = 10;
pub const PATIENCE_MOST: u32 = 16;

/// The most handshakes whose public-key operations are computed in one go, which nothing else of the worker interrupts:
/// about a millisecond.
pub const MOST_TOGETHER: usize = 64;

/// How long accepting pauses when descriptors run out, unless a connection ends before that.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// With no connection coming, becoming a relay or going for so long, a burst is over.
pub const LULL: Duration = Duration::from_millis(500);
/// It was one if so many did. What fewer leave behind the allocator may keep: giving back goes through its pages, other
/// workers' too.
pub const BURST: u64 = 64;

/// The longest request head that the built-in page reads; longer is answered with 431.
pub const PAGE_HEAD_BYTES: usize = 8 * 1024;

/// Distinct TLS settings that a worker keeps a `ServerConfig` for; beyond, it starts over.
pub const CONFIGS: usize = 1024;

/// The longest PROXY header: one of version 2 may say 64 KiB, and ones with a client certificate in
/// their TLVs have some. A longer one ends the connection.
pub const LONGEST_PROXY_HEADER_BYTES: usize = 16 * 1024;

/// How long an endpoint is skipped after its first failure; doubled at each further one. A service that
/// is restarted is back within a second or two.
pub const SHORTEST_SKIP: Duration = Duration::from_secs(1);
/// One that stays down costs one refused connection per worker and half-minute.
pub const LONGEST_SKIP: Duration = Duration::from_secs(30);

/// Endpoints that one connection tries: enough for most of a set to be down, few enough that a client
/// is told in time when all of it is.
pub const ENDPOINTS_TRIED: usize = 8;
/// Of these, ones that may take all of connect_timeout: a second helps when one is down, a third would
/// keep the client waiting for a network that is.
pub const TIMEOUTS_BORNE: usize = 2;

/// Distinct credentials of `tls://` upstreams (roots and client certificate), with the protocols that
/// clients negotiated, that a worker keeps a `ClientConfig` for; beyond, it starts over.
pub const CLIENT_CONFIGS: usize = 256;
/// Upstreams whose sessions a `ClientConfig` keeps for resumption.
pub const UPSTREAM_SESSIONS: usize = 256;

/// A connection on which nothing has come for this long is asked whether it lives: longer than the
/// pauses of most clients, so that a live connection seldom costs a packet.
pub const KEEPALIVE_AFTER: Duration = Duration::from_secs(120);
/// How often it is asked again.
pub const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
/// How long sent bytes may stay unacknowledged before the connection is given up: as long as a quiet one
/// takes to be found dead, [`KEEPALIVE_AFTER`] and four questions. The system's default is a quarter of
/// an hour. A peer that lives and reads nothing counts too (tcp(7)), so a longer idle timeout, which allows
/// that, makes it longer.
const UNACKNOWLEDGED: Duration = Duration::from_secs(180);

/// The limit above, under this idle timeout.
pub fn unacknowledged(idle_timeout: Duration) -> Duration {
    UNACKNOWLEDGED.max(idle_timeout)
}

/// The longest request head that a plain listener reads; longer is answered with 431.
pub const PLAIN_HEAD_BYTES: usize = 16 * 1024;
