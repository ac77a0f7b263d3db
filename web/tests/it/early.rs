//! What is answered before a node knows its network, and that the same listeners serve it afterwards.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use web::{Access, Address, Backend, Client, Early, Limits, Listener, Server, api::ApiError, testing::sample};

#[tokio::test]
async fn everything_is_unavailable_with_the_reason_and_the_owner_may_end_it() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let tcp = Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = tcp.address().unwrap();
    let clients = [Client::new(format!("http://{address}").parse().unwrap()), Client::new(Address::unix(&socket))];
    let (known, end, asked) = (CancellationToken::new(), CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let early = {
        let asked = Arc::clone(&asked);
        let why = move |access| format!("{access:?} asked, {} before", asked.fetch_add(1, Ordering::Relaxed));
        Early::new(["mirror.example".to_owned()], why, end.clone())
    };
    let mut answering = JoinSet::new();
    for (listener, access) in [(tcp, Access::Public), (Listener::unix(&socket).unwrap(), Access::Owner)] {
        let (early, known) = (early.clone(), known.clone());
        answering.spawn(async move { (early.serve(listener, access, known).await, access) });
    }

    let unavailable = |reason: &str| Err(ApiError::Unavailable { reason: reason.to_owned() });
    assert_eq!(clients[0].status().await.map(drop), unavailable("Public asked, 0 before"), "it is asked for anew");
    assert_eq!(clients[1].status().await.map(drop), unavailable("Owner asked, 1 before"));
    assert_eq!(clients[0].shutdown().await, unavailable("Public asked, 2 before"), "strangers end nothing");
    assert!(!end.is_cancelled());
    assert_eq!(clients[1].shutdown().await, Ok(()));
    assert!(end.is_cancelled());

    for (host, code) in [("evil.example", "403"), ("mirror.example", "503")] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")) && answer.contains("nosniff"), "{host}: {answer}");
    }

    known.cancel();
    let (fake, _) = sample();
    let server = Server::new(fake, Limits::default(), []);
    let (stop, mut serving) = (CancellationToken::new(), JoinSet::new());
    for (listener, access) in answering.join_all().await {
        let (server, stop) = (server.clone(), stop.clone());
        serving.spawn(async move { server.serve(listener, access, stop).await });
    }
    for client in &clients {
        assert!(client.status().await.is_ok(), "the same addresses, now with an answer");
    }
    stop.cancel();
    serving.join_all().await;
    assert!(!socket.exists());
}
