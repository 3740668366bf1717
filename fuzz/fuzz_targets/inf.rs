//! Any bytes as an INF file: nothing of it is lost, and what it asks for has an end.
#![no_main]

use guest::windows::inf::Inf;
use guest::windows::{Architecture, Release};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(inf) = Inf::parse(bytes) else { return };
    assert_eq!(inf.to_bytes(), bytes);
    let _ = inf.version();
    for release in [Release::new((5, 1), 2600, Architecture::X86), Release::new((10, 0), 26100, Architecture::Amd64)] {
        for models in inf.models_for(&release).unwrap_or_default() {
            for model in models.models.iter().take(16) {
                let _ = inf.installation(&model.install_section, &release);
            }
        }
    }
});
