//! Every message of every concern keeps its meaning over the wire: encoded, decoded, answered, the answer decoded.

use bulkhead::actors::message_sender::messages::{
    Cancel, Enqueue, EnqueueAnswer, EnqueueV1, ListMessages, MessageList, MessageRow, MessageStatus, OrderAnswer,
    Replace, Withdraw, WithdrawAnswer,
};
use bulkhead::actors::seal_scheduler::Phase;
use bulkhead::actors::seal_scheduler::messages::{
    List, ListV1, Pledge, PledgeAnswer, Remove, SectorPage, SectorSummary,
};
use bulkhead::actors::sector_allocator::messages::{
    Allocate, AllocateError, Allocated, Numbers, Reserve, ReserveError,
};
use bulkhead::actors::winning_post::messages::{RoundOutcome, RoundReport, WinningInfo, WinningReport};
use bulkhead::chain::types::TipSetKey;
use bulkhead::chain::{Address, TokenAmount};
use bulkhead::supervisor::Message;
use bulkhead::wire::codec::{self, Earlier};
use std::fmt::Debug;

/// The message's bytes in hex, after it and its reply came through unchanged.
fn crosses<M: Message + Debug>(message: M, reply: M::Reply) -> String
where
    M::Reply: Debug,
{
    let form = M::WIRE.as_ref().expect("a wire form");
    let (mut body, mut answer) = (Vec::new(), Vec::new());
    (form.code.encode)(&message, &mut body).unwrap();
    (form.code.encode_reply)(&reply, &mut answer).unwrap();
    assert_eq!(format!("{:?}", (form.code.decode)(&body).unwrap()), format!("{message:?}"));
    assert_eq!(format!("{:?}", (form.code.decode_reply)(&answer).unwrap()), format!("{reply:?}"));
    hex::encode(body)
}

fn cid() -> cid::Cid {
    "bafy2bzacedo7hjsumaajt6sbor42qycvjyk6goqe4oi4o4ddsjxkdeqrqf42c".parse().unwrap()
}

/// Golden bytes: an older node has these numbers and fields. A change here needs a new schema number.
#[test]
fn the_message_senders_messages() {
    let enqueue = |from| Enqueue {
        key: "pre-commit-7".into(),
        to: Address::new_id(1000),
        method: 28,
        params: vec![0x81, 0x01],
        value: TokenAmount::from_atto(-5),
        max_fee: TokenAmount::from_atto(300),
        from,
        closes: Some(300),
    };
    let bytes = crosses(enqueue(Some(Address::new_id(5))), EnqueueAnswer::Accepted);
    assert_eq!(bytes, "0c7072652d636f6d6d69742d370300e8071c02810101fb02012c0102000501fb5802");
    // The schema before knows no epoch of Close; the rest of the message is the same.
    let older = EnqueueV1::downgrade(&enqueue(Some(Address::new_id(5)))).unwrap();
    let mut bytes = Vec::new();
    codec::encode(&older, &mut bytes).unwrap();
    assert_eq!(hex::encode(&bytes), "0c7072652d636f6d6d69742d370300e8071c02810101fb02012c01020005");
    let read = codec::decode::<EnqueueV1>(&bytes).unwrap().upgrade();
    assert_eq!((read.key.as_str(), read.method, read.closes), ("pre-commit-7", 28, None));
    let known =
        MessageStatus::Landed { cid: cid(), epoch: 12, tipset: TipSetKey(vec![cid(), cid()]), return_data: vec![1, 2] };
    crosses(enqueue(None), EnqueueAnswer::Known(known));
    let bytes = crosses(Withdraw { key: "k".into() }, Err("disk full".into()));
    assert_eq!(bytes, "016b");
    let row = MessageRow { key: "k".into(), nonce: Some(7), ..MessageRow::default() };
    assert_eq!(crosses(ListMessages { most: 9 }, Ok(MessageList { open: 2, rows: vec![row] })), "09");
    let max_fee = Some(TokenAmount::from_atto(300));
    assert_eq!(crosses(Replace { key: "k".into(), max_fee }, Ok(OrderAnswer::Ordered { nonce: 7 })), "016b0102012c");
    assert_eq!(crosses(Cancel { key: "k".into() }, Ok(OrderAnswer::Withdrawn)), "016b");
    let pushed = MessageStatus::Pushed { cid: cid(), nonce: 3, since: 9 };
    crosses(Withdraw { key: "k".into() }, Ok(WithdrawAnswer::TooLate(pushed)));
}

#[test]
fn the_allocators_messages() {
    let bytes = crosses(Allocate { request: "pledge-1".into() }, Ok(7));
    assert_eq!(bytes, "08706c656467652d31");
    crosses(Allocate { request: "x".into() }, Err(AllocateError::ChainUnavailable { why: "down".into() }));
    let reserve = Reserve { name: "a".into(), numbers: vec![1..=3, 9..=9] };
    assert_eq!(crosses(reserve, Err(ReserveError::Reserved { number: 2, by: "b".into() })), "01610201030909");
    let numbers = Numbers {
        allocated: vec![0..=4],
        on_chain: vec![],
        reserved: vec![("a".into(), vec![7..=8])],
        leased: vec![9..=12],
        next: Some(5),
    };
    assert_eq!(crosses(Allocated, Ok(numbers)), "");
}

#[test]
fn the_seal_schedulers_messages() {
    assert_eq!(crosses(Pledge { request: "p".into() }, PledgeAnswer::Waiting("no number".into())), "0170");
    let remove = Remove { number: 300, why: "w".into(), even_if_proving: true };
    assert_eq!(crosses(remove, Err("no".into())), "fb2c01017701");
    let row = |number| SectorSummary {
        number,
        phase: Phase::Proving,
        since: 9,
        working: false,
        location: None,
        reason: None,
        retry_at: None,
    };
    let page = SectorPage { sectors: vec![row(300), row(301)], more: true };
    assert_eq!(crosses(List { from: 300, most: 2 }, page.clone()), "fb2c0102");
    // The schema before asks for all and answers with a bare list.
    let mut bytes = Vec::new();
    codec::encode(&ListV1, &mut bytes).unwrap();
    assert!(bytes.is_empty());
    let all = codec::decode::<ListV1>(&bytes).unwrap().upgrade();
    assert_eq!((all.from, all.most), (0, u32::MAX));
    assert_eq!(ListV1::downgrade_reply(&page).unwrap(), page.sectors);
    assert_eq!(ListV1::upgrade_reply(page.sectors.clone()), SectorPage { more: false, ..page });
}

/// Reports answer in their JSON shape, tagged enums included.
#[test]
fn reports_keep_their_json_shape() {
    let report = WinningReport {
        miner: "t01000".into(),
        rounds: vec![RoundReport {
            round: 5,
            base: 4,
            nulls: 0,
            outcome: RoundOutcome::Won { win_count: 1, cid: Some("bafy".into()) },
            took_ms: 17,
        }],
        ..WinningReport::default()
    };
    assert_eq!(crosses(WinningInfo, report), "");
}
