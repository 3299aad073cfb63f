//! One file per command group. Every command prints a text for people, or JSON with `--json`; an error is one sentence
//! on stderr and an exit code (2 usage, 1 failure, 70 the supervision tree gave up).
//!
//! * [`args`] — the whole command line. [`error`], [`output`], [`logging`], [`signals`] — what all commands share.
//! * [`client`] — how a command reaches a running node. [`wiring`] — how a command reaches the rest of the crate.
//! * [`miner_flags`] — the distributed miner's flags.
//! * [`launch`] — what runs inside this process.
//! * [`render`] — tables, pure.

pub mod actor;
pub mod agent;
pub mod args;
pub mod client;
pub mod cluster;
pub mod config;
pub mod context;
mod daemons;
pub mod devnet;
pub mod error;
pub mod f3;
pub mod info;
pub mod init;
pub mod keys;
pub mod launch;
mod log;
pub mod logging;
mod lossy;
pub mod messages;
pub mod miner_flags;
pub mod output;
pub mod proving;
pub mod render;
pub mod run;
pub mod sealing;
pub mod sector_rows;
pub mod sectors;
pub mod signals;
pub mod tree;
pub mod wiring;
pub mod worker;

pub use context::{Context, overrides};
pub use error::CliError;

use crate::config::{Config, LogFormat, Overrides, Reading, lotus};
use args::{Cli, Command};
use clap::Parser;
use context::Global;
use output::Out;
use std::future::Future;
use std::process::ExitCode;

pub fn main() -> ExitCode {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    // before any runtime, parser or thread: a prover is a bare process
    if args.get(1).is_some_and(|a| a == "prover") {
        return wiring::prover_main();
    }
    logging::report_panics();
    // a panic that reaches this far is a bug: it ends with a sentence and a code, not with a backtrace
    let result = std::panic::catch_unwind(|| parse_and_dispatch(args))
        .unwrap_or_else(|panic| Err(CliError::of_panic(logging::panic_text(panic.as_ref()))))
        .map_err(CliError::or_host_limit);
    logging::flush(); // before the sentence that is the last one
    finish(result)
}

fn parse_and_dispatch(args: Vec<std::ffi::OsString>) -> Result<(), CliError> {
    match Cli::try_parse_from(args) {
        Ok(cli) => dispatch(cli),
        Err(e) if e.use_stderr() => Err(CliError::Usage(error::one_sentence(&e))),
        Err(help) => {
            output::print(&help.to_string());
            Ok(())
        }
    }
}

fn finish(result: Result<(), CliError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&format!("error: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), CliError> {
    let Cli { global, command } = cli;
    match command {
        Command::Devnet(args) => {
            args.node.miner.check()?;
            let overrides = args.overrides(&global, &env)?;
            let cx = context(&global, overrides)?;
            args.node.miner.check_cluster(&cx.config.cluster)?;
            block_on(devnet::run(args, cx))
        }
        Command::Init(args) => {
            let cx = context(&global, overrides(&global))?;
            log_to_stderr(&cx, &global, "warn")?;
            block_on(init::run(args, cx))
        }
        Command::Run(args) => {
            args.miner.check()?;
            let overrides = args.overrides(overrides(&global));
            let cx = context(&global, overrides)?;
            args.miner.check_cluster(&cx.config.cluster)?;
            log_to_stderr(&cx, &global, "")?;
            if let Some(peer) = args.miner.deals_left_to(&cx.config.cluster) {
                tracing::info!(
                    "deals are left to {peer}, which [[cluster.peer]] lists with the role markets; this miner seals"
                );
            }
            block_on(run::run(args.new_store(), cx))
        }
        Command::Agent(args) => {
            let global = Global { repo: Some(agent::repo(global.repo.as_deref(), &env)?), ..global };
            let cx = context(&global, overrides(&global))?;
            log_to_stderr(&cx, &global, "")?;
            block_on(agent::run(args, cx))
        }
        Command::Worker(args) => {
            // Its folder is the agent's, whose configuration is not the worker's.
            let cx =
                context(&Global { repo: None, ..global.clone() }, overrides(&Global { repo: None, ..global.clone() }))?;
            log_to_stderr(&cx, &global, "")?;
            block_on(worker::run(args, cx))
        }
        Command::Keys(command) => {
            let cx = context(&global, overrides(&global))?;
            log_to_stderr(&cx, &global, "warn")?;
            keys::run(command, cx)
        }
        Command::Config(config::Command::Reload) => online(&global, config::reload),
        Command::Config(command) => config::run(command, &global, overrides(&global)),
        Command::Stop(args) => online(&global, |cx| run::stop(args, cx)),
        Command::Info(args) => online(&global, |cx| info::run(args, cx)),
        Command::Sectors(command) => online(&global, |cx| sectors::run(command, cx)),
        Command::Sealing(command) => online(&global, |cx| sealing::run(command, cx)),
        Command::Proving(command) => online(&global, |cx| proving::run(command, cx)),
        Command::Daemons(command) => online(&global, |cx| daemons::run(command, cx)),
        Command::Log(command) => online(&global, |cx| log::run(command, cx)),
        Command::F3(command) => online(&global, |cx| f3::run(command, cx)),
        Command::Actor(command) => online(&global, |cx| actor::run(command, cx)),
        Command::Messages(command) => online(&global, |cx| messages::run(command, cx)),
        Command::Tree(args) => online(&global, |cx| tree::run(args, cx)),
        Command::Cluster(command) => cluster(command, &global),
        Command::Prover(_) => Err(CliError::Usage("prover: it is started by a node, never by hand".to_string())),
    }
}

/// Some work on a repo and its configuration, the others ask a running node.
fn cluster(command: cluster::Command, global: &Global) -> Result<(), CliError> {
    use cluster::{Command, forget, join, repair, transfer};
    let on_repo = || {
        let cx = context(global, overrides(global))?;
        log_to_stderr(&cx, global, "warn")?;
        Ok::<_, CliError>(cx)
    };
    match command {
        Command::Id => join::id(&on_repo()?),
        Command::JoinToken => join::token(&on_repo()?),
        Command::Join(args) => join::join(args, &on_repo()?),
        Command::ForgetEpochs => forget::epochs(&on_repo()?),
        Command::Repair(args) => {
            let cx = on_repo()?;
            block_on(async { repair::run(args, &cx).await })
        }
        Command::Import(args) => {
            let cx = on_repo()?;
            block_on(async { transfer::import(args, &cx).await })
        }
        Command::Export(args) => {
            let cx = on_repo()?;
            block_on(async { transfer::export(args, &cx).await })
        }
        asked @ (Command::Status | Command::Nodes | Command::Leases | Command::Move { .. } | Command::Drain { .. }) => {
            online(global, |cx| cluster::ask(asked, cx))
        }
    }
}

fn context(global: &Global, overrides: Overrides) -> Result<Context, CliError> {
    let reading = Reading::of_process(overrides);
    let config = reading.read()?.config;
    // SAFETY: this thread is the only one: no runtime, no logger, no prover has been started yet. The proofs library and
    // the prover processes read the folder of the keys from this variable only.
    unsafe { std::env::set_var("FIL_PROOFS_PARAMETER_CACHE", &config.proving.parameter_cache) };
    Ok(Context { config, reading, out: Out { json: global.json }, repo_given: global.repo.is_some() })
}

/// `quiet`: the filter of a one-shot command that was not asked to log.
fn log_to_stderr(cx: &Context, global: &Global, quiet: &str) -> Result<(), CliError> {
    let asked = global.log_level.is_some() || std::env::var_os("RUST_LOG").is_some();
    let filter = if asked || quiet.is_empty() { cx.config.node.log.as_str() } else { quiet };
    logging::init(filter, cx.config.node.log_format, logging::To::Stderr)?;
    for unread in lotus::unread_repo_variables(&env, cx.repo_given).into_iter().chain(lotus::unread_variables(&env)) {
        tracing::warn!("{unread}");
    }
    Ok(())
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A command that asks a running node. It needs nothing of the configuration but the repo, so a file that is
/// broken by now does not keep an operator from looking at, or stopping, a node that runs.
fn online<F: Future<Output = Result<(), CliError>>>(
    global: &Global,
    command: impl FnOnce(Context) -> F,
) -> Result<(), CliError> {
    let mut config = Config::default();
    config.repo = crate::config::load::repo(global.repo.as_deref(), &env)?;
    logging::init(global.log_level.as_deref().unwrap_or("warn"), LogFormat::Pretty, logging::To::Stderr)?;
    for unread in lotus::unread_repo_variables(&env, global.repo.is_some()) {
        tracing::warn!("{unread}");
    }
    let reading = Reading::of_process(overrides(global));
    block_on(command(Context { config, reading, out: Out { json: global.json }, repo_given: global.repo.is_some() }))
}

/// Threads that serve a command's own futures.
const WORKERS: usize = 2;

fn block_on<F: Future<Output = Result<(), CliError>>>(work: F) -> Result<(), CliError> {
    let no_threads = |e: std::io::Error| CliError::Failed(format!("cannot start threads: {e}"));
    // tokio waits for ever for the first of its threads where the host refuses the second.
    threads_can_start(WORKERS).map_err(no_threads)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("cli")
        .enable_all()
        .build()
        .map_err(no_threads)?;
    let result = runtime.block_on(work);
    // a blocking task that hangs (a dead NFS mount) must not keep the process
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}

/// Starts so many threads side by side and ends them again.
fn threads_can_start(count: usize) -> std::io::Result<()> {
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let ended = std::sync::Arc::new(std::sync::Mutex::new(ended));
    let threads: std::io::Result<Vec<_>> = (0..count)
        .map(|_| {
            let ended = ended.clone();
            std::thread::Builder::new().spawn(move || crate::util::lock(&ended).recv().is_ok())
        })
        .collect();
    drop(end);
    threads?.into_iter().for_each(|thread| drop(thread.join()));
    Ok(())
}
