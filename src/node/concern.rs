//! The concerns that run once per miner (or once per miner and node), and what each may do while its lease is in doubt.

use super::roles::Role;
use crate::chain::Address;
use crate::rpc::directory::LeaseState;
use crate::rpc::directory::placement::Wanted;

/// The enum and the list of its variants from one table: a concern cannot be left out of the list.
macro_rules! concerns {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// A part of the provider that exactly one process runs at a time. In the order in which they start.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Concern {
            $($(#[$doc])* $name,)+
        }

        impl Concern {
            /// In the order in which they start.
            pub const ALL: [Concern; [$(Concern::$name),+].len()] = [$(Concern::$name),+];
        }
    };
}

concerns! {
    MessageSender,
    WindowPost,
    WinningPost,
    Allocator,
    /// One per node: each seals sectors of its own.
    SealScheduler,
    DealHandler,
}

/// The behaviour of a concern while etcd is out of reach, so that its lease can be neither proven nor known to be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InDoubt {
    /// Goes on. Done twice, it costs gas or nothing; not done, it costs a fault.
    GoOn,
    /// Stops until the lease is proven again: done twice, it is slashed.
    Stop,
    /// Goes on inside what was set aside for it while the lease was proven.
    WithinRange,
    /// Finishes what it has in hand.
    Finish,
}

impl InDoubt {
    /// Whether an effect is allowed under a lease in that state.
    pub fn allows(self, lease: LeaseState) -> bool {
        match (lease, self) {
            (LeaseState::Proven, _) => true,
            (LeaseState::Unproven, InDoubt::GoOn | InDoubt::WithinRange | InDoubt::Finish) => true,
            (LeaseState::Unproven, InDoubt::Stop) => false,
            (LeaseState::Lost, _) => false,
        }
    }
}

impl Concern {
    /// As paths and `[placement]` name it.
    pub fn name(self) -> &'static str {
        match self {
            Concern::MessageSender => "message-sender",
            Concern::WindowPost => "window-post",
            Concern::WinningPost => "winning-post",
            Concern::Allocator => "sector-allocator",
            Concern::SealScheduler => "seal-scheduler",
            Concern::DealHandler => "deal-handler",
        }
    }

    /// Its logical path; `node` is this node's name, in a cluster.
    pub fn path(self, miner: &Address, node: Option<&str>) -> String {
        match (self, node) {
            (Concern::SealScheduler, Some(node)) => format!("/{miner}/{}/{node}", self.name()),
            _ => format!("/{miner}/{}", self.name()),
        }
    }

    /// The role that a node needs to run it.
    pub fn role(self) -> Role {
        match self {
            Concern::MessageSender => Role::DaemonLink,
            Concern::WindowPost => Role::WindowPost,
            Concern::WinningPost => Role::WinningPost,
            Concern::Allocator => Role::Allocator,
            Concern::SealScheduler => Role::Sealing,
            Concern::DealHandler => Role::Markets,
        }
    }

    /// Its group in the tree, and its name there.
    pub fn place(self, miner: &Address) -> (&'static str, String) {
        match self {
            Concern::MessageSender => ("root/chain", "message_sender".into()),
            Concern::WindowPost => ("root/proving", "window_post".into()),
            Concern::WinningPost => ("root/proving", "winning_post".into()),
            Concern::Allocator => ("root/sealing", "sector_allocator".into()),
            Concern::SealScheduler => ("root/sealing", "seal_scheduler".into()),
            Concern::DealHandler => ("root/markets", format!("deal_handler-{miner}")),
        }
    }

    /// Further actors that run under its lease, where it runs: their groups in the tree, and their names there.
    pub fn companions(self) -> &'static [(&'static str, &'static str)] {
        match self {
            // Block producers give their power to fast finality; two leases of one miner equivocate, as two blocks do.
            Concern::WinningPost => &[("root/finality", "f3")],
            Concern::MessageSender
            | Concern::WindowPost
            | Concern::Allocator
            | Concern::SealScheduler
            | Concern::DealHandler => &[],
        }
    }

    pub fn in_doubt(self) -> InDoubt {
        match self {
            // A proof that is not sent is a fault; the same message twice lands once.
            Concern::WindowPost | Concern::MessageSender => InDoubt::GoOn,
            // Two blocks of one epoch are slashed.
            Concern::WinningPost => InDoubt::Stop,
            Concern::Allocator => InDoubt::WithinRange,
            Concern::SealScheduler => InDoubt::Finish,
            // Answers clients from what it has; what it would have to write waits.
            Concern::DealHandler => InDoubt::GoOn,
        }
    }

    /// Whether its writes wait on this disk while the cluster's store is out of reach, instead of being refused.
    pub fn journals(self) -> bool {
        match self {
            Concern::WindowPost | Concern::MessageSender | Concern::SealScheduler => true,
            Concern::WinningPost | Concern::Allocator | Concern::DealHandler => false,
        }
    }

    /// The concern's description for the placement, on that node.
    pub fn wanted(self, miner: &Address, node: &str) -> Wanted {
        let path = self.path(miner, Some(node));
        match self {
            Concern::SealScheduler => Wanted::pinned(path, self.role(), node),
            // A proof that reaches no sender is a fault: between the two there should be no link that can fail.
            Concern::MessageSender => {
                Wanted::new(path, self.role()).beside(Concern::WindowPost.path(miner, Some(node)))
            }
            _ => Wanted::new(path, self.role()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::directory::check_concern;

    #[test]
    fn what_each_concern_may_do_under_a_lease_that_is_proven_in_doubt_or_lost() {
        use Concern::*;
        let table = [
            (MessageSender, [true, true, false]),
            (WindowPost, [true, true, false]),
            (WinningPost, [true, false, false]),
            (Allocator, [true, true, false]),
            (SealScheduler, [true, true, false]),
            (DealHandler, [true, true, false]),
        ];
        for (concern, expected) in table {
            let states = [LeaseState::Proven, LeaseState::Unproven, LeaseState::Lost];
            assert_eq!(states.map(|state| concern.in_doubt().allows(state)), expected, "{concern:?}");
        }
        let journals: Vec<_> = Concern::ALL.into_iter().filter(|c| c.journals()).collect();
        assert_eq!(journals, [MessageSender, WindowPost, SealScheduler], "a block or a number is never only here");
    }

    #[test]
    fn paths_are_those_of_the_directory_and_a_shard_is_its_nodes() {
        let miner = Address::new_id(1000);
        for concern in Concern::ALL {
            let wanted = concern.wanted(&miner, "host-a");
            assert_eq!(check_concern(&wanted.path), Ok(()), "{}", wanted.path);
            assert_eq!(wanted.pinned.is_some(), concern == Concern::SealScheduler);
            let beside = (concern == Concern::MessageSender).then_some("/t01000/window-post");
            assert_eq!(wanted.beside.map(|path| path.replace("/f0", "/t0")).as_deref(), beside);
            assert_eq!(concern.path(&miner, None).split('/').nth(2), Some(concern.name()));
        }
    }
}
