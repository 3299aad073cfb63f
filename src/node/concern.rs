//! The concerns that run once per miner (or once per miner and node), and what each may do while its lease is in doubt.

use super::roles::Role;
use crate::chain::Address;
use crate::rpc::directory::LeaseState;
use crate::rpc::directory::placement::Wanted;

/// Everything that the node has to know of a concern, but its messages: one row each.
struct ConcernRow {
    /// As paths and `[placement]` name it.
    name: &'static str,
    /// The role that a node needs to run it.
    role: Role,
    /// Its group in the tree, and its name there; `{miner}` stands for the miner's address.
    child: (&'static str, &'static str),
    /// Each node has one of its own, below its name.
    per_node: bool,
    in_doubt: InDoubt,
    /// Its writes wait on this disk while the cluster's store is out of reach, instead of being refused.
    journals: bool,
    /// The concern whose host it shares, where that node can take it.
    beside: Option<Concern>,
    /// Further actors that run under its lease, where it runs: their groups in the tree, and their names there.
    companions: &'static [(&'static str, &'static str)],
}

/// The enum, the list of its variants and their rows from one table: a concern cannot be left out.
macro_rules! concerns {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $value:expr),+ $(,)? })+) => {
        /// A part of the provider that exactly one process runs at a time. In the order in which they start.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Concern {
            $($(#[$doc])* $name,)+
        }

        impl Concern {
            /// In the order in which they start.
            pub const ALL: [Concern; [$(Concern::$name),+].len()] = [$(Concern::$name),+];

            fn row(self) -> &'static ConcernRow {
                match self {
                    $(Concern::$name => const { &ConcernRow { $($field: $value),+ } },)+
                }
            }
        }
    };
}

concerns! {
    MessageSender {
        name: "message-sender",
        role: Role::DaemonLink,
        child: ("root/chain", "message_sender"),
        per_node: false,
        in_doubt: InDoubt::GoOn, // a proof that is not sent is a fault; the same message twice lands once
        journals: true,
        beside: Some(Concern::WindowPost), // between the two there should be no link that can fail
        companions: &[],
    }
    WindowPost {
        name: "window-post",
        role: Role::WindowPost,
        child: ("root/proving", "window_post"),
        per_node: false,
        in_doubt: InDoubt::GoOn, // as the message sender
        journals: true,
        beside: None,
        companions: &[],
    }
    WinningPost {
        name: "winning-post",
        role: Role::WinningPost,
        child: ("root/proving", "winning_post"),
        per_node: false,
        in_doubt: InDoubt::Stop, // two blocks of one epoch are slashed
        journals: false,
        beside: None,
        // Block producers give their power to fast finality; two leases of one miner equivocate, as two blocks do.
        companions: &[("root/finality", "f3")],
    }
    Allocator {
        name: "sector-allocator",
        role: Role::Allocator,
        child: ("root/sealing", "sector_allocator"),
        per_node: false,
        in_doubt: InDoubt::WithinRange,
        journals: false,
        beside: None,
        companions: &[],
    }
    /// One per node: each seals sectors of its own.
    SealScheduler {
        name: "seal-scheduler",
        role: Role::Sealing,
        child: ("root/sealing", "seal_scheduler"),
        per_node: true,
        in_doubt: InDoubt::Finish,
        journals: true,
        beside: None,
        companions: &[],
    }
    DealHandler {
        name: "deal-handler",
        role: Role::Markets,
        child: ("root/markets", "deal_handler-{miner}"),
        per_node: false,
        in_doubt: InDoubt::GoOn, // answers clients from what it has; what it would have to write waits
        journals: false,
        beside: None,
        companions: &[],
    }
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
        self.row().name
    }

    /// Its logical path; `node` is this node's name, in a cluster.
    pub fn path(self, miner: &Address, node: Option<&str>) -> String {
        match node.filter(|_| self.is_per_node()) {
            Some(node) => format!("/{miner}/{}/{node}", self.name()),
            None => format!("/{miner}/{}", self.name()),
        }
    }

    /// The role that a node needs to run it.
    pub fn role(self) -> Role {
        self.row().role
    }

    /// Its group in the tree, and its name there.
    pub fn place(self, miner: &Address) -> (&'static str, String) {
        let (group, child) = self.row().child;
        (group, child.replace("{miner}", &miner.to_string()))
    }

    /// Whether each node has one of its own.
    pub fn is_per_node(self) -> bool {
        self.row().per_node
    }

    /// Further actors that run under its lease, where it runs: their groups in the tree, and their names there.
    pub fn companions(self) -> &'static [(&'static str, &'static str)] {
        self.row().companions
    }

    pub fn in_doubt(self) -> InDoubt {
        self.row().in_doubt
    }

    /// Whether its writes wait on this disk while the cluster's store is out of reach, instead of being refused.
    pub fn journals(self) -> bool {
        self.row().journals
    }

    /// The concern's description for the placement, on that node.
    pub fn wanted(self, miner: &Address, node: &str) -> Wanted {
        let path = self.path(miner, Some(node));
        if self.is_per_node() {
            return Wanted::pinned(path, self.role(), node);
        }
        let wanted = Wanted::new(path, self.role());
        match self.row().beside {
            Some(other) => wanted.beside(other.path(miner, Some(node))),
            None => wanted,
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
