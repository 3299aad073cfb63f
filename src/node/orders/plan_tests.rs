//! Every order against every state of the miner that allows or forbids it.

use super::*;
use crate::rpc::api::Order;

fn id(n: u64) -> Address {
    Address::new_id(n)
}

fn bls(n: u8) -> Address {
    Address::new_bls(&[n; 48]).unwrap()
}

fn fil(n: u64) -> TokenAmount {
    TokenAmount::from_whole(n)
}

fn party(n: u64, key: Option<Address>) -> Party {
    Party { id: id(n), key, in_wallet: Some(true) }
}

/// Owner t0100, worker t0101, control t0102; t0103 is a secp account, t0104 a multisig, t0105 a BLS account whose key is
/// elsewhere.
fn facts() -> Facts {
    let secp = Address::new_secp256k1(&[3; 65]).unwrap();
    let mut parties: BTreeMap<Address, Party> =
        (0..3).map(|n| (id(100 + n), party(100 + n, Some(bls(n as u8))))).collect();
    parties.insert(id(103), party(103, Some(secp)));
    parties.insert(id(104), Party { in_wallet: None, ..party(104, None) });
    parties.insert(id(105), Party { in_wallet: Some(false), ..party(105, Some(bls(5))) });
    parties.insert(bls(5), parties[&id(105)].clone());
    let bits = |bits: &[u64]| BitField::try_from_bits(bits.iter().copied()).unwrap();
    let faulty = |deadline, partition, faulty: &[u64], recovering: &[u64]| Faulty {
        deadline,
        partition,
        faulty: bits(faulty),
        recovering: bits(recovering),
    };
    Facts {
        info: MinerInfo {
            owner: id(100),
            worker: id(101),
            new_worker: None,
            control_addresses: vec![id(102)],
            worker_change_epoch: -1,
            peer_id: None,
            multiaddrs: vec![],
            window_post_proof_type: 10,
            sector_size: 2048,
            window_post_partition_sectors: 2,
            consensus_fault_elapsed: -1,
            pending_owner_address: None,
            beneficiary: Some(id(100)),
        },
        height: 1000,
        parties,
        available: fil(5),
        funds: MinerFunds { fee_debt: fil(2), ..MinerFunds::default() },
        // Deadlines of 60 epochs from epoch 900 on: 1 is open at 1000, cutoffs are 70 before the opening.
        deadline: DeadlineInfo {
            w_post_period_deadlines: 48,
            w_post_proving_period: 2880,
            w_post_challenge_window: 60,
            w_post_challenge_lookback: 20,
            fault_declaration_cutoff: 70,
            ..Default::default()
        }
        .with(900, 1),
        faults: vec![
            faulty(1, 0, &[1, 2], &[]),
            faulty(3, 0, &[7, 8, 9], &[9]),
            faulty(3, 1, &[11], &[]),
            faulty(2, 0, &[4], &[]),
        ],
    }
}

fn text(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| text.to_string()).collect()
}

fn control(list: &[&str]) -> Order {
    Order::SetControl { addresses: text(list) }
}

fn owner(new: &str, sender: &str) -> Order {
    Order::SetOwner { new_owner: new.into(), sender: sender.into() }
}

fn withdraw(amount: Option<&str>) -> Order {
    Order::Withdraw { amount: amount.map(str::to_string), by_beneficiary: false }
}

fn repay(amount: Option<&str>, from: Option<&str>) -> Order {
    Order::RepayDebt { amount: amount.map(str::to_string), from: from.map(str::to_string) }
}

fn propose(worker: &str) -> Order {
    Order::ProposeWorker { worker: worker.into() }
}

fn confirm(worker: &str) -> Order {
    Order::ConfirmWorker { worker: worker.into() }
}

/// The one message: its sender, method and parameters in hex.
fn sent(order: &Order, facts: &Facts) -> (Address, u64, String) {
    let planned = plan(order, facts).unwrap_or_else(|e| panic!("{order:?}: {e}"));
    let [draft] = &planned.drafts[..] else { panic!("{planned:?}") };
    (draft.from.id, draft.call.method, hex::encode(&draft.call.params))
}

fn refused(order: &Order, facts: &Facts) -> OrderError {
    plan(order, facts).map(|planned| panic!("{order:?}: {planned:?}")).unwrap_err()
}

#[test]
fn the_owner_changes_worker_and_control_addresses() {
    let f = facts();
    // [worker t0101, [t0105, t0102]], by ID whatever was typed
    let by_key = bls(5).to_string();
    assert_eq!(sent(&control(&[&by_key, "t0102"]), &f), (id(100), 3, "8242006582420069420066".into()));
    assert_eq!(sent(&control(&[]), &f), (id(100), 3, "8242006580".into()), "none is a list, too");
    let planned = plan(&control(&["t0105"]), &f).unwrap();
    assert_eq!(planned.changes, [format!("Remove {}", id(102)), format!("Add {} ({by_key})", id(105))]);
    assert!(planned.warnings[0].contains(&format!("does not have the key of {}", id(105))), "{planned:?}");
    for (list, want) in [
        (&["t0102"][..], OrderError::ControlUnchanged),
        (&["t0103", "t0103"], OrderError::Twice(id(103))),
        (&["t0999"], OrderError::NotOnChain(id(999))),
        (&["t0103"; 11], OrderError::TooManyControl(11)),
    ] {
        assert_eq!(refused(&control(list), &f), want, "{list:?}");
    }
    assert!(matches!(refused(&control(&["worker"]), &f), OrderError::Address(_)));

    // [t0105, [t0102]]: the control addresses stay
    assert_eq!(sent(&propose("t0105"), &f), (id(100), 3, "82420069 81420066".replace(' ', "")));
    assert!(plan(&propose("t0105"), &f).unwrap().warnings[0].contains("no block can be signed here"));
    assert!(plan(&propose("t0102"), &f).unwrap().warnings.is_empty());
    assert_eq!(refused(&propose("t0101"), &f), OrderError::WorkerUnchanged(id(101)));
    assert_eq!(refused(&propose("t0103"), &f), OrderError::WorkerNotBls(id(103)));
    assert_eq!(refused(&propose("t0104"), &f), OrderError::WorkerNotBls(id(104)));
    assert_eq!(refused(&confirm("t0105"), &f), OrderError::NoWorkerProposed);

    let mut pending = facts();
    (pending.info.new_worker, pending.info.worker_change_epoch) = (Some(id(105)), 1001);
    assert_eq!(refused(&propose("t0105"), &pending), OrderError::WorkerProposed(id(105), 1001));
    assert_eq!(refused(&propose("t0102"), &pending), OrderError::OtherWorkerProposed(id(105), 1001));
    let other = OrderError::NotTheProposedWorker { asked: id(102), proposed: id(105) };
    assert_eq!(refused(&confirm("t0102"), &pending), other);
    assert_eq!(refused(&confirm("t0105"), &pending), OrderError::TooEarly { from: 1001, height: 1000 });
    pending.height = 1001;
    assert_eq!(sent(&confirm("t0105"), &pending), (id(100), 21, String::new()));
}

#[test]
fn an_owner_proposes_and_the_new_one_confirms() {
    let f = facts();
    assert_eq!(sent(&owner("t0102", "t0100"), &f), (id(100), 23, "420066".into()));
    assert_eq!(refused(&owner("t0100", "t0100"), &f), OrderError::OwnerUnchanged(id(100)));
    assert_eq!(refused(&owner("t0102", "t0102"), &f), OrderError::OwnerNotProposed(id(102), id(100)));
    let wrong = OrderError::WrongOwnerSender { owner: id(100), new: id(102) };
    assert_eq!(refused(&owner("t0102", "t0103"), &f), wrong);

    let mut pending = facts();
    pending.info.pending_owner_address = Some(id(102));
    assert_eq!(sent(&owner("t0102", "t0102"), &pending), (id(102), 23, "420066".into()));
    assert_eq!(refused(&owner("t0102", "t0100"), &pending), OrderError::OwnerProposed(id(102)));
    assert_eq!(refused(&owner("t0103", "t0103"), &pending), OrderError::OwnerNotProposed(id(103), id(100)));
    // Another one, or none after all.
    assert_eq!(sent(&owner("t0103", "t0100"), &pending), (id(100), 23, "420067".into()));
    let back = plan(&owner("t0100", "t0100"), &pending).unwrap();
    assert_eq!(back.changes, [format!("Take back the proposal of {} as owner", id(102))]);
}

#[test]
fn a_withdrawal_is_what_is_available_at_most() {
    let f = facts();
    for (amount, params) in
        [(Some("1"), "81490de0b6b3a7640000".replace("490d", "49000d")), (None, "8149004563918244f40000".to_string())]
    {
        assert_eq!(sent(&withdraw(amount), &f), (id(100), 16, params), "{amount:?}");
    }
    for same in ["0.5", "0.5 FIL", ".5", "500000000000000000attofil"] {
        match plan(&withdraw(Some(same)), &f) {
            Ok(planned) => {
                let want = format!("Withdraw 0.5 FIL of 5.0 FIL available to the owner {}", id(100));
                assert_eq!(planned.changes, [want], "{same}")
            }
            Err(e) => assert_eq!((same, e), (".5", OrderError::Amount(".5".into()))),
        }
    }
    let more = OrderError::NotAvailable { asked: fil(6), available: fil(5) };
    assert_eq!(refused(&withdraw(Some("6 FIL")), &f), more);
    assert_eq!(refused(&withdraw(Some("0")), &f), OrderError::ZeroAmount("a withdrawal"));
    for bad in ["-1", "", "five", "1e3", "1,5"] {
        assert_eq!(refused(&withdraw(Some(bad)), &f), OrderError::Amount(bad.into()));
    }
    for empty in [TokenAmount::zero(), -fil(1)] {
        let poor = Facts { available: empty.clone(), ..facts() };
        assert_eq!(refused(&withdraw(None), &poor), OrderError::NothingAvailable(empty));
    }
    let mut other = facts();
    other.info.beneficiary = Some(id(103));
    let to = format!("to the beneficiary {}", id(103));
    assert!(plan(&withdraw(None), &other).unwrap().changes[0].ends_with(&to));
    let by = Order::Withdraw { amount: None, by_beneficiary: true };
    assert_eq!(sent(&by, &other).0, id(103));
    other.info.beneficiary = None;
    assert_eq!(refused(&by, &other), OrderError::NoBeneficiary);
}

#[test]
fn a_debt_is_paid_by_a_controller() {
    let f = facts();
    let paid = |amount, from| {
        let planned = plan(&repay(amount, from), &f).unwrap();
        (planned.drafts[0].from.id, planned.drafts[0].value.clone(), planned.warnings.len())
    };
    assert_eq!(paid(None, None), (id(101), fil(2), 0));
    assert_eq!(paid(Some("3"), Some("t0102")), (id(102), fil(3), 1));
    assert_eq!(refused(&repay(None, Some("t0103")), &f), OrderError::NotController(id(103)));
    assert_eq!(refused(&repay(Some("0"), None), &f), OrderError::ZeroAmount("a repayment"));
    let none = Facts { funds: MinerFunds::default(), ..facts() };
    assert_eq!(refused(&repay(None, None), &none), OrderError::NoDebt);
}

#[test]
fn addresses_and_the_peer_are_checked_before_they_are_sent() {
    let f = facts();
    let set = |list: &[&str]| Order::SetAddresses { multiaddrs: text(list), from: None };
    let peer = "12D3KooWGC6TvWhfapngX6wvJHgJaLEQm6PBdhFJ8dKYbYwoyFPs";
    let with_peer = format!("/ip4/1.2.3.4/tcp/24001/p2p/{peer}");
    let want = (id(101), 18, "818148040102030406 5dc1".replace(' ', ""));
    assert_eq!(sent(&set(&["/ip4/1.2.3.4/tcp/24001"]), &f), want);
    assert_eq!(sent(&set(&[&with_peer]), &f), want, "the peer id is left out");
    assert_eq!(sent(&set(&[]), &f), (id(101), 18, "8180".into()));
    for bad in ["1.2.3.4:24001", "/ip4/1.2.3/tcp/1", &format!("/p2p/{peer}"), ""] {
        assert!(matches!(refused(&set(&[bad]), &f), OrderError::Multiaddr { .. }), "{bad}");
    }
    let long = vec!["/ip4/1.2.3.4/tcp/24001"; 129];
    assert_eq!(refused(&set(&long), &f), OrderError::MultiaddrsTooLong(1032));
    assert!(plan(&set(&long[..128]), &f).is_ok());

    let order = |peer: &str| Order::SetPeerId { peer_id: peer.to_string() };
    assert_eq!((sent(&order(peer), &f).0, sent(&order(peer), &f).1), (id(101), 4));
    assert_eq!(refused(&order("me"), &f), OrderError::PeerId("me".into()));
}

#[test]
fn recoveries_go_by_deadline_and_a_late_one_takes_no_other_along() {
    let f = facts();
    let recover = |sectors: &[u64]| Order::RecoverFaults { sectors: sectors.to_vec() };
    // Deadline 3 opens at 1080, its cutoff is 1010; deadline 1 is open; deadline 2 opens at 1020, too late since 950.
    let planned = plan(&recover(&[7, 8, 11]), &f).unwrap();
    assert_eq!(planned.drafts.len(), 1, "two partitions of one deadline");
    assert_eq!((planned.drafts[0].from.id, planned.drafts[0].call.method), (id(101), 11));
    assert_eq!(planned.changes, ["Declare recovered in deadline 3, to be proven from epoch 1080 on: sectors 7, 8, 11"]);
    let mixed = plan(&recover(&[7, 4, 9]), &f).unwrap();
    assert_eq!((mixed.drafts.len(), mixed.warnings.len()), (1, 2), "{mixed:?}");
    assert!(mixed.warnings[1].contains("deadline 2 (sectors 4), which closes at epoch 1080"), "{mixed:?}");
    assert!(matches!(refused(&recover(&[1]), &f), OrderError::TooLate(_)), "its deadline is open");
    assert_eq!(refused(&recover(&[9]), &f), OrderError::Recovering("9".into()));
    assert_eq!(refused(&recover(&[7, 5, 6]), &f), OrderError::NotFaulty("5, 6".into()));
    assert_eq!(refused(&recover(&[]), &f), OrderError::NoSectors);
    for (height, late) in [(1008, false), (1009, true), (1010, true)] {
        let then = Facts { height, ..facts() };
        assert_eq!(plan(&recover(&[7]), &then).is_err(), late, "{height}: executed an epoch later");
    }
    let mut many = facts();
    many.faults = (0..21)
        .map(|partition| Faulty {
            partition,
            deadline: 3,
            faulty: BitField::try_from_bits([partition]).unwrap(),
            recovering: BitField::new(),
        })
        .collect();
    let all: Vec<u64> = (0..21).collect();
    assert_eq!(plan(&recover(&all), &many).unwrap().drafts.len(), 3);
}

/// As many sectors as an order takes, every other one of 43 full partitions of 32 GiB sectors: done before a cutoff.
#[test]
fn a_recovery_of_25_000_sectors_is_planned_at_once() {
    let mut many = facts();
    let bits = |of: u64| BitField::try_from_bits((0..2349).map(|i| 2 * (of * 2349 + i))).unwrap();
    many.faults =
        (0..43).map(|n| Faulty { partition: n, deadline: 3, faulty: bits(n), recovering: BitField::new() }).collect();
    // Those of the last partitions.
    let all: Vec<u64> = (0..25_000).map(|i| 2 * (43 * 2349 - 1 - i)).collect();
    let began = std::time::Instant::now();
    let planned = plan(&Order::RecoverFaults { sectors: all }, &many).unwrap();
    assert_eq!(planned.drafts.len(), 2, "eleven partitions, ten at once");
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
}
