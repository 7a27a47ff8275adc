//! What a process has used: CPU time and memory, out of `/proc`. Not pure.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Clock ticks a second in `/proc` (USER_HZ, the same on every Linux of today).
const TICKS: u64 = 100;

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all its threads; steps of 10 ms.
    pub cpu: Duration,
    /// Resident memory now, KiB.
    pub resident: u64,
    /// Most resident memory so far, KiB.
    pub peak: u64,
}

/// Reads the usage of a process.
///
/// # Errors
/// Where there is no such process.
pub fn of(pid: u32) -> Result<Usage> {
    let read = |file: &str| {
        fs::read_to_string(format!("/proc/{pid}/{file}"))
            .with_context(|| format!("the daemon (process {pid}) is gone"))
    };
    parse(&read("stat")?, &read("status")?).context("/proc as it has always been")
}

/// Resident memory of a process now, octets, counted page by page rather than by the counters that lag behind.
///
/// # Errors
/// Where there is no such process.
pub fn resident(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .with_context(|| format!("process {pid} is gone"))?;
    rolled_up(&text).context("/proc as it has always been")
}

fn rolled_up(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// CPU time of a process's threads, to the nanosecond; threads that ended are left out.
///
/// # Errors
/// Where there is no such process.
pub fn fine_cpu(pid: u32) -> Result<Duration> {
    let mut all = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))? {
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        all += Duration::from_nanos(text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0));
    }
    Ok(all)
}

/// CPU time of a process, to the nanosecond as long as no thread of it ended, which are counted in steps of 10 ms.
///
/// # Errors
/// Where there is no such process.
pub fn cpu(pid: u32) -> Result<Duration> {
    // Neither is ever more than it was.
    Ok(fine_cpu(pid)?.max(of(pid)?.cpu))
}

/// Time that all cores together were busy since the machine started.
///
/// # Errors
/// Where `/proc/stat` is not as it has always been.
pub fn machine_busy() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    busy(&text).context("/proc/stat as it has always been")
}

fn busy(stat: &str) -> Option<Duration> {
    let fields: Vec<u64> =
        stat.lines().next()?.split_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq
    let ticks: u64 = [0, 1, 2, 5, 6].iter().map(|at| fields.get(*at)).sum::<Option<u64>>()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS))
}

fn parse(stat: &str, status: &str) -> Option<Usage> {
    // The name in parentheses may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11).map(str::parse::<u64>);
    let ticks = fields.next()?.ok()? + fields.next()?.ok()?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let cpu = Duration::from_millis(ticks * 1000 / TICKS);
    Some(Usage { cpu, resident: kib("VmRSS:")?, peak: kib("VmHWM:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 2 0 0 0 150 25 0 0 20 0 1 0 100 9 9";
        let status = "Name:\ta\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n";
        let usage = Usage { cpu: Duration::from_millis(1750), resident: 1024, peak: 2048 };
        assert_eq!(parse(stat, status), Some(usage));
        assert_eq!(parse("7 (a)", status), None);
    }

    #[test]
    fn idle_time_is_not_busy() {
        assert_eq!(busy("cpu  1 2 4 800 16 32 64 0 0 0\ncpu0"), Some(Duration::from_millis(1030)));
        assert_eq!(busy("cpu  1 2"), None);
    }

    #[test]
    fn this_process_uses_something() {
        assert!(of(std::process::id()).unwrap().peak > 0);
        assert!(fine_cpu(std::process::id()).unwrap() > Duration::ZERO);
        assert!(cpu(std::process::id()).unwrap() > Duration::ZERO);
        assert!(machine_busy().unwrap() > Duration::ZERO);
        assert!(resident(std::process::id()).unwrap() > 0);
    }

    #[test]
    fn the_rollup_is_read() {
        let text = "0-1 ---p 00000000 00:00 0    [rollup]\nRss:      4 kB\nPss:   2 kB\n";
        assert_eq!(rolled_up(text), Some(4096));
        assert_eq!(rolled_up("Pss: 2 kB"), None);
    }
}
