//! Waiting for a condition with a bound.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Asks again until the answer is good, and fails with the last answer when the bound runs out.
///
/// # Errors
/// The last error, and how long was waited.
pub fn until<T>(bound: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if start.elapsed() >= bound => {
                return Err(error).with_context(|| format!("not within {:.1} s", bound.as_secs_f64()));
            }
            Err(_) => {
                std::thread::sleep(pause);
                pause = (pause * 3 / 2).min(Duration::from_millis(100));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_until_the_answer_is_good_and_keeps_the_last_error() {
        let mut asked = 0;
        let answer = until(Duration::from_secs(10), || {
            asked += 1;
            anyhow::ensure!(asked > 3, "only {asked}");
            Ok(asked)
        });
        assert_eq!(answer.unwrap(), 4);
        let error = until(Duration::from_millis(5), || -> Result<()> { anyhow::bail!("never") }).unwrap_err();
        assert!(format!("{error:#}").contains("never"), "{error:#}");
    }
}
