//! Who is let in, who is looked for, and who is sent away.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learned_address_is_used_for_a_question_and_a_learned_member_is_looked_for() {
    let mut a = Node::start(config(1, QUIC, &[])).await;
    let mut b = Node::start(config(2, QUIC, &[])).await;
    let node = a.net.node_id();
    let address = a.net.listen_addresses()[0].clone();
    assert!(matches!(b.net.add_address(b.net.node_id(), &address), Err(AddressError::OtherNode(_))));
    a.echo();
    b.net.add_address(node, &address).unwrap();
    assert_eq!(b.net.ask(node, view("hello")).await.unwrap(), Response::View(Octets(b"hello".to_vec())));
    b.net.disconnect(node).await;
    while !matches!(b.next().await, Event::Disconnected(lost) if lost == node) {}
    b.net.set_members([node].into_iter().collect());
    b.connected(node).await;
    end([a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_banned_node_is_cut_off_and_stays_out() {
    let mut a = Node::start(config(1, QUIC, &[])).await;
    let b = Node::start(config(2, QUIC, &a.net.listen_addresses())).await;
    let banned = b.net.node_id();
    a.connected(banned).await;
    a.net.ban(banned).await;
    while !matches!(a.next().await, Event::Disconnected(lost) if lost == banned) {}
    let error = b.net.ask(a.net.node_id(), Request::Open).await.unwrap_err();
    assert!(matches!(error, AskError::Unreachable { .. } | AskError::Interrupted(_)), "{error}");
    assert!(a.net.peers().is_empty());
    assert!(matches!(a.net.ask(banned, Request::Open).await, Err(AskError::Unreachable { .. })));
    end([a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_network_is_turned_away() {
    let mut a = Node::start(config(1, QUIC, &[])).await;
    let other = Config { network: NetworkId::from(Hash::of(b"another")), ..config(2, QUIC, &a.net.listen_addresses()) };
    let b = Node::start(other).await;
    let node = b.net.node_id();
    a.connected(node).await;
    while !matches!(a.next().await, Event::Disconnected(lost) if lost == node) {}
    let error = b.net.ask(a.net.node_id(), Request::Open).await.unwrap_err();
    assert!(!matches!(error, AskError::Timeout(_)), "{error}");
    end([a, b]).await;
}

/// A cable that swallows everything once it is cut, without a word to either side.
async fn cable(to: std::net::SocketAddr, cut: CancellationToken) -> (u16, JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(to).await.unwrap();
        tokio::select! {
            ended = tokio::io::copy_bidirectional(&mut near, &mut far) => panic!("a side hung up: {ended:?}"),
            () = cut.cancelled() => {}
        }
        // Both ends stay open, and whoever tries again is not answered.
        std::future::pending::<()>().await;
    });
    (port, tasks)
}

/// Waits, without a limit, until no connection to the node is left.
async fn lost(inbox: &mut Inbox, node: NodeId) {
    while !matches!(inbox.next().await, Some(Event::Disconnected(lost)) if lost == node) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_over_tcp_that_died_in_silence_is_noticed() {
    let mut a = Node::start(config(1, TCP, &[])).await;
    let address = a.net.listen_addresses()[0].clone();
    let port = address.split('/').nth(4).unwrap().parse::<u16>().unwrap();
    let cut = CancellationToken::new();
    let (through, _cable) = cable(([127, 0, 0, 1], port).into(), cut.clone()).await;
    let detour = address.replace(&format!("/tcp/{port}/"), &format!("/tcp/{through}/"));
    let mut b = Node::start(config(2, TCP, &[detour])).await;
    let (here, there) = (a.net.node_id(), b.net.node_id());
    a.connected(there).await;
    b.connected(here).await;
    cut.cancel();
    let since = Instant::now();
    // Who notices first dials the other at the address that it learned, and that one may never have been without a connection.
    let (noticed_here, noticed_there) = (lost(&mut a.inbox, there), lost(&mut b.inbox, here));
    let noticed = async {
        tokio::select! { () = noticed_here => {}, () = noticed_there => {} }
    };
    tokio::time::timeout(Duration::from_secs(40), noticed).await.expect("the dead connection is noticed");
    println!("figure: a connection that died in silence was noticed after {:.1} s", since.elapsed().as_secs_f64());
    end([a, b]).await;
}
