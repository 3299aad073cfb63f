//! The base of epochs where another process may run the same actor.

/// A right that reaches beyond this process: of the concern that only one of several processes may run. One for all
/// incarnations of an address.
pub trait EpochSource: Send + Sync + 'static {
    /// The base of the epochs of incarnations that start now, instead of the tree's base. It grows with every right;
    /// where it begins lower (a cluster that counts anew), `holds` refuses every earlier one.
    fn epoch_base(&self) -> u64;
    /// Whether an incarnation of that epoch may still cause effects.
    fn holds(&self, epoch: u64) -> bool;
}
