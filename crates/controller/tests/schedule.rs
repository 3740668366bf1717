//! The rules of schedules, on a clock that the tests set.
#![allow(clippy::unwrap_used)]

use controller::Timestamp;
use controller::schedule::{Every, Look, Plan, Run, Schedule, StartAt, Step, Window, Zone};
use proptest::prelude::*;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A moment: `15:10` is on 23 November 2026 UTC, a Monday; longer ones are as typed.
fn at(text: &str) -> Timestamp {
    let text = if text.len() == 5 { format!("2026-11-23T{text}Z") } else { text.to_owned() };
    text.parse::<StartAt>().unwrap().instant()
}

fn schedule(start_at: &str, every: &str, windows: &[&str]) -> Schedule {
    Schedule {
        start_at: (!start_at.is_empty()).then(|| {
            let text = if start_at.len() == 5 { format!("2026-11-23T{start_at}Z") } else { start_at.to_owned() };
            text.parse().unwrap()
        }),
        every: (!every.is_empty()).then(|| every.parse().unwrap()),
        windows: windows.iter().map(|window| window.parse().unwrap()).collect(),
    }
}

/// A controller with one task, whose runs take no time unless a test says so.
struct Desk {
    plan: Plan,
    /// What was begun: when, and what.
    runs: Vec<(Timestamp, Run)>,
}

impl Desk {
    fn new(schedule: Schedule, syncs: bool, now: Timestamp) -> Self {
        Self { plan: Plan::new(schedule, syncs, now), runs: Vec::new() }
    }

    fn syncing(schedule: Schedule, now: &str) -> Self {
        Self::new(schedule, true, at(now))
    }

    /// Looks once, and begins what is due; through JSON, as a controller that was started again.
    fn look(&mut self, now: Timestamp) -> Look {
        self.plan = serde_json::from_str(&serde_json::to_string(&self.plan).unwrap()).unwrap();
        let look = self.plan.look(now);
        if let Look::Run(run) = look {
            self.plan.begin(&run, now);
            self.runs.push((now, run));
        }
        look
    }

    /// Looks, and does all that is due now; when there is something next.
    fn work(&mut self, now: Timestamp) -> Option<Timestamp> {
        loop {
            match self.look(now) {
                Look::Run(_) => self.plan.end(now),
                Look::Later(at) => {
                    assert!(at > now, "later is later");
                    return Some(at);
                }
                Look::Underway => panic!("a run ends at once"),
                Look::Never => return None,
            }
        }
    }

    /// Works from one moment to another as a controller does that is not stopped.
    fn work_through(&mut self, from: Timestamp, to: Timestamp) {
        let mut now = from;
        while now <= to {
            match self.work(now) {
                Some(next) => now = next,
                None => break,
            }
        }
    }

    /// The moments at which syncs were begun, in words.
    fn syncs(&self) -> Vec<String> {
        let syncs = self.runs.iter().filter(|(_, run)| run.step == Step::Sync);
        syncs.map(|(at, _)| at.to_string().trim_end_matches(":00Z").replace("2026-11-23T", "")).collect()
    }

    fn initial(&self) -> Vec<Timestamp> {
        self.runs.iter().filter(|(_, run)| run.step == Step::Initial).map(|(at, _)| *at).collect()
    }
}

#[test]
fn a_conversion_starts_at_its_time_and_once() {
    let mut desk = Desk::new(schedule("2026-12-01T22:00[Europe/Berlin]", "", &[]), false, at("10:00"));
    let start = at("2026-12-01T21:00Z");
    assert_eq!(desk.look(at("10:00")), Look::Later(start));
    assert_eq!(desk.look(Timestamp(start.0 - 1)), Look::Later(start));
    assert!(matches!(desk.look(start), Look::Run(Run { step: Step::Initial, missed: false, .. })));
    assert_eq!(desk.look(start), Look::Underway);
    desk.plan.end(start);
    for now in [start, at("10:00"), at("2027-12-01T21:00Z")] {
        assert_eq!(desk.look(now), Look::Never, "whatever the clock says");
    }
}

#[test]
fn without_a_schedule_a_task_starts_now_even_if_the_clock_is_set_back() {
    for now in [at("10:00"), at("09:00"), at("2020-01-01T00:00Z")] {
        let mut desk = Desk::new(Schedule::default(), false, at("10:00"));
        assert!(matches!(desk.look(now), Look::Run(Run { missed: false, .. })));
    }
}

#[test]
fn the_initial_step_is_run_exactly_once_and_then_every_interval() {
    let mut desk = Desk::syncing(schedule("15:00", "1h", &[]), "14:00");
    desk.work_through(at("14:00"), at("18:30"));
    assert_eq!(desk.initial(), [at("15:00")]);
    assert_eq!(desk.syncs(), ["16:00", "17:00", "18:00"]);
}

#[test]
fn run_now_with_a_future_start_does_the_initial_step_now_and_the_first_sync_then() {
    let mut desk = Desk::syncing(schedule("15:00", "1h", &[]), "14:00");
    desk.plan.ask();
    desk.work_through(at("14:00"), at("16:30"));
    assert_eq!(desk.initial(), [at("14:00")]);
    assert_eq!(desk.syncs(), ["15:00", "16:00"]);

    let mut once = Desk::syncing(schedule("15:00", "", &[]), "14:00");
    once.plan.ask();
    once.work_through(at("14:00"), at("2026-12-01T00:00Z"));
    assert_eq!(
        (once.initial(), once.syncs()),
        (vec![at("14:00")], vec!["15:00".to_owned()]),
        "without an interval too"
    );
}

#[test]
fn after_the_initial_step_a_past_start_does_nothing() {
    let mut desk = Desk::syncing(schedule("15:00", "1h", &[]), "14:00");
    desk.work_through(at("14:00"), at("16:20"));
    desk.plan.change(schedule("14:17", "1h", &[]), at("16:20"));
    desk.work_through(at("16:20"), at("18:30"));
    assert_eq!(desk.initial(), [at("15:00")]);
    assert_eq!(desk.syncs(), ["16:00", "17:00", "18:00"], "neither a run nor another minute");

    desk.plan.change(schedule("20:17", "1h", &[]), at("18:30"));
    desk.work_through(at("18:30"), at("21:30"));
    assert_eq!(desk.syncs()[3..], ["20:17", "21:17"], "a future one is the next sync");
}

#[test]
fn a_changed_interval_takes_effect_after_the_next_sync() {
    let mut desk = Desk::syncing(schedule("15:00", "1h", &[]), "14:00");
    desk.work_through(at("14:00"), at("15:10"));
    desk.plan.change(schedule("15:00", "5m", &[]), at("15:10"));
    desk.work_through(at("15:10"), at("16:12"));
    assert_eq!(desk.syncs(), ["16:00", "16:05", "16:10"]);
    desk.plan.change(schedule("15:00", "", &[]), at("16:12"));
    desk.work_through(at("16:12"), at("2026-12-01T00:00Z"));
    assert_eq!(desk.syncs()[3..], ["16:15"], "no interval: the next sync is the last");
    desk.plan.change(schedule("15:00", "1h", &[]), at("18:20"));
    desk.work_through(at("18:20"), at("20:00"));
    assert_eq!(desk.syncs()[4..], ["19:20"], "nothing was fixed: counted from the change");
}

#[test]
fn without_a_start_syncs_are_counted_from_the_end_of_the_initial_step() {
    let mut desk = Desk::syncing(schedule("", "1h", &[]), "14:00");
    assert!(matches!(desk.look(at("14:00")), Look::Run(_)));
    desk.plan.change(schedule("", "30m", &[]), at("15:00"));
    assert_eq!(desk.look(at("15:30")), Look::Underway);
    desk.plan.end(at("17:10"));
    desk.work_through(at("17:10"), at("18:30"));
    assert_eq!(desk.syncs(), ["17:40", "18:10"]);
}

#[test]
fn a_run_that_an_operator_asked_for_leaves_what_is_planned() {
    let mut desk = Desk::syncing(schedule("15:00", "1h", &["daily 14:00-23:00 UTC"]), "14:00");
    desk.work_through(at("14:00"), at("16:20"));
    desk.plan.ask();
    desk.work_through(at("16:20"), at("17:10"));
    assert_eq!(desk.syncs(), ["16:00", "16:20", "17:00"]);
    desk.plan.ask();
    desk.work(at("23:30"));
    assert_eq!(desk.syncs().last().unwrap(), "23:30", "it waits for no window");
}

#[test]
fn runs_that_were_missed_are_run_once_and_said() {
    let mut desk = Desk::syncing(schedule("15:00", "1h", &[]), "14:00");
    desk.work_through(at("14:00"), at("16:10"));
    // The controller is down until 19:20.
    assert_eq!(desk.work(at("19:20")), Some(at("20:00")));
    let (_, run) = desk.runs.last().unwrap();
    assert_eq!(*run, Run { step: Step::Sync, slot: Some(at("17:00")), missed: true, passed_over: 2 });
    assert_eq!(desk.syncs(), ["16:00", "19:20"]);

    let mut conversion = Desk::new(schedule("15:00", "", &[]), false, at("14:00"));
    let Look::Run(run) = conversion.look(at("2026-11-25T09:00Z")) else { panic!("not run") };
    assert_eq!((run.missed, run.slot, run.passed_over), (true, Some(at("15:00")), 0));
}

#[test]
fn a_run_that_takes_longer_than_its_interval_is_followed_by_one_and_nothing_was_missed() {
    let mut desk = Desk::syncing(schedule("15:00", "1h", &[]), "14:00");
    desk.work_through(at("14:00"), at("15:30"));
    assert!(matches!(desk.look(at("16:00")), Look::Run(_)));
    for now in ["17:00", "18:00"] {
        assert_eq!(desk.look(at(now)), Look::Underway);
    }
    desk.plan.end(at("18:20"));
    assert_eq!(desk.work(at("18:20")), Some(at("19:00")));
    let (_, run) = desk.runs.last().unwrap();
    assert_eq!((run.slot, run.missed, run.passed_over), (Some(at("17:00")), false, 1));
}

#[test]
fn an_initial_step_that_failed_is_due_again() {
    let mut desk = Desk::new(schedule("15:00", "", &[]), false, at("14:00"));
    assert!(matches!(desk.look(at("15:00")), Look::Run(_)));
    desk.plan.fail(at("15:30"));
    assert!(matches!(desk.look(at("15:31")), Look::Run(_)));

    let mut asked = Desk::new(schedule("2026-12-24T00:00Z", "", &["Sat 22:00-06:00 UTC"]), false, at("14:00"));
    asked.plan.ask();
    assert!(matches!(asked.look(at("14:00")), Look::Run(_)));
    asked.plan.fail(at("14:30"));
    assert!(matches!(asked.look(at("14:31")), Look::Run(_)), "it was to be now");
}

#[test]
fn runs_begin_only_in_a_window_which_may_cross_midnight() {
    let windows = ["Sat 22:00-06:00 Europe/Berlin"];
    let mut desk = Desk::new(schedule("", "", &windows), false, at("14:00"));
    let opens = at("2026-11-28T21:00Z");
    assert_eq!(desk.look(at("14:00")), Look::Later(opens));
    let mut after_midnight = Desk::new(schedule("", "", &windows), false, at("14:00"));
    let Look::Run(run) = after_midnight.look(at("2026-11-29T04:59Z")) else { panic!("the window is open") };
    assert!(run.missed, "it could have begun at 22:00");
    let mut late = Desk::new(schedule("", "", &windows), false, at("14:00"));
    assert_eq!(late.look(at("2026-11-29T05:00Z")), Look::Later(at("2026-12-05T21:00Z")), "the window is closed again");
    assert!(matches!(desk.look(opens), Look::Run(Run { missed: false, .. })));

    let mut in_window = Desk::new(schedule("2026-11-29T03:00Z", "", &windows), false, at("14:00"));
    assert_eq!(in_window.look(at("14:00")), Look::Later(at("2026-11-29T03:00Z")));
}

#[test]
fn syncs_outside_of_the_window_are_one_when_it_opens_and_were_not_missed() {
    let mut desk = Desk::syncing(schedule("20:00", "1h", &["daily 20:00-23:30 UTC"]), "14:00");
    desk.work_through(at("14:00"), at("2026-11-24T21:30Z"));
    assert_eq!(desk.syncs(), ["21:00", "22:00", "23:00", "2026-11-24T20:00", "2026-11-24T21:00"]);
    let (_, opening) = desk.runs[4];
    assert_eq!((opening.missed, opening.passed_over), (false, 20));
}

#[test]
fn a_daily_run_keeps_its_time_of_day_when_the_clocks_change() {
    let mut desk = Desk::syncing(schedule("2026-03-27T22:00[Europe/Berlin]", "1d", &[]), "2026-03-27T00:00Z");
    desk.work_through(at("2026-03-27T00:00Z"), at("2026-03-30T23:00Z"));
    assert_eq!(desk.syncs(), ["2026-03-28T21:00", "2026-03-29T20:00", "2026-03-30T20:00"]);
    // 02:30 does not exist on 29 March, and exists twice on 25 October.
    for (start, end, expected) in [
        ("2026-03-27T02:30[Europe/Berlin]", "2026-03-30T12:00Z", ["03-28T01:30", "03-29T01:30", "03-30T00:30"]),
        ("2026-10-23T02:30[Europe/Berlin]", "2026-10-26T12:00Z", ["10-24T00:30", "10-25T00:30", "10-26T01:30"]),
    ] {
        let begin = Timestamp(at(start).0 - HOUR);
        let mut desk = Desk::new(schedule(start, "1d", &[]), true, begin);
        desk.work_through(begin, at(end));
        assert_eq!(desk.syncs(), expected.map(|text| format!("2026-{text}")), "{start}");
    }
}

#[test]
fn an_hourly_run_comes_each_hour_when_the_clocks_change() {
    for (start, count) in [("2026-03-28T12:00[Europe/Berlin]", 23), ("2026-10-24T12:00[Europe/Berlin]", 25)] {
        let day_later: StartAt = start.replace("-28T", "-29T").replace("-24T", "-25T").parse().unwrap();
        let mut desk = Desk::new(schedule(start, "1h", &[]), true, at(start));
        desk.work_through(at(start), day_later.instant());
        assert_eq!(desk.syncs().len(), count, "{start}");
        assert!(desk.runs.windows(2).all(|two| two[1].0.0 - two[0].0.0 == HOUR));
    }
}

#[test]
fn a_clock_that_is_set_back_a_little_doubles_nothing() {
    let mut desk = Desk::syncing(schedule("15:00", "1h", &[]), "14:00");
    desk.work_through(at("14:00"), at("17:00"));
    assert_eq!(desk.work(Timestamp(at("17:00").0 - 2000)), Some(at("18:00")), "two seconds");
    assert_eq!(desk.work(at("14:59")), Some(at("18:00")), "two hours");
    desk.work_through(at("14:59"), at("18:30"));
    assert_eq!(desk.syncs(), ["16:00", "17:00", "18:00"]);
}

#[test]
fn a_clock_that_was_far_ahead_and_is_corrected_loses_nothing() {
    let mut desk = Desk::syncing(schedule("15:00", "1h", &[]), "14:00");
    desk.work_through(at("14:00"), at("16:10"));
    let ahead = at("2031-11-23T16:11Z");
    desk.work(ahead);
    assert_eq!(desk.runs.len(), 3, "the clock says that runs were missed: one");
    assert_eq!(desk.work(at("16:12")), Some(at("17:00")), "not in five years");
    desk.work_through(at("16:12"), at("18:30"));
    assert_eq!(desk.syncs()[2..], ["17:00", "18:00"]);
}

#[test]
fn a_clock_that_was_an_hour_ahead_runs_each_slot_once() {
    let mut desk = Desk::syncing(schedule("15:00", "30m", &[]), "14:00");
    desk.work_through(at("14:00"), at("15:40"));
    desk.work(at("16:50"));
    desk.work_through(at("15:41"), at("17:40"));
    // The run at 16:50 was that of 16:00; 16:30 was passed over and comes after all.
    assert_eq!(desk.syncs(), ["15:30", "16:50", "16:30", "17:00", "17:30"]);
    let mut slots: Vec<_> = desk.runs.iter().map(|(_, run)| run.slot).collect();
    slots.sort();
    slots.dedup();
    assert_eq!(slots.len(), desk.runs.len());
}

/// What happens to a controller.
#[derive(Clone, Debug)]
enum Happening {
    /// It works for so many minutes.
    Works(i64),
    /// It is down, or its clock is set forward, by so many.
    Away(i64),
    /// Its clock is set back by so many.
    SetBack(i64),
    /// The interval is changed.
    Interval(Every),
    /// An operator asks for a run now.
    Asked,
}

fn happenings(set_back: impl Strategy<Value = i64> + 'static) -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        3 => (1_i64..600).prop_map(Happening::Works),
        2 => (1_i64..3000).prop_map(Happening::Away),
        2 => set_back.prop_map(Happening::SetBack),
        1 => prop_oneof![(1_u32..300).prop_map(Every::Minutes), (1_u32..4).prop_map(Every::Days)]
            .prop_map(Happening::Interval),
        1 => Just(Happening::Asked),
    ];
    prop::collection::vec(one, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// What an operator, or a program, types: an error or a value that reads back as the same, and no panic.
    #[test]
    fn what_is_typed_is_refused_or_kept(text in prop_oneof![
        any::<String>(),
        "[A-Za-z,-]{0,12} [0-9:]{0,6}-[0-9:]{0,6} (UTC|Europe/Berlin|Asia/[a-z]{3})",
        "(Mon|Tue|Wed|Sun)([,-](Mon|Fri|Sat))* [0-2][0-9]:[0-5][0-9]-[0-2][0-9]:[0-5][0-9] Europe/Berlin",
        "-?[0-9]{1,6}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2}|\\[[A-Za-z/]{0,20}\\])?",
        "20[2-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9](Z|\\[Europe/Berlin\\])",
        "[0-9]{0,12}[mhdwy]?",
    ]) {
        fn keeps<T: std::str::FromStr + ToString + PartialEq + std::fmt::Debug>(text: &str) {
            if let Ok(value) = text.parse::<T>() {
                let shown = value.to_string();
                assert_eq!(shown.parse::<T>().ok(), Some(value), "{text:?} {shown:?}");
            }
        }
        keeps::<StartAt>(&text);
        keeps::<Window>(&text);
        keeps::<Every>(&text);
        keeps::<Zone>(&text);
    }

    /// Against counting: as long as the clock runs forward, all slots up to now are run or passed over, each once.
    #[test]
    fn every_slot_is_run_or_passed_over_exactly_once(
        minutes in 5_u32..500,
        moves in prop::collection::vec((any::<bool>(), 1_i64..2000), 1..12),
    ) {
        let mut desk = Desk::new(schedule("15:00", &format!("{minutes}m"), &[]), true, at("15:00"));
        let mut now = at("15:00");
        for (works, length) in moves {
            let then = Timestamp(now.0 + length * MINUTE);
            if works { desk.work_through(now, then) }
            desk.work(then);
            now = then;
            let told: u64 = desk.runs.iter().map(|(_, run)| 1 + run.passed_over).sum();
            let counted = (now.0 - at("15:00").0) / (i64::from(minutes) * MINUTE) + 1;
            prop_assert_eq!(told, u64::try_from(counted).unwrap());
        }
        prop_assert_eq!(desk.initial().len(), 1);
    }

    /// The initial step is run once and no slot twice, while the clock goes back by less than three hours in all.
    #[test]
    fn nothing_is_run_twice(all in happenings(1_i64..20), daily in any::<bool>()) {
        let start = "2026-10-24T02:30[Europe/Berlin]";
        let mut desk = Desk::new(schedule(start, if daily { "1d" } else { "45m" }, &[]), true, at("2026-10-23T00:00Z"));
        let (mut now, mut back) = (at("2026-10-23T00:00Z"), 0);
        for one in all {
            match one {
                Happening::Works(minutes) => {
                    let then = Timestamp(now.0 + minutes * MINUTE);
                    desk.work_through(now, then);
                    now = then;
                }
                Happening::Away(minutes) => now.0 += minutes * MINUTE,
                // A clock that steps is a little off; one that was set back for hours in many steps was wrong.
                Happening::SetBack(minutes) if back + minutes < 170 => {
                    back += minutes;
                    now.0 -= minutes * MINUTE;
                }
                Happening::SetBack(_) => {}
                Happening::Interval(every) => {
                    let changed = Schedule { every: Some(every), ..desk.plan.schedule().clone() };
                    desk.plan.change(changed, now);
                }
                Happening::Asked => desk.plan.ask(),
            }
            desk.work(now);
        }
        prop_assert!(desk.initial().len() <= 1);
        let mut slots: Vec<Timestamp> = desk.runs.iter().filter_map(|(_, run)| run.slot).collect();
        let all = slots.len();
        slots.sort();
        slots.dedup();
        prop_assert_eq!(slots.len(), all);
    }

    /// However the clock is set, the next run is never further away than an interval, and the three hours of which the
    /// slots are remembered.
    #[test]
    fn no_clock_stops_a_schedule(all in happenings(1_i64..3_000_000)) {
        let mut desk = Desk::new(schedule("", "45m", &[]), true, at("15:00"));
        let (mut now, mut longest) = (at("15:00"), 45 * MINUTE);
        for one in all {
            match one {
                Happening::Works(minutes) => {
                    let then = Timestamp(now.0 + minutes * MINUTE);
                    desk.work_through(now, then);
                    now = then;
                }
                Happening::Away(minutes) => now.0 += minutes * MINUTE,
                Happening::SetBack(minutes) => now.0 = (now.0 - minutes * MINUTE).max(1_000_000_000_000),
                Happening::Interval(every) => {
                    longest = longest.max(match every {
                        Every::Minutes(minutes) => i64::from(minutes) * MINUTE,
                        Every::Days(days) => i64::from(days) * DAY,
                    });
                    let changed = Schedule { every: Some(every), ..desk.plan.schedule().clone() };
                    desk.plan.change(changed, now);
                }
                Happening::Asked => desk.plan.ask(),
            }
            let next = desk.work(now).expect("it goes on");
            prop_assert!(next.0 - now.0 <= longest + 3 * HOUR, "{now}: {next}");
        }
        prop_assert_eq!(desk.initial().len(), 1);
    }
}
