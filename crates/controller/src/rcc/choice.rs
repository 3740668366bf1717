//! Which way a machine is started into the boot image, from what its agent found out.

use machine::push::{Survey, Way};

use super::Rcc;

/// What was chosen, and what is to be known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Ways that can be taken, the safest first: another follows where one turns out not to work before anything is restarted.
    pub ways: Vec<Way>,
    /// What keeps it from being done, a sentence each, with what to do.
    pub blockers: Vec<String>,
    /// What an operator should know.
    pub notes: Vec<String>,
}

/// The manual ways, which are always left.
const MANUALLY: &str =
    "start the machine from the boot image's ISO or by PXE instead (`vconverter boot-image build`, `vconverter pxe`)";

/// Chooses by what the agent found.
pub fn choose(survey: &Survey, rcc: &Rcc) -> Choice {
    let mut choice = Choice::default();
    if !survey.installed {
        let says = "the agent is not installed as a service: it would not be there after the restart";
        choice.blockers.push(format!("{says}: install it with `vconverter agent install`"));
    }
    let wanted = |way: Way| rcc.way.is_none_or(|only| only == way);
    for finding in survey.ways.iter().filter(|finding| wanted(finding.way)) {
        match finding.refused.as_slice() {
            [] => {
                choice.ways.push(finding.way);
                choice.notes.extend(finding.notes.iter().map(|note| format!("{}: {note}", finding.way)));
            }
            reasons => choice.notes.push(format!("{} is not possible: {}", finding.way, reasons.join("; "))),
        }
    }
    let Some(first) = choice.ways.first() else {
        let which = rcc.way.map_or("no way is safe".to_owned(), |way| format!("{way} is not possible"));
        choice.blockers.push(format!("{which} to start the boot image on this machine: {MANUALLY}"));
        return choice;
    };
    if !helps(survey, *first) {
        let says = match &survey.watchdog {
            Some(watchdog) => format!(
                "its watchdog ({}) ends with the reset on the way, so that a hard hang before the boot image is up would need one power cycle",
                watchdog.name
            ),
            None => "it has no hardware watchdog: a hard hang would need one power cycle".to_owned(),
        };
        let says = format!("{says}; its own system starts then");
        match rcc.accept_no_watchdog {
            true => choice.notes.push(format!("{says} (accepted)")),
            false => choice.blockers.push(format!("{says}: accept that with --accept-no-watchdog")),
        }
    }
    choice
}

/// Whether a watchdog watches over the way into the boot image.
fn helps(survey: &Survey, way: Way) -> bool {
    survey.watchdog.as_ref().is_some_and(|watchdog| watchdog.survives_reset || !way.resets())
}

/// The choice in one line.
pub fn describe(choice: &Choice) -> String {
    match choice.ways.as_slice() {
        [] => "no way".into(),
        [only] => format!("way: {only}"),
        [first, rest @ ..] => {
            let rest: Vec<&str> = rest.iter().map(|way| way.as_str()).collect();
            format!("way: {first}; if that does not work: {}", rest.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use machine::push::{Watchdog, WayFinding};

    use super::*;

    fn survey(possible: &[Way], watchdog: Option<bool>) -> Survey {
        let finding = |way: Way| WayFinding {
            way,
            refused: if possible.contains(&way) { Vec::new() } else { vec!["because".into()] },
            notes: Vec::new(),
            room: None,
        };
        let watchdog = watchdog.map(|survives_reset| Watchdog { name: "dog".into(), seconds_max: 600, survives_reset });
        Survey { ways: Way::ALL.map(finding).to_vec(), installed: true, watchdog, ..Survey::default() }
    }

    #[test]
    fn the_safest_way_is_taken_first_and_others_are_kept() {
        let choice = choose(&survey(&[Way::Grub, Way::Kexec], Some(true)), &Rcc::default());
        assert_eq!(choice.ways, [Way::Kexec, Way::Grub]);
        assert_eq!(describe(&choice), "way: kexec; if that does not work: grub");
        assert!(choice.blockers.is_empty() && choice.notes[0] == "boot-next is not possible: because", "{choice:?}");
        let only = Rcc { way: Some(Way::Grub), ..Rcc::default() };
        assert_eq!(choose(&survey(&[Way::Grub, Way::Kexec], Some(true)), &only).ways, [Way::Grub]);
        let only = Rcc { way: Some(Way::BootNext), ..Rcc::default() };
        let refused = choose(&survey(&[Way::Grub], Some(true)), &only);
        assert!(refused.blockers[0].contains("ISO") && refused.notes == ["boot-next is not possible: because"]);
    }

    #[test]
    fn a_power_cycle_that_may_be_needed_is_accepted_before() {
        let asked = |ways: &[Way], watchdog, accepted| {
            choose(&survey(ways, watchdog), &Rcc { accept_no_watchdog: accepted, ..Rcc::default() })
        };
        assert!(asked(&[Way::BootNext], None, false).blockers[0].contains("--accept-no-watchdog"));
        assert!(asked(&[Way::BootNext], None, true).blockers.is_empty());
        assert!(asked(&[Way::BootNext], Some(true), false).blockers.is_empty(), "a BMC's");
        assert!(asked(&[Way::BootNext], Some(false), false).blockers[0].contains("ends with the reset"));
        assert!(asked(&[Way::Kexec], Some(false), false).blockers.is_empty(), "nothing is reset");
    }

    #[test]
    fn an_agent_that_would_not_be_back_is_not_enough() {
        let survey = Survey { installed: false, ..survey(&[Way::Kexec], Some(true)) };
        assert!(choose(&survey, &Rcc::default()).blockers[0].contains("agent install"));
    }
}
