//! Any text as a time, window, interval or time of day, and any moment: never a panic, and what is shown reads back as the same.
#![no_main]

use std::fmt::Display;
use std::str::FromStr;

use controller::Timestamp;
use controller::schedule::{BackBy, Every, StartAt, Window};

fn reads_back<T: FromStr + Display + PartialEq>(text: &str) -> Option<T> {
    let read: T = text.parse().ok()?;
    assert!(read.to_string().parse::<T>().ok().as_ref() == Some(&read), "{read}");
    Some(read)
}

libfuzzer_sys::fuzz_target!(|input: (&str, i64)| {
    let (text, at) = (input.0, Timestamp(input.1));
    reads_back::<StartAt>(text);
    reads_back::<Every>(text);
    if let Some(back_by) = reads_back::<BackBy>(text) {
        assert!(back_by.next(at).is_none_or(|next| next > at));
    }
    if let Some(window) = reads_back::<Window>(text) {
        let _ = controller::schedule::is_open(&window, at);
    }
});
