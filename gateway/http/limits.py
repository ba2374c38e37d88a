"""What one client, and all together, may make the edge hold or wait for. Each with its reason."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds, bytes and counts, for one gateway process."""

    head_bytes_max: int = 16 * 1024
    """Request line and headers. AWS takes 8 KB of headers; a presigned URL with a long, escaped key comes on top."""
    head_s: float = 15.0
    """From a request's first byte (or the connection's start) to the end of its headers."""
    idle_s: float = 75.0
    """Between requests. Longer than the pools of common clients keep a connection (60 s), so that they close first."""
    body_rate_min: int = 1000
    """Bytes a second that a body must bring while somebody waits for it, averaged over `body_window_s`."""
    body_window_s: float = 20.0
    """About AWS's own patience with a stalled body."""
    write_stall_s: float = 60.0
    """A reader that takes nothing for so long is gone; its connection holds up to a piece of an object in memory."""
    linger_s: float = 5.0
    """After an answer that came before the body's end we go on reading for so long, since closing on unread bytes
    resets the connection and may take the answer with it (RFC 9112 §9.6)."""
    drain_bytes_max: int = 256 * 1024
    """An unread rest up to this is read and dropped to keep the connection; more costs more than a new connection."""
    pipelined_max: int = 64
    """Requests parsed ahead of the one that is served. S3 clients don't pipeline; more than this is abuse."""
    connections_max: int = 4096
    """More are answered SlowDown and closed. Each costs a descriptor and about 10 KiB."""
    requests_max: int = 1024
    """Requests in flight; more are answered SlowDown at once, which SDKs take as the signal to back off."""
    raw_bytes_min: int = 64 * 1024
    """Bodies above it leave the parser's way: below, changing the transport's protocol costs more than copies."""
    buffer_bytes: int = 1 << 20
    """One receive buffer. Measured: 256 KiB costs a quarter more CPU per byte, 4 MiB gains nothing."""
    buffers_max: int = 48
    """Large receive buffers of the process. When all are out, bodies get `small_buffer_bytes` and go on slower."""
    small_buffer_bytes: int = 64 * 1024
    """What a body begins with, and what it stays at while it comes slowly: a slow sender must not hold a large one."""
    fast_rate_min: int = 4 << 20
    """Bytes a second at which a small buffer must have filled for the next one to be large."""
    buffers_ahead: int = 2
    """Buffers that one body may fill before they are asked for."""
    sweep_s: float = 1.0
    """How often deadlines are looked at: one timer for all connections, since one per request costs µs."""
    shutdown_s: float = 30.0
    """How long requests in flight may take to finish when the server stops."""
