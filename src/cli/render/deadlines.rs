//! The proving period: deadlines, what lies in each, and what was proven.

use super::table::{Align, table};
use crate::node::report::DeadlineRow;

/// `current`: the deadline that is open now.
pub fn deadlines(rows: &[DeadlineRow], current: Option<u64>) -> String {
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
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|d| {
            let proven = match (d.partitions, d.proven) {
                (0, _) => "-".to_string(),
                (all, done) if done >= all => "yes".to_string(),
                (all, done) => format!("{done} of {all}"),
            };
            vec![
                if current == Some(d.index) { ">" } else { "" }.to_string(),
                d.index.to_string(),
                d.open.map_or("-".to_string(), |e| e.to_string()),
                d.close.map_or("-".to_string(), |e| e.to_string()),
                d.partitions.to_string(),
                d.sectors.to_string(),
                d.faulty.to_string(),
                d.recovering.to_string(),
                proven,
            ]
        })
        .collect();
    table(&columns, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_open_one_is_marked() {
        let row = |index, partitions, proven| DeadlineRow {
            index,
            open: (index < 2).then_some(60 + 10 * index as i64),
            close: (index < 2).then_some(70 + 10 * index as i64),
            partitions,
            sectors: partitions * 2,
            faulty: 0,
            recovering: 1,
            proven,
        };
        let expected = "   DEADLINE  OPEN  CLOSE  PARTITIONS  SECTORS  FAULTY  RECOVERING  PROVEN
          0    60     70           0        0       0           1  -
>         1    70     80           1        2       0           1  yes
          2     -      -           3        6       0           1  2 of 3
";
        assert_eq!(deadlines(&[row(0, 0, 0), row(1, 1, 1), row(2, 3, 2)], Some(1)), expected);
    }
}
