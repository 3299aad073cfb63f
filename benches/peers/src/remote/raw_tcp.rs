//! Raw TCP, plain and with mutual TLS.

use super::load::Lost;
use super::mux::{Mux, echo};
use super::secrets;
use std::path::Path;
use tokio::net::{TcpListener, TcpStream};

pub async fn serve(bind: &str, secrets: &Path, tls: bool, ready: impl FnOnce(String)) {
    let acceptor = tls.then(|| secrets::acceptor(secrets));
    let listener = TcpListener::bind(bind).await.expect("a port");
    ready(listener.local_addr().expect("a bound port").to_string());
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        match acceptor.clone() {
            None => drop(tokio::spawn(echo(stream))),
            Some(acceptor) => drop(tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    echo(stream).await;
                }
            })),
        }
    }
}

pub async fn connect(address: &str, secrets: &Path, tls: bool) -> Result<Mux, Lost> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    match tls {
        false => Ok(Mux::over(stream)),
        true => Ok(Mux::over(secrets::connector(secrets).connect(secrets::host(), stream).await?)),
    }
}
