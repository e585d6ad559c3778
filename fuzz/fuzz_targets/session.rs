#![no_main]

use std::path::Path;

libfuzzer_sys::fuzz_target!(
    init: empath_fuzz::seeds(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("the seeds are written"),
    |data: &[u8]| empath_fuzz::session(data)
);
