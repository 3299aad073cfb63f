//! `bulkhead actor ..`, `bulkhead proving recover-faults`: orders to the miner actor, in lotus-miner's spelling.
//!
//! Each is checked against the chain and shown first; what is sent is named by a request, so that a command that is
//! repeated under the same one is never executed twice.

use super::client::NodeClient;
use super::output::{print, print_error};
use super::render::actor as render;
use super::{CliError, Context};
use crate::config::values::parse_duration;
use crate::rpc::api::{MessageState, Order, Plan};
use crate::util::time::since_epoch;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Control addresses: they send messages of the miner
    #[command(subcommand)]
    Control(Control),
    /// Set the multiaddresses at which clients reach the miner
    #[command(name = "set-addresses", visible_alias = "set-addrs")]
    SetAddresses {
        /// Such as /ip4/203.0.113.7/tcp/24001
        #[arg(value_name = "MULTIADDR", required_unless_present = "unset", conflicts_with = "unset")]
        addresses: Vec<String>,
        /// Sender: owner, worker or a control address [default: the worker]
        #[arg(long, value_name = "ADDRESS")]
        from: Option<String>,
        /// Unset the addresses
        #[arg(long)]
        unset: bool,
        #[command(flatten)]
        sending: Sending,
    },
    /// Set the miner's libp2p peer id
    SetPeerId {
        /// Such as 12D3Koo.. [default: the peer id of this node's market host]
        #[arg(value_name = "PEER ID")]
        peer_id: Option<String>,
        #[command(flatten)]
        sending: Sending,
    },
    /// Change the owner in two steps: first from the old owner, then the same from the new one
    SetOwner {
        #[arg(value_name = "NEW OWNER", help = "The new owner")]
        new_owner: String,
        #[arg(value_name = "SENDER", help = "The old owner, who proposes, then the new one, who confirms")]
        sender: String,
        #[command(flatten)]
        really: Really,
        #[command(flatten)]
        sending: Sending,
    },
    /// Propose another worker: it can take over 900 epochs later on the main network
    ProposeChangeWorker {
        #[arg(value_name = "ADDRESS", help = "The new worker: the account of a BLS key (t3..)")]
        worker: String,
        #[command(flatten)]
        really: Really,
        #[command(flatten)]
        sending: Sending,
    },
    /// Let the proposed worker take over, once its epoch has come
    ConfirmChangeWorker {
        #[arg(value_name = "ADDRESS", help = "The worker that was proposed")]
        worker: String,
        #[command(flatten)]
        really: Really,
        #[command(flatten)]
        sending: Sending,
    },
    /// Withdraw available FIL to the beneficiary, which is the owner unless that was changed
    Withdraw {
        /// FIL, such as 5 or 0.05 [default: all that is available]
        #[arg(value_name = "AMOUNT")]
        amount: Option<String>,
        /// Send the message from the beneficiary instead of the owner
        #[arg(long)]
        beneficiary: bool,
        #[command(flatten)]
        sending: Sending,
    },
    /// Pay what the miner owes the network
    RepayDebt {
        /// FIL, such as 5 or 0.05 [default: the whole fee debt]
        #[arg(value_name = "AMOUNT")]
        amount: Option<String>,
        /// The payer: owner, worker or a control address [default: the worker]
        #[arg(long, value_name = "ADDRESS")]
        from: Option<String>,
        #[command(flatten)]
        sending: Sending,
    },
}

#[derive(Subcommand, Debug)]
pub enum Control {
    /// Owner, worker, beneficiary and control addresses, with their keys and balances
    List {
        /// Whole keys
        #[arg(long)]
        verbose: bool,
    },
    /// Replace the control addresses by these; none removes them all
    Set {
        /// At most 10 addresses that are on chain
        #[arg(value_name = "ADDRESS")]
        addresses: Vec<String>,
        #[command(flatten)]
        really: Really,
        #[command(flatten)]
        sending: Sending,
    },
}

/// Orders that change who decides are not sent by a slip.
#[derive(Args, Debug, Clone)]
pub struct Really {
    /// Send it; without, only what would be sent is shown
    #[arg(long)]
    really_do_it: bool,
}

#[derive(Args, Debug, Clone)]
pub struct Sending {
    /// Only show what would be sent
    #[arg(long)]
    dry_run: bool,
    /// Do not wait for the result
    #[arg(long)]
    no_wait: bool,
    /// How long to wait for the result; the message is sent on all the same
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = duration)]
    timeout: Duration,
    /// Name of this order: the same again is the same order, never a second one [default: a new one]
    #[arg(long, value_name = "NAME")]
    request: Option<String>,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("{text:?} is not a duration such as 90s or 15m"))
}

pub async fn run(command: Command, cx: Context) -> Result<(), CliError> {
    let node = NodeClient::open(&cx)?;
    let really =
        |really: Really, sending: Sending| Sending { dry_run: sending.dry_run || !really.really_do_it, ..sending };
    let (order, sending) = match command {
        Command::Control(Control::List { verbose }) => {
            let report: Value = node.call("Bulkhead.Actor", vec![]).await?;
            cx.out.answer(&report, |report| render::control_list(report, verbose));
            return Ok(());
        }
        Command::Control(Control::Set { addresses, really: r, sending }) => {
            (Order::SetControl { addresses }, really(r, sending))
        }
        Command::SetAddresses { addresses, from, unset: _, sending } => {
            (Order::SetAddresses { multiaddrs: addresses, from }, sending)
        }
        Command::SetPeerId { peer_id, sending } => (Order::SetPeerId { peer_id: peer(peer_id, &node).await? }, sending),
        Command::SetOwner { new_owner, sender, really: r, sending } => {
            (Order::SetOwner { new_owner, sender }, really(r, sending))
        }
        Command::ProposeChangeWorker { worker, really: r, sending } => {
            (Order::ProposeWorker { worker }, really(r, sending))
        }
        Command::ConfirmChangeWorker { worker, really: r, sending } => {
            (Order::ConfirmWorker { worker }, really(r, sending))
        }
        Command::Withdraw { amount, beneficiary, sending } => {
            (Order::Withdraw { amount, by_beneficiary: beneficiary }, sending)
        }
        Command::RepayDebt { amount, from, sending } => (Order::RepayDebt { amount, from }, sending),
    };
    carry_out(order, sending, &node, &cx).await
}

async fn peer(given: Option<String>, node: &NodeClient) -> Result<String, CliError> {
    if let Some(peer) = given {
        return Ok(peer);
    }
    let market: Value = node.call("Bulkhead.Market", vec![]).await?;
    let peer = market["peer_id"].as_str().map(str::to_string);
    peer.ok_or_else(|| CliError::Usage("actor set-peer-id: name the peer id: this node has no market host".to_string()))
}

/// Shows an order, sends it unless it is a dry run, and follows its messages.
pub async fn carry_out(order: Order, sending: Sending, node: &NodeClient, cx: &Context) -> Result<(), CliError> {
    let wish = json!(order);
    let request = sending.request.clone().unwrap_or_else(new_request);
    // An order that was given before is only followed: what it was planned on has changed since.
    let plan: Option<Plan> = match sending.request {
        Some(_) if !sending.dry_run && given_before(&order, &request, node).await? => None,
        _ => Some(node.call("Bulkhead.ActorCheck", vec![wish.clone()]).await?),
    };
    if !cx.out.json
        && let Some(plan) = &plan
    {
        print(&render::plan(plan));
    }
    if sending.dry_run {
        match cx.out.json {
            true => cx.out.answer(&json!({ "plan": plan, "sent": false }), |_| String::new()),
            false => {
                print("Nothing is sent: it is sent without --dry-run, with --really-do-it where the command has it")
            }
        }
        return Ok(());
    }
    let keys: Vec<String> = node.call("Bulkhead.ActorOrder", vec![wish, json!(request)]).await.map_err(|e| {
        let again = format!("if it is not clear whether the order was taken, repeat it with --request {request}");
        match e {
            CliError::Node { node, method, why } if why.contains("no answer") || why.contains("cannot reach") => {
                CliError::Node { node, method, why: format!("{why}; {again}") }
            }
            e => CliError::Failed(format!("{e}; {again}")),
        }
    })?;
    let follow = |key: &String| format!("bulkhead messages status {key}");
    if sending.no_wait {
        let answer = json!({ "plan": plan, "sent": true, "messages": keys });
        cx.out.answer(&answer, |_| {
            keys.iter().map(|key| format!("Ordered; follow it with `{}`\n", follow(key))).collect()
        });
        return Ok(());
    }
    let delay = plan.as_ref().map_or(0, |plan| plan.block_delay_secs);
    let (mut states, until) = (Vec::new(), Instant::now() + sending.timeout);
    for key in &keys {
        if !cx.out.json {
            print_error(&format!(
                "{key} is on its way; waiting for the chain, {} at most",
                render::within(sending.timeout)
            ));
        }
        let taken = |e| {
            CliError::Failed(format!("{e}; the order was taken: do not repeat it, follow it with `{}`", follow(key)))
        };
        let state = wait(key, Duration::from_secs(delay), until, node).await.map_err(taken)?;
        states.push((key.clone(), state));
    }
    // The messages' outcome is told also where the report after it cannot be had.
    let after: Value = node.call("Bulkhead.Actor", vec![]).await.unwrap_or(Value::Null);
    let shown: Vec<Value> = states.iter().map(|(key, state)| json!({ "key": key, "message": state })).collect();
    let answer = json!({ "plan": plan, "sent": true, "messages": shown, "actor": after });
    let mut wrong = states.iter().filter_map(|(key, state)| match state {
        MessageState::Landed { .. } => None,
        MessageState::Failed { error, .. } => Some(format!("{key} failed: {error}")),
        MessageState::Queued { .. } | MessageState::Pushed { .. } | MessageState::Unknown => Some(format!(
            "{key} is not on chain after {}; it is sent on: follow it with `{}`",
            render::within(sending.timeout),
            follow(key)
        )),
    });
    match wrong.next() {
        Some(why) => {
            if cx.out.json {
                cx.out.answer(&answer, |_| String::new());
            }
            Err(CliError::Failed(why))
        }
        None => {
            cx.out.answer(&answer, |_| render::done(&order, &states, &after));
            Ok(())
        }
    }
}

async fn given_before(order: &Order, request: &str, node: &NodeClient) -> Result<bool, CliError> {
    let key = format!("order-{}-{request}", order.name());
    let state: MessageState = node.call("Bulkhead.MessageStatus", vec![json!(key)]).await?;
    Ok(state != MessageState::Unknown)
}

fn new_request() -> String {
    let now = since_epoch().as_nanos();
    format!("{now}-{}", std::process::id())
}

/// Its state once it is final, or the last one before `until`.
async fn wait(key: &str, block: Duration, until: Instant, node: &NodeClient) -> Result<MessageState, CliError> {
    loop {
        let state: MessageState = node.call("Bulkhead.MessageStatus", vec![json!(key)]).await?;
        match state {
            MessageState::Landed { .. } | MessageState::Failed { .. } | MessageState::Unknown => return Ok(state),
            MessageState::Queued { .. } | MessageState::Pushed { .. } if Instant::now() >= until => return Ok(state),
            MessageState::Queued { .. } | MessageState::Pushed { .. } => {}
        }
        // Another process's chain: its next tipset is what this waits for.
        let pause = (block / 4).clamp(Duration::from_millis(200), Duration::from_secs(5));
        tokio::time::sleep_until((Instant::now() + pause).min(until.max(Instant::now()))).await;
    }
}
