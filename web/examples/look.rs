//! Serves the sample network, to look at its pages: `cargo run -p artel-web --example look -- 127.0.0.1:7878`.

use tokio_util::sync::CancellationToken;
use web::{Access, Limits, Listener, Server, testing};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7878".to_owned()).parse()?;
    let (fake, jobs) = testing::sample();
    let listener = Listener::tcp(address).await?;
    println!("http://{address}/\n{jobs:#?}");
    Server::new(fake, Limits::default(), []).serve(listener, Access::Public, CancellationToken::new()).await;
    Ok(())
}
