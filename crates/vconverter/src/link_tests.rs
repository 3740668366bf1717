//! Tests of links, before a copy's time is told.

use controller::sessions::TestedLink;
use controller::tasks::Forecast;
use machine::ByteCount;

use crate::client::{Client, segment};
use crate::failure::{Code, Result};
use crate::progress_line::duration;
use crate::table::plain;

/// Tests the link of each machine, and says on standard error how fast it is. One that cannot be tested is no obstacle.
///
/// # Errors
/// Where the controller cannot be reached.
pub(crate) fn test<'a>(client: &Client, machines: impl Iterator<Item = &'a str>) -> Result<()> {
    for machine in machines {
        match client.post::<TestedLink>(&format!("/machines/{}/link-test", segment(machine)), &serde_json::json!({})) {
            Ok(tested) => {
                let (bytes, rate) = (tested.test.bytes, ByteCount(tested.bytes_per_second));
                eprintln!("{}: link tested: {rate}/s, with {bytes} of content", plain(machine));
            }
            Err(failure) if failure.code == Code::Unreachable => return Err(failure),
            Err(failure) => eprintln!("{}: link not tested: {}", plain(machine), plain(&failure.message)),
        }
    }
    Ok(())
}

/// A copy's time, as part of a line.
pub(crate) fn describe(forecast: Option<&Forecast>) -> String {
    match forecast {
        Some(forecast) => {
            let rate = ByteCount(forecast.bytes_per_second);
            format!("in about {} at {rate}/s", duration(forecast.copy_seconds))
        }
        None => "how long that takes is not known without a test of the link (--test-links)".into(),
    }
}

#[cfg(test)]
mod tests {
    use controller::Timestamp;

    use super::*;

    #[test]
    fn a_forecast_is_told_in_hours_and_rates() {
        let forecast = Forecast { copy_seconds: 4800, bytes_per_second: 9 << 20, tested_at: Timestamp(0) };
        assert_eq!(describe(Some(&forecast)), "in about 1:20:00 at 9.0 MiB/s");
        assert!(describe(None).contains("--test-links"));
    }
}
