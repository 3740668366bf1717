//! Any text as the boot image's configuration; its bytes as keys that somebody hits on the consoles.
#![no_main]

use bootenv::configuration::{fuzz_configuration, parse_controller};
use bootenv::keys::Decoder;
use bootenv::operator::{Dialog, Input, Outcome};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz_configuration(bytes);
    let (mut dialog, mut decoder) = (Dialog::default(), Decoder::default());
    dialog.ask_controller();
    for key in bytes.iter().filter_map(|byte| decoder.take(*byte)) {
        if let Outcome::Controller(controller) = dialog.take(Input::Key(0, key)) {
            assert_eq!(parse_controller(&controller).ok(), Some(controller));
        }
    }
    let _ = dialog.question();
});
