//! The whole command line.

use super::context::Global;
use super::{actor, cluster, daemons, devnet, f3, info, init, keys, messages, proving, run, sealing, sectors, tree};
use clap::{Args, Parser, Subcommand};

#[derive(Parser, Debug)]
#[command(name = "bulkhead", version, about, max_term_width = 110)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 70 the supervision tree gave up.")]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// An embedded chain and a whole provider in one process: watch a sector being sealed and proven
    Devnet(devnet::Args),
    /// Create a miner actor, or adopt one, and make this repo its home
    Init(init::Args),
    /// Run the node
    Run(run::Args),
    /// Stop the running node in order
    Stop(run::StopArgs),
    /// How the running node does, on one screen: what is wrong first, then chain, proving, sealing, markets, balances
    Info(info::Args),
    /// Seal for a manager that may be far away; found through etcd
    Agent(super::agent::Args),
    /// Take sealing tasks of an agent and run them on its storage
    Worker(super::worker::Args),
    /// Sectors of the running node
    #[command(subcommand)]
    Sectors(sectors::Command),
    /// Who seals, and what is being sealed
    #[command(subcommand)]
    Sealing(sealing::Command),
    /// WindowPoSt and WinningPoSt of the running node
    #[command(subcommand)]
    Proving(proving::Command),
    /// The full nodes behind this provider, used as one
    #[command(subcommand, alias = "fpool")]
    Daemons(daemons::Command),
    /// What the running node logs
    #[command(subcommand)]
    Log(super::log::Command),
    /// Participation in fast finality
    #[command(subcommand)]
    F3(f3::Command),
    /// The miner actor: who owns and controls it, its addresses, its money
    #[command(subcommand)]
    Actor(actor::Command),
    /// Messages that the node sends to the chain
    #[command(subcommand)]
    Messages(messages::Command),
    /// The supervision tree of the running node: what is up, what restarted and why
    Tree(tree::Args),
    /// One provider on several hosts: its nodes, who holds what, orders, joining
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Proving keys (generated keys are for 2 KiB test sectors only)
    #[command(subcommand)]
    Keys(keys::Command),
    /// The configuration: its defaults, or what holds now
    #[command(subcommand)]
    Config(super::config::Command),
    /// One proof in a process of its own; a node starts it
    #[command(hide = true)]
    Prover(Rest),
}

#[derive(Args, Debug)]
pub struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub rest: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    /// Release builds have clap's own checks off: a flag of a command must not have a global flag's name.
    #[test]
    fn no_flag_hides_a_global_one() {
        fn flags(command: &clap::Command) -> Vec<String> {
            command.get_arguments().filter_map(|a| a.get_long().map(str::to_string)).collect()
        }
        fn walk(command: &clap::Command, global: &[String]) {
            for sub in command.get_subcommands() {
                for flag in flags(sub) {
                    assert!(!global.contains(&flag), "{} --{flag}", sub.get_name());
                }
                walk(sub, global);
            }
        }
        let command = Cli::command();
        walk(&command, &flags(&command));
    }

    #[test]
    fn everything_in_the_help_is_described() {
        fn walk(command: &clap::Command, path: &str, missing: &mut Vec<String>) {
            let about = command.get_about().is_none().then(|| path.to_string());
            missing.extend(about);
            let args = command.get_arguments().filter(|arg| !arg.is_hide_set() && arg.get_help().is_none());
            missing.extend(args.map(|arg| format!("{path}: {}", arg.get_id())));
            for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
                walk(sub, &format!("{path} {}", sub.get_name()), missing);
            }
        }
        let mut missing = Vec::new();
        walk(&Cli::command(), "bulkhead", &mut missing);
        assert!(missing.is_empty(), "without a description: {missing:#?}");
    }

    #[test]
    fn global_options_stand_apart_and_help_is_a_command() {
        let help = |line: &[&str]| Cli::try_parse_from(line).unwrap_err().to_string();
        let run = help(&["bulkhead", "run", "--help"]);
        let (own, global) = run.split_once("Global options:").expect("a heading of their own");
        assert!(
            own.contains("--window-post") && own.contains("--api-listen") && !own.contains("--repo <DIR>"),
            "{run}"
        );
        assert!(global.contains("--repo <DIR>") && global.contains("--json") && !global.contains("--p2p"), "{run}");
        assert_eq!(help(&["bulkhead", "help", "run"]), run);
        assert!(help(&["bulkhead", "help"]).contains("Commands:"));
        assert!(help(&["bulkhead", "help", "sectors", "status"]).contains("--log"));
    }

    #[test]
    fn global_flags_go_anywhere() {
        for line in [["bulkhead", "--repo", "/x", "tree", "--json"], ["bulkhead", "--json", "tree", "--repo", "/x"]] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert!(cli.global.json && cli.global.repo == Some("/x".into()));
        }
    }
}
