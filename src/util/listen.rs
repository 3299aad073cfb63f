//! Why a libp2p host cannot listen.

use libp2p::TransportError;
use std::error::Error;
use std::io;

/// The innermost cause, because `TransportError`'s own text of an I/O error is empty.
pub fn listen_error(error: TransportError<io::Error>) -> String {
    let error = match error {
        TransportError::MultiaddrNotSupported(_) => return "not an address that it can listen on".to_string(),
        TransportError::Other(error) => error,
    };
    let mut cause: &(dyn Error + 'static) = &error;
    while let Some(next) = inner(cause) {
        cause = next;
    }
    match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::AddrNotAvailable) => "it is no address of this host".to_string(),
        Some(io::ErrorKind::AddrInUse) => "it is in use by another program".to_string(),
        _ => cause.to_string(),
    }
}

/// The error that this one wraps. An I/O error's own `source` skips one.
fn inner<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::core::transport::{ListenerId, Transport};
    use libp2p::tcp;

    fn refused(addr: &str) -> String {
        let mut transport = tcp::tokio::Transport::new(tcp::Config::default()).boxed();
        let refused = transport.listen_on(ListenerId::next(), addr.parse().unwrap());
        listen_error(refused.expect_err("it cannot listen there"))
    }

    #[tokio::test]
    async fn every_reason_has_a_text() {
        // TEST-NET-1, which no host has
        assert_eq!(refused("/ip4/192.0.2.1/tcp/1357"), "it is no address of this host");
        assert_eq!(refused("/ip4/127.0.0.1/udp/1357"), "not an address that it can listen on");
    }
}
