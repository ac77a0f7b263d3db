//! Answers: errors as JSON, words of the path and the query, bodies within their limits.

use axum::{
    Json,
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http::{HeaderValue, StatusCode, header};

use super::Limits;
use crate::api::ApiError;

/// Seconds after which a caller may try again.
pub(super) const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.body())).into_response();
        if matches!(self, ApiError::Unavailable { .. }) {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if let ApiError::Range { size } = self
            && let Ok(value) = format!("bytes */{size}").parse()
        {
            response.headers_mut().insert(header::CONTENT_RANGE, value);
        }
        response
    }
}

/// Parses one word of the path.
pub(super) fn word<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|error: T::Err| ApiError::Refused { reason: error.to_string() })
}

/// Gives a body's pieces; a pause longer than the idle time ends them with an error.
pub(super) fn pieces(body: Body, limits: Limits) -> impl Stream<Item = Result<Bytes, ApiError>> + Send + 'static {
    futures::stream::try_unfold(body.into_data_stream(), move |mut stream| async move {
        let refused = |reason: &str| ApiError::Refused { reason: reason.to_owned() };
        match tokio::time::timeout(limits.idle_time, stream.next()).await {
            Err(_) => Err(refused("the body stopped arriving")),
            Ok(Some(Err(_))) => Err(refused("the body broke off")),
            Ok(Some(Ok(piece))) => Ok(Some((piece, stream))),
            Ok(None) => Ok(None),
        }
    })
}

/// Reads a small body that nobody wants, so that its sender reads the answer: a connection that is closed with unread bytes is reset.
pub(super) async fn pass_over(body: Body, limits: Limits) {
    let (mut got, mut pieces) = (0, std::pin::pin!(pieces(body, limits)));
    while let Some(Ok(piece)) = pieces.next().await {
        got += piece.len();
        if got > limits.body_bytes {
            return;
        }
    }
}

/// Reads a small body.
pub(super) async fn small_body(body: Body, limits: Limits) -> Result<Bytes, ApiError> {
    let mut all = BytesMut::new();
    let mut pieces = std::pin::pin!(pieces(body, limits));
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if all.len() + piece.len() > limits.body_bytes {
            return Err(ApiError::Refused { reason: format!("the body has more than {} bytes", limits.body_bytes) });
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.freeze())
}
