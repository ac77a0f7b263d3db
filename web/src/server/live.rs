//! Streams: logs and news, as server-sent events for browsers and as plain lines for programs.
//!
//! An event's id is the byte after its text, so a browser that reconnects with `Last-Event-ID` misses and repeats nothing.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::Body,
    extract::{Path, Query, State},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue, header};

use super::{jobs::Words, reply, routes::App};
use crate::{
    api::{ApiError, LogChunk},
    backend::{Backend, ByteStream, Follow, LogRequest},
};

/// How often an idle event stream says that it lives.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);

/// `GET /api/v1/jobs/{id}/log?attempt=&from=&follow=1`.
pub(super) async fn log<B: Backend>(
    State(app): State<App<B>>,
    Path(job): Path<String>,
    Query(words): Words,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut request = LogRequest { job: reply::word(&job)?, attempt: None, from: 0, follow: Follow::No };
    for (name, value) in words {
        match (name.as_str(), value.as_str()) {
            ("attempt", number) => request.attempt = Some(protocol::lease::LeaseNumber(reply::word(number)?)),
            ("from", at) => request.from = reply::word(at)?,
            ("follow", "1") => request.follow = Follow::Yes,
            ("follow", "0") => request.follow = Follow::No,
            _ => {
                let reason = "the words of this query are attempt, from and follow (0 or 1)".to_owned();
                return Err(ApiError::Refused { reason });
            }
        }
    }
    if let Some(id) = headers.get("last-event-id") {
        request.from = reply::word(id.to_str().unwrap_or_default())?;
    }
    let bytes = app.server.backend.log(request).await?;
    let bytes: ByteStream = bytes.take_until(app.stop.clone().cancelled_owned()).boxed();
    if wants_events(&headers) {
        return Ok(events(log_events(bytes, request.from)));
    }
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((kind, Body::from_stream(bytes)).into_response())
}

/// `GET /api/v1/news`.
pub(super) async fn news<B: Backend>(State(app): State<App<B>>, headers: HeaderMap) -> Result<Response, ApiError> {
    let news = app.server.backend.news().await?.take_until(app.stop.clone().cancelled_owned());
    if wants_events(&headers) {
        let event = |news| Event::default().event("job").json_data(news).unwrap_or_default();
        return Ok(events(news.map(event)));
    }
    let lines = news.map(|news| {
        let mut line = serde_json::to_vec(&news).unwrap_or_default();
        line.push(b'\n');
        Ok::<_, Infallible>(Bytes::from(line))
    });
    Ok(([(header::CONTENT_TYPE, "application/jsonl")], Body::from_stream(lines)).into_response())
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).map(HeaderValue::as_bytes).unwrap_or_default();
    accept.windows(b"text/event-stream".len()).any(|part| part == b"text/event-stream")
}

fn events(stream: impl Stream<Item = Event> + Send + 'static) -> Response {
    Sse::new(stream.map(Ok::<_, Infallible>)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE_EVERY)).into_response()
}

/// Where the text of a log's events stands.
struct Cursor {
    bytes: ByteStream,
    at: u64,
    /// The beginning of a character whose end has not come yet.
    rest: Vec<u8>,
}

fn log_events(bytes: ByteStream, from: u64) -> impl Stream<Item = Event> + Send {
    futures::stream::unfold(Some(Cursor { bytes, at: from, rest: Vec::new() }), |cursor| async move {
        let mut cursor = cursor?;
        loop {
            match cursor.bytes.next().await {
                Some(Ok(piece)) => match cursor.take(&piece) {
                    Some(chunk) => return Some((log_event(&chunk, cursor.at), Some(cursor))),
                    None => continue,
                },
                Some(Err(error)) => {
                    let event = Event::default().event("error").json_data(error.body()).unwrap_or_default();
                    return Some((event, None));
                }
                None => return Some((Event::default().event("end").data("{}"), None)),
            }
        }
    })
}

fn log_event(chunk: &LogChunk, next: u64) -> Event {
    Event::default().event("log").id(next.to_string()).json_data(chunk).unwrap_or_default()
}

impl Cursor {
    /// Takes a piece and gives what is complete of it; a character that is cut in two waits for its end.
    fn take(&mut self, piece: &[u8]) -> Option<LogChunk> {
        self.rest.extend_from_slice(piece);
        let whole = match std::str::from_utf8(&self.rest) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Ok(_) | Err(_) => self.rest.len(),
        };
        if whole == 0 {
            return None;
        }
        let tail = self.rest.split_off(whole);
        let chunk = LogChunk { at: self.at, text: String::from_utf8_lossy(&self.rest).into_owned() };
        self.at += whole as u64;
        self.rest = tail;
        Some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_never_cut_and_offsets_count_bytes() {
        let mut cursor = Cursor { bytes: futures::stream::empty().boxed(), at: 10, rest: Vec::new() };
        let text = "aé";
        let bytes = text.as_bytes();
        assert_eq!(cursor.take(&bytes[..2]), Some(LogChunk { at: 10, text: "a".into() }));
        assert_eq!(cursor.at, 11);
        assert_eq!(cursor.take(&bytes[2..]), Some(LogChunk { at: 11, text: "é".into() }));
        assert_eq!(cursor.take(&[0xc3]), None);
        assert_eq!(cursor.take(b"x"), Some(LogChunk { at: 13, text: "\u{fffd}x".into() }));
        assert_eq!(cursor.at, 15);
    }
}
