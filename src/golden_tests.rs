//! The bytes and names of every enum that is stored or sent, pinned: other versions read them, so none may ever change.
//!
//! A new variant goes to the end of its enum (bincode stores a variant's index) and gets its line in `pinned!`; a `match`
//! there does not compile without it.

use std::collections::BTreeSet;

/// `number = pattern => sample, bytes`: the variant's number, and the sample's bytes in hex as the store and the bridge
/// write them.
macro_rules! pinned {
    ($test:ident: $type:ty { $($number:literal = $pattern:pat => $sample:expr, $bytes:expr;)* }) => {
        #[test]
        fn $test() {
            fn number_of(it: &$type) -> u8 {
                match it {
                    $($pattern => $number,)*
                }
            }
            let config = bincode::config::standard();
            $({
                let sample: $type = $sample;
                let bytes = bincode::serde::encode_to_vec(&sample, config).unwrap();
                assert_eq!(hex::encode(&bytes), $bytes, "{sample:?}");
                assert_eq!((number_of(&sample), bytes[0]), ($number, $number), "{sample:?}");
                let (read, used): ($type, usize) = bincode::serde::decode_from_slice(&bytes, config).unwrap();
                assert_eq!(used, bytes.len());
                assert_eq!(bincode::serde::encode_to_vec(&read, config).unwrap(), bytes, "{sample:?}");
            })*
        }
    };
}

/// `pattern => sample, json`: for enums that are only ever JSON.
macro_rules! named {
    ($test:ident: $type:ty { $($pattern:pat => $sample:expr, $json:literal;)* }) => {
        #[test]
        fn $test() {
            fn json_of(it: &$type) -> &'static str {
                match it {
                    $($pattern => $json,)*
                }
            }
            for sample in [$($sample),*] {
                let json = json_of(&sample);
                assert_eq!(serde_json::to_string(&sample).unwrap(), json, "{sample:?}");
                let read: $type = serde_json::from_str(json).unwrap();
                assert_eq!(serde_json::to_string(&read).unwrap(), json);
            }
        }
    };
}

fn text() -> String {
    "x".into()
}

/// 32 times that byte, in hex.
fn r(byte: u8) -> String {
    hex::encode([byte; 32])
}

mod daemons;
mod supervision;

mod message_sender {
    use super::text;
    use crate::actors::message_sender::messages::{EnqueueAnswer, MessageStatus, OrderAnswer, WithdrawAnswer};
    use crate::actors::message_sender::record::{MessageOutcome, Order};
    use crate::chain::types::TipSetKey;
    use cid::Cid;
    use cid::multihash::Multihash;

    fn cid() -> Cid {
        Cid::new_v1(0x55, Multihash::wrap(0, &[]).unwrap())
    }

    pinned! { enqueue_answer: EnqueueAnswer {
        0 = EnqueueAnswer::Accepted => EnqueueAnswer::Accepted, "00";
        1 = EnqueueAnswer::Known(_) => EnqueueAnswer::Known(MessageStatus::Unknown), "0104";
        2 = EnqueueAnswer::Refused(_) => EnqueueAnswer::Refused(text()), "020178";
    } }
    pinned! { withdraw_answer: WithdrawAnswer {
        0 = WithdrawAnswer::Withdrawn => WithdrawAnswer::Withdrawn, "00";
        1 = WithdrawAnswer::TooLate(_) => WithdrawAnswer::TooLate(MessageStatus::Unknown), "0104";
        2 = WithdrawAnswer::Unknown => WithdrawAnswer::Unknown, "02";
    } }
    pinned! { message_status: MessageStatus {
        0 = MessageStatus::Queued { .. } => MessageStatus::Queued { why_waiting: text() }, "000178";
        1 = MessageStatus::Pushed { .. } =>
            MessageStatus::Pushed { cid: cid(), nonce: 3, since: 4 }, "0104015500000308";
        2 = MessageStatus::Landed { .. } =>
            MessageStatus::Landed { cid: cid(), epoch: 4, tipset: TipSetKey(vec![cid()]), return_data: vec![9] },
            "020401550000080104015500000109";
        3 = MessageStatus::Failed { .. } => MessageStatus::Failed { exit_code: 16, error: text() }, "03200178";
        4 = MessageStatus::Unknown => MessageStatus::Unknown, "04";
    } }
    pinned! { order: Order {
        0 = Order::Replace => Order::Replace, "00";
        1 = Order::Cancel => Order::Cancel, "01";
    } }
    pinned! { order_answer: OrderAnswer {
        0 = OrderAnswer::Ordered { .. } => OrderAnswer::Ordered { nonce: 7 }, "0007";
        1 = OrderAnswer::Withdrawn => OrderAnswer::Withdrawn, "01";
        2 = OrderAnswer::NotSigned => OrderAnswer::NotSigned, "02";
        3 = OrderAnswer::Finished(_) => OrderAnswer::Finished(MessageStatus::Unknown), "0304";
        4 = OrderAnswer::Unknown => OrderAnswer::Unknown, "04";
    } }
    pinned! { outcome: MessageOutcome {
        0 = MessageOutcome::Landed { .. } =>
            MessageOutcome::Landed { cid: text(), epoch: 4, tipset: vec![text()], return_data: vec![9] },
            "000178080101780109";
        1 = MessageOutcome::Failed { .. } => MessageOutcome::Failed { exit_code: 16, error: text() }, "01200178";
    } }
}

mod allocator {
    use super::text;
    use crate::actors::sector_allocator::messages::{AllocateError, ReserveError};

    pinned! { allocate_error: AllocateError {
        0 = AllocateError::ChainUnavailable { .. } => AllocateError::ChainUnavailable { why: text() }, "000178";
        1 = AllocateError::Store(_) => AllocateError::Store(text()), "010178";
        2 = AllocateError::Exhausted => AllocateError::Exhausted, "02";
    } }
    pinned! { reserve_error: ReserveError {
        0 = ReserveError::Name(_) => ReserveError::Name(text()), "000178";
        1 = ReserveError::Exists(_) => ReserveError::Exists(text()), "010178";
        2 = ReserveError::Missing(_) => ReserveError::Missing(text()), "020178";
        3 = ReserveError::Reserved { .. } => ReserveError::Reserved { number: 7, by: text() }, "03070178";
        4 = ReserveError::Allocated(_) => ReserveError::Allocated(7), "0407";
        5 = ReserveError::Numbers(_) => ReserveError::Numbers(text()), "050178";
        6 = ReserveError::ChainUnavailable(_) => ReserveError::ChainUnavailable(text()), "060178";
        7 = ReserveError::Store(_) => ReserveError::Store(text()), "070178";
    } }
}

mod sealing {
    use super::{r, text};
    use crate::actors::seal_agent::messages::{JobState, RunAnswer, TakeAnswer};
    use crate::actors::seal_jobs::{JobFailed, SealJob, SealStep, Sealed};
    use crate::actors::seal_scheduler::messages::PledgeAnswer;
    use crate::proofs::Output;
    use std::time::Duration;

    fn sealed() -> Sealed {
        Sealed { ticket: [1; 32], seed: [2; 32], comm_r: [3; 32], comm_d: [4; 32] }
    }
    fn failed() -> JobFailed {
        JobFailed { error: text(), transient: true }
    }
    fn job() -> SealJob {
        SealJob {
            miner: 1000,
            number: 7,
            proof_type: 5,
            attempt: 1,
            step: SealStep::AddPiece,
            max_runtime: Duration::from_secs(9),
        }
    }

    pinned! { pledge_answer: PledgeAnswer {
        0 = PledgeAnswer::Sector(_) => PledgeAnswer::Sector(7), "0007";
        1 = PledgeAnswer::Waiting(_) => PledgeAnswer::Waiting(text()), "010178";
        2 = PledgeAnswer::Refused(_) => PledgeAnswer::Refused(text()), "020178";
    } }
    pinned! { seal_step: SealStep {
        0 = SealStep::AddPiece => SealStep::AddPiece, "00";
        1 = SealStep::Pc1 { .. } => SealStep::Pc1 { ticket: [1; 32] }, format!("01{}", r(1));
        2 = SealStep::Pc2 { .. } => SealStep::Pc2 { pc1: vec![9] }, "020109";
        3 = SealStep::C1(_) => SealStep::C1(sealed()), format!("03{}{}{}{}", r(1), r(2), r(3), r(4));
        4 = SealStep::C2 { .. } =>
            SealStep::C2 { sealed: sealed(), c1_attempt: 6 }, format!("04{}{}{}{}06", r(1), r(2), r(3), r(4));
        5 = SealStep::Finalize => SealStep::Finalize, "05";
        6 = SealStep::Remove => SealStep::Remove, "06";
    } }
    pinned! { run_answer: RunAnswer {
        0 = RunAnswer::Accepted => RunAnswer::Accepted, "00";
        1 = RunAnswer::Refused(_) => RunAnswer::Refused(text()), "010178";
    } }
    pinned! { job_state: JobState {
        0 = JobState::Unknown => JobState::Unknown, "00";
        1 = JobState::Queued => JobState::Queued, "01";
        2 = JobState::Running { .. } => JobState::Running { by: text() }, "020178";
        3 = JobState::Done(_) => JobState::Done(Output::Done), "0307";
        4 = JobState::Failed(_) => JobState::Failed(failed()), "04017801";
    } }
    named! { take_answer: TakeAnswer {
        TakeAnswer::Job(_) => TakeAnswer::Job(Box::new(job())),
            r#"{"Job":{"miner":1000,"number":7,"proof_type":5,"attempt":1,"step":"AddPiece","max_runtime":{"secs":9,"nanos":0}}}"#;
        TakeAnswer::Nothing => TakeAnswer::Nothing, r#""Nothing""#;
        TakeAnswer::JoinFirst => TakeAnswer::JoinFirst, r#""JoinFirst""#;
    } }
}

mod proving {
    use super::{r, text};
    use crate::actors::f3::messages::F3State;
    use crate::actors::storage::messages::VanillaAnswer;
    use crate::actors::window_post::batch::{BatchPhase, ReadyProof, Sent};
    use crate::actors::winning_post::messages::RoundOutcome;
    use crate::actors::winning_post::slashfilter::BlockState;

    fn proof() -> ReadyProof {
        ReadyProof { partitions: vec![(1, vec![2])], proof_type: 10, proof: vec![9], randomness: [7; 32] }
    }

    pinned! { vanilla_answer: VanillaAnswer {
        0 = VanillaAnswer::NotYet => VanillaAnswer::NotYet, "00";
        1 = VanillaAnswer::Ready(_) =>
            VanillaAnswer::Ready(vec![(7, Ok(vec![9])), (8, Err(text()))]), "01020700010908010178";
    } }
    pinned! { sent: Sent {
        0 = Sent::Sending => Sent::Sending, "00";
        1 = Sent::Queued => Sent::Queued, "01";
        2 = Sent::Checking => Sent::Checking, "02";
        3 = Sent::Known => Sent::Known, "03";
        4 = Sent::KnownLanded { .. } => Sent::KnownLanded { at: 4 }, "0408";
    } }
    pinned! { batch_phase: BatchPhase {
        0 = BatchPhase::Waiting => BatchPhase::Waiting, "00";
        1 = BatchPhase::Proving => BatchPhase::Proving, "01";
        2 = BatchPhase::Proved(_) => BatchPhase::Proved(proof()), format!("0201010102140109{}", r(7));
        3 = BatchPhase::Submitting { .. } =>
            BatchPhase::Submitting { proof: proof(), key: text(), sent: Sent::Queued },
            format!("0301010102140109{}017801", r(7));
        4 = BatchPhase::Landed { .. } =>
            BatchPhase::Landed { proof: proof(), key: text(), at: 4 }, format!("0401010102140109{}017808", r(7));
        5 = BatchPhase::Nothing => BatchPhase::Nothing, "05";
        6 = BatchPhase::Missed { .. } => BatchPhase::Missed { why: text() }, "060178";
    } }
    pinned! { block_state: BlockState {
        0 = BlockState::Pending => BlockState::Pending, "00";
        1 = BlockState::Accepted => BlockState::Accepted, "01";
        2 = BlockState::Refused(_) => BlockState::Refused(text()), "020178";
        3 = BlockState::OnChain { .. } => BlockState::OnChain { cid: text() }, "030178";
    } }
    named! { f3_state: F3State {
        F3State::Starting => F3State::Starting, r#""starting""#;
        F3State::Off => F3State::Off, r#""off""#;
        F3State::Participating => F3State::Participating, r#""participating""#;
        F3State::Disabled => F3State::Disabled, r#""disabled""#;
        F3State::NotReady => F3State::NotReady, r#""not_ready""#;
        F3State::Waiting => F3State::Waiting, r#""waiting""#;
        F3State::Failing => F3State::Failing, r#""failing""#;
    } }
    named! { round_outcome: RoundOutcome {
        RoundOutcome::NotEligible { .. } =>
            RoundOutcome::NotEligible { why: text() }, r#"{"outcome":"not_eligible","why":"x"}"#;
        RoundOutcome::Lost => RoundOutcome::Lost, r#"{"outcome":"lost"}"#;
        RoundOutcome::Won { .. } =>
            RoundOutcome::Won { win_count: 1, cid: None }, r#"{"outcome":"won","win_count":1,"cid":null}"#;
        RoundOutcome::Late { .. } => RoundOutcome::Late { why: text() }, r#"{"outcome":"late","why":"x"}"#;
        RoundOutcome::Refused { .. } => RoundOutcome::Refused { why: text() }, r#"{"outcome":"refused","why":"x"}"#;
        RoundOutcome::Failed { .. } => RoundOutcome::Failed { why: text() }, r#"{"outcome":"failed","why":"x"}"#;
    } }
}

mod provers;

mod cluster {
    use crate::node::proving_report::DeadlineState;
    use crate::rpc::auth::Perm;
    use crate::rpc::bridge::{PeerState, Refusal};
    use crate::rpc::directory::{NodeKind, Role};

    named! { peer_state: PeerState {
        PeerState::Connecting => PeerState::Connecting, r#""connecting""#;
        PeerState::Up => PeerState::Up, r#""up""#;
        PeerState::Suspect => PeerState::Suspect, r#""suspect""#;
        PeerState::Down => PeerState::Down, r#""down""#;
    } }
    named! { refusal: Refusal {
        Refusal::UnknownPeer => Refusal::UnknownPeer, r#""unknown_peer""#;
        Refusal::Hello => Refusal::Hello, r#""hello""#;
        Refusal::OldBoot => Refusal::OldBoot, r#""old_boot""#;
        Refusal::Twice => Refusal::Twice, r#""twice""#;
        Refusal::TooLong => Refusal::TooLong, r#""too_long""#;
        Refusal::Malformed => Refusal::Malformed, r#""malformed""#;
        Refusal::Replayed => Refusal::Replayed, r#""replayed""#;
        Refusal::UnknownAsk => Refusal::UnknownAsk, r#""unknown_ask""#;
        Refusal::UnknownPath => Refusal::UnknownPath, r#""unknown_path""#;
        Refusal::UnknownMessage => Refusal::UnknownMessage, r#""unknown_message""#;
        Refusal::Fenced => Refusal::Fenced, r#""fenced""#;
        Refusal::Undelivered => Refusal::Undelivered, r#""undelivered""#;
        Refusal::Misplaced => Refusal::Misplaced, r#""misplaced""#;
        Refusal::TooMany => Refusal::TooMany, r#""too_many""#;
        Refusal::Unread => Refusal::Unread, r#""unread""#;
    } }
    named! { node_kind: NodeKind {
        NodeKind::Node => NodeKind::Node, r#""node""#;
        NodeKind::Agent => NodeKind::Agent, r#""agent""#;
    } }
    named! { role: Role {
        Role::WindowPost => Role::WindowPost, r#""window-post""#;
        Role::WinningPost => Role::WinningPost, r#""winning-post""#;
        Role::Sealing => Role::Sealing, r#""sealing""#;
        Role::Markets => Role::Markets, r#""markets""#;
        Role::Allocator => Role::Allocator, r#""allocator""#;
        Role::Storage => Role::Storage, r#""storage""#;
        Role::DaemonLink => Role::DaemonLink, r#""daemon-link""#;
        Role::All => Role::All, r#""all""#;
    } }
    named! { deadline_state: DeadlineState {
        DeadlineState::Upcoming => DeadlineState::Upcoming, r#""upcoming""#;
        DeadlineState::Open => DeadlineState::Open, r#""open""#;
        DeadlineState::Closed => DeadlineState::Closed, r#""closed""#;
    } }
    named! { perm: Perm {
        Perm::Read => Perm::Read, r#""read""#;
        Perm::Write => Perm::Write, r#""write""#;
        Perm::Sign => Perm::Sign, r#""sign""#;
        Perm::Admin => Perm::Admin, r#""admin""#;
        Perm::Worker => Perm::Worker, r#""worker""#;
    } }
}

mod orders {
    use super::text;
    use crate::rpc::api::{MessageOrder, MessageState, Order};

    named! { order: Order {
        Order::SetControl { .. } =>
            Order::SetControl { addresses: vec![text()] }, r#"{"order":"set_control","addresses":["x"]}"#;
        Order::ProposeWorker { .. } =>
            Order::ProposeWorker { worker: text() }, r#"{"order":"propose_worker","worker":"x"}"#;
        Order::ConfirmWorker { .. } =>
            Order::ConfirmWorker { worker: text() }, r#"{"order":"confirm_worker","worker":"x"}"#;
        Order::SetOwner { .. } =>
            Order::SetOwner { new_owner: text(), sender: text() }, r#"{"order":"set_owner","new_owner":"x","sender":"x"}"#;
        Order::SetAddresses { .. } =>
            Order::SetAddresses { multiaddrs: vec![text()], from: None },
            r#"{"order":"set_addresses","multiaddrs":["x"],"from":null}"#;
        Order::SetPeerId { .. } => Order::SetPeerId { peer_id: text() }, r#"{"order":"set_peer_id","peer_id":"x"}"#;
        Order::Withdraw { .. } =>
            Order::Withdraw { amount: None, by_beneficiary: true },
            r#"{"order":"withdraw","amount":null,"by_beneficiary":true}"#;
        Order::RepayDebt { .. } =>
            Order::RepayDebt { amount: None, from: None }, r#"{"order":"repay_debt","amount":null,"from":null}"#;
        Order::RecoverFaults { .. } =>
            Order::RecoverFaults { sectors: vec![7] }, r#"{"order":"recover_faults","sectors":[7]}"#;
    } }
    named! { message_order: MessageOrder {
        MessageOrder::Ordered { .. } => MessageOrder::Ordered { nonce: 7 }, r#"{"answer":"ordered","nonce":7}"#;
        MessageOrder::Withdrawn => MessageOrder::Withdrawn, r#"{"answer":"withdrawn"}"#;
        MessageOrder::NotSigned => MessageOrder::NotSigned, r#"{"answer":"not_signed"}"#;
        MessageOrder::Finished { .. } =>
            MessageOrder::Finished { message: MessageState::Unknown },
            r#"{"answer":"finished","message":{"state":"unknown"}}"#;
        MessageOrder::Unknown => MessageOrder::Unknown, r#"{"answer":"unknown"}"#;
    } }
    named! { message_state: MessageState {
        MessageState::Queued { .. } => MessageState::Queued { why: text() }, r#"{"state":"queued","why":"x"}"#;
        MessageState::Pushed { .. } =>
            MessageState::Pushed { cid: text(), nonce: 1, since: 2 }, r#"{"state":"pushed","cid":"x","nonce":1,"since":2}"#;
        MessageState::Landed { .. } =>
            MessageState::Landed { cid: text(), epoch: 2, return_data: text() },
            r#"{"state":"landed","cid":"x","epoch":2,"return_data":"x"}"#;
        MessageState::Failed { .. } =>
            MessageState::Failed { exit_code: 16, error: text() }, r#"{"state":"failed","exit_code":16,"error":"x"}"#;
        MessageState::Unknown => MessageState::Unknown, r#"{"state":"unknown"}"#;
    } }
}

/// Enums that serde reads and that the tables of this file do not pin, and why.
const ELSEWHERE: [(&str, &str, &str); 9] = [
    ("actors/seal_agent/queue.rs", "State", "pinned in queue_tests.rs"),
    ("chain/types.rs", "HeadChangeType", "Lotus' name"),
    ("config/cluster.rs", "DirectoryConfig", "a configuration's word"),
    ("config/mod.rs", "LogFormat", "a configuration's word"),
    ("config/mod.rs", "Priority", "a configuration's word"),
    ("config/mod.rs", "SealPlace", "a configuration's word"),
    ("config/mod.rs", "Switch", "a configuration's word"),
    ("rpc/full_node/mod.rs", "RandomnessTag", "the network's number"),
    ("store/mirror.rs", "Kind", "pinned beside it"),
];

/// Every enum with a derived `Deserialize`, by file and name.
fn enums_of_the_tree() -> BTreeSet<(String, String)> {
    let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let (mut paths, mut found) = (vec![root.to_owned()], BTreeSet::new());
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let file = path.strip_prefix(root).unwrap().display().to_string();
        let source = std::fs::read_to_string(&path).unwrap();
        let mut derives = false;
        for line in source.lines().map(str::trim_start) {
            let item =
                line.strip_prefix("pub ").or_else(|| line.split_once(") ").map(|(_, rest)| rest)).unwrap_or(line);
            if line.starts_with("#[derive(") {
                derives = line.contains("Deserialize");
            } else if derives && let Some(name) = item.strip_prefix("enum ") {
                let name: String = name.chars().take_while(|c| c.is_alphanumeric()).collect();
                found.insert((file.clone(), name));
                derives = false;
            } else if !line.starts_with('#') && !line.starts_with("//") {
                derives = false;
            }
        }
    }
    found
}

/// A later enum that is stored or sent is not forgotten.
#[test]
fn every_enum_that_is_read_back_is_pinned() {
    let tables = [
        include_str!("golden_tests.rs"),
        include_str!("golden_tests/daemons.rs"),
        include_str!("golden_tests/provers.rs"),
        include_str!("golden_tests/supervision.rs"),
    ]
    .concat();
    let missing: Vec<_> = enums_of_the_tree()
        .into_iter()
        .filter(|(file, name)| !ELSEWHERE.iter().any(|(f, n, _)| (f, n) == (&file.as_str(), &name.as_str())))
        .filter(|(_, name)| !tables.contains(&format!(": {name} {{\n    ")))
        .collect();
    assert!(missing.is_empty(), "pin their bytes with `pinned!`, or their names with `named!`: {missing:?}");
}
