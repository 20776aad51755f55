//! An answer's body on its way out: read from the disk piece by piece, counted, and cut where a fault says so.
use crate::{
    message::Body,
    observer::{Flight, Presence},
    service::Wire,
};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

/// The body that hyper sends.
#[derive(Debug)]
pub(super) struct Outgoing {
    body: Body,
    wire: Wire,
    sent: u64,
    /// Whether what was sent before a cut has had its chance to leave.
    flushed: bool,
    flight: Option<Flight>,
    presence: Option<Presence>,
}

impl Outgoing {
    pub(super) fn new(body: Body, wire: Wire, flight: Option<Flight>, presence: Presence) -> Self {
        Self {
            body,
            wire,
            sent: 0,
            flushed: false,
            flight,
            presence: Some(presence),
        }
    }

    /// Bytes that may still go out.
    fn allowance(&self) -> u64 {
        match self.wire {
            Wire::Whole | Wire::Reset => u64::MAX,
            Wire::Cut(limit) | Wire::Stall(limit) => limit - self.sent,
        }
    }

    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let allowance = self.allowance();
        let bytes = match &mut self.body {
            Body::Empty | Body::Head(_) => return Ok(None),
            Body::Bytes(bytes) => {
                let len = usize::try_from(allowance)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                bytes.split_to(len)
            }
            Body::Content(content, range) => {
                let end = range.end.min(range.start.saturating_add(allowance));
                let bytes = content.chunk(range.start..end)?;
                range.start += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                bytes
            }
        };
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.sent += len;
        if let Some(flight) = &self.flight {
            flight.sent(len);
        }
        Ok((!bytes.is_empty()).then_some(bytes))
    }
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if this.allowance() == 0 && this.body.len() > 0 {
            if let Wire::Stall(_) = this.wire {
                this.presence = None;
                return Poll::Pending;
            }
            if !this.flushed {
                this.flushed = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Poll::Ready(Some(Err(io::Error::other("cut by a fault"))));
        }
        Poll::Ready(this.next().map(|bytes| bytes.map(Frame::data)).transpose())
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.body, Body::Head(_)) || self.body.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        match self.body {
            Body::Head(_) => SizeHint::with_exact(0),
            Body::Empty | Body::Bytes(_) | Body::Content(..) => {
                SizeHint::with_exact(self.body.len())
            }
        }
    }
}
