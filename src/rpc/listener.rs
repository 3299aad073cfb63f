//! A listening socket that outlives the server which accepts on it: after a panic the next incarnation goes on at the
//! same port, which nobody can take meanwhile, and callers wait in the backlog instead of being refused.

use crate::util::lock;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Clone)]
pub struct SharedListener {
    state: Arc<Mutex<State>>,
    setting: &'static str,
}

struct State {
    /// As configured; with the real port once it was open.
    addr: SocketAddr,
    listener: Option<TcpListener>,
}

impl SharedListener {
    /// `setting`: the flag and the key that choose the address, for whoever finds it taken.
    pub fn new(addr: SocketAddr, setting: &'static str) -> SharedListener {
        SharedListener { state: Arc::new(Mutex::new(State { addr, listener: None })), setting }
    }

    pub fn setting(&self) -> &'static str {
        self.setting
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub fn addr(&self) -> SocketAddr {
        self.lock().addr
    }

    /// The socket; bound by the first call, and by the first after [`SharedListener::close`].
    pub fn open(&self) -> io::Result<TcpListener> {
        let mut state = self.lock();
        if state.listener.is_none() {
            let listener = TcpListener::bind(state.addr)?;
            state.addr = listener.local_addr()?;
            state.listener = Some(listener);
        }
        match &state.listener {
            Some(listener) => listener.try_clone(),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// For an orderly end: connections are refused from when the server's own copy is closed too.
    pub fn close(&self) {
        self.lock().listener = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn the_port_stays_while_servers_come_and_go_and_is_free_after_the_end() {
        let door = SharedListener::new(([127, 0, 0, 1], 0).into(), "--x-listen or x.listen");
        drop(door.open().unwrap());
        let addr = door.addr();
        assert_ne!(addr.port(), 0);
        let waiting = TcpStream::connect(addr).unwrap();
        let next = door.open().unwrap();
        assert_eq!(next.local_addr().unwrap(), addr);
        assert_eq!(next.accept().unwrap().1, waiting.local_addr().unwrap());
        drop((next, waiting));
        door.close();
        assert!(TcpStream::connect(addr).is_err());
        assert_eq!(door.open().unwrap().local_addr().unwrap(), addr, "the same port again");
    }
}
