//! Columns that line up: no borders, two blanks between, nothing after the last word.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

pub fn table(columns: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let width = |text: &str| text.chars().count();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(i, (head, _))| {
            rows.iter().filter_map(|row| row.get(i)).map(|cell| width(cell)).fold(width(head), usize::max)
        })
        .collect();
    let line = |cells: &[&str]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(columns.iter().zip(&widths))
            .map(|(cell, ((_, align), w))| {
                let blanks = " ".repeat(w.saturating_sub(width(cell)));
                match align {
                    Align::Left => format!("{cell}{blanks}"),
                    Align::Right => format!("{blanks}{cell}"),
                }
            })
            .collect();
        padded.join("  ").trim_end().to_string() + "\n"
    };
    let mut text = line(&columns.iter().map(|(head, _)| *head).collect::<Vec<_>>());
    for row in rows {
        text += &line(&row.iter().map(String::as_str).collect::<Vec<_>>());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let columns = [("NAME", Align::Left), ("N", Align::Right), ("WHY", Align::Left)];
        let row = |cells: [&str; 3]| cells.map(str::to_string).to_vec();
        let text = table(&columns, &[row(["a", "1", "x"]), row(["├─ bcdé", "1000", ""])]);
        assert_eq!(text, "NAME        N  WHY\na           1  x\n├─ bcdé  1000\n");
    }

    #[test]
    fn no_rows_is_the_heading() {
        assert_eq!(table(&[("A", Align::Left), ("B", Align::Right)], &[]), "A  B\n");
    }
}
