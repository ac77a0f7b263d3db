//! Blobs between stores: whole, in ranges, in crowds, and past providers that fail.

use std::time::{Duration, Instant};

use protocol::{Hash, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    super::{FetchError, ServeError},
    fresh,
    network::{Behaviour, Network},
    noise, open, usual,
};

const MIB: usize = 1024 * 1024;
const NO_LIMIT: u64 = u64::MAX;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_blob_of_each_size() {
    let (_a, provider) = fresh(usual()).await;
    let (_b, receiver) = fresh(usual()).await;
    let network = Network::default();
    let node = network.add(1, &provider, Behaviour::Honest);
    for (seed, size) in [0, 1, 1024, 16 * 1024, 16 * 1024 + 1, MIB, 16 * MIB, 16 * MIB + 1].into_iter().enumerate() {
        let bytes = noise(seed as u64, size);
        let hash = provider.add_bytes(bytes.clone()).await.unwrap();
        let fetched = receiver.fetch(&network, &hash, &[node], NO_LIMIT).await.unwrap();
        assert!(fetched.bytes >= size as u64 && fetched.bytes <= size as u64 + 16 * 1024, "{size}: {fetched:?}");
        assert_eq!(receiver.read(&hash, NO_LIMIT).await.unwrap(), bytes, "{size}");
        let again = receiver.fetch(&network, &hash, &[node], NO_LIMIT).await.unwrap();
        assert_eq!(again.bytes, 0, "{size} is not fetched twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_blob_comes_from_two_providers_at_once() {
    let (_a, first) = fresh(usual()).await;
    let (_b, second) = fresh(usual()).await;
    let (_c, receiver) = fresh(usual()).await;
    let bytes = noise(1, 200 * MIB);
    let hash = first.add_bytes(bytes.clone()).await.unwrap();
    second.add_bytes(bytes).await.unwrap();
    let network = Network::default();
    let nodes = [network.add(1, &first, Behaviour::Honest), network.add(2, &second, Behaviour::Honest)];
    let begun = Instant::now();
    let fetched = receiver.fetch(&network, &hash, &nodes, NO_LIMIT).await.unwrap();
    println!("200 MiB from two providers: {:.0} MiB/s", 200.0 / begun.elapsed().as_secs_f64());
    assert_eq!(fetched.from.len(), 2, "{fetched:?}");
    assert!(fetched.from.values().all(|bytes| *bytes >= 32 * MIB as u64), "{fetched:?}");
    receiver.scrub(&hash).await.unwrap();
}

/// Fetches 64 MiB from a faulty and an honest provider and gives what came and how long it took.
async fn beside_an_honest_one(behaviour: Behaviour) -> (super::super::Fetched, Duration) {
    let (_a, provider) = fresh(usual()).await;
    let (_b, receiver) = fresh(usual()).await;
    let hash = provider.add_bytes(noise(2, 64 * MIB)).await.unwrap();
    let network = Network::default();
    let nodes = [network.add(1, &provider, behaviour), network.add(2, &provider, Behaviour::Honest)];
    let begun = Instant::now();
    let fetched = receiver.fetch(&network, &hash, &nodes, NO_LIMIT).await.unwrap();
    let took = begun.elapsed();
    receiver.scrub(&hash).await.unwrap();
    (fetched, took)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_dies_midway_is_replaced() {
    let faulty = NodeId::from_bytes([1; 32]);
    let (fetched, _) = beside_an_honest_one(Behaviour::DiesAfter(5 * MIB as u64)).await;
    assert!(fetched.from[&faulty] < 6 * MIB as u64, "{fetched:?}");
    let lost = fetched.bytes - 64 * MIB as u64;
    assert!(lost <= MIB as u64, "verified parts of the broken ranges are not fetched again: {lost}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_hangs_is_noticed_in_seconds() {
    let mut times = Vec::new();
    // A busy machine may need longer for the 64 MiB themselves, and not each time.
    while times.last().is_none_or(|took| *took >= Duration::from_secs(10)) {
        assert!(times.len() < 3, "{times:?}");
        let (_, took) = beside_an_honest_one(Behaviour::HangsAfter(5 * MIB as u64)).await;
        assert!(took > Duration::from_secs(1), "{took:?}");
        times.push(took);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_bytes_are_refused_and_another_provider_is_used() {
    let (fetched, _) = beside_an_honest_one(Behaviour::FlipsAfter(5 * MIB as u64)).await;
    let lied = fetched.from[&NodeId::from_bytes([1; 32])];
    assert!(lied > 4 * MIB as u64 && lied < 6 * MIB as u64, "what came before the lie is kept: {fetched:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_liar_is_named() {
    let (_a, provider) = fresh(usual()).await;
    let (_b, receiver) = fresh(usual()).await;
    let hash = provider.add_bytes(noise(3, MIB)).await.unwrap();
    let network = Network::default();
    let node = network.add(1, &provider, Behaviour::FlipsAfter(1000));
    let error = receiver.fetch(&network, &hash, &[node], NO_LIMIT).await.unwrap_err();
    assert!(error.to_string().contains("wrong bytes"), "{error}");
    assert_eq!(receiver.size(&hash).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_goes_on_after_the_store_was_reopened() {
    let (_a, provider) = fresh(usual()).await;
    let hash = provider.add_bytes(noise(4, 64 * MIB)).await.unwrap();
    let network = Network::default();
    let dying = network.add(1, &provider, Behaviour::DiesAfter(40 * MIB as u64));
    let honest = network.add(2, &provider, Behaviour::Honest);

    let (dir, receiver) = fresh(usual()).await;
    let error = receiver.fetch(&network, &hash, &[dying], NO_LIMIT).await.unwrap_err();
    assert!(matches!(error, FetchError::Failed { .. }), "{error}");
    receiver.shutdown().await;
    drop(receiver);

    let receiver = open(&dir, usual()).await;
    let fetched = receiver.fetch(&network, &hash, &[honest], NO_LIMIT).await.unwrap();
    let rest = 24 * MIB as u64;
    assert!(fetched.bytes >= rest && fetched.bytes <= rest + MIB as u64, "only the rest comes: {}", fetched.bytes);
    receiver.scrub(&hash).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_leaves_a_fetch_under_way_alone() {
    let (_a, provider) = fresh(usual()).await;
    let (_b, receiver) = fresh(super::strict(1 << 30)).await;
    let hash = provider.add_bytes(noise(8, 64 * MIB)).await.unwrap();
    let network = Network::default();
    let from = [network.add(1, &provider, Behaviour::Honest)];
    let fetching = receiver.fetch(&network, &hash, &from, NO_LIMIT);
    let sweeping = async {
        for _ in 0..20 {
            receiver.sweep().await;
        }
    };
    let (fetched, ()) = tokio::join!(fetching, sweeping);
    assert!(fetched.unwrap().bytes < 65 * MIB as u64, "nothing came twice");
    receiver.sweep().await;
    assert_eq!(receiver.size(&hash).await.unwrap(), None, "without a pin it goes when the fetch is over");
}

#[tokio::test]
async fn a_blob_over_the_limit_is_refused_before_it_is_stored() {
    let (_a, provider) = fresh(usual()).await;
    let (_b, receiver) = fresh(usual()).await;
    let hash = provider.add_bytes(noise(5, MIB)).await.unwrap();
    let network = Network::default();
    let nodes = [network.add(1, &provider, Behaviour::Honest), network.add(2, &provider, Behaviour::Honest)];
    let error = receiver.fetch(&network, &hash, &nodes, MIB as u64 - 1).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge { size, .. } if size == MIB as u64), "{error}");
    assert_eq!(receiver.usage(), 0);
}

#[tokio::test]
async fn a_hash_that_is_not_open_looks_like_one_that_is_not_there() {
    let (_a, provider) = fresh(usual()).await;
    let (_b, receiver) = fresh(usual()).await;
    let secret = provider.add_bytes(noise(6, 5000)).await.unwrap();
    let network = Network::default();
    network.forbid(secret);
    let node = network.add(1, &provider, Behaviour::Honest);
    let refused = receiver.fetch(&network, &secret, &[node], NO_LIMIT).await.unwrap_err().to_string();
    let absent = Hash::of(b"nobody has this");
    let missing = receiver.fetch(&network, &absent, &[node], NO_LIMIT).await.unwrap_err().to_string();
    assert_eq!(refused.replace(&secret.to_string(), ""), missing.replace(&absent.to_string(), ""));
}

/// Sends raw bytes as a request and gives the answer and the server's verdict.
async fn ask(request: Vec<u8>) -> (Vec<u8>, Result<super::super::Served, ServeError>) {
    let (_a, provider) = fresh(usual()).await;
    provider.add_bytes(noise(7, 32)).await.unwrap();
    let (mut ours, theirs) = tokio::io::duplex(64 * 1024);
    let asking = async move {
        // The server may hang up on what it refuses before it has read all.
        let _ = ours.write_all(&request).await;
        let _ = ours.shutdown().await;
        let mut answer = Vec::new();
        ours.read_to_end(&mut answer).await.unwrap();
        answer
    };
    tokio::join!(asking, provider.serve(NodeId::from_bytes([9; 32]), theirs, |_, _| true))
}

#[tokio::test]
async fn pushes_sequences_observations_and_garbage_are_refused() {
    use iroh_blobs::protocol::{ChunkRanges, ChunkRangesSeq, GetRequest, ObserveRequest, PushRequest, Request};
    let hash = super::super::to_iroh(&Hash::of(&noise(7, 32)));
    let push = postcard::to_stdvec(&PushRequest::new(hash, ChunkRangesSeq::from_ranges([ChunkRanges::all()]))).unwrap();
    let mut request = vec![8, u8::try_from(push.len()).unwrap()];
    request.extend(push);
    let (answer, verdict) = ask(request).await;
    assert!(answer.is_empty() && matches!(verdict, Err(ServeError::Refused { what: "pushes" })), "{verdict:?}");

    let sequence = postcard::to_stdvec(&Request::Get(GetRequest::all(hash))).unwrap();
    let (answer, verdict) = ask(sequence).await;
    assert!(answer.is_empty() && matches!(verdict, Err(ServeError::Refused { what: "sequences" })), "{verdict:?}");

    let observe = postcard::to_stdvec(&Request::Observe(ObserveRequest::new(hash))).unwrap();
    let (answer, verdict) = ask(observe).await;
    assert!(answer.is_empty() && matches!(verdict, Err(ServeError::Refused { .. })), "{verdict:?}");

    let (answer, verdict) = ask(vec![0xff; 2 * MIB]).await;
    assert!(answer.is_empty() && matches!(verdict, Err(ServeError::Stream { .. })), "{verdict:?}");
}

#[tokio::test]
async fn a_peer_has_a_limited_number_of_streams() {
    let options = super::Options { streams_per_peer: 1, ..usual() };
    let (_a, provider) = fresh(options).await;
    let node = NodeId::from_bytes([1; 32]);
    let (_ours, theirs) = tokio::io::duplex(64);
    let first = provider.serve(node, theirs, |_, _| true);
    let second = async {
        let (_ours, theirs) = tokio::io::duplex(64);
        provider.serve(node, theirs, |_, _| true).await
    };
    // The first one waits for its request while the second one is refused.
    tokio::select! {
        biased;
        _ = first => panic!("the first stream is open"),
        refused = second => assert!(matches!(refused, Err(ServeError::TooManyStreams { limit: 1, .. }))),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_blobs_travel_together() {
    let (_a, provider) = fresh(usual()).await;
    let (_b, receiver) = fresh(usual()).await;
    let network = Network::default();
    let nodes = [network.add(1, &provider, Behaviour::Honest)];
    let all: Vec<_> = (0..1000).map(|seed| noise(seed, 4096)).collect();
    let adds = all.iter().map(|bytes| provider.add_bytes(bytes.clone()));
    let hashes = futures::future::try_join_all(adds).await.unwrap();
    let wanted: Vec<(Hash, u64)> = hashes.iter().map(|hash| (*hash, 4096)).collect();

    let begun = Instant::now();
    let fetched = receiver.fetch_many(&network, &wanted, &nodes).await.unwrap();
    println!("1,000 x 4 KiB: {:.0} files/s", 1000.0 / begun.elapsed().as_secs_f64());
    assert_eq!(fetched.bytes, 1000 * 4096);
    for (hash, bytes) in hashes.iter().zip(&all) {
        assert_eq!(receiver.read(hash, 4096).await.unwrap(), bytes);
    }
    assert_eq!(receiver.fetch_many(&network, &wanted, &nodes).await.unwrap().bytes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_blobs_are_gathered_from_providers_that_each_lack_some() {
    let (_a, first) = fresh(usual()).await;
    let (_b, second) = fresh(usual()).await;
    let (_c, receiver) = fresh(usual()).await;
    let mut wanted = Vec::new();
    for seed in 0..60 {
        let bytes = noise(seed, 3000);
        wanted.push((Hash::of(&bytes), 3000));
        if seed % 10 != 0 {
            first.add_bytes(bytes.clone()).await.unwrap();
        }
        if seed % 10 != 1 {
            second.add_bytes(bytes).await.unwrap();
        }
    }
    let network = Network::default();
    let nodes = [network.add(1, &first, Behaviour::Honest), network.add(2, &second, Behaviour::Honest)];
    receiver.fetch_many(&network, &wanted, &nodes).await.unwrap();
    for (hash, size) in &wanted {
        assert_eq!(receiver.size(hash).await.unwrap(), Some(*size));
    }
}
