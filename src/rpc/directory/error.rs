//! Why the directory refuses, and the names that it takes.

use super::holder::Holder;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    #[error("{concern} is held by {} (epoch {})", holder.node, holder.epoch)]
    Held { concern: String, holder: Box<Holder> },
    #[error("this node is not registered yet: register it before it acquires {concern}")]
    NotRegistered { concern: String },
    #[error("{name:?} is the name of another node of this cluster (PeerId {by}): set cluster.node to one of its own")]
    NameTaken { name: String, by: String },
    #[error(
        "{name} has the PeerId of node {node} ({peer}), so its repo is a copy of that node's: stop it, remove `bridge.key` from the copy, and start it again (a node that was only given another name is let in once {node} has left)"
    )]
    PeerTaken { name: String, peer: String, node: String },
    #[error(
        "a later start of {name} (boot {boot}) is registered: stop this process, or give it a repo and name of its own"
    )]
    Superseded { name: String, boot: u64 },
    #[error("no node {node:?} in this cluster; there are: {known}")]
    UnknownNode { node: String, known: String },
    #[error("{node} cannot take {concern}: {why}")]
    CannotTake { node: String, concern: String, why: String },
    #[error("{path:?} is no path of a concern: write it as /t01000/window-post")]
    BadConcern { path: String },
    #[error("{name:?} is no name for a {what}: use letters, digits, `-`, `_` and `.`, at most 64")]
    BadName { what: &'static str, name: String },
    #[error("this node runs alone: set cluster.etcd to make it part of a cluster")]
    Alone,
    #[error("without etcd nothing moves: change cluster.roles and [[cluster.peer]] on every node and start them anew")]
    NoOrders,
    #[error("etcd endpoint {endpoint}: {why}")]
    Endpoint { endpoint: String, why: String },
    #[error("etcd endpoint {endpoint}: {why}")]
    Credentials { endpoint: String, why: String },
    #[error("{file}: {why}")]
    Tls { file: String, why: String },
    /// Each endpoint with what is wrong with it.
    #[error("no etcd endpoint answers: {why}")]
    Unreachable { why: String },
    #[error("etcd endpoint {endpoint} refused: {why}")]
    Refused { endpoint: String, why: String },
    #[error(
        "etcd was put back to an earlier state: nothing is acquired until every earlier lease has run out; it goes on by itself"
    )]
    PutBack,
    #[error("what etcd has under {key} cannot be read ({why}): run `bulkhead cluster repair` on a host of the cluster")]
    Unreadable { key: String, why: String },
    #[error("the directory has been closed")]
    Closed,
}

/// Letters, digits, `-`, `_`, `.`; not only dots.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && !text.bytes().all(|b| b == b'.')
}

/// `/t01000/window-post`: segments of a name's letters, so that no path can reach beside its own key.
pub fn check_concern(path: &str) -> Result<(), DirectoryError> {
    let bad = || DirectoryError::BadConcern { path: path.to_string() };
    let rest = path.strip_prefix('/').ok_or_else(bad)?;
    if rest.split('/').count() >= 2 && rest.split('/').all(is_name) { Ok(()) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_a_concern_stays_inside_its_own_key() {
        for good in ["/t01000/window-post", "/host-a.example/storage", "/t01000/seal-scheduler/host_b"] {
            assert_eq!(check_concern(good), Ok(()), "{good}");
        }
        for bad in ["", "/", "t01000/window-post", "/t01000", "/t01000/", "//window-post", "/t01000/a b", "/a/../b"] {
            assert!(check_concern(bad).is_err(), "{bad:?}");
        }
    }
}
