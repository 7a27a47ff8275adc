//! Tables for people, JSON and YAML for programs.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
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
        table.set_header(headers.iter().map(Cell::new));
        table.add_rows(rows);
        let last = headers.len().saturating_sub(1);
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, if index == last { 0 } else { 2 }));
        }
        table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
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
