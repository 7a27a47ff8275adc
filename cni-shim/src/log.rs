//! The log file. Standard output belongs to the runtime, standard error often goes nowhere.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// How much is logged: this and everything before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Failed operations.
    Error,
    /// What was odd.
    Warn,
    /// Every operation.
    Info,
    /// Its parameters before it begins.
    Debug,
}

impl Level {
    /// `error`, `warn`, `info`, `debug`, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "error" => Self::Error,
            "warn" | "warning" => Self::Warn,
            "info" => Self::Info,
            "debug" => Self::Debug,
            _ => return None,
        })
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// An open log, or none.
#[derive(Debug)]
pub struct Log {
    file: Option<File>,
    level: Level,
}

impl Log {
    /// Opens the file for appending. A pod does not fail because its log cannot be written: standard error tells.
    pub fn open(path: Option<&Path>, level: Level) -> Self {
        let file = path.and_then(|path| {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .inspect_err(|error| {
                    let _ = writeln!(std::io::stderr(), "causeway-cni: logFile {}: {error}", path.display());
                })
                .ok()
        });
        Self { file, level }
    }

    /// Writes a line in one call, so that lines of several processes do not mix.
    pub fn line(&self, level: Level, text: &str) {
        let Some(mut file) = self.file.as_ref().filter(|_| level <= self.level) else { return };
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let text = text.replace('\n', "\\n");
        let line = format!(
            "{}.{:03}Z {:5} [{}] {text}\n",
            utc(unix.as_secs()),
            unix.subsec_millis(),
            level.as_str(),
            std::process::id(),
        );
        // Nobody could be told.
        let _ = file.write_all(line.as_bytes());
    }
}

/// Seconds since 1970 as `YYYY-MM-DDTHH:MM:SS`, in the Gregorian calendar.
fn utc(unix: u64) -> String {
    let (days, second) = (unix / 86_400, unix % 86_400);
    // Years begin in March, so that the leap day is the last one: 400 of them have 146,097 days.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (unix, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_709_251_199, "2024-02-29T23:59:59"),
            (1_735_689_600, "2025-01-01T00:00:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(utc(unix), text);
        }
    }

    #[test]
    fn lines_up_to_the_level_are_written_each_on_one_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log = Log::open(Some(file.path()), Level::Info);
        log.line(Level::Debug, "unseen");
        log.line(Level::Info, "two\nlines");
        log.line(Level::Error, "bad");
        let text = std::fs::read_to_string(file.path()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].ends_with("two\\nlines") && lines[0].contains(" info "), "{text}");
        assert!(lines[1].contains(" error "), "{text}");
    }
}
