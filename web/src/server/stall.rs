//! A stream whose writes may not stall: who stops receiving loses the connection instead of keeping it.
//!
//! Reads have no timer here: a caller that follows a log sends nothing for hours. The head of a request and its body have
//! their own.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// Whether the other end is taking what we write.
enum Progress {
    Flowing,
    StuckUntil(Pin<Box<Sleep>>),
}

/// See the module.
pub(super) struct Stall<S> {
    stream: S,
    patience: Duration,
    progress: Progress,
}

impl<S> Stall<S> {
    /// Wraps a stream; a write that takes longer than `patience` fails.
    pub(super) fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, progress: Progress::Flowing }
    }

    fn watch<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.progress = Progress::Flowing;
            return written;
        }
        if matches!(self.progress, Progress::Flowing) {
            let sleep = tokio::time::sleep_until(Instant::now() + self.patience);
            self.progress = Progress::StuckUntil(Box::pin(sleep));
        }
        match &mut self.progress {
            Progress::StuckUntil(sleep) => {
                sleep.as_mut().poll(context).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "nobody receives")))
            }
            Progress::Flowing => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stall<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stall<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, ended)
    }
}
