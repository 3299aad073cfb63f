//! Which prefix addresses have in this process: `f…` on the main network, `t…` on every other one.
//!
//! Addresses are parts of durable names (`t01000/…`), so that the prefix must be the same in every process that opens a
//! repo: it follows from the network's name, before anything is named.

use fvm_shared::address::{Network, set_current_network};

/// The names of the main network; `testnetnet` is what its state has said since before it was the main one.
const MAIN: [&str; 2] = ["mainnet", "testnetnet"];

fn of_name(name: &str) -> Network {
    if MAIN.contains(&name) { Network::Mainnet } else { Network::Testnet }
}

/// Addresses print as those of the network `name` (`StateNetworkName`) from now on. Both forms are always read.
pub fn use_network(name: &str) {
    set_current_network(of_name(name));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_main_network_has_f() {
        for (name, main) in [
            ("mainnet", true),
            ("testnetnet", true),
            ("calibrationnet", false),
            ("bulkhead-devnet-1", false),
            ("", false),
        ] {
            assert_eq!(of_name(name) == Network::Mainnet, main, "{name}");
        }
    }
}
