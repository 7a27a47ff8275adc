//! Tables for people, JSON and YAML for programs.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde::Serialize;

use crate::Error;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table that fits the terminal
    Table,
    /// A table with every column
    Wide,
    /// JSON, one document
    Json,
    /// YAML, one document
    Yaml,
}

/// Where and how the answer is printed.
pub struct Output {
    format: Format,
    terminal: bool,
}

impl Output {
    /// Standard output in this format.
    pub fn new(format: Format) -> Output {
        Output { format, terminal: std::io::stdout().is_terminal() }
    }

    /// True where all columns are asked for.
    pub fn is_wide(&self) -> bool {
        self.format == Format::Wide
    }

    /// True where colours may be used (a terminal, and no `NO_COLOR`).
    fn colours(&self) -> bool {
        self.terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }

    /// Prints `value` as JSON or YAML, or what `text` makes of it.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn print<T: Serialize + ?Sized>(
        &self,
        value: &T,
        text: impl FnOnce(&Output) -> String,
    ) -> Result<(), Error> {
        let text = match self.format {
            Format::Table | Format::Wide => text(self),
            Format::Json => serde_json::to_string_pretty(value).map_err(std::io::Error::other)?,
            Format::Yaml => yaml(value)?,
        };
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        if !text.is_empty() && !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Prints `value` as JSON where that was asked for, else as YAML: for what no table can hold.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn print_structure<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), Error> {
        let text = match self.format {
            Format::Json => serde_json::to_string_pretty(value).map_err(std::io::Error::other)? + "\n",
            Format::Table | Format::Wide | Format::Yaml => yaml(value)?,
        };
        Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
    }

    /// Prints several YAML documents, whatever the format asked for.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn yaml_documents<T: Serialize>(&self, values: &[T]) -> Result<(), Error> {
        let mut out = std::io::stdout().lock();
        for value in values {
            write!(out, "---\n{}", yaml(value)?)?;
        }
        Ok(())
    }

    /// Lays out rows under headers: fit to the terminal's width, or unbounded where nobody looks.
    pub fn table(&self, headers: &[&str], rows: Vec<Vec<Cell>>) -> String {
        self.lay_out(headers, rows, &mut Vec::new())
    }

    /// The same for a part of the rows: no column is narrower than these `widths`, which grow to what there is. Headers
    /// are printed where `widths` is empty.
    fn lay_out(&self, headers: &[&str], rows: Vec<Vec<Cell>>, widths: &mut Vec<u16>) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if self.terminal && !self.is_wide() {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        } else {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        if self.colours() {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        if widths.is_empty() {
            table.set_header(headers.iter().map(Cell::new));
        }
        table.add_rows(rows);
        let own = table.column_max_content_widths();
        let last = headers.len().saturating_sub(1);
        for (index, column) in table.column_iter_mut().enumerate() {
            let padding = if index == last { 0 } else { 2 };
            column.set_padding((0, padding));
            if let Some(width) = widths.get(index).filter(|_| index != last) {
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width + padding)));
            }
        }
        widths.resize(own.len(), 0);
        widths.iter_mut().zip(own).for_each(|(width, own)| *width = own.max(*width));
        table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }
}

/// How rows of a kind are listed.
pub trait Row: Serialize + Sized {
    /// Sorts rows for people.
    fn sort(rows: &mut [Self]);

    /// The headers of a table that begins with these rows, and its rows.
    fn cells(output: &Output, rows: &[Self]) -> (Vec<&'static str>, Vec<Vec<Cell>>);
}

/// So many rows are sorted and laid out together. Of a longer listing so many are held at a time.
const HELD: usize = 4096;

/// A listing whose rows come one by one. A short one is printed sorted; one that is too long to be held is printed while
/// it comes, in the order in which it comes.
pub struct Listing<'a, T> {
    output: &'a Output,
    out: Box<dyn Write + 'a>,
    held: Vec<T>,
    /// Some of it is printed.
    begun: bool,
    widths: Vec<u16>,
}

impl<'a, T: Row> Listing<'a, T> {
    /// A listing on standard output.
    pub fn new(output: &'a Output) -> Self {
        Listing::to(output, Box::new(std::io::stdout().lock()))
    }

    fn to(output: &'a Output, out: Box<dyn Write + 'a>) -> Self {
        Listing { output, out, held: Vec::new(), begun: false, widths: Vec::new() }
    }

    /// The next row.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add(&mut self, row: T) -> Result<(), Error> {
        if self.held.len() == HELD {
            self.print()?;
        }
        self.held.push(row);
        Ok(())
    }

    /// Prints what is left. `none` is what a table without rows says.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn end(mut self, none: &str) -> Result<(), Error> {
        if !self.begun {
            T::sort(&mut self.held);
        }
        match (self.output.format, self.begun || !self.held.is_empty()) {
            (Format::Table | Format::Wide, false) => self.out.write_all(none.as_bytes())?,
            (Format::Json | Format::Yaml, false) => self.out.write_all(b"[]\n")?,
            (_, true) => self.print()?,
        }
        if self.begun && self.output.format == Format::Json {
            self.out.write_all(b"\n]\n")?;
        }
        Ok(self.out.flush()?)
    }

    fn print(&mut self) -> Result<(), Error> {
        let text = match self.output.format {
            Format::Table | Format::Wide => {
                let (headers, rows) = T::cells(self.output, &self.held);
                self.output.lay_out(&headers, rows, &mut self.widths)
            }
            Format::Json => {
                let text = serde_json::to_string_pretty(&self.held).map_err(std::io::Error::other)?;
                let rows = text.trim_start_matches('[').trim_end_matches(']').trim_end_matches('\n');
                format!("{}{rows}", if self.begun { "," } else { "[" })
            }
            Format::Yaml => yaml(&self.held)?,
        };
        self.out.write_all(text.as_bytes())?;
        self.begun = true;
        self.held.clear();
        Ok(())
    }
}

/// The one place where YAML is written.
fn yaml<T: Serialize + ?Sized>(value: &T) -> Result<String, Error> {
    Ok(serde_yaml::to_string(value).map_err(std::io::Error::other)?)
}

/// A cell in the colour of good (`Some(true)`), bad or neither.
pub fn judged(text: impl ToString, good: Option<bool>) -> Cell {
    let cell = Cell::new(text.to_string());
    match good {
        Some(true) => cell.fg(Color::Green),
        Some(false) => cell.fg(Color::Red),
        None => cell,
    }
}

/// A value, or `-` where there is none.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Seconds as people read them: `45s`, `3m12s`, `5h02m`, `12d4h`.
pub fn duration(seconds: f64) -> String {
    // Saturates on anything odd.
    let s = seconds.max(0.0) as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{}h", s / 86400, s % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Numbered {
        number: usize,
        words: Vec<&'static str>,
    }

    impl Row for Numbered {
        fn sort(rows: &mut [Self]) {
            rows.sort_by_key(|row| row.number);
        }

        fn cells(_: &Output, rows: &[Self]) -> (Vec<&'static str>, Vec<Vec<Cell>>) {
            let row = |row: &Numbered| vec![Cell::new(row.number), Cell::new("up")];
            (vec!["NUMBER", "STATE"], rows.iter().map(row).collect())
        }
    }

    fn listing(format: Format, numbers: impl Iterator<Item = usize>) -> String {
        let output = Output { format, terminal: false };
        let mut text = Vec::new();
        let mut listing = Listing::to(&output, Box::new(&mut text));
        for number in numbers {
            listing.add(Numbered { number, words: vec!["a"] }).unwrap();
        }
        listing.end("nothing\n").unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_short_listing_is_sorted_and_a_long_one_is_one_document_all_the_same() {
        let rows = |numbers: &mut dyn Iterator<Item = usize>| -> Vec<Numbered> {
            numbers.map(|number| Numbered { number, words: vec!["a"] }).collect()
        };
        for count in [1, 3, HELD, HELD + 1, 3 * HELD] {
            let (given, mut wanted) = ((0..count).rev(), rows(&mut (0..count).rev()));
            if count <= HELD {
                Numbered::sort(&mut wanted);
            }
            let json = serde_json::to_string_pretty(&wanted).unwrap() + "\n";
            assert!(listing(Format::Json, given.clone()) == json, "{count} rows");
            assert!(listing(Format::Yaml, given) == yaml(&wanted).unwrap(), "{count} rows");
        }
        assert_eq!(listing(Format::Json, 0..0), "[]\n");
        assert_eq!(listing(Format::Yaml, 0..0), "[]\n");
        assert_eq!(listing(Format::Table, 0..0), "nothing\n");
    }

    #[test]
    fn columns_of_a_long_table_stay_where_they_are() {
        let text = listing(Format::Table, (0..HELD + 1).map(|number| number % HELD));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines[1], lines.len()), ("NUMBER  STATE", "0       up", HELD + 2));
        assert_eq!(lines[HELD + 1], "0       up");
    }

    #[test]
    fn durations_read_well() {
        let cases = [
            (0.4, "0s"),
            (59.9, "59s"),
            (192.0, "3m12s"),
            (18120.0, "5h02m"),
            (1_051_200.0, "12d4h"),
            (-1.0, "0s"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn a_table_without_a_terminal_is_plain_and_aligned() {
        let output = Output { format: Format::Table, terminal: false };
        let rows = vec![
            vec![Cell::new("a"), judged("up", Some(true))],
            vec![Cell::new("long"), judged("down", Some(false))],
        ];
        assert_eq!(output.table(&["X", "STATE"], rows), "X     STATE\na     up\nlong  down\n");
    }
}
