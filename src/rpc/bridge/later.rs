//! Reads what a node of a later version says of an end: a reason or fault that it added still arrives, under a name that
//! this version has.

use super::config::BODY;
use crate::supervisor::Exit;
use crate::supervisor::wire::Fault;
use serde::de::DeserializeOwned;

/// The body of a Down: the incarnation and its reason. `None`: malformed.
pub(super) fn down(body: &[u8]) -> Option<(u64, Exit)> {
    let (incarnation, used) = prefix::<u64>(body)?;
    Some((incarnation, exit(body.get(used..)?)?))
}

/// The body of a Fault. `None`: malformed.
pub(super) fn fault(body: &[u8]) -> Option<Fault> {
    if let Some(fault) = whole(body) {
        return Some(fault);
    }
    if let Some(number) = added::<Fault>(body) {
        return Some(Fault::Refused(format!(
            "the other node is of a later version and answered with fault number {number}: update this one"
        )));
    }
    // Known faults carry nothing that a later version could add to, but this one.
    let exited = Fault::Exited(exit(body.get(1..)?)?);
    (prefix::<u32>(body)?.0 == EXITED).then_some(exited)
}

/// Variant index of [`Fault::Exited`]; pinned in `golden_tests`.
const EXITED: u32 = 5;

fn exit(body: &[u8]) -> Option<Exit> {
    whole(body).or_else(|| {
        let number = added::<Exit>(body)?;
        Some(Exit::Failed(format!("a reason of a later version than this node's (number {number})")))
    })
}

/// The number of a variant that `T` has not in this version.
fn added<T: DeserializeOwned>(body: &[u8]) -> Option<u32> {
    let (number, used) = prefix::<u32>(body)?;
    // Fields of zeros are empty or zero: what fails is the number alone.
    let zeros = [body.get(..used)?, &[0; 64]].concat();
    prefix::<T>(&zeros).is_none().then_some(number)
}

fn prefix<T: DeserializeOwned>(body: &[u8]) -> Option<(T, usize)> {
    bincode::serde::decode_from_slice(body, BODY).ok()
}

fn whole<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    prefix(body).filter(|(_, used)| *used == body.len()).map(|(it, _)| it)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        hex::decode(hex).unwrap()
    }

    #[test]
    fn a_down_with_a_reason_of_a_later_version_arrives() {
        let table = [
            // Known: as it is.
            ("0700", Some((7, Exit::Normal))),
            ("07030178", Some((7, Exit::Failed("x".into())))),
            ("fb2c010d12", Some((300, Exit::Signal(9)))),
            // Later: without and with fields of any kind, also beyond one byte.
            ("07c8", Some((7, Exit::Failed("a reason of a later version than this node's (number 200)".into())))),
            ("07c80178", Some((7, Exit::Failed("a reason of a later version than this node's (number 200)".into())))),
            ("07fb2c01", Some((7, Exit::Failed("a reason of a later version than this node's (number 300)".into())))),
            // No Down at all.
            ("", None),
            ("07", None),
            ("070000", None),
            ("07030578", None),
        ];
        for (body, expected) in table {
            assert_eq!(down(&bytes(body)), expected, "{body}");
        }
    }

    #[test]
    fn a_fault_of_a_later_version_settles_the_call() {
        assert_eq!(fault(&bytes("0601")), Some(Fault::NodeDown { sent: true }));
        assert_eq!(fault(&bytes("0500")), Some(Fault::Exited(Exit::Normal)));
        let Some(Fault::Exited(Exit::Failed(why))) = fault(&bytes("05c80178")) else { panic!("an unknown reason") };
        assert!(why.contains("number 200"), "{why}");
        for body in ["c8", "c80178"] {
            let Some(Fault::Refused(why)) = fault(&bytes(body)) else { panic!("{body}: an unknown fault") };
            assert!(why.contains("fault number 200") && why.contains("update this one"), "{why}");
        }
        for malformed in ["", "0000", "05", "0602", "08057a"] {
            assert_eq!(fault(&bytes(malformed)), None, "{malformed}");
        }
        let mut encoded = Vec::new();
        crate::wire::codec::encode(&Fault::Exited(Exit::Normal), &mut encoded).unwrap();
        assert_eq!(u32::from(encoded[0]), EXITED);
    }
}
