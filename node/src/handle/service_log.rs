//! The log of what the publisher does for a server job: live from the coordinator that leads, and from the content that it
//! left behind once the job is over.

use bytes::Bytes;
use futures::{StreamExt, stream};
use protocol::{Hash, JobId};
use web::{
    Backend,
    api::ApiError,
    backend::{ByteRange, ByteStream, Follow, LogRequest},
};

use super::{Handle, LOG_MAX};
use crate::daemon::Piece;

/// A log on its way to a reader.
struct Reading {
    handle: Handle,
    request: LogRequest,
    at: u64,
    rest: Option<ByteStream>,
}

/// Reads a log from the byte that was asked for, and follows it where that was asked for.
pub(super) fn follow(handle: Handle, request: LogRequest) -> ByteStream {
    let reading = Reading { handle, request, at: request.from, rest: None };
    stream::try_unfold(reading, Reading::next).boxed()
}

impl Reading {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, ApiError> {
        loop {
            if let Some(rest) = &mut self.rest {
                return Ok(rest.next().await.transpose()?.map(|piece| (piece, self)));
            }
            let detail = self.handle.job(self.request.job).await;
            let Some(detail) = self.handle.or_later(self.request.follow, detail)? else {
                tokio::time::sleep(self.handle.log_poll()).await;
                continue;
            };
            let over = detail.summary.state.is_over();
            let log = detail.service.and_then(|service| service.log);
            let live = if over { None } else { self.handle.live_log(self.request.job, self.at).await };
            match (live, log, self.request.follow) {
                (Some(piece), _, _) if !piece.text.is_empty() => {
                    self.at += piece.text.len() as u64;
                    return Ok(Some((piece.text.into(), self)));
                }
                (Some(_), _, Follow::Yes) => {}
                (Some(_), _, Follow::No) | (None, None, Follow::No) => return Ok(None),
                (None, Some(hash), follow) if over || follow == Follow::No => {
                    self.handle.kept_log(self.request.job, hash).await?;
                    match self.handle.blob(hash, ByteRange::From { start: self.at, last: None }).await {
                        Ok(content) => self.rest = Some(content.bytes),
                        Err(ApiError::Range { .. }) => return Ok(None),
                        Err(error) => return Err(error),
                    }
                    continue;
                }
                (None, _, Follow::Yes) if over => return Ok(None),
                (None, _, _) => {}
            }
            tokio::time::sleep(self.handle.log_poll()).await;
        }
    }
}

impl Handle {
    /// Gives what follows a byte of a live log; none when nobody knows a live log of the job.
    async fn live_log(&self, job: JobId, at: u64) -> Option<Piece> {
        if self.desk.decisions().is_some() {
            return self.desk.runs().piece(&job, usize::try_from(at).ok()?);
        }
        self.view(format!("log/{job}/{at}")).await.ok()
    }

    /// Brings the log of a run here, from whoever has it.
    async fn kept_log(&self, job: JobId, hash: Hash) -> Result<(), ApiError> {
        let from: Vec<_> = self.shared.net.peers().into_iter().map(|p| p.node).collect();
        self.fetch((hash, LOG_MAX), &from, &format!("job/{job}/service-log")).await
    }
}
