//! `vconverter limits`.

use clap::Args;
use controller::limits::{Limits, RateWindow};

use crate::client::Client;
use crate::conversion_settings::Rate;
use crate::failure::{Code, Failure, Result};

#[derive(Debug, Args)]
#[command(after_help = "\
Without options it shows what is set. Changes count at once, also for what runs.

Examples:
  vconverter limits --running 8
  vconverter limits --bandwidth 100M --window 'Mon-Fri 08:00-18:00 Europe/Berlin=10M'
  vconverter limits --bandwidth unlimited --no-windows")]
pub(crate) struct LimitsArguments {
    /// Tasks that run at the same time, 1 to 64
    #[arg(long, value_name = "NUMBER")]
    pub(crate) running: Option<u32>,
    /// How fast data may come in for all tasks together, such as 100M (bytes a second), 1Gbit, or unlimited
    #[arg(long, value_name = "RATE")]
    pub(crate) bandwidth: Option<Rate>,
    /// Another rate while a window is open; can be given more than once, and adds to what is set
    #[arg(long = "window", value_name = "WINDOW=RATE")]
    pub(crate) windows: Vec<String>,
    /// Forget the windows that were set
    #[arg(long)]
    pub(crate) no_windows: bool,
}

/// Shows the limits, or changes what is named.
pub(crate) fn limits(client: &Client, change: &LimitsArguments, json: bool) -> Result<()> {
    let mut limits: Limits = client.get("/limits")?;
    let before = limits.clone();
    if let Some(running) = change.running {
        limits.running = running;
    }
    if let Some(Rate(rate)) = change.bandwidth {
        limits.bytes_per_second = rate;
    }
    if change.no_windows {
        limits.windows.clear();
    }
    for text in &change.windows {
        limits.windows.push(parse_window(text)?);
    }
    if limits != before {
        limits = client.put("/limits", &limits)?;
    }
    match json {
        true => crate::print_json(&limits),
        false => crate::print(&describe(&limits)),
    }
}

/// `Mon-Fri 08:00-18:00 Europe/Berlin=10M`
fn parse_window(text: &str) -> Result<RateWindow> {
    let wrong = |why: String| Failure::new(Code::Usage, format!("--window {text:?}: {why}"));
    let (window, rate) = text.rsplit_once('=').ok_or_else(|| wrong("expected WINDOW=RATE".into()))?;
    let window = window.parse().map_err(|e: controller::Error| wrong(e.to_string()))?;
    match rate.parse::<Rate>().map_err(wrong)? {
        Rate(Some(bytes_per_second)) => Ok(RateWindow { window, bytes_per_second }),
        Rate(None) => Err(wrong("a window has a rate".into())),
    }
}

fn describe(limits: &Limits) -> String {
    let mut text =
        format!("running    {} tasks at once\nbandwidth  {}\n", limits.running, rate(limits.bytes_per_second));
    for window in &limits.windows {
        text.push_str(&format!("           {} while {}\n", rate(Some(window.bytes_per_second)), window.window));
    }
    text
}

/// For people.
pub(crate) fn rate(rate: Option<u64>) -> String {
    match rate {
        None => "as fast as it goes".into(),
        Some(rate) if rate >= 1_000_000 => format!("{:.1} MB/s", rate as f64 / 1e6),
        Some(rate) => format!("{:.1} kB/s", rate as f64 / 1e3),
    }
}
