//! Every record that a cluster keeps, so that a row of it can be checked without its actor.

use super::deal_handler::AskRecord;
use super::message_sender::record::{Done, NextNonce, Open};
use super::seal_scheduler::{PledgeRecord, Sector};
use super::sector_allocator::machine::Ledger;
use super::sector_allocator::{AllocationRecord, RangeHolder};
use super::window_post::machine::DeadlineRun;
use super::winning_post::Totals;
use super::winning_post::slashfilter::MinedBlock;
use crate::store::{Record, readable};

type Check = fn(&str, &[u8]) -> Result<(), String>;

const fn of<R: Record>() -> (&'static str, Check) {
    (R::TABLE, readable::<R>)
}

const RECORDS: [(&str, Check); 12] = [
    of::<AllocationRecord>(),
    of::<AskRecord>(),
    of::<DeadlineRun>(),
    of::<Done>(),
    of::<Ledger>(),
    of::<MinedBlock>(),
    of::<NextNonce>(),
    of::<Open>(),
    of::<PledgeRecord>(),
    of::<RangeHolder>(),
    of::<Sector>(),
    of::<Totals>(),
];

/// A [`crate::store::RowCheck`]. Rows of a table that is not known are not looked at.
pub fn check(table: &str, key: &str, row: &[u8]) -> Result<(), String> {
    RECORDS.iter().find(|(name, _)| *name == table).map_or(Ok(()), |(_, check)| check(key, row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_of_the_cluster_is_checked() {
        let checked: Vec<&str> = RECORDS.iter().map(|(table, _)| *table).collect();
        assert_eq!(checked.len(), crate::store::cluster_tables().count());
        for table in crate::store::cluster_tables() {
            assert!(checked.contains(&table), "{table}");
            assert!(check(table, "t01000/1", b"x").is_err(), "{table}");
        }
        assert!(check("of a later version", "k", b"x").is_ok());
    }
}
