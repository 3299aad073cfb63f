//! The open messages as others see them: counted, listed, inspected.

use super::effects::{Engine, fee_of, parse_signed};
use super::machine::summary;
use super::messages::{MessageList, MessageRow, MessageSummary};
use super::record::{Open, Order, Signed};
use crate::store::StoreError;

impl Engine {
    pub fn summary(&self) -> Result<MessageSummary, StoreError> {
        let cut = self.prefix().len();
        let open = self.open()?;
        let rows = open.iter().map(|(key, open)| (&key[cut..], open, self.memory.why(key)));
        Ok(MessageSummary { alerts: self.memory.alerts(), ..summary(rows, self.memory.head().unwrap_or_default()) })
    }

    /// The open messages for a person, without their parameters; the oldest ones, if they are many.
    pub(super) fn show(&self) -> serde_json::Value {
        const MOST: usize = 100;
        let open = match self.open() {
            Ok(open) => open,
            Err(why) => return serde_json::json!({ "error": why.to_string() }),
        };
        let cut = self.prefix().len();
        let row = |(key, open): &(String, Open)| {
            let signed = open.signed.as_ref();
            serde_json::json!({
                "key": &key[cut..], "to": open.to, "method": open.method, "max_fee": open.max_fee,
                "why_waiting": self.memory.why(key), "refusals": open.refusals, "seen_at": self.memory.head(),
                "cid": signed.map(|s| &s.cid), "nonce": signed.map(|s| s.nonce), "from": signed.map(|s| &s.from),
                "pushed_at": signed.and_then(|s| s.pushed_at), "replaced": signed.map_or(0, |s| s.replaced.len()),
            })
        };
        let oldest: Vec<serde_json::Value> = open.iter().take(MOST).map(row).collect();
        serde_json::json!({ "open": open.len(), "most_open": self.settings.max_open, "max_fee": self.settings.max_fee.to_string(), "oldest": oldest })
    }

    pub fn list(&self, most: usize) -> Result<MessageList, StoreError> {
        let open = self.open()?;
        let rows = open.iter().take(most).map(|(key, open)| self.row(key, open)).collect::<Result<_, StoreError>>()?;
        Ok(MessageList { open: open.len() as u64, rows })
    }

    fn row(&self, key: &str, open: &Open) -> Result<MessageRow, StoreError> {
        let signed = open.signed.as_ref();
        let fee = signed.map(|signed| Ok(fee_of(&parse_signed(key, signed)?))).transpose()?;
        let state = match signed {
            None => "queued",
            Some(signed) if signed.pushed_at.is_none() => "signed",
            Some(_) => "pushed",
        };
        Ok(MessageRow {
            key: key[self.prefix().len()..].to_owned(),
            state: state.into(),
            to: open.to.clone(),
            method: open.method,
            value: open.value.clone(),
            max_fee: self.max_fee(key, open)?.atto().to_string(),
            closes: open.closes,
            why: self.memory.why(key),
            order: open.order.map(|order| match order {
                Order::Replace => "replace".into(),
                Order::Cancel => "cancel".into(),
            }),
            from: signed.map(|s| s.from.clone()).or(open.from.clone()),
            nonce: signed.map(|s| s.nonce),
            cid: signed.map(|s| s.cid.clone()),
            gas_limit: fee.as_ref().map(|fee| fee.limit),
            fee_cap: fee.as_ref().map(|fee| fee.cap.atto().to_string()),
            premium: fee.as_ref().map(|fee| fee.premium.atto().to_string()),
            signed_at: signed.map(|s| s.signed_at),
            replaced: signed.map_or(0, |s| s.replaced.len() as u64),
            fills: signed.is_some_and(Signed::is_filler),
        })
    }
}
