//! One caller among many: what costs a node work, or others whom it asks, one caller asks for a few times at once, so that he does
//! not take the place of all; nor does he by connections.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::{
    Json,
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use hyper::body::{Frame, SizeHint};

use super::reply::RETRY_AFTER;
use crate::api::ApiError;

/// Such requests of one caller at one time.
pub(super) const PER_CALLER: usize = 8;

/// Who calls, as far as an address tells: of IPv6 the network, since a caller has as many addresses in it as he wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Caller(IpAddr);

impl Caller {
    /// Makes the caller of an address.
    pub(super) fn at(address: IpAddr) -> Self {
        match address.to_canonical() {
            here if here.is_loopback() => Self(here),
            IpAddr::V4(address) => Self(address.into()),
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()),
        }
    }

    /// Says whether it is this machine: behind it may be a reverse proxy, and so everybody.
    pub(super) fn is_here(self) -> bool {
        self.0.is_loopback()
    }
}

/// Requests that are on their way, or connections, by caller.
#[derive(Debug, Clone)]
pub(super) struct Crowd {
    each: usize,
    counts: Arc<Mutex<BTreeMap<Caller, usize>>>,
}

/// A place in the crowd.
pub(super) struct Place {
    crowd: Crowd,
    caller: Caller,
}

impl Crowd {
    /// Makes a crowd in which one caller has so many places.
    pub(super) fn of(each: usize) -> Self {
        Self { each, counts: Arc::default() }
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<Caller, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a caller one more place, unless he has all of his.
    pub(super) fn enter(&self, caller: Caller) -> Option<Place> {
        let mut counts = self.counts();
        let count = counts.entry(caller).or_default();
        if *count >= self.each {
            return None;
        }
        *count += 1;
        Some(Place { crowd: self.clone(), caller })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.crowd.counts();
        if let Some(count) = counts.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.caller);
            }
        }
    }
}

/// An answer that has its caller's place until it is sent: who follows a log makes this node ask for as long.
struct Held {
    body: Body,
    _place: Place,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Lets a request pass unless its caller has too many on their way. The owner's socket has no address and no limit.
pub(super) async fn pass(State(crowd): State<Crowd>, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>().copied();
    let place = caller.map(|caller| crowd.enter(caller).ok_or(()));
    match place.transpose() {
        Ok(Some(place)) => next.run(request).await.map(|body| Body::new(Held { body, _place: place })),
        Ok(None) => next.run(request).await,
        Err(()) => {
            let reason = format!("{} such requests of this address are on their way", crowd.each);
            let body = Json(ApiError::Unavailable { reason }.body());
            (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, RETRY_AFTER)], body).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Caller {
        Caller::at(address.parse().unwrap())
    }

    #[test]
    fn one_caller_takes_his_places_and_no_other_ones() {
        let crowd = Crowd::of(PER_CALLER);
        let places: Vec<Place> = (0..PER_CALLER).map(|_| crowd.enter(at("192.0.2.1")).unwrap()).collect();
        assert!(crowd.enter(at("192.0.2.1")).is_none() && crowd.enter(at("::ffff:192.0.2.1")).is_none());
        assert!(crowd.enter(at("192.0.2.2")).is_some());
        drop(places);
        assert!(crowd.enter(at("192.0.2.1")).is_some());
        assert!(crowd.counts().is_empty(), "who is gone is forgotten");
    }

    #[test]
    fn addresses_of_one_network_are_one_caller() {
        assert_eq!(at("2001:db8:1:2::3"), at("2001:db8:1:2:ffff::4"));
        assert_ne!(at("2001:db8:1:2::3"), at("2001:db8:1:3::3"));
        assert!(["127.0.0.1", "::1", "::ffff:127.0.0.1"].iter().all(|here| at(here).is_here()) && !at("::2").is_here());
    }
}
