//! The moments of something that is repeated: so many minutes apart, or at one time of day.

use serde::{Deserialize, Serialize};

use super::{Every, StartAt, Zone};
use crate::Timestamp;

const MINUTE_MS: i64 = 60_000;
/// A moment of the calendar and the same one by UTC are less than this apart, a day that a zone skipped included.
const ZONE_DAYS_MAX: i64 = 3;

/// Moments without begin and end, numbered from that of its anchor, 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Grid {
    /// Whatever the clocks show.
    Minutes { anchor: Timestamp, minutes: u32, zone: Zone },
    /// At the anchor's time of day.
    Days { anchor: StartAt, days: u32 },
}

impl Grid {
    pub(super) fn new(anchor: &StartAt, every: Every) -> Self {
        match every {
            Every::Minutes(minutes) => {
                Self::Minutes { anchor: anchor.instant(), minutes: minutes.max(1), zone: anchor.zone.clone() }
            }
            Every::Days(days) => Self::Days { anchor: anchor.clone(), days: days.max(1) },
        }
    }

    /// One that goes through `at`, of which only whole seconds count. `None` where that is in no year that can be meant.
    pub(super) fn through(at: Timestamp, zone: &Zone, every: Every) -> Option<Self> {
        let second = Timestamp(at.0.div_euclid(1000) * 1000);
        let anchor = StartAt::new(zone.civil(second)?, zone.clone())?;
        Some(match every {
            // Not by way of what the clocks show, which they may show twice.
            Every::Minutes(minutes) => Self::Minutes { anchor: second, minutes: minutes.max(1), zone: zone.clone() },
            Every::Days(_) => Self::new(&anchor, every),
        })
    }

    /// The same from its moment `at` on with another interval.
    pub(super) fn with(&self, every: Every, at: Timestamp) -> Option<Self> {
        if let Self::Days { anchor, .. } = self
            && let Every::Days(_) = every
        {
            // The time of day stays, even where the clocks skipped it on this day.
            let date = anchor.zone.civil(at)?.date();
            return Some(Self::new(&StartAt::new(date.to_datetime(anchor.civil.time()), anchor.zone.clone())?, every));
        }
        Self::through(at, self.zone(), every)
    }

    pub(super) fn every(&self) -> Every {
        match self {
            Self::Minutes { minutes, .. } => Every::Minutes(*minutes),
            Self::Days { days, .. } => Every::Days(*days),
        }
    }

    pub(super) fn zone(&self) -> &Zone {
        match self {
            Self::Minutes { zone, .. } => zone,
            Self::Days { anchor, .. } => &anchor.zone,
        }
    }

    /// The first moment after `at`, with its number.
    pub(super) fn after(&self, at: Timestamp) -> Option<(i64, Timestamp)> {
        match self {
            Self::Minutes { anchor, minutes, .. } => {
                let step = i64::from(*minutes) * MINUTE_MS;
                let number = at.0.checked_sub(anchor.0)?.div_euclid(step).checked_add(1)?;
                Some((number, self.moment(number)?))
            }
            Self::Days { anchor, days } => {
                let passed = at.0.checked_sub(anchor.instant().0)?.div_euclid(24 * 60 * MINUTE_MS);
                let step = i64::from(*days);
                let first = (passed - ZONE_DAYS_MAX).div_euclid(step);
                let last = (passed + ZONE_DAYS_MAX).div_euclid(step) + 1;
                let mut moments = (first..=last).filter_map(|number| Some((number, self.moment(number)?)));
                moments.find(|(_, moment)| *moment > at)
            }
        }
    }

    /// The moment with that number.
    fn moment(&self, number: i64) -> Option<Timestamp> {
        match self {
            Self::Minutes { anchor, minutes, .. } => {
                let offset = number.checked_mul(i64::from(*minutes) * MINUTE_MS)?;
                anchor.0.checked_add(offset).map(Timestamp)
            }
            Self::Days { anchor, days } => {
                let offset = jiff::Span::new().try_days(number.checked_mul(i64::from(*days))?).ok()?;
                anchor.zone.instant(anchor.civil.checked_add(offset).ok()?)
            }
        }
    }

    /// The last moment up to `at`, with its number.
    pub(super) fn until(&self, at: Timestamp) -> Option<(i64, Timestamp)> {
        let (next, _) = self.after(at)?;
        Some((next - 1, self.moment(next - 1)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> StartAt {
        text.parse().unwrap()
    }

    fn moments(grid: &Grid, from: &str, count: usize) -> Vec<String> {
        let mut after = at(from).instant();
        let mut shown = Vec::new();
        for _ in 0..count {
            let (_, moment) = grid.after(after).unwrap();
            shown.push(moment.to_string());
            after = moment;
        }
        shown
    }

    #[test]
    fn a_time_of_day_stays_when_the_clocks_change_and_minutes_go_on() {
        let daily = Grid::new(&at("2026-03-01T22:00[Europe/Berlin]"), Every::Days(1));
        let days = moments(&daily, "2026-03-28T12:00Z", 2);
        assert_eq!(days, ["2026-03-28T21:00:00Z", "2026-03-29T20:00:00Z"]);
        let hourly = Grid::new(&at("2026-10-24T22:30[Europe/Berlin]"), Every::Minutes(60));
        let hours = moments(&hourly, "2026-10-25T00:00Z", 3);
        assert_eq!(hours, ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]);
    }

    #[test]
    fn a_time_of_day_that_is_skipped_comes_later_once_and_one_that_comes_twice_is_taken_once() {
        let daily = Grid::new(&at("2026-03-01T02:30[Europe/Berlin]"), Every::Days(1));
        let spring = moments(&daily, "2026-03-28T12:00Z", 2);
        assert_eq!(spring, ["2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]);
        let autumn = moments(&daily, "2026-10-24T12:00Z", 2);
        assert_eq!(autumn, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        let (_, skipped) = daily.after(at("2026-03-28T12:00Z").instant()).unwrap();
        let slower = daily.with(Every::Days(2), skipped).unwrap();
        assert_eq!(moments(&slower, "2026-03-29T12:00Z", 1), ["2026-03-31T00:30:00Z"]);
    }

    proptest! {
        /// Against counting: the numbers go up by one, and no moment is left out or comes twice.
        #[test]
        fn moments_are_in_order_and_without_gaps(start in 0_i64..6_000_000_000, ahead in -2_000_000_000_i64..2_000_000_000,
                                                 every in prop_oneof![(1_u32..100_000).prop_map(Every::Minutes),
                                                                      (1_u32..366).prop_map(Every::Days)],
                                                 zone in prop_oneof![Just("Europe/Berlin"), Just("America/Sao_Paulo"),
                                                                     Just("Australia/Lord_Howe"), Just("UTC")]) {
            let zone: Zone = zone.parse().unwrap();
            let Some(grid) = Grid::through(Timestamp(start * 1000 + 1_000_000_000_000), &zone, every) else { return Ok(()) };
            let from = Timestamp((start + ahead) * 1000 + 1_000_000_000_000);
            let Some((number, moment)) = grid.after(from) else { return Ok(()) };
            let (before, last) = grid.until(from).unwrap();
            prop_assert!(last <= from && from < moment && before + 1 == number, "{last} {from} {moment}");
            prop_assert_eq!(grid.after(last), Some((number, moment)));
            prop_assert_eq!(grid.until(moment), Some((number, moment)));
        }
    }
}
