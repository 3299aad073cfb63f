//! The proving period: deadlines, what lies in each, and what was proven.

use super::table::{Align, table};
use crate::node::api_views::DeadlineRow;
use crate::node::proving_report::DeadlineState;

/// The one that is open now is marked with `>`.
pub fn deadlines(rows: &[DeadlineRow]) -> String {
    let columns = [
        ("", Align::Left),
        ("DEADLINE", Align::Right),
        ("OPEN", Align::Right),
        ("CLOSE", Align::Right),
        ("PARTITIONS", Align::Right),
        ("SECTORS", Align::Right),
        ("FAULTY", Align::Right),
        ("RECOVERING", Align::Right),
        ("PROVEN", Align::Left),
    ];
    let epoch = |epoch: Option<i64>| epoch.map_or("-".to_string(), |epoch| epoch.to_string());
    let row = |d: &DeadlineRow| {
        vec![
            if d.current { ">" } else { "" }.to_string(),
            d.index.to_string(),
            epoch(d.open),
            epoch(d.close),
            d.partitions.to_string(),
            d.sectors.to_string(),
            d.faulty.to_string(),
            d.recovering.to_string(),
            proven(d),
        ]
    };
    table(&columns, &rows.iter().map(row).collect::<Vec<_>>())
}

fn proven(d: &DeadlineRow) -> String {
    match (d.state, d.to_prove, d.proven) {
        // Added after the close.
        (DeadlineState::Closed, 0, _) if d.to_prove_next > 0 => "next period".to_string(),
        (_, 0, _) => "-".to_string(),
        (DeadlineState::Upcoming, all, _) => format!("{all} to come"),
        (_, all, done) if done >= all => "yes".to_string(),
        (DeadlineState::Open, all, done) => format!("{done} of {all}"),
        (DeadlineState::Closed, all, done) => format!("{done} of {all}: missed or faulty"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_open_one_is_marked_and_each_says_what_became_of_it() {
        use DeadlineState::*;
        let row = |index, state, to_prove, proven| DeadlineRow {
            index,
            open: Some(60 + 10 * index as i64),
            close: Some(70 + 10 * index as i64),
            partitions: to_prove,
            sectors: to_prove * 2,
            faulty: 0,
            recovering: 1,
            proven,
            to_prove,
            to_prove_next: 0,
            state,
            current: state == Open,
        };
        let rows = [
            row(0, Closed, 0, 0),
            row(1, Closed, 1, 1),
            row(2, Closed, 3, 2),
            row(3, Open, 3, 2),
            row(4, Upcoming, 1, 0),
        ];
        let added = DeadlineRow { to_prove_next: 1, ..row(5, Closed, 0, 0) };
        assert!(deadlines(&[added]).trim_end().ends_with("  next period"));
        let expected = "   DEADLINE  OPEN  CLOSE  PARTITIONS  SECTORS  FAULTY  RECOVERING  PROVEN
          0    60     70           0        0       0           1  -
          1    70     80           1        2       0           1  yes
          2    80     90           3        6       0           1  2 of 3: missed or faulty
>         3    90    100           3        6       0           1  2 of 3
          4   100    110           1        2       0           1  1 to come
";
        assert_eq!(deadlines(&rows), expected);
    }
}
