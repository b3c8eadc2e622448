//! Columns, as Go's `text/tabwriter` makes them with Docker's settings: cells end in tabs, a column is at least 10 wide, with 3 spaces
//! between.

const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// `text` with its tabs turned into spaces. A column is made of the cells in lines that follow each other; what comes after a line's
/// last tab is in no column.
pub fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut out = String::with_capacity(text.len() * 2);
    let mut widths = Vec::new();
    block(&lines, &mut widths, &mut out);
    // The last line is what comes after the last line feed.
    out.pop();
    out
}

/// Writes `lines`, whose first cells have these widths.
fn block(lines: &[Vec<&str>], widths: &mut Vec<usize>, out: &mut String) {
    let column = widths.len();
    let has = |line: &Vec<&str>| line.len() > column + 1;
    let mut at = 0;
    while at < lines.len() {
        let length = lines[at..].iter().take_while(|line| has(line)).count();
        if length == 0 {
            write_line(&lines[at], widths, out);
            at += 1;
            continue;
        }
        let cells = lines[at..at + length].iter().map(|line| line[column].chars().count() + PADDING);
        widths.push(cells.max().unwrap_or(0).max(MIN_WIDTH));
        block(&lines[at..at + length], widths, out);
        widths.pop();
        at += length;
    }
}

fn write_line(cells: &[&str], widths: &[usize], out: &mut String) {
    for (i, cell) in cells.iter().enumerate() {
        out.push_str(cell);
        if i + 1 < cells.len() {
            let width = widths.get(i).copied().unwrap_or(0);
            out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_dockers() {
        let text = "REPOSITORY\tTAG\tIMAGE ID\tSIZE\nbb\t1\t28f835294466\t1.98MB\n127.0.0.1:5917/lib/bb\tx\té\t\n";
        let aligned = "REPOSITORY              TAG       IMAGE ID       SIZE\n\
                       bb                      1         28f835294466   1.98MB\n\
                       127.0.0.1:5917/lib/bb   x         é              \n";
        assert_eq!(align(text), aligned);
        assert_eq!(align(""), "");
        assert_eq!(align("no tab\n"), "no tab\n");
    }

    #[test]
    fn a_line_without_a_cell_ends_a_column() {
        assert_eq!(align("a\tb\n\nlonger than ten\tc\n"), "a         b\n\nlonger than ten   c\n");
    }
}
