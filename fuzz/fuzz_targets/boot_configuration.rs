//! Any text as the boot image's configuration; its keys as those that somebody hits on the consoles.
#![no_main]

use bootenv::configuration::{Mode, parse_configuration, parse_controller};
use bootenv::operator::{Dialog, Input, Outcome};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(configuration) = parse_configuration(text)
    {
        assert!(configuration.network.mode == Mode::Dhcp || configuration.network.static_address().is_ok());
    }
    let mut dialog = Dialog::default();
    dialog.ask_controller();
    for key in bytes {
        if let Outcome::Controller(controller) = dialog.take(Input::Key(usize::from(key >> 7), key & 0x7f)) {
            assert_eq!(parse_controller(&controller).ok(), Some(controller));
        }
    }
    let _ = dialog.question();
});
