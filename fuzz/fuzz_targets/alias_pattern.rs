//! Two texts as pattern and alias of a module: never a panic or exponential time.
#![no_main]

libfuzzer_sys::fuzz_target!(|texts: (&str, &str)| {
    kernel_modules::matches(texts.0, texts.1);
});
