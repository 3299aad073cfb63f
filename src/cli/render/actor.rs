//! `actor ..`: what an order would send, what it has done, and `actor control list` with lotus-miner's columns.

use super::proving::fact;
use super::table::{Align, table};
use crate::chain::miner_messages::withdrawn;
use crate::chain::{ChainEpoch, TokenAmount};
use crate::config::values::format_duration;
use crate::rpc::api::{MessageState, Order, Plan, PlannedMessage};
use serde_json::Value;
use std::time::Duration;

/// Characters of a key that `control list` shows without `--verbose`, as lotus-miner does.
const KEY_SHOWN: usize = 6;

/// attoFIL as FIL.
fn fil(atto: &str) -> String {
    let atto: num_bigint::BigInt = atto.parse().unwrap_or_default();
    format!("{} FIL", TokenAmount::from_atto(atto))
}

pub fn within(time: Duration) -> String {
    format_duration(time)
}

/// The changes, then each message as it would be sent.
pub fn plan(plan: &Plan) -> String {
    let mut text = String::new();
    for change in &plan.changes {
        text += &format!("{change}\n");
    }
    for warning in &plan.warnings {
        text += &format!("  ! {warning}\n");
    }
    for message in &plan.messages {
        text += "\n";
        text += &one_message(message);
    }
    text
}

fn one_message(message: &PlannedMessage) -> String {
    let PlannedMessage { from, from_key, to, method, method_name, params, value, gas, blocked } = message;
    let key = if from == from_key { String::new() } else { format!(" ({from_key})") };
    let mut text = fact("Message", &format!("{method_name} (method {method}) to {to}"));
    text += &fact("From", &format!("{from}{key}"));
    text += &fact("Value", &fil(value));
    text += &fact("Params", if params.is_empty() { "none" } else { params });
    text += &fact("Gas", &format!("{} at most by the estimate", fil(gas)));
    if let Some(why) = blocked {
        text += &fact("Cannot send", why);
    }
    text
}

/// The order's outcome; `actor`: the report after it.
pub fn done(order: &Order, states: &[(String, MessageState)], actor: &Value) -> String {
    let mut text = String::new();
    for (_, state) in states {
        if let MessageState::Landed { cid, epoch, return_data } = state {
            text += &format!("On chain at epoch {epoch}: {cid}\n");
            if let Order::Withdraw { amount, .. } = order {
                text += &withdrew(amount.as_deref(), return_data);
            }
        }
    }
    text + &next(order, actor)
}

fn withdrew(asked: Option<&str>, return_data: &str) -> String {
    let moved = hex::decode(return_data).ok().and_then(|bytes| withdrawn(&bytes).ok());
    let Some(moved) = moved else { return "The amount that was withdrawn is not told\n".to_string() };
    let less =
        asked.and_then(|asked| crate::config::values::parse_fil(asked.trim_end_matches(|c: char| !c.is_ascii_digit())));
    let note = less.filter(|asked| moved < TokenAmount::from_atto(*asked));
    let note = note.map(|asked| format!(", which is less than the {} FIL asked for", TokenAmount::from_atto(asked)));
    format!("Withdrew {moved} FIL{}\n", note.unwrap_or_default())
}

/// The operator's next step; empty: there is none.
fn next(order: &Order, actor: &Value) -> String {
    if actor.is_null() {
        return "The miner actor's report cannot be had now; `bulkhead actor control list` shows it later.\n".into();
    }
    let text = |name: &str| actor[name].as_str().unwrap_or_default().to_string();
    match order {
        Order::ProposeWorker { worker } => match actor["worker_change_epoch"].as_i64().filter(|epoch| *epoch >= 0) {
            Some(epoch) => proposed(worker, epoch),
            None => "The proposal is not on chain; see `bulkhead actor control list`\n".to_string(),
        },
        Order::SetOwner { .. } if !text("pending_owner").is_empty() => {
            let new = text("pending_owner");
            format!("{new} takes over once it confirms: bulkhead actor set-owner --really-do-it {new} {new}\n")
        }
        Order::RecoverFaults { .. } => {
            "They count again once the next WindowPoSt of their deadline has proven them: bulkhead proving deadlines\n"
                .to_string()
        }
        Order::SetControl { .. } => control_list(actor, false),
        Order::SetOwner { .. }
        | Order::ConfirmWorker { .. }
        | Order::SetAddresses { .. }
        | Order::SetPeerId { .. }
        | Order::Withdraw { .. }
        | Order::RepayDebt { .. } => String::new(),
    }
}

fn proposed(worker: &str, epoch: ChainEpoch) -> String {
    format!(
        "Worker key change to {worker} is proposed and happens at epoch {epoch}.\n\
         Confirm it at or after that epoch: bulkhead actor confirm-change-worker --really-do-it {worker}\n"
    )
}

pub fn control_list(report: &Value, verbose: bool) -> String {
    let left = ["name", "ID", "key", "use", "balance"].map(|name| (name, Align::Left));
    let accounts = report["accounts"].as_array().cloned().unwrap_or_default();
    let row = |account: &Value| {
        let text = |name: &str| account[name].as_str().unwrap_or_default().to_string();
        let key = text("key");
        let key = match verbose || key.len() <= KEY_SHOWN + 3 {
            true => key,
            false => format!("{}...", key.chars().take(KEY_SHOWN).collect::<String>()),
        };
        let uses: Vec<&str> = account["use"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let balance = account["balance"].as_str().map_or("unknown".to_string(), fil);
        let missing = account["in_wallet"] == false;
        let balance = match (missing, account["error"].as_str()) {
            (true, _) => format!("{balance}  (its key is not in the full node's wallet)"),
            (false, Some(why)) => format!("{balance}  (its key is not known: {why})"),
            (false, None) => balance,
        };
        vec![text("name"), text("id"), key, uses.join(" "), balance]
    };
    let mut text = table(&left, &accounts.iter().map(row).collect::<Vec<_>>());
    let change = report["worker_change_epoch"].as_i64();
    if let (Some(worker), Some(epoch)) = (report["new_worker"].as_str(), change) {
        text += &format!("\nWorker {worker} is proposed and can be confirmed from epoch {epoch} on\n");
    }
    if let Some(owner) = report["pending_owner"].as_str() {
        text += &format!("\nOwner {owner} is proposed and has not confirmed\n");
    }
    for warning in report["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        text += &format!("\n  ! {warning}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message() -> PlannedMessage {
        PlannedMessage {
            from: "t0100".into(),
            from_key: "t3abc".into(),
            to: "t01000".into(),
            method: 3,
            method_name: "ChangeWorkerAddress".into(),
            params: "8242006580".into(),
            value: "0".into(),
            gas: "1500000000000000".into(),
            blocked: None,
        }
    }

    fn report() -> Value {
        let account = |name: &str, id: &str, key: Value, uses: Value, balance: Value| json!({ "name": name, "id": id, "key": key, "use": uses, "balance": balance, "in_wallet": true });
        json!({
            "accounts": [
                account("owner", "t0100", json!("t3owner0000"), json!([]), json!("1000000000000000000")),
                account("worker", "t0101", json!("t3worker"), json!(["other"]), json!("500000000000000000")),
                account("control-0", "t0102", Value::Null, json!(["post"]), Value::Null),
            ],
            "new_worker": null, "worker_change_epoch": -1, "pending_owner": null,
        })
    }

    #[test]
    fn a_plan_says_what_would_be_sent() {
        let mut shown = Plan {
            changes: vec!["Remove t0103".into(), "Add t0102 (t3def)".into()],
            warnings: vec!["the wallet does not have its key".into()],
            messages: vec![message()],
            block_delay_secs: 30,
        };
        let expected = "\
Remove t0103
Add t0102 (t3def)
  ! the wallet does not have its key

Message        ChangeWorkerAddress (method 3) to t01000
From           t0100 (t3abc)
Value          0.0 FIL
Params         8242006580
Gas            0.0015 FIL at most by the estimate
";
        assert_eq!(plan(&shown), expected);
        shown.messages[0].blocked = Some("the wallet lacks the key".into());
        shown.messages[0].params = String::new();
        let text = plan(&shown);
        assert!(
            text.contains("Params         none\n") && text.ends_with("Cannot send    the wallet lacks the key\n"),
            "{text}"
        );
    }

    #[test]
    fn control_list_has_lotus_miner_s_columns() {
        let expected = "\
name       ID     key        use    balance
owner      t0100  t3owne...         1.0 FIL
worker     t0101  t3worker   other  0.5 FIL
control-0  t0102             post   unknown
";
        assert_eq!(control_list(&report(), false), expected);
        let mut changing = report();
        (changing["new_worker"], changing["worker_change_epoch"]) = (json!("t0105"), json!(940));
        (changing["pending_owner"], changing["accounts"][0]["in_wallet"]) = (json!("t0106"), json!(false));
        (changing["accounts"][1]["error"], changing["warnings"]) = (json!("no answer"), json!(["t0107: no answer"]));
        let text = control_list(&changing, true);
        for part in [
            "t3owner0000",
            "1.0 FIL  (its key is not in the full node's wallet)",
            "\nWorker t0105 is proposed and can be confirmed from epoch 940 on\n",
            "\nOwner t0106 is proposed and has not confirmed\n",
            "0.5 FIL  (its key is not known: no answer)",
            "\n  ! t0107: no answer\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn what_came_of_an_order_and_what_is_next() {
        let landed = |return_data: &str| {
            let state = MessageState::Landed { cid: "bafy1".into(), epoch: 40, return_data: return_data.into() };
            vec![("k".to_string(), state)]
        };
        let withdraw =
            |amount: Option<&str>| Order::Withdraw { amount: amount.map(str::to_string), by_beneficiary: false };
        // 1 FIL: a sign byte and 8 of magnitude
        let one = landed("49000de0b6b3a7640000");
        let first = "On chain at epoch 40: bafy1\n";
        for (amount, want) in [
            (None, "Withdrew 1.0 FIL\n"),
            (Some("1"), "Withdrew 1.0 FIL\n"),
            (Some("1.5 FIL"), "Withdrew 1.0 FIL, which is less than the 1.5 FIL asked for\n"),
        ] {
            assert_eq!(done(&withdraw(amount), &one, &report()), format!("{first}{want}"));
        }
        assert!(done(&withdraw(None), &landed(""), &report()).contains("is not told"));

        let mut changing = report();
        (changing["new_worker"], changing["worker_change_epoch"]) = (json!("t0105"), json!(940));
        let order = Order::ProposeWorker { worker: "t3x".into() };
        let text = done(&order, &landed(""), &changing);
        assert!(text.contains("happens at epoch 940.\nConfirm it at or after that epoch: bulkhead actor confirm-change-worker --really-do-it t3x\n"), "{text}");
        changing["pending_owner"] = json!("t0106");
        let order = Order::SetOwner { new_owner: "t0106".into(), sender: "t0100".into() };
        assert!(done(&order, &landed(""), &changing).contains("set-owner --really-do-it t0106 t0106"));
        assert_eq!(done(&order, &landed(""), &report()), first);
    }
}
