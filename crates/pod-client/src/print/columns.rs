//! Columns that align where lines have tabs: Go's `text/tabwriter` with blanks, which all of kubectl's tables and descriptions
//! go through. A cell is text that a tab ends; cells of adjacent lines at the same place make a column. What follows a line's
//! last tab belongs to no column.

/// A printer with a memory: a column of a watch never gets narrower.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    minimum: usize,
    padding: usize,
    remember: bool,
    remembered: Vec<usize>,
}

impl Columns {
    /// Tables: three blanks between, and no column narrower than three letters.
    pub fn table() -> Self {
        Self { minimum: 6, padding: 3, remember: true, ..Self::default() }
    }

    /// Descriptions: two blanks between.
    pub fn description() -> Self {
        Self { padding: 2, ..Self::default() }
    }

    pub fn render(&mut self, text: &str) -> String {
        let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
        let mut out = String::with_capacity(text.len() * 2);
        self.format(&lines, &mut Vec::new(), &mut out);
        // The text after the last newline is a line too, and has none.
        out.pop();
        out
    }

    fn format(&mut self, lines: &[Vec<&str>], widths: &mut Vec<usize>, out: &mut String) {
        let column = widths.len();
        let has = |line: &Vec<&str>| column + 1 < line.len();
        let mut at = 0;
        while at < lines.len() {
            let plain = lines[at..].iter().position(has).unwrap_or(lines.len() - at);
            lines[at..at + plain].iter().for_each(|line| write(line, widths, out));
            at += plain;
            let block = lines[at..].iter().position(|line| !has(line)).unwrap_or(lines.len() - at);
            if block == 0 {
                continue;
            }
            let cells = lines[at..at + block].iter().map(|line| line[column].chars().count() + self.padding);
            let width = cells.max().unwrap_or(0).max(self.minimum);
            let width = if self.remember { self.remember(column, width) } else { width };
            widths.push(width);
            self.format(&lines[at..at + block], widths, out);
            widths.pop();
            at += block;
        }
    }

    fn remember(&mut self, column: usize, width: usize) -> usize {
        if self.remembered.len() <= column {
            self.remembered.resize(column + 1, 0);
        }
        self.remembered[column] = self.remembered[column].max(width);
        self.remembered[column]
    }
}

fn write(line: &[&str], widths: &[usize], out: &mut String) {
    for (index, cell) in line.iter().enumerate() {
        out.push_str(cell);
        if let Some(width) = widths.get(index).filter(|_| index + 1 < line.len()) {
            out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align() {
        let text = "NAME\tREADY\tX\na\t1/1\tlong cell\nlonger-name\t\tü\n";
        let expected = "NAME          READY   X\na             1/1     long cell\nlonger-name           ü\n";
        assert_eq!(Columns::table().render(text), expected);
        assert_eq!(Columns::table().render("A\tB"), "A     B");
    }

    #[test]
    fn a_column_is_of_adjacent_lines() {
        let text = "a\tb\nlonger\tb\nalone\nx\ty\tz\n";
        assert_eq!(Columns::description().render(text), "a       b\nlonger  b\nalone\nx  y  z\n");
        // The second column of lines that share the first one ends where a line has none.
        let text = "a\tbb\tc\na\td\na\tb\tc\n";
        assert_eq!(Columns::description().render(text), "a  bb  c\na  d\na  b  c\n");
    }

    #[test]
    fn widths_are_remembered() {
        let mut columns = Columns::table();
        columns.render("a-long-name\tx\n");
        assert_eq!(columns.render("a\tx\n"), "a             x\n");
        assert_eq!(columns.render("a-much-longer-name\tx\n"), "a-much-longer-name   x\n");
    }
}
