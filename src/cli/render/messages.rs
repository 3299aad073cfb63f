//! Messages of the sender, for people.

use super::proving::line;
use super::table::{Align, table};
use crate::actors::message_sender::messages::{MessageList, MessageRow};
use crate::chain::TokenAmount;
use crate::chain::miner_messages::method;
use crate::rpc::api::{MessageOrder, MessageState};

/// A row a message; what it offers is the fee cap x gas limit, beside its bound.
pub fn list(list: &MessageList) -> String {
    if list.open == 0 {
        return "no message is open\n".to_string();
    }
    let columns = [
        ("KEY", Align::Left),
        ("METHOD", Align::Left),
        ("FROM", Align::Left),
        ("NONCE", Align::Right),
        ("STATE", Align::Left),
        ("OFFERS", Align::Right),
        ("AT MOST", Align::Right),
        ("CLOSES", Align::Right),
        ("WHY", Align::Left),
    ];
    let mut text = table(&columns, &list.rows.iter().map(row).collect::<Vec<_>>());
    let hidden = list.open.saturating_sub(list.rows.len() as u64);
    if hidden > 0 {
        text += &format!("and {hidden} more: --most\n");
    }
    text
}

fn row(row: &MessageRow) -> Vec<String> {
    let number = |n: Option<i64>| n.map_or("-".to_string(), |n| n.to_string());
    let atto = |text: &str| text.parse::<num_bigint::BigInt>().ok();
    let fil = |atto: num_bigint::BigInt| TokenAmount::from_atto(atto).to_string();
    let offer = row.fee_cap.as_deref().and_then(atto).zip(row.gas_limit).map(|(cap, limit)| fil(cap * limit));
    let mut state = row.state.clone();
    if row.fills {
        state += " (gives its nonce back)";
    }
    if row.replaced > 0 {
        state += &format!(", replaced {}x", row.replaced);
    }
    if let Some(order) = &row.order {
        state += &format!(", {order} ordered");
    }
    vec![
        row.key.clone(),
        method::name(row.method).map_or(row.method.to_string(), str::to_string),
        row.from.clone().unwrap_or("-".to_string()),
        row.nonce.map_or("-".to_string(), |n| n.to_string()),
        state,
        offer.unwrap_or("-".to_string()),
        atto(&row.max_fee).map_or("-".to_string(), fil),
        number(row.closes),
        line(&row.why),
    ]
}

/// The outcome of an order; the caller makes an error of one that was too late.
pub fn answered(key: &str, what: &str, answer: &MessageOrder) -> String {
    match answer {
        MessageOrder::Ordered { nonce } => {
            format!("{key} (nonce {nonce}) will be {what}; follow it with `bulkhead messages list`")
        }
        MessageOrder::Withdrawn => format!("{key} was not signed yet and will never be sent"),
        MessageOrder::NotSigned => {
            format!("{key} is not signed yet: there is nothing to replace, a new bound holds once it is")
        }
        MessageOrder::Finished { message } => status(key, message),
        MessageOrder::Unknown => format!("{key} is not open"),
    }
}

/// One sentence.
pub fn status(key: &str, state: &MessageState) -> String {
    match state {
        MessageState::Queued { why } => format!("{key} is not signed yet: {}", line(why)),
        MessageState::Pushed { cid, nonce, since } => {
            format!("{key} is sent, not final on chain yet: {cid}, nonce {nonce}, since epoch {since}")
        }
        MessageState::Landed { cid, epoch, .. } => format!("{key} is on chain at epoch {epoch}: {cid}"),
        MessageState::Failed { exit_code, error } => {
            format!("{key} failed with exit code {exit_code}: {}", line(error))
        }
        MessageState::Unknown => format!("{key} is not known"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_messages_are_a_table() {
        let queued = MessageRow {
            key: "sector-7-commit-1".into(),
            state: "queued".into(),
            method: 34,
            max_fee: "30000000000000000".into(),
            why: "the base fee is\ntoo high".into(),
            ..MessageRow::default()
        };
        let pushed = MessageRow {
            key: "post-3-0".into(),
            state: "pushed".into(),
            method: 5,
            from: Some("t3x".into()),
            nonce: Some(12),
            gas_limit: Some(20_000_000),
            fee_cap: Some("1000000000".into()),
            max_fee: "50000000000000000000".into(),
            closes: Some(940),
            order: Some("replace".into()),
            replaced: 1,
            ..MessageRow::default()
        };
        let all = MessageList { open: 3, rows: vec![pushed, queued] };
        let expected = "\
KEY                METHOD               FROM  NONCE  STATE                                 OFFERS  AT MOST  CLOSES  WHY
post-3-0           SubmitWindowedPoSt   t3x      12  pushed, replaced 1x, replace ordered    0.02     50.0     940
sector-7-commit-1  ProveCommitSectors3  -         -  queued                                     -     0.03       -  the base fee is too high
and 1 more: --most
";
        assert_eq!(list(&all), expected);
        assert_eq!(list(&MessageList::default()), "no message is open\n");
    }

    #[test]
    fn what_came_of_an_order_is_one_sentence() {
        let said = |answer| answered("k", "replaced", &answer);
        assert!(said(MessageOrder::Ordered { nonce: 7 }).starts_with("k (nonce 7) will be replaced"));
        assert!(said(MessageOrder::Withdrawn).contains("never be sent"));
        assert!(said(MessageOrder::NotSigned).contains("not signed yet"));
        let landed = MessageState::Landed { cid: "bafy1".into(), epoch: 9, return_data: String::new() };
        assert!(said(MessageOrder::Finished { message: landed }).contains("on chain at epoch 9"));
    }

    #[test]
    fn each_state_is_one_sentence() {
        let cid = || "bafy1".to_string();
        for (state, want) in [
            (MessageState::Queued { why: "no\nfunds".into() }, "k is not signed yet: no funds"),
            (
                MessageState::Pushed { cid: cid(), nonce: 3, since: 40 },
                "k is sent, not final on chain yet: bafy1, nonce 3, since epoch 40",
            ),
            (
                MessageState::Landed { cid: cid(), epoch: 41, return_data: String::new() },
                "k is on chain at epoch 41: bafy1",
            ),
            (MessageState::Failed { exit_code: 16, error: "refused".into() }, "k failed with exit code 16: refused"),
            (MessageState::Unknown, "k is not known"),
        ] {
            assert_eq!(status("k", &state), want);
        }
    }
}
