//! How many messages may wait for an actor of the node.

/// Mailbox bound of light actors; job runners get less.
pub(in crate::node) const MAILBOX: usize = 256;
