//! A client's TCP connection: paced where the link is slow, and reset instead of closed where a fault says so.
use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

/// How a connection ends, decided while it is in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Ending(Arc<AtomicBool>);

impl Ending {
    /// Ends with a TCP reset: what was not yet received is lost.
    pub(super) fn reset(&self) {
        self.0.store(true, Relaxed);
    }

    fn is_reset(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Lets so many bytes per second through.
#[derive(Debug)]
struct Pace {
    bandwidth: u64,
    next: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Pace {
    fn new(bandwidth: u64) -> Self {
        let now = Instant::now();
        Self {
            bandwidth: bandwidth.max(1),
            next: now,
            sleep: Box::pin(sleep_until(now)),
        }
    }

    /// Waits for the next turn; answers how many bytes it is for.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if Instant::now() < self.next {
            self.sleep.as_mut().reset(self.next);
            ready!(self.sleep.as_mut().poll(cx));
        }
        // A fiftieth of a second's bytes at a time keeps the flow even.
        Poll::Ready(usize::try_from((self.bandwidth / 50).clamp(512, 1 << 20)).unwrap_or(512))
    }

    fn spend(&mut self, bytes: usize) {
        let nanos = u128::from(u64::try_from(bytes).unwrap_or(u64::MAX)) * 1_000_000_000
            / u128::from(self.bandwidth);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.next = self.next.max(Instant::now()) + cost;
    }
}

/// The stream under HTTP and TLS.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    ending: Ending,
    reading: Option<Pace>,
    writing: Option<Pace>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, ending: Ending, bandwidth: Option<u64>) -> Self {
        Self {
            stream,
            ending,
            reading: bandwidth.map(Pace::new),
            writing: bandwidth.map(Pace::new),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.ending.is_reset()
            && let Err(error) = self.stream.set_zero_linger()
        {
            tracing::debug!(%error, "the connection is closed instead of reset");
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(pace) = &mut this.reading else {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        };
        let turn = ready!(pace.poll_turn(cx)).min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(turn));
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        pace.spend(read);
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(pace) = &mut this.writing else {
            return Pin::new(&mut this.stream).poll_write(cx, buf);
        };
        let turn = ready!(pace.poll_turn(cx)).min(buf.len());
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, &buf[..turn]))?;
        pace.spend(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.writing.is_none() {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        }
        let first = bufs
            .iter()
            .find(|buf| !buf.is_empty())
            .map_or(&[][..], |buf| &buf[..]);
        self.poll_write(cx, first)
    }

    fn is_write_vectored(&self) -> bool {
        self.writing.is_none()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ending.is_reset() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
