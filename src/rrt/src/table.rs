//! Columns for people, aligned as runc's so that scripts that cut them go on working.

/// Space after the longest cell of a column.
const PADDING: usize = 3;
/// Least width of a column, padding included.
const MIN_WIDTH: usize = 12;

/// Lays rows of equal length out in columns: each is padded to its longest cell, the last one not.
pub fn render<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |cell: &String| cell.chars().count();
    let mut widths = [MIN_WIDTH; N];
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            widths[column] = widths[column].max(width(cell) + PADDING);
        }
    }
    let mut out = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if column + 1 < N {
                out.extend(std::iter::repeat_n(' ', widths[column] - width(cell)));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<const N: usize>(cells: [&str; N]) -> [String; N] {
        cells.map(str::to_owned)
    }

    #[test]
    fn an_empty_list_has_runcs_header() {
        let header = row(["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
        assert_eq!(render(&[header]), "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
    }

    #[test]
    fn a_column_is_three_wider_than_its_longest_cell_and_at_least_twelve() {
        let rows = [row(["ID", "X"]), row(["abcdefghij", "y"]), row(["é", "z"])];
        assert_eq!(render(&rows), "ID           X\nabcdefghij   y\né            z\n");
    }
}
