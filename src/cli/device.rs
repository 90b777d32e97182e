//! Options for device, threads and watchdog.

use crate::config::{Config, EngineChoice, Hardware, Run};
use crate::engine::most_threads;
use clap::Args;
use std::time::Duration;

/// Device and threads of a command.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeviceArguments {
    /// Device to compute on [default: that of the configuration, else auto]
    #[arg(long, value_enum)]
    engine: Option<EngineChoice>,
    /// Threads per rank [default: the cores of the node divided by its ranks]
    #[arg(long, value_parser = parse_threads)]
    threads: Option<usize>,
    /// End the job within this time if a rank dies, hangs or is stopped; 0: never [default: that of
    /// the configuration, else 10m]
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub(super) watchdog: Option<Duration>,
    /// Allow several ranks of a node to use one GPU
    #[arg(long)]
    share_devices: bool,
}

impl DeviceArguments {
    /// Returns the options without a configuration.
    pub(super) fn hardware(&self) -> Hardware {
        Hardware {
            engine: self.engine.unwrap_or_default(),
            threads: self.threads.unwrap_or_default(),
            share_devices: self.share_devices,
        }
    }

    /// Overrides the keys of a configuration.
    pub(super) fn apply(&self, config: &mut Config) {
        if let Some(engine) = self.engine {
            config.run.engine = engine;
        }
        if let Some(threads) = self.threads {
            config.run.threads = threads;
        }
        if let Some(watchdog) = self.watchdog {
            config.run.watchdog_seconds = watchdog.as_secs_f64();
        }
        config.run.share_devices |= self.share_devices;
    }

    /// Returns the watchdog time of the option, otherwise that of the configuration.
    pub(super) fn watchdog(&self, run: Run) -> Option<Duration> {
        watchdog(self.watchdog, run)
    }
}

/// Returns the watchdog time of the option, otherwise that of the configuration.
pub(super) fn watchdog(given: Option<Duration>, mut run: Run) -> Option<Duration> {
    run.watchdog_seconds = given.map_or(run.watchdog_seconds, |time| time.as_secs_f64());
    run.watchdog()
}

/// Parses a number of threads per rank.
pub(super) fn parse_threads(text: &str) -> std::result::Result<usize, String> {
    let threads: usize =
        text.parse().map_err(|error: std::num::ParseIntError| error.to_string())?;
    let most = most_threads();
    if threads > most {
        return Err(format!("{threads} is not in 0..={most}"));
    }
    Ok(threads)
}

/// Parses a time such as `90s`, `30m`, `12h`, or plain seconds.
pub(super) fn parse_duration(text: &str) -> std::result::Result<Duration, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, &text[number.len()..]),
        None => (text, "s"),
    };
    let factor = match unit {
        "h" => 3600.0,
        "m" => 60.0,
        _ => 1.0,
    };
    match number.parse::<f64>() {
        Ok(value) if value >= 0.0 && value * factor < 1e9 => {
            Ok(Duration::from_secs_f64(value * factor))
        }
        _ => Err("expected a time such as 90s, 30m or 12h".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units() {
        assert_eq!(parse_duration("90").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_duration("1.5m").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_duration("2h").unwrap(), Duration::from_secs(7200));
        for wrong in ["", "m", "-3s", "1d", "nan"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
