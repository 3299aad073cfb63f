//! Messages of the sender, for people.

use super::proving::line;
use crate::rpc::api::MessageState;

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
